# SPDX-License-Identifier: Apache-2.0
"""Three organisations: who works there, when and from where, which keys they have, how often things happen."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

BEGIN = date(2025, 1, 6)  # a Monday
WEEKS = 52


@dataclass(frozen=True)
class Size:
    """What an organisation is like; rates are a year's."""

    name: str
    sites: tuple[tuple[str, str, float], ...]  # name, zone, share of people
    roles: dict[str, int]
    services: int  # keys of programs that ask all day
    cameras: int  # keys that ask day and night
    batches: int  # keys of jobs: nightly, weekly, quarterly
    models: int
    servers: int
    joiners: float
    leavers: float
    deployments_a_week: float
    new_administrators: float
    crashes: float
    power_cuts: float
    moves: float  # machines that get another network
    night_calls: float
    night_calls_administrators: float
    wrong_clients: float
    robots_a_day: float  # strangers from the internet that try names
    noise_tests: float  # engineers who test what looks like copying a model
    hotfixes: float
    mistaken_grants: float
    substitutes: float


SMALL = Size(
    "small", (("berlin", "Europe/Berlin", 1.0),), {"admin": 2, "deployer": 1, "scientist": 1, "operator": 1, "auditor": 1},
    services=1, cameras=0, batches=1, models=4, servers=1, joiners=1, leavers=0.5, deployments_a_week=0.5, new_administrators=0.5,
    crashes=2, power_cuts=0.5, moves=0.5, night_calls=3, night_calls_administrators=0.3, wrong_clients=2, robots_a_day=0,
    noise_tests=0.3, hotfixes=1, mistaken_grants=0.5, substitutes=1,
)  # fmt: skip
MEDIUM = Size(
    "medium", (("lyon", "Europe/Paris", 0.7), ("boston", "America/New_York", 0.3)),
    {"admin": 3, "deployer": 8, "scientist": 7, "operator": 10, "auditor": 2, "user": 30},
    services=12, cameras=12, batches=6, models=12, servers=2, joiners=8, leavers=6, deployments_a_week=2, new_administrators=1,
    crashes=4, power_cuts=1, moves=1.5, night_calls=20, night_calls_administrators=1, wrong_clients=6, robots_a_day=1.5,
    noise_tests=1, hotfixes=3, mistaken_grants=1, substitutes=4,
)  # fmt: skip
LARGE = Size(
    "large", (("munich", "Europe/Berlin", 0.45), ("detroit", "America/Detroit", 0.3), ("pune", "Asia/Kolkata", 0.25)),
    {"admin": 10, "deployer": 50, "scientist": 40, "operator": 150, "auditor": 5, "user": 545},
    services=60, cameras=220, batches=20, models=40, servers=6, joiners=90, leavers=75, deployments_a_week=7, new_administrators=3,
    crashes=8, power_cuts=2, moves=4, night_calls=60, night_calls_administrators=3, wrong_clients=20, robots_a_day=4,
    noise_tests=3, hotfixes=6, mistaken_grants=3, substitutes=15,
)  # fmt: skip
SIZES = {one.name: one for one in (SMALL, MEDIUM, LARGE)}


@dataclass
class Person:
    name: str
    role: str
    site: str
    zone: ZoneInfo
    office: str  # first three bytes
    home: str
    start_h: float
    length_h: float
    home_share: float
    mistypes: float
    has_passkey: bool
    works_shifts: bool = False
    shift: int = 0
    away: set[date] = field(default_factory=set)
    trips: dict[date, str] = field(default_factory=dict)
    first_day: date = BEGIN
    last_day: date | None = None
    must_enrol: bool = False
    must_invite: bool = False
    taken: bool = False  # an incident has this person: none else takes them
    projects: list[str] = field(default_factory=list)

    @property
    def told(self) -> str:
        return f"person:{self.name}"

    def local(self, day: date, hour: float) -> datetime:
        """The moment at which this person's clock shows an hour, also beyond midnight."""
        naive = datetime.combine(day, time()) + timedelta(hours=hour)
        return naive.replace(tzinfo=self.zone).astimezone(UTC)

    def is_there(self, day: date) -> bool:
        return self.first_day <= day and (self.last_day is None or day < self.last_day)


@dataclass
class Key:
    id: str
    name: str
    kind: str  # service, camera, nightly, weekly, quarterly, personal, forgotten
    address: str
    server: str
    owner: Person | None
    first_day: date = BEGIN
    last_day: date | None = None
    hour: int = 0
    refused_until: tuple[date, str] | None = None
    taken: bool = False

    @property
    def told(self) -> str:
        return f"key:{self.name}.{self.id}"

    def is_alive(self, day: date) -> bool:
        return self.first_day <= day and (self.last_day is None or day < self.last_day)


class Organisation:
    """Who and what is there at first; incidents and life change it."""

    def __init__(self, size: Size, rng: random.Random) -> None:
        self.size, self.rng = size, rng
        self.offices = {site: self.address_block() for site, _, _ in size.sites}
        self.providers = {
            site: [f"{rng.randint(60, 95)}.{rng.randint(0, 255)}" for _ in range(5)] for site, _, _ in size.sites
        }
        self.racks = [self.address_block() for _ in range(size.servers + 1)]
        self.servers = [f"vision-{number + 1}" for number in range(size.servers)]
        self.models = [f"model-{number + 1}" for number in range(size.models)]
        self.versions = dict.fromkeys(self.models, 1)
        self.digests: dict[tuple[str, int], str] = {}
        self.people: list[Person] = []
        self.keys: list[Key] = []
        self.count = 0
        for role, many in size.roles.items():
            for _ in range(many):
                self.add_person(role, BEGIN)
        self._add_keys()

    def address_block(self) -> str:
        return f"{self.rng.randint(100, 190)}.{self.rng.randint(0, 255)}.{self.rng.randint(0, 255)}"

    def foreign(self) -> str:
        """An address where nobody of the organisation ever was."""
        return f"{self.rng.randint(196, 219)}.{self.rng.randint(0, 255)}.{self.rng.randint(0, 255)}.{self.rng.randint(1, 254)}"

    def home_address(self, site: str) -> str:
        return f"{self.rng.choice(self.providers[site])}.{self.rng.randint(0, 255)}.{self.rng.randint(1, 254)}"

    def add_person(self, role: str, first_day: date) -> Person:
        rng = self.rng
        self.count += 1
        site, zone, _ = rng.choices(self.size.sites, [share for _, _, share in self.size.sites])[0]
        person = Person(
            f"{role[:2]}{self.count:03d}", role, site, ZoneInfo(zone), self.offices[site], self.home_address(site),
            start_h=rng.gauss(8.6, 0.8), length_h=rng.gauss(8.3, 0.5), home_share=rng.choice([0.0, 0.2, 0.4, 0.6]),
            mistypes=rng.uniform(0.01, 0.09), has_passkey=rng.random() < 0.3,
            works_shifts=role == "operator" and self.size.name != "small" and rng.random() < 0.7,
            shift=rng.randrange(3), first_day=first_day,
        )  # fmt: skip
        person.projects = rng.sample(self.models, min(rng.randint(1, 3), len(self.models)))
        self._plan_absence(person)
        self.people.append(person)
        return person

    def _plan_absence(self, person: Person) -> None:
        rng = self.rng
        for weeks in (rng.choice([2, 3]), 1, 1):
            begin = BEGIN + timedelta(weeks=rng.randrange(WEEKS - weeks))
            person.away |= {begin + timedelta(days=one) for one in range(7 * weeks)}
        christmas = date(2025, 12, 24)
        person.away |= {christmas + timedelta(days=one) for one in range(rng.choice([3, 9]))}
        person.away |= {BEGIN + timedelta(days=rng.randrange(364)) for _ in range(rng.randint(1, 9))}
        if rng.random() < (0.35 if person.role in ("admin", "deployer", "scientist") else 0.1):
            for _ in range(rng.randint(1, 4)):
                begin, hotel = BEGIN + timedelta(days=rng.randrange(364)), self.foreign()
                for one in range(rng.randint(2, 4)):
                    person.trips[begin + timedelta(days=one)] = hotel

    def _add_keys(self) -> None:
        size, rng = self.size, self.rng
        for number in range(size.cameras):
            self.add_key(
                "camera", f"camera-{number}", f"{rng.choice(list(self.offices.values()))}.{rng.randint(1, 254)}"
            )
        for kind, many in (("service", size.services), ("nightly", (size.batches + 1) // 2)):
            for number in range(many):
                self.add_key(kind, f"{kind}-{number}", f"{rng.choice(self.racks)}.{rng.randint(1, 254)}")
        for number in range(size.batches - (size.batches + 1) // 2):
            kind = "quarterly" if number % 3 == 0 else "weekly"
            self.add_key(kind, f"{kind}-{number}", f"{rng.choice(self.racks)}.{rng.randint(1, 254)}")
        for number in range({"small": 1, "medium": 4, "large": 12}[size.name]):
            key = self.add_key("forgotten", f"trial-{number}", f"{rng.choice(self.racks)}.{rng.randint(1, 254)}")
            key.last_day = BEGIN + timedelta(days=rng.randint(10, 45))
        for person in self.people:
            if person.role == "scientist" and rng.random() < 0.6:
                self.add_key("personal", f"{person.name}-laptop", person.home, person)

    def add_key(self, kind: str, name: str, address: str, owner: Person | None = None, first_day: date = BEGIN) -> Key:
        rng = self.rng
        key = Key(f"{rng.getrandbits(64):016x}", name, kind, address, rng.choice(self.servers), owner, first_day)
        key.hour = rng.randrange(24) if kind != "nightly" else rng.randrange(0, 5)
        self.keys.append(key)
        return key

    def there(self, role: str | tuple[str, ...], day: date, *, free: bool = False) -> list[Person]:
        roles = (role,) if isinstance(role, str) else role
        return [
            one for one in self.people
            if one.role in roles and one.is_there(day) and (not free or (not one.taken and day not in one.away))
        ]  # fmt: skip

    def digest(self, model: str, version: int) -> str:
        return self.digests.setdefault((model, version), f"{self.rng.getrandbits(256):064x}")
