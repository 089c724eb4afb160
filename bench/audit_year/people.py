# SPDX-License-Identifier: Apache-2.0
"""People and keys on an ordinary day: who signs in from where, forgets, works, and what programs ask."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

from audit_year.organisation import Key, Organisation, Person
from shipsight.access.events import Event, EventKind, Outcome

Told = tuple[datetime, str, Event]


class People:
    """Makes what people and keys do on a day."""

    def __init__(self, organisation: Organisation) -> None:
        self.org, self.rng = organisation, organisation.rng
        self.out: list[Told] = []
        self.later: list[tuple[date, Callable[[date], None]]] = []
        self.skipped_reviews: set[int] = set()
        self.week = 0

    def tell(
        self, at: datetime, kind: EventKind, actor: str, *, server: str | None = None, refused: str | None = None,
        subject: str | None = None, factor: str | None = None, address: str | None = None, **details: object,
    ) -> None:  # fmt: skip
        outcome = Outcome.DONE if refused is None else Outcome.REFUSED
        event = Event(
            at, kind, outcome, actor, subject=subject, why=refused, factor=factor, address=address, details=details
        )  # type: ignore[arg-type]
        self.out.append((at, server or self.rng.choice(self.org.servers), event))

    def happens(self, a_year: float, days: float = 1.0) -> int:
        """How often something happens in some days, by its rate."""
        mean, count, product = a_year * days / 364, 0, self.rng.random()
        while product > math.exp(-mean):
            count, product = count + 1, product * self.rng.random()
        return count

    # People

    def person_day(self, person: Person, day: date) -> None:
        rng = self.rng
        if not person.is_there(day) or day in person.away:
            return
        start, length = person.start_h + rng.gauss(0, 0.4), person.length_h
        weekend = day.weekday() >= 5
        if person.works_shifts:
            turn = (day.toordinal() // 7 + person.shift) % 3
            start, length = (5.8, 13.8, 21.8)[turn] + rng.gauss(0, 0.1), 8.0
            if (day.toordinal() + person.shift) % 7 in (0, 1):
                return
        elif weekend:
            if rng.random() > (0.02 if person.role in ("admin", "deployer", "scientist") else 0.003):
                return
            start, length = 10 + rng.random() * 5, 2.0
        elif person.role == "user" and rng.random() > 0.35:
            return  # most do not need it each day
        if rng.random() < 0.03:
            length += rng.uniform(1.5, 4)
        address = self.where(person, day, weekend=weekend)
        if person.must_invite or (not weekend and day - timedelta(days=1) in person.away and rng.random() < 0.04):
            self.forgot(person, day, start, address)
            start += 1.0
        for part in range(rng.choice([1, 2, 2, 3])):
            hour = start + 0.2 + part * length / 3 + rng.random()
            self.sign_in(person, person.local(day, hour), address)
            self.work(person, day, hour, min(hour + length / 3, start + length), address)

    def where(self, person: Person, day: date, *, weekend: bool) -> str:
        if day in person.trips:
            return person.trips[day]
        if self.rng.random() < 0.004:  # the provider gives another address
            old = person.home.split(".")
            person.home = (
                f"{old[0]}.{old[1]}.{self.rng.randint(0, 255)}.{self.rng.randint(1, 254)}"
                if self.rng.random() < 0.7
                else self.org.home_address(person.site)
            )
        at_home = weekend or (not person.works_shifts and self.rng.random() < person.home_share)
        if self.rng.random() < 0.006:  # a train, a coffee shop, the telephone
            return f"{self.rng.choice(self.org.providers[person.site])}.{self.rng.randint(0, 255)}.{self.rng.randint(1, 254)}"
        return person.home if at_home else f"{person.office}.7"

    def sign_in(self, person: Person, at: datetime, address: str) -> None:
        rng = self.rng
        while rng.random() < person.mistypes:
            self.fail(person.told, at, address, "password" if rng.random() < 0.7 else "password+totp")
            at += timedelta(seconds=rng.uniform(6, 60))
        if person.must_enrol:
            person.must_enrol = False
            self.tell(at, EventKind.SIGN_IN, person.told, factor="password", address=address)
            self.tell(
                at + timedelta(minutes=2),
                EventKind.FACTOR_ADDED,
                person.told,
                subject=person.told,
                factor="totp",
                address=address,
            )
            self.tell(
                at + timedelta(minutes=3),
                EventKind.CODES_MADE,
                person.told,
                subject=person.told,
                factor="recovery",
                address=address,
            )
            return
        factor = "passkey" if person.has_passkey else "password+totp"
        self.tell(at, EventKind.SIGN_IN, person.told, factor=factor, address=address, agent="Mozilla/5.0")

    def signed_in(self, person: Person, at: datetime, day: date) -> str:
        """Somebody does something that has to be done: they are signed in, or sign in for it. Returns from where."""
        address = self.where(person, day, weekend=False)
        factor = "passkey" if person.has_passkey else "password+totp"
        self.tell(
            at - timedelta(minutes=self.rng.uniform(1, 20)),
            EventKind.SIGN_IN,
            person.told,
            factor=factor,
            address=address,
        )
        return address

    def fail(self, actor: str, at: datetime, address: str, factor: str = "password") -> None:
        self.tell(at, EventKind.SIGN_IN, actor, refused="authentication", factor=factor, address=address)

    def forgot(self, person: Person, day: date, start: float, address: str) -> None:
        """Tries some passwords, is slowed down, and asks an administrator for an invitation."""
        rng, at = self.rng, person.local(day, start)
        person.must_invite = False
        for number in range(rng.randint(2, 8)):
            at += timedelta(seconds=rng.uniform(8, 90))
            if number < 6 or rng.random() < 0.5:
                self.fail(person.told, at, address)
            else:
                self.tell(at, EventKind.LIMITED, person.told, refused="rate-limit", factor="password", address=address)
        if rng.random() < 0.4:
            return  # remembered
        helper = self.helper(person, day)
        if helper is not None:
            at += timedelta(minutes=rng.uniform(5, 40))
            self.tell(at, EventKind.INVITED, helper.told, subject=person.told, address=self.signed_in(helper, at, day))
            at += timedelta(minutes=rng.uniform(2, 10))
            self.tell(at, EventKind.PASSWORD_CHANGED, person.told, address=address)

    def helper(self, person: Person | None, day: date) -> Person | None:
        """An administrator who is there, of the same site where there is one."""
        there = [one for one in self.org.there("admin", day) if day not in one.away and one is not person]
        near = [one for one in there if person is None or one.site == person.site]
        return self.rng.choice(near or there) if there and day.weekday() < 5 else None

    def work(self, person: Person, day: date, begin: float, end: float, address: str) -> None:
        rng = self.rng
        when = lambda: person.local(day, rng.uniform(begin, max(end, begin + 0.2)))  # noqa: E731
        model = f"model:{rng.choice(person.projects)}"
        if person.role == "operator" and rng.random() < 0.15:
            self.tell(
                when(),
                EventKind.ALLOWED,
                person.told,
                subject=model,
                address=address,
                action="models.load",
                route="POST /v1/models/{name}/load",
            )
        if person.role == "scientist" and rng.random() < 0.12:
            at, many = when(), rng.randint(1, 8)
            self.tell(at, EventKind.STEP_UP, person.told, factor="password+totp", address=address)
            for number in range(many):
                self.tell(
                    at + timedelta(seconds=5 + 3 * number),
                    EventKind.EXPORTED,
                    person.told,
                    subject=model,
                    address=address,
                    path=f"labels/{number}",
                )
        if person.role == "scientist" and day.day <= 4 and day.month % 3 == 1 and rng.random() < 0.3:
            at = when()
            self.tell(at, EventKind.EXPORTED, person.told, subject=model, address=address, images=rng.randint(40, 180))
        if person.role in ("scientist", "deployer") and rng.random() < 0.08:
            at = when()
            for number in range(rng.randint(5, 40)):
                self.tell(
                    at + timedelta(seconds=number),
                    EventKind.DATA_READ,
                    person.told,
                    subject=model,
                    address=address,
                    path=f"proof/golden/{number}.jpg",
                )
        if person.role == "deployer" and rng.random() < 0.02:
            self.tell(when(), EventKind.KEY_RELEASED, person.told, subject=model, address=address)
        if rng.random() < 0.004:  # a page that is not for them
            for number in range(rng.choice([1, 1, 2, 3, 5])):
                self.tell(when(), EventKind.REFUSED, person.told, refused="forbidden", subject=model, address=address, action=rng.choice(["access.read", "metrics.read", "audit.read", "rollout.promote"]), route=f"GET /v1/thing-{number % 3}")  # fmt: skip

    # Keys

    def key_day(self, key: Key, day: date) -> None:
        rng = self.rng
        if not key.is_alive(day):
            if key.refused_until is not None and day < key.refused_until[0]:
                for hour in range(0, 24, 2):
                    at = self.moment(day, hour + rng.random())
                    self.tell(
                        at,
                        EventKind.KEY_REFUSED,
                        "nobody",
                        refused=key.refused_until[1],
                        subject=f"key:{key.id}",
                        address=key.address,
                        server=key.server,
                    )
            return
        hours: list[float] = []
        address = key.address
        if key.kind in ("camera", "service"):
            hours = [hour + rng.random() * 0.1 for hour in range(24)]
            if key.kind == "service" and day.weekday() >= 5:
                hours = hours[::3]
        elif key.kind == "nightly":
            hours = [key.hour + rng.random() * 0.2]
        elif key.kind == "weekly" and day.weekday() == key.hour % 7:
            hours = [key.hour + 0.1]
        elif key.kind == "quarterly" and day.day == 3 and day.month % 3 == 1:
            hours = [key.hour + 0.1, key.hour + 1.1]
        elif key.kind == "forgotten":
            hours = [key.hour + 0.3] if rng.random() < 0.5 else []
        elif key.kind == "personal" and key.owner is not None:
            owner = key.owner
            if not owner.is_there(day) or day in owner.away or day.weekday() >= 5 or rng.random() < 0.6:
                return
            address = self.where(owner, day, weekend=False)
            for hour in range(rng.randint(1, 5)):
                at = owner.local(day, owner.start_h + 1 + hour)
                self.use(key, at, address)
            return
        for hour in hours:
            self.use(key, self.moment(day, hour), address)

    def use(self, key: Key, at: datetime, address: str) -> None:
        self.tell(at, EventKind.KEY_USED, key.told, subject=f"key:{key.id}", address=address, server=key.server)

    def moment(self, day: date, hour: float) -> datetime:
        return datetime.combine(day, time(), UTC) + timedelta(hours=hour)
