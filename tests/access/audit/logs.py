# SPDX-License-Identifier: Apache-2.0
"""Logs to look at and to attack: a few entries of many kinds, on either kind of database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text

from shipsight.access import Event, EventKind, Outcome
from shipsight.access.audit.checkpoint import Signer, VerifierKey
from shipsight.access.audit.log import AuditLog
from shipsight.access.audit.reading import AuditReader
from shipsight.access.audit.settings import AuditSettings
from shipsight.access.audit.store import LINEAGE
from shipsight.access.audit.verify import Verification, verify
from shipsight.access.store import open_database

BEGAN = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
QUICK = AuditSettings(every=10, seconds=3600.0, late_s=0.0)


@dataclass
class Ticking:
    """A clock that goes on by a second each time somebody looks at it."""

    time: datetime = BEGAN

    def __call__(self) -> datetime:
        self.time += timedelta(seconds=1)
        return self.time


@dataclass
class Place:
    """A log that was closed, and its key.

    Attributes:
        url: where it is.
        key_path: file of its key.
    """

    url: str
    key_path: Path

    @property
    def key(self) -> VerifierKey:
        return Signer.load(self.key_path).key

    def open(self, **options: Any) -> AuditLog:
        return open_log(self.url, self.key_path, **options)

    def verify(self, **options: Any) -> Verification:
        reader = AuditReader.open(self.url)
        try:
            return verify(reader, keys=options.pop("keys", [self.key]), **options)
        finally:
            reader.close()

    def run(self, *statements: str, **values: Any) -> None:
        """Changes the place as somebody does who can write there."""
        database = open_database(self.url, lineage=LINEAGE)
        try:
            with database.write() as connection:
                for one in statements:
                    connection.execute(
                        text(one), {name: one_value for name, one_value in values.items() if f":{name}" in one}
                    )
        finally:
            database.close()

    def rows(self, statement: str) -> list[Any]:
        database = open_database(self.url, lineage=LINEAGE)
        try:
            with database.read() as connection:
                return list(connection.execute(text(statement)))
        finally:
            database.close()


def open_log(url: str, key: Path, **options: Any) -> AuditLog:
    return AuditLog.open(url, key=key, **{"server": "one", "settings": QUICK, "now": Ticking(), **options})


def signed_in(who: str = "ada", **fields: Any) -> Event:
    given = {"factor": "password+totp", "address": "192.0.2.7", "details": {"browser": "Firefox"}, **fields}
    return Event(BEGAN, EventKind.SIGN_IN, Outcome.DONE, f"person:{who}", **given)


def refused(who: str = "ada") -> Event:
    return Event(
        BEGAN,
        EventKind.SIGN_IN,
        Outcome.REFUSED,
        "nobody",
        subject=f"person:{who}",
        why="unauthenticated",
        address="192.0.2.9",
    )


def predicted(number: int = 0) -> Event:
    return Event(
        BEGAN,
        EventKind.PREDICTED,
        Outcome.DONE,
        "key:camera",
        subject="model:digits",
        address="192.0.2.20",
        details={"images": 1, "number": number, "sha256": "5e" * 32},
    )


def fill(log: AuditLog, entries: int) -> None:
    """Adds entries of several kinds, with and without each field."""
    makers: Sequence[Callable[[int], Event]] = (
        lambda i: signed_in(f"user{i}"),
        lambda i: Event(BEGAN, EventKind.ROLE_CHANGED, Outcome.DONE, "person:ada", subject=f"role:{i}"),
        lambda i: Event(BEGAN, EventKind.STARTED, Outcome.DONE, "server:root"),
        lambda i: Event(
            BEGAN, EventKind.USER_ADDED, Outcome.DONE, "person:ada", subject=f"person:u{i}", details={"grants": ["a"]}
        ),
    )
    for number in range(entries):
        log.record(makers[number % len(makers)](number))


def make_log(url: str, key: Path, entries: int = 30, **options: Any) -> Place:
    """Makes a log of some entries that was closed as it should be."""
    with open_log(url, key, **options) as log:
        fill(log, entries)
    return Place(url, key)
