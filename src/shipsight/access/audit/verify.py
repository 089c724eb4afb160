# SPDX-License-Identifier: Apache-2.0
"""The audit log, verified: every entry, every value beside it, every checkpoint; as a stream, in memory that does not grow.

What lies in the log alone shows changes, gaps and other orders. That its end was cut off, or that all of it was written anew by
somebody who has the key, is shown only by a checkpoint that lay elsewhere (`checkpoints`); and what no checkpoint covers is
not called verified. Leaves to others: what the entries mean. Stable.
Sources: RFC 6962, 2.1; C2SP tlog-checkpoint; described for strangers in `docs/formats/audit-log.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import DatabaseError, OperationalError

from shipsight.access.audit.archive import ArchiveHead, ArchiveReader
from shipsight.access.audit.checkpoint import Checkpoint, VerifierKey
from shipsight.access.audit.reading import AuditReader
from shipsight.access.audit.record import Row
from shipsight.access.audit.store.rows import (
    Head,
    KeptCheckpoint,
    count_outside,
    read_cells,
    read_checkpoints,
    read_head,
    read_keys,
    row_of,
)
from shipsight.access.audit.verification import Finding, Status, Verification
from shipsight.access.audit.walking import Walk
from shipsight.errors import AuditError, AuditProofError, CorruptError, EnvironmentLackError

if TYPE_CHECKING:
    from shipsight.access.backup import BackupLock

__all__ = ["Finding", "Status", "Verification", "verify"]

_PAGE = 2000
_FRESH = 2.0  # heartbeats of a server after which a checkpoint is too old


# Long in arguments alone: what to verify, and what to verify it with.
def verify(
    reader: AuditReader | None,
    *,
    keys: Sequence[VerifierKey],
    archives: Sequence[Path] = (),
    checkpoints: Iterable[str] = (),
    lock: BackupLock | None = None,
    signed: Checkpoint | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    told: Callable[[int, int], None] = lambda done, size: None,
) -> Verification:
    """Verifies a log, archives of it, or both together.

    Args:
        reader: of the log; None for archives alone.
        keys: that are trusted, of the log and of witnesses; keys that these have endorsed are, too.
        archives: files, in any order.
        checkpoints: that lay elsewhere: notes as a witness or a file has them.
        lock: what opens archives that are encrypted.
        signed: checkpoint that was signed for this, so that all entries lie under one; it does not show that servers live.
        now: tells the time.
        told: is told how many entries were read, and of how many, now and then.

    Raises:
        EnvironmentLackError: a place does not answer.
        AuditError: nothing was begun there.
        UsageError: an archive is not opened by this, or there is nothing to verify.
    """
    result = Verification()
    walk = Walk(result, keys, signed=None if signed is None else signed.text)
    walk.take_outside(checkpoints)
    opened = sorted((ArchiveReader(path, lock=lock) for path in archives), key=lambda one: one.head.first)
    try:
        if reader is not None:
            with reader.database.read() as connection:
                walk.know_keys([one.key for one in read_keys(connection)])
        for one in opened:
            _verify_archive(walk, one, told)
        if reader is not None:
            _verify_place(walk, reader, told, now())
    except (DatabaseError, EnvironmentLackError) as error:
        damage = error if isinstance(error, DatabaseError) else error.__cause__
        if not _is_damage(damage):
            raise
        what = str(getattr(damage, "orig", damage)).splitlines()[0][:200]
        walk.result.find("file-damaged", walk.size, f"what is kept from here on cannot be read: {what}")
    walk.end(is_whole_log=reader is not None)
    return result


def _is_damage(error: BaseException | None) -> bool:
    """Whether a database cannot be read, rather than not asked: SQLite calls text that is none an error of its operation."""
    if isinstance(error, OperationalError):
        return "decode" in str(error.orig)
    return isinstance(error, DatabaseError)


def _verify_archive(walk: Walk, archive: ArchiveReader, told: Callable[[int, int], None]) -> None:
    head: ArchiveHead = archive.head
    walk.begin(head.origin, head.first, head.frontier, head.prev, name=str(archive.path))
    size = head.first
    try:
        for item in archive.items(None):
            if isinstance(item, Row):
                walk.row(item)
                size += 1
                if size % _PAGE == 0:
                    told(size, head.end)
            else:
                walk.checkpoint(item)
    except (CorruptError, AuditProofError) as error:
        walk.result.find("archive-changed", None, str(error))
    if archive.seal is not None:
        walk.seal(archive.seal)
    walk.end_part(head.end, archive.end_frontier, None, name=str(archive.path))
    walk.result.archives.append({"file": str(archive.path), "first": head.first, "size": head.end})


def _verify_place(walk: Walk, reader: AuditReader, told: Callable[[int, int], None], now: datetime) -> None:
    # One transaction: all of it as it was at one moment, whoever writes meanwhile.
    with reader.database.read() as connection:
        try:
            head = read_head(connection)
        except CorruptError as error:
            walk.result.find("head-changed", None, str(error))
            return
        if head is None:
            raise AuditError("there is no audit log here")
        walk.begin(head.origin, head.first, head.first_frontier, head.first_prev, name="the log")
        found = read_checkpoints(
            connection, damaged=lambda error: walk.result.find("checkpoint-changed", None, str(error))
        )
        waiting = _Merged(found)
        for one in waiting.up_to(head.first):
            walk.checkpoint(one)
        for cells in read_cells(connection, head.first, head.size, page=_PAGE):
            try:
                walk.row(row_of(*cells))
            except CorruptError as error:
                walk.damaged(cells[0], error)
            for one in waiting.up_to(walk.size):
                walk.checkpoint(one)
            if walk.size % _PAGE == 0:
                told(walk.size, head.size)
        told(walk.size, head.size)
        for one in waiting.rest():
            walk.checkpoint(one)
        outside = count_outside(connection, head.first, head.size)
        if outside:
            walk.result.find("record-outside", None, f"{outside} records lie before the first entry, or after the last")
    walk.end_part(head.size, head.frontier, head.leaf, name="the log")
    _look_at_end(walk, head, now)


def _look_at_end(walk: Walk, head: Head, now: datetime) -> None:
    """Finds a log that ends at a checkpoint though its server did not say that it stopped."""
    at = walk.lived_at
    if walk.size > walk.result.covered or at is None:
        return
    for server, heartbeat_s in sorted(walk.sessions.items()):
        if now - at > timedelta(seconds=_FRESH * heartbeat_s):
            walk.result.tail = (
                f"server {server} has not said that it stopped, and the newest checkpoint is of {at:%Y-%m-%d %H:%M:%S} UTC: "
                "what it wrote since then may have been cut off"
            )
            return


class _Merged:
    """Checkpoints, given out as the size they are of is reached."""

    def __init__(self, found: Iterator[KeptCheckpoint]) -> None:
        self._found = found
        self._next = next(found, None)

    def up_to(self, size: int) -> Iterator[KeptCheckpoint]:
        """Yields those of sizes up to one."""
        while self._next is not None and self._next.size <= size:
            given, self._next = self._next, next(self._found, None)
            yield given

    def rest(self) -> Iterator[KeptCheckpoint]:
        """Yields all that are left."""
        if self._next is not None:
            yield self._next
        yield from self._found
        self._next = None
