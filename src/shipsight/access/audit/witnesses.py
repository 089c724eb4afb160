# SPDX-License-Identifier: Apache-2.0
"""Second places of the audit log's checkpoints: each is served in a thread of its own, and never holds up the log.

Invariants: of each place at most one checkpoint waits, the newest, since it says all that those before it said; what fails is
tried again for as long as the log is open, told in the server's log, and counted. Leaves to others: how a place is written to
(`copies`, `witness_client`). Stable.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from shipsight.access.audit.checkpoint import Checkpoint
from shipsight.access.audit.copies import Consistency, Copy, FileCopy, SyslogCopy, SyslogPlace, Transport
from shipsight.access.audit.witness_client import WitnessCopy, WitnessPlace
from shipsight.errors import AuditProofError, ShipsightError, UsageError

__all__ = ["CopyPlace", "CopyState", "Witnesses", "parse_copy"]

_log = logging.getLogger("shipsight.access.audit")
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_TOLD_AGAIN_S = 900.0
_CLOSE_S = 5.0
_FORMS = (
    "file:PATH, syslog:/dev/log, syslog:HOST:PORT, syslog:udp://HOST:PORT, syslog:tls://HOST:PORT, https://HOST/#KEY"
)
_SYSLOG_PORTS = {"udp": 514, "tcp": 601, "tls": 6514}

CopyPlace = Path | SyslogPlace | WitnessPlace
"""A file, syslog, or a witness."""


def parse_copy(text: str) -> CopyPlace:
    """Reads what `--audit-copy` takes.

    Args:
        text: `file:PATH`; `syslog:PATH` of a socket; `syslog:HOST:PORT`, which is TCP; `syslog:udp://`, `tcp://` or
            `tls://HOST[:PORT]`, the last with `?ca=FILE`; or a witness, `https://HOST[:PORT][/PATH][?ca=FILE]#KEY`.

    Raises:
        UsageError: it is none of these.
    """
    kind, _, rest = text.partition(":")
    try:
        if kind == "file" and rest:
            return Path(rest)
        if kind == "syslog" and rest:
            return _parse_syslog(rest)
        if kind in ("https", "http"):
            return WitnessPlace.parse(text)
    except UsageError as error:
        raise UsageError(error.what, where="--audit-copy", expected=error.expected, got=error.got) from error
    except ValueError as error:
        raise UsageError("not an address", where="--audit-copy", got=text, expected=_FORMS) from error
    raise UsageError("no such place for checkpoints", where="--audit-copy", got=text, expected=_FORMS)


def _parse_syslog(text: str) -> SyslogPlace:
    if text.startswith("/"):
        return SyslogPlace(Transport.UNIX, text)
    parts = urlsplit(text if "://" in text else f"tcp://{text}")
    known = parse_qs(parts.query, strict_parsing=bool(parts.query))
    is_plain = not parts.path.strip("/") and not parts.fragment and parts.username is None
    ca = known.pop("ca", [None])[0] if parts.scheme == "tls" else None
    if parts.scheme not in _SYSLOG_PORTS or not parts.hostname or not is_plain or known:
        raise UsageError("not an address of syslog", got=text, expected="/PATH, HOST:PORT or tls://HOST:PORT?ca=FILE")
    if not re.search("://", text) and parts.port is None:
        raise UsageError("an address of syslog without port", got=text, expected="HOST:PORT")
    port = parts.port or _SYSLOG_PORTS[parts.scheme]
    return SyslogPlace(Transport(parts.scheme), parts.hostname, port, None if ca is None else Path(ca))


@dataclass(frozen=True)
class CopyState:
    """How a second place fares.

    Attributes:
        place: which, as an operator knows it.
        size: entries that the newest checkpoint covers that it has; 0 before the first.
        at: when it got that, UTC.
        is_waiting: whether a newer one waits for it.
        failures: attempts that failed, in all.
        error: why the latest attempt failed, None where it did not.
        since: since when it fails, UTC.
        is_refusing: whether the latest attempt was refused since the place knows this log otherwise: then somebody has changed it.
    """

    place: str
    size: int = 0
    at: datetime | None = None
    is_waiting: bool = False
    failures: int = 0
    error: str | None = None
    since: datetime | None = None
    is_refusing: bool = False


class Witnesses:
    """Gives checkpoints to second places.

    Args:
        places: which.
        consistency: proves that the log has only grown, from one size to another, in any thread.
        signed: told of a checkpoint that a witness has signed, in any thread; None for nobody.
        timeout_s: longest that one exchange with a place takes.
        first_wait_s: seconds after which a failed attempt is made again; doubled each time, up to a minute.
    """

    def __init__(
        self,
        places: Sequence[CopyPlace],
        consistency: Consistency,
        *,
        signed: Callable[[Checkpoint], None] | None = None,
        timeout_s: float = 10.0,
        first_wait_s: float = _FIRST_WAIT_S,
    ) -> None:
        self._deliverers = [
            _Deliverer(_name(one), _open(one, consistency, timeout_s), signed or _ignore, first_wait_s)
            for one in places
        ]

    @property
    def states(self) -> tuple[CopyState, ...]:
        """How each place fares, in the order given."""
        return tuple(one.state for one in self._deliverers)

    def offer(self, checkpoint: Checkpoint) -> None:
        """Hands a checkpoint to all places, and returns at once; it takes the place of one that still waits."""
        for one in self._deliverers:
            one.offer(checkpoint)

    def flush(self, timeout_s: float = _CLOSE_S) -> bool:
        """Waits until nothing waits; returns whether that came true in time."""
        until_s = time.monotonic() + timeout_s
        done = [one.flush(until_s) for one in self._deliverers]
        return all(done)

    def close(self, timeout_s: float = _CLOSE_S) -> bool:
        """Ends, giving what waits one more chance; returns whether all of it arrived in time."""
        until_s = time.monotonic() + timeout_s
        for one in self._deliverers:
            one.leave()
        done = [one.close(until_s) for one in self._deliverers]
        return all(done)


class _Deliverer:
    """One place, and the thread that serves it."""

    def __init__(self, name: str, copy: Copy, signed: Callable[[Checkpoint], None], first_wait_s: float) -> None:
        self._copy, self._signed, self._first_wait_s = copy, signed, first_wait_s
        self._changed = threading.Condition()
        self._waiting: Checkpoint | None = None
        self._is_busy = self._is_leaving = False
        self._state = CopyState(name)
        self._told_s = 0.0
        # A daemon: a place that hangs does not keep a server from ending.
        self._thread = threading.Thread(target=self._serve, name="shipsight-audit-copy", daemon=True)
        self._thread.start()

    @property
    def state(self) -> CopyState:
        with self._changed:
            return replace(self._state, is_waiting=self._waiting is not None or self._is_busy)

    def offer(self, checkpoint: Checkpoint) -> None:
        with self._changed:
            self._waiting = checkpoint
            self._changed.notify_all()

    def flush(self, until_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: self._waiting is None and not self._is_busy, max(until_s - time.monotonic(), 0)
            )

    def leave(self) -> None:
        with self._changed:
            self._is_leaving = True
            self._changed.notify_all()

    def close(self, until_s: float) -> bool:
        self._thread.join(max(until_s - time.monotonic(), 0))
        return not self.state.is_waiting and not self._thread.is_alive()

    def _serve(self) -> None:
        wait_s = self._first_wait_s
        while (checkpoint := self._next()) is not None:
            is_kept = self._try(checkpoint)
            with self._changed:
                self._is_busy = False
                if not is_kept and self._waiting is None:
                    self._waiting = checkpoint  # unless a newer one came meanwhile, which says the same and more
                self._changed.notify_all()
                if is_kept:
                    wait_s = self._first_wait_s
                    continue
                if self._is_leaving:
                    break
                self._changed.wait_for(lambda: self._is_leaving, wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        self._copy.close()

    def _next(self) -> Checkpoint | None:
        """Waits for something to deliver; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._is_leaving)
            checkpoint, self._waiting = self._waiting, None
            self._is_busy = checkpoint is not None
            return checkpoint

    def _try(self, checkpoint: Checkpoint) -> bool:
        try:
            kept = self._copy.deliver(checkpoint)
            if kept.cosignatures:
                self._signed(kept)
        except Exception as error:  # noqa: BLE001 - the edge of a thread that must go on: told, counted, tried again
            self._fail(error)
            return False
        with self._changed:
            failed_since, self._told_s = self._state.since, 0.0
            self._state = replace(
                self._state,
                size=checkpoint.size,
                at=datetime.now(UTC),
                error=None,
                since=None,
                is_refusing=False,
            )
        if failed_since is not None:
            _log.info("checkpoints are kept there again", extra=_fields(place=self._state.place))
        return True

    def _fail(self, error: Exception) -> None:
        is_refusing = isinstance(error, AuditProofError)
        text = str(error) if isinstance(error, ShipsightError) else f"{type(error).__name__}: {error}"
        with self._changed:
            before = self._state
            self._state = replace(
                before,
                failures=before.failures + 1,
                error=text,
                since=before.since or datetime.now(UTC),
                is_refusing=is_refusing,
            )
        now_s = time.monotonic()
        if before.error is None or before.is_refusing != is_refusing or now_s - self._told_s > _TOLD_AGAIN_S:
            self._told_s = now_s
            told = _fields(place=before.place, error=text, failures=before.failures + 1)
            if is_refusing:
                _log.critical("a second place knows the audit log otherwise: it may have been changed", extra=told)
            elif isinstance(error, ShipsightError | OSError):
                _log.error("checkpoints of the audit log are not kept in a second place", extra=told)
            else:
                _log.exception("checkpoints of the audit log are not kept in a second place", extra=told)


def _open(place: CopyPlace, consistency: Consistency, timeout_s: float) -> Copy:
    if isinstance(place, Path):
        return FileCopy(place)
    if isinstance(place, SyslogPlace):
        return SyslogCopy(place, timeout_s=timeout_s)
    return WitnessCopy(place, consistency, timeout_s=timeout_s)


def _name(place: CopyPlace) -> str:
    if isinstance(place, Path):
        return f"file:{place}"
    if isinstance(place, WitnessPlace):
        return place.url
    if place.transport is Transport.UNIX:
        return f"syslog:{place.host}"
    host = f"[{place.host}]" if ":" in place.host else place.host
    return f"syslog:{place.transport}://{host}:{place.port}"


def _fields(**told: object) -> dict[str, object]:
    return {"shipsight": told}


def _ignore(checkpoint: Checkpoint) -> None:
    """Tells nobody."""
