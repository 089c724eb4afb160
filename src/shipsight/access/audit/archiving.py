# SPDX-License-Identifier: Apache-2.0
"""The beginning of a log is moved to an archive; values are erased from one. Private to the room; `AuditLog` calls it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from shipsight.access.audit.appending import append, sign_head
from shipsight.access.audit.archive import ArchiveHead, write_archive
from shipsight.access.audit.checkpoint import sign
from shipsight.access.audit.merkle import Frontier, leaf_hash
from shipsight.access.audit.record import Row, prepare, read_time, write_time
from shipsight.access.audit.store.rows import (
    Head,
    KeptCheckpoint,
    count_erased,
    delete_before,
    first_since,
    keep_checkpoint,
    read_checkpoints,
    read_head,
    read_range,
    read_sessions,
    write_head,
)
from shipsight.access.events import EventKind
from shipsight.errors import AuditError, UsageError

if TYPE_CHECKING:
    from shipsight.access.audit.log import AuditLog
    from shipsight.access.backup import BackupLock

__all__ = ["Archived", "archive"]

_PAGE = 2000


@dataclass(frozen=True)
class Archived:
    """What was archived.

    Attributes:
        file: where it is.
        first: first entry.
        size: number after the last.
        digest: SHA-256 of what its seal is over, in hexadecimal.
        seq: entry that tells of it.
    """

    file: Path
    first: int
    size: int
    digest: str
    seq: int


def archive(
    log: AuditLog, until: datetime, out: Path, *, actor: str, lock: BackupLock | None, now: datetime
) -> Archived:
    """Moves all entries before the first that is of a time or later into a file.

    Raises:
        UsageError: there is none before, or the file is there.
        AuditError: the log cannot be written, or values were erased meanwhile.
        EnvironmentLackError: the file cannot be written.
    """
    database = log.reader.database
    before = next(log.entries(kinds=(EventKind.AUDIT_ARCHIVED,), newest_first=True, limit=1), None)
    with database.read() as connection:
        head = read_head(connection)
        assert head is not None
        found = first_since(connection, until)
        end = head.size if found is None else found
        if end <= head.first:
            raise UsageError("no entry is older", where="--until", got=write_time(until))
        erased = count_erased(connection, end)
        source = _Source(connection, head, end)
        if before is not None:
            source.take_along(before.event.details.get("erased"))
        told = ArchiveHead(head.origin, head.first, end, head.first_frontier, head.first_prev, write_time(now))
        items = source.items(log, now)
        digest = write_archive(out, items, head=told, signer=log.signer, now=now, lock=lock)
    try:
        with log.writing() as (connection, current):
            # What is in the file is in it: a value that was erased since would live on there.
            if current.first != head.first or count_erased(connection, end) != erased:
                raise AuditError("values were erased, or entries archived, meanwhile", hint="Try again.")
            sessions = [f"{server} {heartbeat_s}" for server, heartbeat_s in read_sessions(connection)]
            details: dict[str, Any] = {"first": head.first, "size": end, "digest": digest, "sessions": sessions}
            details["erased"] = [f"{erasure} {values}" for erasure, values in sorted(source.erased.items())]
            event = log.tell(EventKind.AUDIT_ARCHIVED, actor, details)
            done = append(connection, current, [prepare(event)], server=log.server, now=now)
            delete_before(connection, end)
            kept = source.checkpoint
            assert kept is not None
            keep_checkpoint(connection, size=end, at=read_time(kept.at), text=kept.text, frontier=kept.frontier)
            after = replace(done.head, first=end, first_frontier=kept.frontier, first_prev=source.prev)
            write_head(connection, after)
            signed = sign_head(connection, after, log.signer, now=now)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
    log.wrote(after, 1, signed)
    return Archived(out, head.first, end, digest, current.size)


class _Source:
    """Entries and checkpoints of a log's beginning, in their order, with a checkpoint of its end."""

    def __init__(self, connection: Connection, head: Head, end: int) -> None:
        self._connection, self._head, self._end = connection, head, end
        self.prev = head.first_prev
        self.checkpoint: KeptCheckpoint | None = None
        self.erased: dict[int, int] = {}

    def take_along(self, told: Any) -> None:  # noqa: ANN401 - a detail of an entry
        """Takes how many values of which erasure older archives hold, as the entry that tells of the newest of them has it.

        Of erasures that go into the archive themselves nobody has to know any more.
        """
        for one in told or ():
            erasure, values = map(int, one.split())
            if erasure >= self._end:
                self.erased[erasure] = values

    def items(self, log: AuditLog, now: datetime) -> Iterator[Row | KeptCheckpoint]:
        """Yields them, once."""
        frontier = Frontier.from_bytes(self._head.first_frontier)
        waiting = read_checkpoints(self._connection)
        kept = next(waiting, None)
        for begin in range(self._head.first, self._end, _PAGE):
            for row in read_range(self._connection, begin, min(begin + _PAGE, self._end)):
                leaf = leaf_hash(row.record.encode("ascii"))
                frontier.append(leaf)
                self.prev = leaf.hex()
                for erasure in row.erasures().values():
                    if erasure >= self._end:
                        self.erased[erasure] = self.erased.get(erasure, 0) + 1
                yield row
                while kept is not None and kept.size <= row.seq + 1:
                    if kept.size > self._head.first:
                        yield kept
                    kept = next(waiting, None)
        if frontier.size != self._end:
            raise AuditError(
                "entries are missing", expected=self._end, got=frontier.size, hint="Run: shipsight audit verify"
            )
        signed = sign(log.signer, origin=self._head.origin, size=self._end, root=frontier.root(), at=now)
        self.checkpoint = KeptCheckpoint(0, self._end, write_time(signed.at), signed.text, frontier.to_bytes())
        yield self.checkpoint
