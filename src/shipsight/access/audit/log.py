# SPDX-License-Identifier: Apache-2.0
"""The audit log, written: a sink of events that keeps them in order, chained, and under signed checkpoints.

One thread writes, many entries at a time. An act that must not be done unseen waits until its entry is on the disk, and is refused
where it cannot be kept; what was refused, predictions and the use of keys go on, in a bounded buffer that is counted and tried
again. Invariants: several servers write to one log, one at a time; a log that became shorter or another while it was open is not
written to; no event is written after its act was told that it is not. Stable.
Sources: OWASP ASVS 5.0, 16.4.2 and 16.5.3; RFC 6962; C2SP tlog-checkpoint.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from shipsight.access.audit.appending import append, sign_head
from shipsight.access.audit.checkpoint import Checkpoint, Signer, VerifierKey
from shipsight.access.audit.entry import Entry
from shipsight.access.audit.following import NewestFile, Seen, follow, where_seen
from shipsight.access.audit.log_keys import admit, endorse, new_key_path, put_key, signer_of_now
from shipsight.access.audit.merkle import leaf_hash
from shipsight.access.audit.reading import AuditReader
from shipsight.access.audit.record import prepare, read_time
from shipsight.access.audit.settings import AuditSettings, AuditState
from shipsight.access.audit.store.rows import (
    Head,
    end_session,
    keep_key,
    keep_session,
    newest_checkpoint,
    read_after,
    read_head,
    read_keys,
    read_session,
    retire_key,
)
from shipsight.access.audit.store.tables import LINEAGE
from shipsight.access.audit.waiting import Buffer, Waiting, may_be_late
from shipsight.access.audit.witnesses import CopyState
from shipsight.access.events import Event, EventKind, Outcome
from shipsight.access.store import Database, open_database
from shipsight.errors import AuditError, ShipsightError, UsageError

if TYPE_CHECKING:
    from shipsight.access.audit.archiving import Archived
    from shipsight.access.audit.erasing import Erased
    from shipsight.access.backup import BackupLock

__all__ = ["AuditLog", "Copies"]

_log = logging.getLogger("shipsight.audit")
_MOST_NAME = 100
_TOLD_S = 60.0


class Copies(Protocol):
    """Second places that checkpoints go to (`witnesses`)."""

    @property
    def states(self) -> tuple[CopyState, ...]:
        """How each fares."""

    def offer(self, checkpoint: Checkpoint) -> None:
        """Takes a checkpoint and returns at once."""


class AuditLog:
    """An open log. Threads may share it; `open` makes one."""

    # Long in arguments alone; `open` is what others call.
    def __init__(
        self,
        database: Database,
        signer: Signer,
        *,
        key: Path,
        server: str,
        settings: AuditSettings,
        now: Callable[[], datetime],
        has_session: bool,
    ) -> None:
        self._database, self._reader = database, AuditReader(database)
        self._signer, self._key_path, self._server, self._settings, self._now = signer, key, server, settings, now
        self._copies: Copies | None = None
        self._session = secrets.token_hex(8) if has_session else None
        self._buffer = Buffer(settings.buffer, settings.late_s)
        self._state_lock = threading.Lock()
        self._state = AuditState()
        self._newest = NewestFile(key)
        self._seen = Seen(0, b"")
        self._doubtful: _Doubtful | None = None
        self._tells_end = True
        self._signed_s, self._told_s = time.monotonic(), 0.0
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    @classmethod
    def open(
        cls,
        place: str,
        *,
        key: Path,
        server: str,
        settings: AuditSettings = AuditSettings(),
        copies: Copies | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        has_session: bool = True,
    ) -> Self:
        """Opens a log to write to it, and begins it where nothing is there.

        Args:
            place: path of SQLite's file, or `postgresql://...`.
            key: file of the key that signs; made with the log, and the same for all servers of one log.
            server: name of who writes, unique among those that do at once.
            settings: how often it is signed, how much may wait.
            copies: where checkpoints go to, beside the log; closed by whoever made it.
            now: tells the time, UTC.
            has_session: whether it is a server's, that tells when it starts and stops: one that ended otherwise is told of
                the next time. A command's is not.

        Raises:
            UsageError: it is no such place, or no such name.
            AuditError: the log is there without its key, or the key without its log; or it cannot be written.
            EnvironmentLackError: the place does not answer, or is of another version; the key's file cannot be used.
        """
        if not server or len(server) > _MOST_NAME or not server.isprintable():
            raise UsageError("not a name for a server", expected=f"1 to {_MOST_NAME} printable characters", got=server)
        database = open_database(place, lineage=LINEAGE)
        try:
            signer = admit(database, key, server=server, now=now())
            made = cls(database, signer, key=key, server=server, settings=settings, now=now, has_session=has_session)
            made._begin(copies)
        except BaseException:
            database.close()
            raise
        return made

    @property
    def key(self) -> VerifierKey:
        """What its checkpoints are verified with."""
        return self._signer.key

    @property
    def signer(self) -> Signer:
        """What signs its checkpoints, and reviews of it."""
        return self._signer

    @property
    def origin(self) -> str:
        """How its checkpoints name it."""
        return self._signer.key.name

    @property
    def server(self) -> str:
        """Name of who writes."""
        return self._server

    @property
    def reader(self) -> AuditReader:
        """What reads it."""
        return self._reader

    @property
    def state(self) -> AuditState:
        """How it fares; costs nothing."""
        with self._state_lock:
            return replace(self._state, buffered=len(self._buffer), lost=self._buffer.lost)

    @property
    def size(self) -> int:
        """Number of all entries, those in archives among them."""
        return self._reader.size

    @property
    def last_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint, None where none was signed yet."""
        return self._reader.last_checkpoint

    def entries(self, **asked: Any) -> Iterator[Entry]:  # noqa: ANN401 - as AuditReader.entries takes them
        """Yields entries, as `AuditReader.entries` does."""
        return self._reader.entries(**asked)

    def consistency(self, size1: int, size2: int) -> list[bytes]:
        """Returns the proof that the tree of one size is the beginning of that of another."""
        return self._reader.consistency(size1, size2)

    def record(self, event: Event) -> None:
        """Keeps an event.

        Returns once it is on the disk, where its act must not be done unseen; at once for what may be late (`may_be_late`): then
        it is in memory, and where the buffer is full it is lost, and counted.

        Raises:
            AuditError: it cannot be kept: its act must not be done.
        """
        if may_be_late(event):
            self._buffer.put_late(event)
        else:
            self._buffer.put(Waiting(event), wait_s=self._settings.wait_s)

    def record_late(self, event: Event) -> None:
        """Keeps an event of something that is done whether it can be kept or not; returns at once, as for what may be late."""
        self._buffer.put_late(event)

    @property
    def copies(self) -> tuple[CopyState, ...]:
        """How its second places fare."""
        return () if self._copies is None else self._copies.states

    def checkpoint(self) -> Checkpoint:
        """Signs a checkpoint of all that was recorded before, keeps it, and gives it to the second places.

        Raises:
            AuditError: the log cannot be written.
        """
        self._buffer.put(Waiting(None), wait_s=self._settings.wait_s)
        found = self.last_checkpoint
        assert found is not None
        return found

    def rotate_key(self, *, actor: str, lost: bool = False) -> VerifierKey:
        """Signs with a new key from now on; the one before signs that it comes after it, and is then gone.

        Args:
            actor: who does it, as it is told.
            lost: whether the file's key is not to be trusted any more: it then signs nothing, and whoever verifies has to
                be told the new key another way.

        Returns:
            What verifies from now on.

        Raises:
            AuditError: the log cannot be written.
            EnvironmentLackError: the key's file cannot be.
        """
        before, new = self._signer, Signer.generate(self.origin)
        details: dict[str, Any] = {"key": new.key.text}
        if not lost:
            details["endorsement"] = endorse(before, new.key, now=self._now())
        added = self._own(EventKind.AUDIT_KEY_ADDED, actor, details)
        retired = self._own(EventKind.AUDIT_KEY_RETIRED, actor, {"key": before.key.text})
        new_key_path(self._key_path).unlink(missing_ok=True)
        try:
            new.save(new_key_path(self._key_path))
        except OSError as error:
            raise AuditError("the new key cannot be written", where=self._key_path, got=error.strerror) from error
        with self.writing() as (connection, head):
            done = append(connection, head, [prepare(added), prepare(retired)], server=self._server, now=self._now())
            retire_key(connection, before.key.text, done.head.size)
            keep_key(connection, new.key.text, done.head.size)
            signed = sign_head(connection, done.head, new, now=self._now(), also=() if lost else (before,))
        put_key(self._key_path)
        self._signer = new
        self._after(done.head, 2, signed)
        return new.key

    def writing(self) -> _Writing:
        """Gives a transaction in which nobody else writes, and where the log stands in it: for what changes more than its end.

        Raises:
            AuditError: the log cannot be written, or is not the one that it was.
        """
        return _Writing(self)

    def erase(self, person: str, *, actor: str) -> Erased:
        """Erases what the log holds of a person, and tells that in an entry; archives are not touched.

        Args:
            person: a name, or who acts as it is told, `certificate:CN=ada`.
            actor: who does it, as it is told.

        Raises:
            UsageError: nothing is there of them.
            AuditError: the log cannot be written.
        """
        from shipsight.access.audit.erasing import erase

        return erase(self, person, actor=actor, now=self._now())

    def erase_archive(self, person: str, file: Path, *, actor: str, lock: BackupLock | None = None) -> Erased:
        """Erases what an archive holds of a person, and tells that in an entry; as `erasing.erase_archive`."""
        from shipsight.access.audit.erasing import erase_archive

        return erase_archive(self, person, file, actor=actor, lock=lock, now=self._now())

    def archive(self, until: datetime, out: Path, *, actor: str, lock: BackupLock | None = None) -> Archived:
        """Moves all entries before the first of a time or later to a file that verifies alone.

        Args:
            until: time, UTC.
            out: file that is not there yet.
            actor: who does it, as it is told.
            lock: what the file is encrypted for, None for one in clear.

        Raises:
            UsageError: there is no such entry, or the file is there.
            AuditError: the log cannot be written, or values were erased meanwhile.
            EnvironmentLackError: the file cannot be written.
        """
        from shipsight.access.audit.archiving import archive

        return archive(self, until, out, actor=actor, lock=lock, now=self._now())

    def wrote(self, head: Head, written: int, signed: Checkpoint) -> None:
        """Learns what was written in a transaction of `writing`."""
        self._after(head, written, signed)

    def tell(self, kind: EventKind, actor: str, details: dict[str, Any]) -> Event:
        """Returns an event of the log's own."""
        return self._own(kind, actor, details)

    def close(self) -> None:
        """Writes what waits, tells that it stopped, signs a checkpoint, and lets go; what cannot be written by then is lost and told."""
        if self._session is not None and self._thread.is_alive():
            # Where that finds no room, the session counts as torn off: no session ends without a word of it.
            stopped = self._own(EventKind.STOPPED, f"server:{self._server}", {"session": self._session})
            self._tells_end = self._buffer.put_late(stopped)
        self._buffer.close()
        if self._thread.is_alive():
            self._thread.join()
        left = len(self._buffer) + self._buffer.lost
        if left:
            _log.error("audit events were lost", extra={"shipsight": {"event": "audit-lost", "events": left}})
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, copies: Copies | None) -> None:
        """Tells that a session begins, and that the last did not end; then starts to write."""
        self._copies = copies
        with self._database.write() as connection:
            head = self._head(connection)
            self._seen, known = where_seen(connection, head, self._newest.text(), [self.key])
            follow(connection, head, self._seen, [self.key])
            told = []
            if self._session is not None:
                told = self._session_events(connection, known, head.size - self._seen.size)
                heartbeat_s = self._settings.heartbeat_s
                keep_session(connection, self._server, self._session, began=self._now(), heartbeat_s=heartbeat_s)
            done = append(connection, head, [prepare(one) for one in told], server=self._server, now=self._now())
            kept = newest_checkpoint(connection)
            # At once, so that what a session that was torn off left behind lies under a signature.
            signed = sign_head(connection, done.head, self._signer, now=self._now()) if told or kept is None else None
        if kept is not None:
            self._note(checkpoint_size=kept.size, checkpoint_at=read_time(kept.at))
        self._after(done.head, len(told), signed)
        self._thread.start()

    def _session_events(self, connection: Connection, known: int | None, unsigned: int) -> list[Event]:
        """Returns what tells that a session begins.

        Args:
            connection: in a transaction that writes.
            known: size of the newest checkpoint that lay beside the key, None where none did.
            unsigned: entries after the newest checkpoint.
        """
        who = f"server:{self._server}"
        before = read_session(connection, self._server)
        details = {
            "session": self._session,
            "key": self.key.text,
            "seconds": self._settings.seconds,
            "heartbeat_s": self._settings.heartbeat_s,
            "known": known,
            "unsigned": unsigned,
        }
        started = self._own(EventKind.AUDIT_STARTED, who, details)
        if before is None:
            return [started]
        torn = {"session": before[0], "began": before[1], "unsigned": unsigned}
        return [self._own(EventKind.AUDIT_RECOVERED, who, torn), started]

    def _own(self, kind: EventKind, actor: str, details: dict[str, Any]) -> Event:
        event = Event(self._now(), kind, Outcome.DONE, actor, details=details)
        # Of no request, even where one is at hand.
        object.__setattr__(event, "address", None)
        return event

    def _run(self) -> None:
        while True:
            was_closed = self._buffer.is_closed
            urgent, late, lost = self._buffer.take(self._checkpoint_in_s())
            is_last = self._buffer.is_closed and not urgent and not len(self._buffer)
            try:
                self._write(urgent, late, lost, is_last=is_last)
            except (ShipsightError, SQLAlchemyError, OSError) as error:
                self._buffer.give_back(urgent, late, lost, error)
                self._alarm(error)
            except Exception as error:  # noqa: BLE001 - the edge of a thread: nobody may wait for ever, and it is told
                _log.exception("the audit log's writer met a bug")
                self._buffer.give_back(urgent, late, lost, error)
                self._alarm(error)
            else:
                self._buffer.kept(urgent)
                self._calm()
            # What failed before it was closed is tried once more.
            if (is_last and not self._state.is_degraded) or (was_closed and self._state.is_degraded):
                return

    def _write(self, urgent: list[Waiting], late: list[Event], lost: Counter[str], *, is_last: bool) -> None:
        events = [one.event for one in urgent if one.event is not None]
        wants_checkpoint = is_last or len(events) < len(urgent)
        if not events and not late and not lost and not wants_checkpoint and self._checkpoint_in_s() > 0:
            return
        signed = None
        with self.writing() as (connection, head):
            self._settle(connection, late, lost)
            told = [*late, *events]
            if lost:
                details = {"events": lost.total(), "kinds": [f"{kind}: {n}" for kind, n in sorted(lost.items())]}
                told.append(self._own(EventKind.AUDIT_LOST, f"server:{self._server}", details))
            done = append(connection, head, [prepare(one) for one in told], server=self._server, now=self._now())
            if is_last and self._session is not None and self._tells_end:
                end_session(connection, self._server, self._session)
            if wants_checkpoint or self._is_due(done.head.size):
                signed = self._sign(connection, done.head)
            # If the commit fails on its way back, nobody knows whether it was made.
            self._doubtful = _Doubtful(done.head.size, done.head.leaf, tuple(late), lost.copy())
        self._doubtful = None
        self._after(done.head, len(told), signed)

    def _sign(self, connection: Connection, head: Head) -> Checkpoint | None:
        """Signs a checkpoint with the key of now; None where another process changed keys, and the new one is not here."""
        if not any(one.key == self.key.text and one.retired is None for one in read_keys(connection)):
            try:
                self._signer = signer_of_now(connection, head, self._key_path)
            except ShipsightError as error:
                # Entries are kept: unsigned, they are the tail that a verification tells of.
                self._signed_s = time.monotonic()
                _log.error("no checkpoint of the audit log can be signed: %s", error)
                return None
        return sign_head(connection, head, self._signer, now=self._now())

    def _settle(self, connection: Connection, late: list[Event], lost: Counter[str]) -> None:
        """Takes out what the last write kept though it seemed to fail; changes both in place, since they are given back if this one fails."""
        doubtful, self._doubtful = self._doubtful, None
        if doubtful is None or not doubtful.size:
            return
        rows = read_after(connection, doubtful.size - 2, doubtful.size, 1)
        if rows and leaf_hash(rows[0].record.encode("ascii")).hex() == doubtful.leaf:
            self._buffer.settle(doubtful.late, late, lost)
            lost.subtract(doubtful.lost)
            for kind in [kind for kind, events in lost.items() if events <= 0]:
                del lost[kind]

    def _is_due(self, size: int) -> bool:
        if size - self._state.checkpoint_size >= self._settings.every:
            return True
        passed = time.monotonic() - self._signed_s
        if size > self._state.checkpoint_size and passed >= self._settings.seconds:
            return True
        return self._session is not None and passed >= self._settings.heartbeat_s

    def _checkpoint_in_s(self) -> float:
        """Returns in how many seconds the next checkpoint is due, by what this process has written."""
        new = self._state.size > self._state.checkpoint_size
        after = self._settings.seconds if new else self._settings.heartbeat_s
        return max(self._signed_s + after - time.monotonic(), 0.0) if new or self._session is not None else 3600.0

    def _head(self, connection: Connection) -> Head:
        """Returns where the log says that it stands.

        Raises:
            AuditError: it is gone, or another's is in its place.
        """
        head = read_head(connection)
        if head is None or head.origin != self.origin:
            raise AuditError(
                "the audit log is not the one that was written",
                expected=self.origin,
                got="nothing" if head is None else head.origin,
                hint="Somebody put another in its place. Run: shipsight audit verify",
            )
        return head

    def _check(self, connection: Connection) -> Head:
        """Returns where the log stands, if it goes on where it was seen last.

        Raises:
            AuditError: it became shorter, or another.
        """
        head = self._head(connection)
        follow(connection, head, self._seen, [self.key])
        return head

    def _after(self, head: Head, written: int, signed: Checkpoint | None) -> None:
        self._seen = Seen(head.size, head.frontier, head.leaf)
        self._note(size=head.size, written=self._state.written + written)
        if signed is not None:
            self._signed_s = time.monotonic()
            self._note(checkpoint_size=signed.size, checkpoint_at=signed.at)
            try:
                self._newest.keep(signed)
            except OSError as error:
                # The log has it; a cut is then found from the one before on.
                told = {"event": "audit-newest", "file": str(self._newest.path), "error": str(error)}
                _log.error("the newest checkpoint cannot be kept beside the key", extra={"shipsight": told})
            if self._copies is not None:
                self._copies.offer(signed)

    def _note(self, **changed: Any) -> None:  # noqa: ANN401 - fields of AuditState
        with self._state_lock:
            self._state = replace(self._state, **changed)

    def _alarm(self, error: BaseException) -> None:
        since = self._state.since or self._now()
        self._note(last_error=str(error), since=since)
        # The next is tried with the buffer's own pause; a checkpoint that is due as well.
        self._signed_s = max(self._signed_s, time.monotonic() + 1.0 - self._settings.seconds)
        if time.monotonic() - self._told_s >= _TOLD_S or not self._told_s:
            self._told_s = time.monotonic()
            told = {
                "event": "audit-unavailable",
                "error": str(error),
                "buffered": len(self._buffer),
                "lost": self._buffer.lost,
            }
            _log.error("the audit log cannot be written", extra={"shipsight": told})

    def _calm(self) -> None:
        if self._state.last_error is None:
            return
        self._note(last_error=None, since=None)
        self._told_s = 0.0
        _log.warning("the audit log is written again", extra={"shipsight": {"event": "audit-available"}})


@dataclass(frozen=True)
class _Doubtful:
    """Where the log stands, and what of it may be late and was told as lost, if a write was made of which nobody knows whether it was."""

    size: int
    leaf: str
    late: tuple[Event, ...]
    lost: Counter[str]


class _Writing:
    """A transaction, with where the log stands in it."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def __enter__(self) -> tuple[Connection, Head]:
        self._transaction = self._log._database.write()  # noqa: SLF001 - one thing in two classes
        connection = self._transaction.__enter__()
        try:
            if self._log._database.kind == "postgresql":  # noqa: SLF001
                # Whatever the server's default: what is told to be kept is on its disk.
                connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
            return connection, self._log._check(connection)  # noqa: SLF001
        except BaseException as error:
            self._transaction.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transaction.__exit__(kind, error, trace)
