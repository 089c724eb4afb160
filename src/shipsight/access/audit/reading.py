# SPDX-License-Identifier: Apache-2.0
"""The audit log, read: entries by what they say, checkpoints, leaf hashes for proofs. Needs no key, and changes nothing.

Reads page by page, each page as it is at one moment: memory does not grow with the log, and nobody who writes waits.
Leaves to others: whether it is what was written (`verify`). Stable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Self

from shipsight.access.audit.checkpoint import Checkpoint, VerifierKey, open_checkpoint
from shipsight.access.audit.entry import Entry
from shipsight.access.audit.merkle import Frontier, consistency_proof_after, leaf_hash
from shipsight.access.audit.record import read_entry
from shipsight.access.audit.store.rows import (
    Filter,
    Head,
    KeptKey,
    frontier_at,
    newest_checkpoint,
    read_head,
    read_keys,
    read_range,
    select_entries,
)
from shipsight.access.audit.store.tables import LINEAGE
from shipsight.access.events import EventKind, Outcome
from shipsight.access.store import Database, open_database
from shipsight.errors import AuditError, AuditProofError

__all__ = ["AuditReader", "matches_text"]

_PAGE = 500
_LEAVES = 2000


class AuditReader:
    """Reads a log.

    Args:
        database: where it is, open.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, place: str) -> Self:
        """Opens a log to read it.

        Args:
            place: path of SQLite's file, or `postgresql://...`.

        Raises:
            EnvironmentLackError: it is not there, or does not answer, or is of another version.
            UsageError: it is no such place.
        """
        return cls(open_database(place, migrate=False, lineage=LINEAGE))

    @property
    def database(self) -> Database:
        """Where it is."""
        return self._database

    def close(self) -> None:
        """Closes it."""
        self._database.close()

    def head(self) -> Head:
        """Returns where it stands.

        Raises:
            AuditError: nothing was begun here.
        """
        with self._database.read() as connection:
            found = read_head(connection)
        if found is None:
            raise AuditError("there is no audit log here", hint="Start a server with --audit, or name another place.")
        return found

    @property
    def size(self) -> int:
        """Number of all entries, those in archives among them."""
        return self.head().size

    @property
    def last_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint, None where none was signed yet.

        Raises:
            AuditProofError: none of the log's keys has signed it.
        """
        with self._database.read() as connection:
            found = newest_checkpoint(connection)
            known = read_keys(connection)
        return None if found is None else open_checkpoint(found.text, [VerifierKey.parse(one.key) for one in known])

    def kept_keys(self) -> list[KeptKey]:
        """Returns the keys that the log's place names; whoever can write there can write others."""
        with self._database.read() as connection:
            return read_keys(connection)

    # Long in arguments alone: each is one thing to ask for.
    def entries(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        first: int | None = None,
        last: int | None = None,
        kinds: Sequence[EventKind | str] = (),
        outcomes: Sequence[Outcome | str] = (),
        actor: str | None = None,
        subject: str | None = None,
        address: str | None = None,
        text: str | None = None,
        server: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[Entry]:
        """Yields entries that fit all that is given; those in archives are not among them.

        Args:
            since: not before, UTC.
            until: before.
            first: lowest number.
            last: highest number.
            kinds: any of them; all where empty.
            outcomes: likewise.
            actor: who did it, exactly as it is told.
            subject: to whom or what, likewise.
            address: from where.
            text: that stands in any of its texts, in whatever case.
            server: that wrote it.
            newest_first: the order; else oldest first. Order is that of numbers, not of times.
            limit: how many at most.

        Raises:
            EnvironmentLackError: the place does not answer.
            CorruptError: a row is no entry.
        """
        asked = Filter(since, until, first, last, kinds, outcomes, actor, subject, address, server)
        if not newest_first and last is None:
            # What is written meanwhile is left for the next time, so that this ends.
            asked = replace(asked, last=self.size - 1)
        given, after = 0, None
        while limit is None or given < limit:
            with self._database.read() as connection:
                page = select_entries(connection, asked, after=after, newest_first=newest_first, most=_PAGE)
            if not page:
                return
            after = page[-1].seq
            for row in page:
                entry = read_entry(row)
                if text is None or matches_text(entry, text):
                    yield entry
                    given += 1
                    if given == limit:
                        return

    def leaves(self, begin: int, end: int) -> Iterator[bytes]:
        """Yields leaf hashes of entries from a number to another, exclusive."""
        for start in range(begin, end, _LEAVES):
            with self._database.read() as connection:
                rows = read_range(connection, start, min(start + _LEAVES, end))
            for row in rows:
                yield leaf_hash(row.record.encode("ascii"))

    def frontier(self, size: int) -> Frontier:
        """Returns the frontier of the tree over the first entries.

        Raises:
            AuditProofError: it ends among entries that are in an archive, or there are not as many.
        """
        head = self.head()
        if size == head.size:
            return Frontier.from_bytes(head.frontier)
        with self._database.read() as connection:
            kept = frontier_at(connection, size)
        if kept is not None:
            return Frontier.from_bytes(kept)
        if not head.first <= size <= head.size:
            raise AuditProofError("entries are in an archive, or not there", expected=f"{head.first} to {head.size}")
        made = Frontier.from_bytes(head.first_frontier)
        made.extend(self.leaves(head.first, size))
        return made

    def consistency(self, size1: int, size2: int) -> list[bytes]:
        """Returns the proof that the tree of one size is the beginning of that of another; quick where the first has a checkpoint.

        Raises:
            AuditProofError: there is none.
        """
        return consistency_proof_after(self.frontier(size1), self.leaves, size1, size2)


def matches_text(entry: Entry, text: str) -> bool:
    """Whether a text stands in any of an entry's texts, in whatever case."""
    event = entry.event
    wanted = text.casefold()
    told = (event.actor, event.subject, event.address, event.why, event.factor, event.kind.value, entry.server)
    return any(one is not None and wanted in one.casefold() for one in told) or (
        bool(event.details) and wanted in json.dumps(dict(event.details), ensure_ascii=False).casefold()
    )
