# SPDX-License-Identifier: Apache-2.0
"""Entries as tests write them: who did what when, in order, with a past in which nothing stands out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from shipsight.access import Event, EventKind, Outcome
from shipsight.access.audit import Entry
from shipsight.access.review import Finding, Reviewed, review

BEGIN = datetime(2026, 3, 2, 0, 0, tzinfo=UTC)  # a Monday
OFFICE, HOME, RACK, ELSEWHERE = "198.51.100.7", "192.0.2.20", "100.64.7.9", "203.0.113.66"
PAST_DAYS = 60


class Stream:
    """Collects events; `found` reviews what was told after `now_begins`."""

    def __init__(self, *, past_days: int = PAST_DAYS) -> None:
        self.told: list[tuple[datetime, str, Event]] = []
        self.first_at: datetime | None = None
        self.past_days = past_days

    def tell(
        self,
        at: datetime,
        kind: EventKind,
        actor: str,
        *,
        subject: str | None = None,
        why: str | None = None,
        factor: str | None = None,
        address: str | None = None,
        server: str = "vision-1",
        **details: object,
    ) -> None:
        outcome = Outcome.DONE if why is None or kind is EventKind.EXTRACTION_SUSPECTED else Outcome.REFUSED
        event = Event(at, kind, outcome, actor, subject, why, factor, address, details)  # type: ignore[arg-type]
        self.told.append((at, server, event))

    def at(self, day: float, hour: float = 0.0) -> datetime:
        """A moment of the period, which begins after the past; days of the past are below 0."""
        return BEGIN + timedelta(days=self.past_days + day, hours=hour)

    def fail(self, at: datetime, who: str, address: str = ELSEWHERE) -> None:
        self.tell(at, EventKind.SIGN_IN, who, why="authentication", factor="password", address=address)

    def sign_in(self, at: datetime, who: str, address: str = OFFICE, factor: str = "password+totp") -> None:
        self.tell(at, EventKind.SIGN_IN, who, factor=factor, address=address)

    def use(self, at: datetime, key: str, address: str = RACK) -> None:
        self.tell(at, EventKind.KEY_USED, f"key:job.{key}", subject=f"key:{key}", address=address)

    def with_usual_past(
        self, *, people: Iterable[str] = ("ada", "ben", "cara", "dan"), keys: Iterable[str] = ()
    ) -> Stream:
        """Weekdays from nine to five for all, from the office; keys by the hour; ada and fay administer now and then."""
        for day in range(-self.past_days, 0):
            if self.at(day).weekday() < 5:
                for name in people:
                    for hour in (8, 11, 15):
                        self.sign_in(self.at(day, hour), f"person:{name}")
                if day % 6 == 0:
                    self.tell(
                        self.at(day, 10), EventKind.INVITED, "person:ada", subject=f"person:new{day}", address=OFFICE
                    )
            for key in keys:
                for hour in range(24):
                    self.use(self.at(day, hour), key)
        return self

    def entries(self) -> list[Entry]:
        told = sorted(self.told, key=lambda one: one[0])
        return [Entry(seq, server, event) for seq, (_, server, event) in enumerate(told)]

    def reviewed(self, *, days: float = 7) -> Reviewed:
        entries = self.entries()
        first = next((one.seq for one in entries if one.event.at >= self.at(0)), len(entries))
        return review(entries, first_seq=first, until=self.at(days))

    def found(self, rule: str, *, days: float = 7) -> list[Finding]:
        """Findings of one rule, without notes."""
        return [one for one in self.reviewed(days=days).findings if one.rule == rule]

    def noted(self, rule: str) -> list[Finding]:
        return [one for one in self.reviewed().notes if one.rule == rule]
