# SPDX-License-Identifier: Apache-2.0
"""The sealing keys of a server: made, told, followed by the next, forgotten.

A key lives for `days`; when less than half of that is left, a day at most, its follower is made and told first, and the old one is
opened with to its end. Each is told as an event before it is used. Leaves to others: opening (`http/sealed.py`), the folder's files
(`sealing_folder`). Private to the room.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from shipsight.access import SERVER
from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.errors import AuditError, NotReadyError, ShipsightError
from shipsight.protect import WINDOW_MS, SealingIdentity, SealingKey
from shipsight.serve.logs import fields
from shipsight.serve.sealing_folder import SealingFolder
from shipsight.serve.sealing_options import SealingOptions

__all__ = ["SealingKeys"]

_log = logging.getLogger("shipsight.serve")
_DAY_MS = 86_400_000
_LOOK_S = 1.0
_TOLD_MS = 1000  # a signed list is told again for so long: it costs nobody a signature for each who asks


class SealingKeys:
    """Keys that live, and the identity that signs their list. `refresh` and what calls it may block.

    Args:
        options: of the server.
        events: is told of each key.
        now: tells the time.

    Raises:
        EnvironmentLackError, CorruptError: the folder cannot be used. That a key could not be recorded is told in the log alone: then
            none is made, and it is tried again.
    """

    def __init__(self, options: SealingOptions, *, events: EventSink, now: Callable[[], datetime]) -> None:
        self._events, self._now = events, now
        self._life_ms = int(options.days * _DAY_MS)
        self._overlap_ms = min(self._life_ms // 2, _DAY_MS)
        self.folder = None if options.folder is None else SealingFolder(options.folder)
        if self.folder is None:
            seed = secrets.token_bytes(32) if options.seed is None else bytes.fromhex(options.seed)
            self.identity = SealingIdentity(seed)
        else:
            self.identity = self.folder.identity
        self._keys: Mapping[bytes, SealingKey] = {}
        self._lock = threading.Lock()
        self._told: dict[str, Any] = {}
        self._told_of: Mapping[bytes, SealingKey] | None = None
        self._looked_ms = 0
        self._pending: SealingKey | None = None  # recorded, and not kept yet
        self._strange: frozenset[str] = frozenset()
        self._failure: str | None = None
        try:
            self.refresh()
        except AuditError:
            # Plain requests are answered on; sealed ones once the record is written again.
            self._refresh_or_tell()

    @property
    def living(self) -> Mapping[bytes, SealingKey]:
        """Keys by id; one among them may have ended just now."""
        return self._keys

    def now_ms(self) -> int:
        """Returns the time, milliseconds since 1970."""
        return int(self._now().timestamp() * 1000)

    def newest_ms(self) -> int:
        """Returns when the last of the keys ends, milliseconds since 1970; 0 where there is none."""
        return max((one.public.not_after_ms for one in self._keys.values()), default=0)

    def refresh(self) -> None:
        """Forgets keys that have ended, takes those that other servers made, and makes one where it is time.

        Raises:
            EnvironmentLackError, CorruptError: the folder cannot be used; the keys stay as they were.
            ShipsightError: the event could not be kept; then no key is made.
        """
        with self._lock:
            now_ms = self.now_ms()
            keys = self._current(now_ms)
            if self._is_due(keys, now_ms):
                if self.folder is None:
                    keys = self._with_new(keys, now_ms)
                else:
                    with self.folder.locked():
                        keys = self._current(now_ms)  # another server may have been faster
                        if self._is_due(keys, now_ms):
                            keys = self._with_new(keys, now_ms)
            if keys.keys() != self._keys.keys():
                self._keys = keys

    async def look_for(self, key_id: bytes) -> None:
        """Looks whether another server has made a key that is not known here; once a second at most, whoever asks."""
        now_ms = self.now_ms()
        if self.folder is not None and key_id not in self._keys and abs(now_ms - self._looked_ms) >= _LOOK_S * 1000:
            self._looked_ms = now_ms
            await asyncio.to_thread(self._refresh_or_tell)

    async def watch(self) -> None:
        """Refreshes without end."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await asyncio.to_thread(self._refresh_or_tell)

    def listing(self) -> Mapping[str, Any]:
        """Returns the signed list.

        Raises:
            NotReadyError: no key lives.
        """
        now_ms, keys = self.now_ms(), self._keys
        if self._told_of is not keys or not 0 <= now_ms - self._told["now"] < _TOLD_MS:
            living = [one.public for one in keys.values() if one.public.not_after_ms > now_ms]
            if not living:
                raise NotReadyError("no sealing key lives", hint="The server's log says why none could be made.")
            living.sort(key=lambda one: one.not_after_ms, reverse=True)
            self._told, self._told_of = self.identity.key_list(living, now_ms=now_ms), keys
        return self._told

    def _current(self, now_ms: int) -> Mapping[bytes, SealingKey]:
        keys: Mapping[bytes, SealingKey] = self._keys if self.folder is None else self.folder.keys(now_ms=now_ms)
        # One made while a clock was far ahead would be used for as long: it is as if it were not there, and a new one is made.
        latest_ms = now_ms + self._life_ms + WINDOW_MS
        strange = frozenset(name.hex() for name, one in keys.items() if one.public.not_after_ms > latest_ms)
        if strange - self._strange:
            _log.warning(
                "sealing keys that end later than any made now are not used: %s; a clock was ahead, or --sealing-days is less"
                " than it was, or than another server's",
                ", ".join(sorted(strange)),
                extra=fields(code="sealing-keys-strange"),
            )
        self._strange = strange
        return {name: one for name, one in keys.items() if now_ms <= one.public.not_after_ms <= latest_ms}

    def _is_due(self, keys: Mapping[bytes, SealingKey], now_ms: int) -> bool:
        newest_ms = max((one.public.not_after_ms for one in keys.values()), default=0)
        return newest_ms - now_ms <= self._overlap_ms

    def _with_new(self, keys: Mapping[bytes, SealingKey], now_ms: int) -> Mapping[bytes, SealingKey]:
        key = self._pending
        # One that was recorded and could not be kept is tried again, unless it would soon end.
        if key is None or not self._overlap_ms < key.public.not_after_ms - now_ms <= self._life_ms:
            key = SealingKey.make(not_after_ms=now_ms + self._life_ms)
            self._tell(key)
            self._pending = key
        if self.folder is not None:
            self.folder.add(key)
        self._pending = None
        return {**keys, key.public.id: key}

    def _tell(self, key: SealingKey) -> None:
        self._events.record(
            Event(
                at=self._now(),
                kind=EventKind.SEALING_KEY_MADE,
                outcome=Outcome.DONE,
                actor=SERVER.told(),
                subject=f"sealing-key:{key.public.id.hex()}",
                details={
                    "not_after_ms": key.public.not_after_ms,
                    "kept": "memory" if self.folder is None else "folder",
                    "identity": str(self.identity.pin),
                },
            )
        )

    def _refresh_or_tell(self) -> None:
        """Refreshes; what prevents it is told once, and tried again."""
        try:
            self.refresh()
        except ShipsightError as error:
            if self._failure != error.code:
                self._failure = error.code
                _log.warning(
                    "sealing keys could not be looked after: %s", error, extra=fields(code="sealing-keys-stale")
                )
        except Exception:  # noqa: BLE001 - the edge of a watch: whatever a sink raises, the keys that live go on
            if self._failure != "internal":
                self._failure = "internal"
                _log.exception("sealing keys could not be looked after", extra=fields(code="sealing-keys-stale"))
        else:
            self._failure = None
