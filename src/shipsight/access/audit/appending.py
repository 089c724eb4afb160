# SPDX-License-Identifier: Apache-2.0
"""Entries are added to a log, and its checkpoints signed, within a transaction that nobody else writes in. Private to the room.

Invariants: numbers have no gaps; each record names the hash of the one before; the frontier that is kept is the tree's over all.
A server's clock may go back: the number counts, and the record says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from shipsight.access.audit.checkpoint import Checkpoint, Signer, sign
from shipsight.access.audit.merkle import Frontier, leaf_hash
from shipsight.access.audit.record import Prepared, Row, canonical, clean, read_time, write_time
from shipsight.access.audit.store.rows import Head, keep_checkpoint, write_head, write_rows

__all__ = ["Appended", "append", "sign_head"]

_SLACK = timedelta(seconds=2)  # that clocks of servers that write to one log may differ by


@dataclass(frozen=True)
class Appended:
    """Where the log stands after entries were added, and their rows."""

    head: Head
    rows: tuple[Row, ...]


def append(connection: Connection, head: Head, prepared: Sequence[Prepared], *, server: str, now: datetime) -> Appended:
    """Adds entries.

    Args:
        connection: in a transaction that writes.
        head: as it was read in the same.
        prepared: the events, in the order in which they come.
        server: that writes them.
        now: by its clock, UTC.
    """
    if not prepared:
        return Appended(head, ())
    frontier, prev, seq = Frontier.from_bytes(head.frontier), head.leaf, head.size
    written, told = write_time(now), canonical(clean(server))
    # The first alone: the others come at the same time.
    is_back = bool(head.written) and now < read_time(head.written) - _SLACK
    rows = []
    for one in prepared:
        text = one.write(seq=seq, log=head.log, prev=prev, server=told, written=written, is_back=is_back)
        leaf = leaf_hash(text.encode("ascii"))
        frontier.append(leaf)
        rows.append(Row(seq, text, one.values, one.salts, None, one.at, one.kind, one.outcome, told))
        prev, seq, is_back = leaf.hex(), seq + 1, False
    write_rows(connection, rows)
    after = replace(head, size=seq, frontier=frontier.to_bytes(), leaf=prev, written=written)
    write_head(connection, after)
    return Appended(after, tuple(rows))


def sign_head(
    connection: Connection, head: Head, signer: Signer, *, now: datetime, also: Sequence[Signer] = ()
) -> Checkpoint:
    """Signs and keeps a checkpoint of where the log stands.

    Args:
        connection: in the transaction that the head was read or written in.
        head: where it stands.
        signer: of the log.
        now: UTC.
        also: others that sign.
    """
    root = Frontier.from_bytes(head.frontier).root()
    made = sign(signer, origin=head.origin, size=head.size, root=root, at=now, also=also)
    keep_checkpoint(connection, size=head.size, at=now, text=made.text, frontier=head.frontier)
    return made
