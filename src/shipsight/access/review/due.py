# SPDX-License-Identifier: Apache-2.0
"""How far the log was reviewed and signed off, and whether the next review is overdue. Pure. Stable.

What counts is what was signed off without a gap: a review of yesterday alone does not make up for a week that nobody looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from shipsight.access.audit import Entry
from shipsight.access.events import Event, EventKind
from shipsight.access.review.settings import ReviewSettings

__all__ = ["Due", "ReadLog", "ReviewedLog", "due", "overdue_s"]


class ReadLog(Protocol):
    """What finding out when a review is due needs of the audit log (`audit.reading.AuditReader`)."""

    @property
    def size(self) -> int:
        """Entries that there ever were."""

    def entries(
        self,
        *,
        first: int | None = None,
        last: int | None = None,
        since: datetime | None = None,
        kinds: tuple[EventKind, ...] = (),
        limit: int | None = None,
    ) -> Iterator[Entry]:
        """Yields entries that fit, in order."""


class ReviewedLog(ReadLog, Protocol):
    """What a review needs of it (`audit.log.AuditLog`)."""

    def record(self, event: Event) -> None:
        """Keeps an event, or raises."""


@dataclass(frozen=True)
class Due:
    """When the next review is due.

    Attributes:
        next_seq: first entry that was not signed off; all before were.
        reviewed_until: time up to which all was, UTC; None where nothing was.
        due_at: when somebody should review, UTC; None for a log without entries.
        overdue_s: seconds since it is overdue, 0 where it is not.
    """

    next_seq: int
    reviewed_until: datetime | None
    due_at: datetime | None
    overdue_s: float

    @property
    def is_overdue(self) -> bool:
        """Whether nobody reviewed for too long."""
        return self.overdue_s > 0


def due(log: ReadLog, now: datetime, settings: ReviewSettings | None = None) -> Due:
    """Returns when the next review is due.

    Args:
        log: that is reviewed.
        now: UTC.
        settings: how often; those that there are by default for None.
    """
    settings = settings or ReviewSettings()
    oldest = next(iter(log.entries(limit=1)), None)
    if oldest is None:
        return Due(0, None, None, 0.0)
    # What is in archives is not reviewed any more.
    reached, until = oldest.seq, None
    # Ordered by where they begin: a later one may fill what an earlier one left out.
    for first, after, at in sorted(_signed(log)):
        if first <= reached < after:
            reached, until = after, at if until is None else max(at, until)
    begin = oldest.event.at if until is None else until
    due_at = begin + timedelta(days=settings.interval_days)
    late = (now - due_at - timedelta(days=settings.grace_days)).total_seconds()
    return Due(reached, until, due_at, max(late, 0.0))


def overdue_s(log: ReadLog, now: datetime, settings: ReviewSettings | None = None) -> float:
    """Returns for how many seconds the next review is overdue, 0 where it is not: for a metric."""
    return due(log, now, settings).overdue_s


def _signed(log: ReadLog) -> Iterator[tuple[int, int, datetime]]:
    for entry in log.entries(kinds=(EventKind.REVIEW_SIGNED,)):
        told: dict[str, Any] = dict(entry.event.details)
        # One whose texts were erased names nobody's acts any more, nor how far it went.
        if isinstance(told.get("first_seq"), int) and isinstance(told.get("next_seq"), int):
            yield told["first_seq"], told["next_seq"], datetime.fromisoformat(str(told["until"]))
