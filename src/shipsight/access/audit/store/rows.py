# SPDX-License-Identifier: Apache-2.0
"""Rows of the audit log's tables, read and written within a transaction that the caller has. Private to the room."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import starmap
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, delete, func, insert, select, type_coerce, update
from sqlalchemy.types import NullType

from shipsight.access.audit.merkle import Frontier
from shipsight.access.audit.record import FIELDS, Row, canonical, clean, write_time
from shipsight.access.audit.store.tables import checkpoints, head, keys, records, sessions
from shipsight.access.events import EventKind, Outcome
from shipsight.errors import CorruptError

__all__ = [
    "Filter",
    "Head",
    "KeptCheckpoint",
    "KeptKey",
    "begin_log",
    "count_erased",
    "count_outside",
    "delete_before",
    "end_session",
    "first_since",
    "frontier_at",
    "keep_checkpoint",
    "keep_key",
    "keep_session",
    "newest_checkpoint",
    "read_after",
    "read_cells",
    "read_checkpoints",
    "read_head",
    "read_keys",
    "read_range",
    "read_session",
    "read_sessions",
    "retire_key",
    "row_of",
    "select_entries",
    "write_head",
    "write_rows",
    "write_values",
]


def _raw(column: Column[Any]) -> ColumnElement[Any]:
    """Returns a column as the driver gives it: SQLAlchemy makes bytes of whatever lies in one for bytes, a number of zeros of a number."""
    return type_coerce(column, NullType()).label(column.name)


_COLUMNS = (
    records.c.seq,
    records.c.record,
    records.c.actor,
    records.c.address,
    records.c.details,
    records.c.subject,
    records.c.salts,
    records.c.erased,
    records.c.at,
    records.c.kind,
    records.c.outcome,
    records.c.server,
)
_ALL = select(*map(_raw, _COLUMNS))
_HEAD = select(*map(_raw, head.c))
_CHECKPOINTS = select(*map(_raw, checkpoints.c))
_INSERT = f"INSERT INTO audit_records ({', '.join(one.name for one in _COLUMNS)}) VALUES "  # noqa: S608 - names of columns
_MOST_ROWS = 200
_TEXT = {str}
_TEXT_OR_NONE = {str, type(None)}
_BYTES = (bytes, memoryview)


@dataclass(frozen=True)
class Head:
    """Where a log stands.

    Attributes:
        log: its id, 32 hexadecimal digits.
        first: entry that is here; those before were archived.
        first_frontier: of the tree over those.
        first_prev: leaf hash of the last of those, in hexadecimal.
        size: number of all entries, the archived among them.
        frontier: of the tree over all.
        leaf: leaf hash of the last.
        written: when that was written, empty where there is none.
    """

    log: str
    first: int
    first_frontier: bytes
    first_prev: str
    size: int
    frontier: bytes
    leaf: str
    written: str

    @property
    def origin(self) -> str:
        """How checkpoints name the log."""
        return f"shipsight/{self.log}"


@dataclass(frozen=True)
class KeptCheckpoint:
    """A checkpoint as it is kept, unverified; `frontier` of its size."""

    number: int
    size: int
    at: str
    text: str
    frontier: bytes


@dataclass(frozen=True)
class KeptKey:
    """A key that signs or signed, and the sizes of the log between which it does."""

    key: str
    added: int
    retired: int | None


@dataclass(frozen=True)
class Filter:
    """Which entries are asked for: all that fit everything that is given.

    Attributes:
        since: not before.
        until: before.
        first: lowest number.
        last: highest number.
        kinds: any of them; all where empty.
        outcomes: likewise.
        actor: who did it, as it is told.
        subject: to whom.
        address: from where.
        server: that wrote it.
    """

    since: datetime | None = None
    until: datetime | None = None
    first: int | None = None
    last: int | None = None
    kinds: Sequence[EventKind | str] = ()
    outcomes: Sequence[Outcome | str] = ()
    actor: str | None = None
    subject: str | None = None
    address: str | None = None
    server: str | None = None


def read_head(connection: Connection) -> Head | None:
    """Returns where a log stands, None where there is none yet.

    Raises:
        CorruptError: there are several, or a cell is of another type than its column's.
    """
    rows = connection.execute(_HEAD).all()
    if not rows:
        return None
    if len(rows) > 1:
        raise CorruptError("several logs in one place", got=len(rows))
    row = rows[0]
    if (
        {type(row.log), type(row.first_prev), type(row.leaf), type(row.written)} != _TEXT
        or {type(row.first), type(row.size)} != {int}
        or not isinstance(row.first_frontier, _BYTES)
        or not isinstance(row.frontier, _BYTES)
    ):
        raise CorruptError("where the audit log stands is not what is written there", where="audit_head")
    return Head(
        row.log,
        row.first,
        bytes(row.first_frontier),
        row.first_prev,
        row.size,
        bytes(row.frontier),
        row.leaf,
        row.written,
    )


def begin_log(connection: Connection, log: str, first_prev: str) -> Head:
    """Begins a log without entries."""
    empty = Frontier().to_bytes()
    made = Head(log, 0, empty, first_prev, 0, empty, first_prev, "")
    connection.execute(insert(head).values(id=1, **vars(made)))
    return made


def write_head(connection: Connection, made: Head) -> None:
    """Notes where a log stands."""
    connection.execute(update(head).values(**vars(made)))


def write_rows(connection: Connection, rows: Sequence[Row]) -> None:
    """Adds rows; by the driver itself, since hundreds a second come through here."""
    told = [(row.seq, row.record, *row.values, *row[3:]) for row in rows]
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    group = f"({', '.join([mark] * len(_COLUMNS))})"
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(_INSERT + group, told)
        return
    # One way there and back for many: PostgreSQL's driver would go for each.
    for begin in range(0, len(told), _MOST_ROWS):
        some = told[begin : begin + _MOST_ROWS]
        connection.exec_driver_sql(_INSERT + ", ".join([group] * len(some)), tuple(one for row in some for one in row))


def write_values(connection: Connection, row: Row) -> None:
    """Notes what of a row was erased."""
    told = dict(zip(FIELDS, row.values, strict=True))
    connection.execute(
        update(records).where(records.c.seq == row.seq).values(**told, salts=row.salts, erased=row.erased)
    )


def read_range(connection: Connection, begin: int, end: int) -> list[Row]:
    """Returns rows from a number to another, exclusive; all there are, in order, and each as often as it is there.

    Raises:
        CorruptError: a cell is of another type than its column's.
    """
    asked = _ALL.where(records.c.seq >= begin, records.c.seq < end).order_by(records.c.seq)
    return list(starmap(row_of, connection.execute(asked).all()))


def read_after(connection: Connection, after: int, end: int, most: int) -> list[Row]:
    """Returns the rows that come after a number and before another, as `read_range`, and no more than some.

    Raises:
        CorruptError: a cell is of another type than its column's.
    """
    return list(starmap(row_of, _after(connection, after, end, most)))


def read_cells(connection: Connection, begin: int, end: int, *, page: int) -> Iterator[Sequence[Any]]:
    """Yields rows as `row_of` takes them, whatever is in them: from a number to another, exclusive, few of them at once in memory."""
    # The number that was read last, not one that is counted: it ends, whatever numbers and types somebody wrote there.
    after: Any = begin - 1
    while found := _after(connection, after, end, page):
        yield from found
        after = found[-1][0]


def select_entries(
    connection: Connection, asked: Filter, *, after: int | None, newest_first: bool, most: int
) -> list[Row]:
    """Returns some rows that a filter lets pass.

    Args:
        connection: to read from.
        asked: the filter.
        after: number of the row after which to go on, in the order asked for; None to begin.
        newest_first: the order.
        most: how many at most.
    """
    statement = _filtered(asked)
    seq = records.c.seq
    if after is not None:
        statement = statement.where(seq < after if newest_first else seq > after)
    return [
        row_of(*one)
        for one in connection.execute(statement.order_by(seq.desc() if newest_first else seq.asc()).limit(most))
    ]


def count_outside(connection: Connection, begin: int, end: int) -> int:
    """Returns how many rows there are before a number, and from another on."""
    statement = select(func.count()).select_from(records).where((records.c.seq < begin) | (records.c.seq >= end))
    return int(connection.execute(statement).scalar_one())


def first_since(connection: Connection, since: datetime) -> int | None:
    """Returns the lowest number of an entry of a time or later, None where there is none."""
    statement = select(func.min(records.c.seq)).where(records.c.at >= write_time(since))
    found = connection.execute(statement).scalar()
    return None if found is None else int(found)


def count_erased(connection: Connection, end: int) -> tuple[int, int]:
    """Returns two numbers that change where values of rows before a number are erased."""
    length = func.coalesce(func.sum(func.length(records.c.erased)), 0)
    statement = select(func.count(), length).where(records.c.seq < end, records.c.erased.is_not(None))
    count, total = connection.execute(statement).one()
    return int(count), int(total)


def delete_before(connection: Connection, end: int) -> None:
    """Takes away rows, and checkpoints of sizes, before a number: they are in an archive."""
    connection.execute(delete(records).where(records.c.seq < end))
    connection.execute(delete(checkpoints).where(checkpoints.c.size < end))


def keep_checkpoint(connection: Connection, *, size: int, at: datetime, text: str, frontier: bytes) -> None:
    """Adds a checkpoint, or one of a size that is less than that of others."""
    number = connection.execute(select(func.coalesce(func.max(checkpoints.c.id), 0))).scalar_one()
    connection.execute(
        insert(checkpoints).values(id=int(number) + 1, size=size, at=write_time(at), text=text, frontier=frontier)
    )


def newest_checkpoint(connection: Connection, *, at_most: int | None = None) -> KeptCheckpoint | None:
    """Returns the checkpoint of the largest size, the latest of those; of sizes up to one where that is given."""
    statement = _CHECKPOINTS
    if at_most is not None:
        statement = statement.where(checkpoints.c.size <= at_most)
    found = connection.execute(statement.order_by(checkpoints.c.size.desc(), checkpoints.c.id.desc()).limit(1)).first()
    return None if found is None else _checkpoint(*found)


def frontier_at(connection: Connection, size: int) -> bytes | None:
    """Returns the frontier that was kept with a checkpoint of a size, None where there is no such checkpoint."""
    found = connection.execute(select(_raw(checkpoints.c.frontier)).where(checkpoints.c.size == size).limit(1)).scalar()
    return bytes(found) if isinstance(found, _BYTES) else None


def read_checkpoints(
    connection: Connection, *, page: int = 500, damaged: Callable[[CorruptError], None] | None = None
) -> Iterator[KeptCheckpoint]:
    """Yields all checkpoints, smallest first, few of them at once in memory.

    Args:
        connection: to read from.
        page: how many at once.
        damaged: is told of those that cannot be read, which are then passed over; None raises.

    Raises:
        CorruptError: a cell is of another type than its column's.
    """
    first = _CHECKPOINTS.order_by(checkpoints.c.size, checkpoints.c.id).limit(page)
    statement = first
    while True:
        found = connection.execute(statement).all()
        if not found:
            return
        for one in found:
            try:
                yield _checkpoint(*one)
            except CorruptError as error:
                if damaged is None:
                    raise
                damaged(error)
        size, number = found[-1].size, found[-1].id
        statement = first.where(
            (checkpoints.c.size > size) | ((checkpoints.c.size == size) & (checkpoints.c.id > number))
        )


def read_keys(connection: Connection) -> list[KeptKey]:
    """Returns all keys, in the order in which they began to sign."""
    return [KeptKey(*row) for row in connection.execute(select(keys).order_by(keys.c.added, keys.c.key))]


def keep_key(connection: Connection, key: str, added: int) -> None:
    """Adds a key that signs from a size of the log on."""
    connection.execute(insert(keys).values(key=key, added=added, retired=None))


def retire_key(connection: Connection, key: str, retired: int) -> None:
    """Notes that a key signs no more beyond a size of the log."""
    connection.execute(update(keys).where(keys.c.key == key).values(retired=retired))


def read_session(connection: Connection, server: str) -> tuple[str, str] | None:
    """Returns the session of a server that has not ended, and when it began."""
    found = connection.execute(
        select(sessions.c.session, sessions.c.began).where(sessions.c.server == clean(server))
    ).first()
    return None if found is None else (found[0], found[1])


def read_sessions(connection: Connection) -> list[tuple[str, str]]:
    """Returns the servers whose session has not ended, each with the seconds between its checkpoints at least."""
    statement = select(sessions.c.server, sessions.c.heartbeat_s).order_by(sessions.c.server)
    return [(row[0], row[1]) for row in connection.execute(statement)]


def keep_session(connection: Connection, server: str, session: str, *, began: datetime, heartbeat_s: float) -> None:
    """Notes that a server began a session, in place of one that did not end."""
    connection.execute(delete(sessions).where(sessions.c.server == clean(server)))
    row = {"session": session, "began": write_time(began), "heartbeat_s": repr(heartbeat_s)}
    connection.execute(insert(sessions).values(server=clean(server), **row))


def end_session(connection: Connection, server: str, session: str) -> None:
    """Notes that a session has ended; where another has begun since, that one goes on."""
    connection.execute(delete(sessions).where(sessions.c.server == clean(server), sessions.c.session == session))


# Long, since each field of a filter is one condition.
def _filtered(asked: Filter) -> Select[Any]:
    statement = _ALL
    columns = records.c
    if asked.since is not None:
        statement = statement.where(columns.at >= write_time(asked.since))
    if asked.until is not None:
        statement = statement.where(columns.at < write_time(asked.until))
    if asked.first is not None:
        statement = statement.where(columns.seq >= asked.first)
    if asked.last is not None:
        statement = statement.where(columns.seq <= asked.last)
    if asked.kinds:
        statement = statement.where(columns.kind.in_([str(one) for one in asked.kinds]))
    if asked.outcomes:
        statement = statement.where(columns.outcome.in_([str(one) for one in asked.outcomes]))
    for name in ("actor", "subject", "address"):
        value = getattr(asked, name)
        if value is not None:
            statement = statement.where(columns[name] == canonical(clean(value)))
    if asked.server is not None:
        statement = statement.where(columns.server == canonical(clean(asked.server)))
    return statement


def _after(connection: Connection, after: int, end: int, most: int) -> Sequence[Sequence[Any]]:
    asked = _ALL.where(records.c.seq > after, records.c.seq < end).order_by(records.c.seq).limit(most)
    return connection.execute(asked).all()


# Long, with one argument a column: unpacked once, since a million rows come through here.
def row_of(
    seq: int,
    record: str,
    actor: str | None,
    address: str | None,
    details: str | None,
    subject: str | None,
    salts: bytes,
    erased: str | None,
    at: str,
    kind: str,
    outcome: str,
    server: str,
) -> Row:
    """Returns a row of its cells.

    Raises:
        CorruptError: one is of another type than its column's: SQLite takes what it is given.
    """
    if (
        type(seq) is not int
        or {type(record), type(at), type(kind), type(outcome), type(server)} != _TEXT
        or not {type(actor), type(address), type(details), type(subject), type(erased)} <= _TEXT_OR_NONE
        or not isinstance(salts, _BYTES)
    ):
        raise CorruptError("a cell of the audit log is of another type than its column's", where=f"entry {seq!r:.40}")
    return Row(seq, record, (actor, address, details, subject), bytes(salts), erased, at, kind, outcome, server)


def _checkpoint(number: int, size: int, at: str, text: str, frontier: bytes) -> KeptCheckpoint:
    if {type(number), type(size)} != {int} or {type(at), type(text)} != _TEXT or not isinstance(frontier, _BYTES):
        raise CorruptError("a checkpoint is not what is written there", where=f"checkpoint {number!r:.40}")
    return KeptCheckpoint(number, size, at, text, bytes(frontier))
