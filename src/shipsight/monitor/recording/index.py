# SPDX-License-Identifier: Apache-2.0
"""The index of a store: what is told of recordings without opening them, policies, counts, erasures. No content, and nobody's name or tag.

May be copied: what it tells of an erased recording is when it was made, by which model and why. Leaves to others: keys (`keys`), files
(`store`). Private to the room but for its values.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from shipsight.errors import CorruptError, UsageError
from shipsight.monitor.recording._sqlite import make_database, reading, writing
from shipsight.monitor.recording.policy import Policy
from shipsight.monitor.recording.record import Label, read_time, write_time

__all__ = ["Entry", "Index", "KeptErasure"]

_SCHEMA = """
CREATE TABLE recordings (id TEXT PRIMARY KEY, at INTEGER NOT NULL, day TEXT NOT NULL, model TEXT NOT NULL, label TEXT NOT NULL,
  size INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX recordings_at ON recordings (at);
CREATE TABLE policies (digest TEXT PRIMARY KEY, since INTEGER NOT NULL, told TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE counts (day TEXT NOT NULL, class TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (day, class)) WITHOUT ROWID;
CREATE TABLE erasures (id TEXT PRIMARY KEY, what TEXT NOT NULL, asked_at INTEGER NOT NULL, asked_by TEXT NOT NULL, records INTEGER NOT NULL,
  days TEXT NOT NULL, digest TEXT NOT NULL, pending TEXT, done_at INTEGER) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Entry:
    """A recording in the index.

    Attributes:
        label: what is told of it.
        size: bytes of its file.
    """

    label: Label
    size: int


@dataclass(frozen=True)
class KeptErasure:
    """An erasure, its receipt: it names no recording and nobody.

    Attributes:
        id: of it.
        what: `subject`, `day`, `recordings` or `expired`.
        asked_at: when, UTC.
        asked_by: who, as `Principal.told` says it.
        records: how many recordings.
        days: of these.
        digest: SHA-256 over their ids in order, a line each, in hexadecimal.
        done_at: when their keys and files were gone, None while it is pending.
    """

    id: str
    what: str
    asked_at: datetime
    asked_by: str
    records: int
    days: tuple[str, ...]
    digest: str
    done_at: datetime | None


class Index:
    """The index of a store.

    Args:
        path: of the database, made where there is none.

    Raises:
        EnvironmentLackError, CorruptError, UnsupportedError: it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        make_database(path, _SCHEMA, version=1)

    # --- recordings

    def add(self, entries: Sequence[Entry], found: Iterable[tuple[str, str]] = ()) -> None:
        """Keeps entries, all or none.

        Args:
            entries: to keep; one of an id that is there stands in for it.
            found: day and class for each class that was found in each, with an empty class for each recording itself; they are counted.
        """
        with writing(self.path) as connection:
            rows = [_row(one) for one in entries]
            connection.executemany("INSERT OR REPLACE INTO recordings VALUES (?, ?, ?, ?, ?, ?)", rows)
            connection.executemany(
                "INSERT INTO counts VALUES (?, ?, 1) ON CONFLICT (day, class) DO UPDATE SET count = count + 1", found
            )

    def get(self, name: str) -> Entry | None:
        """Returns an entry, None where there is none."""
        with reading(self.path) as connection:
            row = connection.execute("SELECT label, size FROM recordings WHERE id = ?", (name,)).fetchone()
        return None if row is None else _entry(row)

    def entries(
        self, *, since: datetime | None = None, until: datetime | None = None, model: str | None = None
    ) -> list[Entry]:
        """Returns entries, oldest first.

        Args:
            since: not before.
            until: before.
            model: of this one.
        """
        wanted: list[str] = ["1"]
        values: list[object] = []
        for clause, value in (
            ("at >= ?", None if since is None else write_time(since)),
            ("at < ?", None if until is None else write_time(until)),
            ("model = ?", model),
        ):
            if value is not None:
                wanted.append(clause)
                values.append(value)
        asked = f"SELECT label, size FROM recordings WHERE {' AND '.join(wanted)} ORDER BY at, id"  # noqa: S608 - clauses of ours alone
        with reading(self.path) as connection:
            return [_entry(row) for row in connection.execute(asked, values)]

    def total_bytes(self) -> int:
        """Returns the bytes of all files."""
        with reading(self.path) as connection:
            return int(connection.execute("SELECT COALESCE(SUM(size), 0) FROM recordings").fetchone()[0])

    def extent(self) -> tuple[int, datetime | None]:
        """Returns the bytes of all files, and when the oldest recording was answered, None where there is none."""
        with reading(self.path) as connection:
            size, oldest = connection.execute("SELECT COALESCE(SUM(size), 0), MIN(at) FROM recordings").fetchone()
        return int(size), None if oldest is None else read_time(oldest)

    def counts(self, day: str) -> dict[str, int]:
        """Returns how many were recorded on a day by class, under the empty name all; those that are erased since count."""
        with reading(self.path) as connection:
            return dict(connection.execute("SELECT class, count FROM counts WHERE day = ?", (day,)).fetchall())

    def remove(self, names: Iterable[str]) -> None:
        """Removes entries."""
        with writing(self.path) as connection:
            _remove(connection, names)

    def forget_counts(self, before_day: str) -> None:
        """Forgets what was counted on days before one."""
        with writing(self.path) as connection:
            connection.execute("DELETE FROM counts WHERE day < ?", (before_day,))

    # --- policies

    def follow(self, policy: Policy, now: datetime) -> bool:
        """Keeps a policy as the one that holds from now on; tells whether another did."""
        current = self.policy()
        if current is not None and current.digest == policy.digest:
            return False
        with writing(self.path) as connection:
            # After all others, also where the clock was set back: the newest is the one that holds.
            newest = connection.execute("SELECT COALESCE(MAX(since), -1) FROM policies").fetchone()[0]
            connection.execute(
                "INSERT OR REPLACE INTO policies VALUES (?, ?, ?)",
                (policy.digest, max(write_time(now), newest + 1), json.dumps(policy.to_dict(), ensure_ascii=False)),
            )
        return True

    def policy(self, digest: str | None = None) -> Policy | None:
        """Returns a policy that held once; without a digest the one that holds."""
        asked = "SELECT told FROM policies WHERE digest = ?" if digest else "SELECT told FROM policies"
        with reading(self.path) as connection:
            row = connection.execute(
                f"{asked} ORDER BY since DESC, digest LIMIT 1", (digest,) if digest else ()
            ).fetchone()
        return None if row is None else _policy(row[0])

    def policies(self) -> list[tuple[datetime, Policy]]:
        """Returns all that held, and since when, oldest first."""
        with reading(self.path) as connection:
            rows = connection.execute("SELECT since, told FROM policies ORDER BY since").fetchall()
        return [(read_time(since), _policy(told)) for since, told in rows]

    def keep_policies(self, policies: Iterable[tuple[datetime, Policy]]) -> None:
        """Keeps policies that held once, and since when, where they are not known."""
        rows = [(one.digest, write_time(at), json.dumps(one.to_dict(), ensure_ascii=False)) for at, one in policies]
        with writing(self.path) as connection:
            connection.executemany("INSERT OR IGNORE INTO policies VALUES (?, ?, ?)", rows)

    # --- erasures

    def begin_erasure(self, one: KeptErasure, names: Sequence[str]) -> None:
        """Notes that recordings are to be erased, so that a process that ends in the middle forgets none."""
        with writing(self.path) as connection:
            connection.execute(
                "INSERT INTO erasures VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
                (
                    one.id,
                    one.what,
                    write_time(one.asked_at),
                    one.asked_by,
                    one.records,
                    json.dumps(one.days),
                    one.digest,
                    json.dumps(list(names)),
                ),
            )

    def end_erasure(self, name: str, names: Iterable[str], now: datetime) -> None:
        """Removes the entries of an erasure, and the list of them."""
        with writing(self.path) as connection:
            _remove(connection, names)
            connection.execute(
                "UPDATE erasures SET pending = NULL, done_at = ? WHERE id = ? AND done_at IS NULL",
                (write_time(now), name),
            )

    def pending(self) -> list[tuple[str, list[str]]]:
        """Returns erasures that did not end, each with its recordings."""
        with reading(self.path) as connection:
            rows = connection.execute("SELECT id, pending FROM erasures WHERE pending IS NOT NULL").fetchall()
        return [(name, json.loads(told)) for name, told in rows]

    def erasures(self) -> list[KeptErasure]:
        """Returns all, oldest first."""
        asked = (
            "SELECT id, what, asked_at, asked_by, records, days, digest, done_at FROM erasures ORDER BY asked_at, id"
        )
        with reading(self.path) as connection:
            rows = connection.execute(asked).fetchall()
        return [
            KeptErasure(
                name,
                what,
                read_time(at),
                by,
                records,
                tuple(json.loads(days)),
                digest,
                None if done_at is None else read_time(done_at),
            )
            for name, what, at, by, records, days, digest, done_at in rows
        ]


def _row(one: Entry) -> tuple[str, int, str, str, str, int]:
    label = one.label
    told = json.dumps(label.to_dict(), ensure_ascii=False)
    return label.id, write_time(label.at), label.day, label.model, told, one.size


def _entry(row: tuple[str, int]) -> Entry:
    try:
        return Entry(Label.from_dict(json.loads(row[0])), int(row[1]))
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError("not an entry of an index of recordings", got=str(row[0])[:120]) from error


def _policy(told: str) -> Policy:
    try:
        return Policy.from_dict(json.loads(told), where="index")
    except (ValueError, UsageError) as error:
        raise CorruptError("not a policy of an index of recordings", got=told[:120]) from error


def _remove(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    connection.executemany("DELETE FROM recordings WHERE id = ?", [(one,) for one in names])
