# SPDX-License-Identifier: Apache-2.0
"""A real log in SQLite, with a clock of the test's own, and reviews of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shipsight.access import Event, EventKind, Outcome
from shipsight.access.audit.log import AuditLog
from shipsight.access.review.store import ReviewStore


class Clock:
    """Tells the time that a test sets."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def pass_(self, **span: float) -> None:
        self.time += timedelta(**span)


class Reviewed:
    """A log, its reviews, and the clock of both."""

    def __init__(self, log: AuditLog, folder: Path, clock: Clock) -> None:
        self.log, self.clock, self.folder = log, clock, folder
        self.store = ReviewStore(log, folder, signer=log.signer, origin=log.origin, now=clock)

    def tell(self, kind: EventKind, actor: str, *, subject: str | None = None, **details: object) -> None:
        event = Event(self.clock(), kind, Outcome.DONE, actor, subject=subject, details=details)  # type: ignore[arg-type]
        self.log.record(event)


@pytest.fixture
def reviewed(tmp_path: Path) -> Iterator[Reviewed]:
    clock = Clock()
    with AuditLog.open(
        str(tmp_path / "access.audit.db"), key=tmp_path / "access.audit.key", server="vision-1", now=clock
    ) as log:
        yield Reviewed(log, tmp_path / "access.audit.reviews", clock)
