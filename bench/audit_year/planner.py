# SPDX-License-Identifier: Apache-2.0
"""What incidents are made of: entries that are added, changed or kept from being written, and who is there to do it to."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta

from audit_year.life import Life
from audit_year.organisation import BEGIN, Key, Person
from audit_year.people import Told
from shipsight.access.events import Event, EventKind, Outcome


@dataclass
class Incident:
    kind: str
    strength: int
    week: int
    entries: list[Told] = field(default_factory=list)
    mute: tuple[str, datetime, datetime] | None = None  # a server whose entries do not arrive
    back: tuple[str, datetime, timedelta, timedelta] | None = None  # server, from when, for how long, how far back
    missing: tuple[datetime, int] | None = None  # when, how many entries were taken away
    skips: int = 0  # reviews that nobody makes
    seqs: set[int] = field(default_factory=set)


class NotHereError(Exception):
    """The organisation has nobody, or nothing, that this could happen to."""


class Planner:
    """Makes incidents that fit who is there when they begin."""

    def __init__(self, life: Life, rng: random.Random, kinds: Mapping[str, Callable[[Planner, int], None]]) -> None:
        self._kinds = kinds
        self.life, self.org, self.rng = life, life.org, rng
        self.made: Incident | None = None

    def make(self, kind: str, strength: int, week: int) -> Incident:
        self.made = Incident(kind, strength, week)
        self.day = BEGIN + timedelta(weeks=week, days=self.rng.randrange(0, 4))
        self._kinds[kind](self, strength)
        return self.made

    # What incidents are made of

    def tell(
        self, at: datetime, kind: EventKind, actor: str, *, refused: str | None = None, subject: str | None = None,
        factor: str | None = None, address: str | None = None, server: str | None = None, **details: object,
    ) -> None:  # fmt: skip
        outcome = Outcome.DONE if refused is None else Outcome.REFUSED
        event = Event(
            at, kind, outcome, actor, subject=subject, why=refused, factor=factor, address=address, details=details
        )  # type: ignore[arg-type]
        assert self.made is not None
        self.made.entries.append((at, server or self.rng.choice(self.org.servers), event))

    def person(self, *roles: str, old: bool = True) -> Person:
        """Somebody at work this week whom no other incident has, and who has been here for some time."""
        found = [
            one for one in self.org.there(roles, self.day, free=True)
            if not any(self.day + timedelta(days=days) in one.away for days in range(-2, 5))
            and (not old or (self.day - one.first_day).days >= min(60, (self.day - BEGIN).days))
        ]  # fmt: skip
        if not found:
            raise NotHereError
        chosen = self.rng.choice(found)
        chosen.taken = True
        return chosen

    def key(self, *kinds: str) -> Key:
        found = [
            one for one in self.org.keys
            if one.kind in kinds and one.is_alive(self.day) and not one.taken
            and (self.day - one.first_day).days >= min(60, (self.day - BEGIN).days)
        ]  # fmt: skip
        if not found:
            raise NotHereError
        chosen = self.rng.choice(found)
        chosen.taken = True
        return chosen

    def at_work(self, person: Person, hours: float = 0.0) -> datetime:
        return person.local(self.day, person.start_h + self.rng.uniform(1, 5)) + timedelta(hours=hours)

    def at_night(self, person: Person, hour: float | None = None) -> datetime:
        return person.local(self.day, self.rng.uniform(26, 28.5) if hour is None else hour)

    def any_time(self) -> datetime:
        return datetime.combine(self.day, time(), UTC) + timedelta(hours=self.rng.uniform(0, 23))

    def fail(self, person: str, at: datetime, address: str) -> None:
        self.tell(at, EventKind.SIGN_IN, person, refused="authentication", factor="password", address=address)

    def guess(self, person: str, at: datetime, address: str, many: int, span: timedelta) -> datetime:
        """Tries at random moments, most of them too early."""
        moments = sorted(at + span * self.rng.random() for _ in range(many))
        for number, one in enumerate(moments):
            if number < 5 or self.rng.random() < 0.3:
                self.fail(person, one, address)
            else:
                self.tell(one, EventKind.LIMITED, person, refused="rate-limit", factor="password", address=address)
        return moments[-1]

    def come(self, person: Person, at: datetime, address: str, factor: str = "password+totp") -> None:
        self.tell(at, EventKind.SIGN_IN, person.told, factor=factor, address=address, agent="Mozilla/5.0")

    def reset(self, person: Person, at: datetime) -> Person:
        admin = next((one for one in self.org.there("admin", self.day) if one is not person), None)
        if admin is None:
            raise NotHereError
        self.tell(
            at,
            EventKind.FACTOR_REMOVED,
            admin.told,
            subject=person.told,
            factor="totp",
            address=f"{admin.office}.7",
            removed=1,
        )
        return admin

    def office(self, person: Person) -> str:
        return f"{person.office}.7"


def people_of(plan: Planner, share: float, most: int) -> list[Person]:
    found = [
        one
        for one in plan.org.people
        if one.is_there(plan.day) and ((plan.day - one.first_day).days > 40 or one.first_day == BEGIN)
    ]
    return plan.rng.sample(found, max(min(int(share * len(found)), most), min(len(found), 4)))
