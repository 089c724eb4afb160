# SPDX-License-Identifier: Apache-2.0
"""Ids of sealed requests that were opened: each is taken once, by one server of those that share keys.

An id is kept until its request is refused for its age alone, or is given back since no model was asked with that request.
Invariants: no other is forgotten before; where no more can be kept, or the place that servers share does not answer, requests are
refused (503) rather than taken unseen. Kept in this process; and where keys are shared, also in the Redis that limits are counted
in, if there is one, else in the folder of the keys. Private to the room.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from shipsight.errors import MissingDependencyError, OverloadedError
from shipsight.protect import AHEAD_MS, WINDOW_MS, refused_request
from shipsight.serve.logs import fields
from shipsight.serve.turns import has_room

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["FolderSeen", "LocalSeen", "RedisSeen", "SeenRequests"]

MOST = 500_000
"""About 50 MB, and 1300 requests a second with the clocks of all clients as far ahead as is allowed."""
_SLOT_MS = 10_000
_MINUTE_MS = 60_000
_TIMEOUT_S = 1.0
_JUMP_MS = 60_000
_LONGEST_MS = AHEAD_MS + WINDOW_MS  # from when a request can first be opened until it is too old
_log = logging.getLogger("shipsight.serve")


class SeenRequests(Protocol):
    """Takes ids."""

    async def take(self, request_id: str, at_ms: int, *, now_ms: int, owner: str | None = None) -> None:
        """Takes an id.

        Args:
            request_id: of a request that was opened, 32 hexadecimal digits.
            at_ms: when it was sealed, milliseconds since 1970.
            now_ms: the time, milliseconds since 1970.
            owner: who asks: what is kept is shared among them. None for those who are not told apart.

        Raises:
            SealedRequestError: it was taken before.
            OverloadedError: it cannot be told, or not be kept.
        """

    async def give_back(self, request_id: str, at_ms: int) -> None:
        """Forgets an id that this server took: the request may come again.

        Args:
            request_id: as `take` had it.
            at_ms: likewise.
        """

    async def close(self) -> None:
        """Ends connections."""


class LocalSeen:
    """In this process.

    Args:
        most: ids that are kept.
        clock: seconds that nobody sets, and that go on while the machine sleeps.
    """

    def __init__(self, most: int = MOST, *, clock: Callable[[], float] | None = None) -> None:
        self._most, self._clock = most, clock or _seconds
        self._slots: dict[int, dict[bytes, str | None]] = {}  # by the end of the time in which an id matters, in slots
        self._kept = 0
        self._kept_of: Counter[str] = Counter()
        self._sure: tuple[int, float] | None = None  # the time, and the clock's, when they last agreed
        self._ahead_s: float | None = None  # since when the time is ahead, by the clock
        self._forgotten = 0  # slots up to here were

    async def take(self, request_id: str, at_ms: int, *, now_ms: int, owner: str | None = None) -> None:
        """Takes an id; without waiting for anything."""
        self._check_clock(now_ms)
        slot, current = _slot_of(at_ms), now_ms // _SLOT_MS
        if current > self._forgotten:
            for ended in [one for one in self._slots if one < current]:
                self._forget(self._slots.pop(ended))
            self._forgotten = current
        # Where the clock was set back, ids that were forgotten could else come again.
        if slot < self._forgotten:
            refused_request()
        name = bytes.fromhex(request_id)
        seen = self._slots.setdefault(slot, {})
        if name in seen:
            refused_request()
        is_full = owner is not None and not has_room(self._kept_of[owner], self._kept, self._most)
        if is_full or self._kept >= self._most:
            raise OverloadedError(
                "too many sealed requests within six minutes", where="sealed", expected=f"at most {self._most}"
            )
        seen[name] = owner
        self._kept += 1
        if owner is not None:
            self._kept_of[owner] += 1

    async def give_back(self, request_id: str, at_ms: int) -> None:
        """Forgets an id; without waiting for anything."""
        self.drop(request_id, at_ms)

    def drop(self, request_id: str, at_ms: int) -> None:
        """Forgets an id; one that has ended is forgotten already."""
        name, seen = bytes.fromhex(request_id), self._slots.get(_slot_of(at_ms), {})
        if name in seen:
            self._forget({name: seen.pop(name)})

    async def close(self) -> None:
        """Has nothing to end."""

    def _forget(self, ended: dict[bytes, str | None]) -> None:
        self._kept -= len(ended)
        self._kept_of.subtract(one for one in ended.values() if one is not None)
        self._kept_of = +self._kept_of

    def _check_clock(self, now_ms: int) -> None:
        """Refuses while the time is far ahead of where it should be: ids would be forgotten, and missed once it is set right.

        After six minutes ahead it is believed: what was taken before is too old by then, and by any clock.

        Raises:
            OverloadedError: it is.
        """
        clock_s = self._clock()
        if self._sure is not None:
            gone_ms = (clock_s - self._sure[1]) * 1000
            allowed_ms = _JUMP_MS + gone_ms / 1000  # clocks that are not set drift, too
            if now_ms - self._sure[0] - gone_ms > allowed_ms:
                if self._ahead_s is None:
                    self._ahead_s = clock_s
                    _log.warning(
                        "the time jumped ahead; sealed requests are refused for six minutes, or until it is set right",
                        extra=fields(code="sealing-clock-jumped"),
                    )
                if (clock_s - self._ahead_s) * 1000 < _LONGEST_MS:
                    raise _not_told("the server's time jumped ahead")
        self._sure, self._ahead_s = (now_ms, clock_s), None


class _SharedSeen(ABC):
    """In a place that servers share: whoever adds an id there has it.

    Args:
        local: of this server, asked first; it holds what this server took, and nothing else.
    """

    def __init__(self, local: LocalSeen) -> None:
        self._local = local

    async def take(self, request_id: str, at_ms: int, *, now_ms: int, owner: str | None = None) -> None:
        """Takes an id: whoever adds it first has it."""
        await self._local.take(request_id, at_ms, now_ms=now_ms, owner=owner)
        is_new = False
        try:
            is_new = await self._add(request_id, at_ms, now_ms)
        finally:
            if not is_new:
                self._local.drop(request_id, at_ms)
        if not is_new:
            refused_request()

    async def give_back(self, request_id: str, at_ms: int) -> None:
        """Forgets an id there and then here; where the place does not answer, it stays taken."""
        try:
            await self._remove(request_id, at_ms)
        except OverloadedError as error:
            _log.warning("the id of a refused request stays taken: %s", error)
        else:
            self._local.drop(request_id, at_ms)

    @abstractmethod
    async def _add(self, request_id: str, at_ms: int, now_ms: int) -> bool:
        """Adds an id; tells whether it was not there.

        Raises:
            OverloadedError: that cannot be told.
        """

    @abstractmethod
    async def _remove(self, request_id: str, at_ms: int) -> None:
        """Removes one that was added here.

        Raises:
            OverloadedError: the place does not answer.
        """


class FolderSeen(_SharedSeen):
    """In the folder of keys, for all servers that share it: an empty file for each id.

    Args:
        folder: of the keys.
        local: of this server.
    """

    def __init__(self, folder: Path, local: LocalSeen) -> None:
        super().__init__(local)
        self._folder = folder / "seen"
        self._swept = 0

    async def _add(self, request_id: str, at_ms: int, now_ms: int) -> bool:
        try:
            if now_ms // _MINUTE_MS != self._swept:
                await asyncio.to_thread(self._sweep, now_ms)
                self._swept = now_ms // _MINUTE_MS
            return await asyncio.to_thread(_make_file, self._minute(at_ms), request_id)
        except OSError as error:
            raise _not_told(error.strerror) from error

    async def _remove(self, request_id: str, at_ms: int) -> None:
        try:
            await asyncio.to_thread((self._minute(at_ms) / request_id).unlink, missing_ok=True)
        except OSError as error:
            raise _not_told(error.strerror) from error

    async def close(self) -> None:
        """Has nothing to end."""

    def _minute(self, at_ms: int) -> Path:
        return self._folder / str((at_ms + WINDOW_MS) // _MINUTE_MS)

    def _sweep(self, now_ms: int) -> None:
        # Another server's clock may be behind: what it may still take stays for as long as clocks may differ.
        ended = (now_ms - WINDOW_MS) // _MINUTE_MS
        with contextlib.suppress(FileNotFoundError):
            for minute in [one for one in self._folder.iterdir() if one.name.isdecimal() and int(one.name) < ended]:
                for file in minute.iterdir():
                    file.unlink(missing_ok=True)
                try:
                    minute.rmdir()
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):  # another server sweeps, too
                        raise


class RedisSeen(_SharedSeen):
    """In a Redis, for all servers that share it and their keys.

    Args:
        store: as `QuotaSettings.store`.
        local: of this server.
        servers: what is the same for servers that share keys, and for no others.

    Raises:
        MissingDependencyError: the package redis is not installed.
    """

    def __init__(self, store: str, local: LocalSeen, *, servers: str) -> None:
        try:
            from redis.asyncio import Redis
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                "package redis is not installed", hint="Run: pip install 'shipsight[redis]'"
            ) from error
        super().__init__(local)
        url = store.replace("redis+unix://", "unix://", 1)
        self._redis: Redis = Redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)
        self._servers = servers

    async def _add(self, request_id: str, at_ms: int, now_ms: int) -> bool:
        # For as long as the clocks of two servers may differ, too.
        left_ms = at_ms + WINDOW_MS - now_ms + WINDOW_MS
        return bool(await self._answer(self._redis.set(self._name(request_id), b"", nx=True, px=max(left_ms, 1))))

    async def _remove(self, request_id: str, at_ms: int) -> None:
        await self._answer(self._redis.delete(self._name(request_id)))

    def _name(self, request_id: str) -> str:
        return f"shipsight-sealed/{self._servers}/{request_id}"

    async def _answer(self, asked: Awaitable[Any]) -> Any:  # noqa: ANN401 - whatever the command gives
        from redis.exceptions import RedisError

        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await asked
        except (RedisError, TimeoutError, OSError) as error:
            raise _not_told(type(error).__name__) from error

    async def close(self) -> None:
        """Ends connections."""
        await self._redis.aclose()


def _slot_of(at_ms: int) -> int:
    return (at_ms + WINDOW_MS) // _SLOT_MS


def _seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _make_file(minute: Path, name: str) -> bool:
    """Makes an empty file; tells whether it was not there."""
    for is_last in (False, True):
        try:
            os.close(os.open(minute / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return False
        except FileNotFoundError:
            if is_last:
                raise
            minute.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            return True
    raise AssertionError("the last try returns or raises")


def _not_told(got: str | None) -> OverloadedError:
    return OverloadedError("whether this sealed request came before cannot be told now", where="sealed", got=got)
