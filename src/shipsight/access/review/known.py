# SPDX-License-Identifier: Apache-2.0
"""What is known of everybody before an entry: when they were there, from where, what they did and how much of it.

Kept as days: a number's bits, one a day, so that half a year of somebody takes a few hundred bytes and old days fall away. Only who did
something is remembered, not every name that somebody typed. Times are UTC; what is somebody's usual hour is told by their own past, so
zones and shifts need not be known. Private to the room.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address, ip_network

from shipsight.access.audit import Entry
from shipsight.access.events import Event, EventKind, Outcome
from shipsight.access.review.settings import ReviewSettings

__all__ = ["Days", "Known", "Profile", "day_of", "is_young", "key_id", "network_of", "place_of", "told"]

_MOST_PROFILES = 50_000
_MOST_NETWORKS = 256
_MOST_PLACES = 100_000
_HOURS = 24
_NEIGHBOURS = 2
_AUTOMATIC = frozenset({EventKind.SIGN_OUT, EventKind.SESSION_ENDED, EventKind.AUDIT_LOST, EventKind.AUDIT_RECOVERED})


def day_of(at: datetime) -> int:
    """Returns the number of a day."""
    return at.toordinal()


def told(subject: str | None) -> str | None:
    """Returns a subject as actors are told: grants are told of `user:ada`, what she does of `person:ada`."""
    return f"person:{subject[5:]}" if subject is not None and subject.startswith("user:") else subject


def key_id(event: Event) -> str | None:
    """Returns the id of the key or certificate that an event is about or is done with: what stays when it is named otherwise."""
    return _key_id(event.subject, event.actor)


@lru_cache(65536)
def _key_id(subject: str | None, actor: str) -> str | None:
    for name in (subject, actor):
        kind, _, rest = (name or "").partition(":")
        if kind == "key":
            return f"key:{rest.rpartition('.')[2]}"
        if kind in ("certificate", "device"):
            return name
    return None


@lru_cache(65536)
def network_of(address: str | None) -> str | None:
    """Returns the network that an address is in, as far as one place mostly has it: /24 of IPv4, /48 of IPv6. None without an address."""
    return _prefix(address, 24, 48)


@lru_cache(65536)
def place_of(address: str | None) -> str | None:
    """Returns where an address is, more widely: /16 of IPv4, /32 of IPv6, which one provider in one region mostly has."""
    return _prefix(address, 16, 32)


def _prefix(address: str | None, four: int, six: int) -> str | None:
    if address is None:
        return None
    try:
        found = ip_address(address)
    except ValueError:  # a unix socket, or a name: as it is
        return address[:64]
    mapped = getattr(found, "ipv4_mapped", None)
    if mapped is not None:
        found = mapped
    return str(ip_network(f"{found}/{four if found.version == 4 else six}", strict=False))


class Days:
    """Days on which something was, of the last so many."""

    __slots__ = ("_base", "_bits")

    def __init__(self) -> None:
        self._base, self._bits = 0, 0

    def add(self, day: int, window: int) -> None:
        """Adds a day; those that are older than twice the window fall away."""
        if not self._bits:
            self._base = day
        elif day < self._base:
            self._bits <<= self._base - day
            self._base = day
        elif day - self._base > 2 * window:
            self._bits >>= window
            self._base += window
        self._bits |= 1 << (day - self._base)

    def within(self, day: int, window: int) -> int:
        """Returns the days before one, within a window, as a number whose bits they are."""
        first = day - window - self._base
        bits = self._bits & ((1 << max(day - self._base, 0)) - 1)
        return bits >> first if first > 0 else bits << -first

    def count(self, day: int, window: int) -> int:
        """Returns how many days before one there are."""
        return self.within(day, window).bit_count()

    def has(self, day: int, window: int) -> bool:
        """Whether there is one, the day itself included."""
        return bool(self.within(day + 1, window))


class Profile:
    """What is known of one actor.

    Attributes:
        days: on which they did.
        hours: the same, for each hour of the day, UTC.
        networks: that they came from, with the days.
        places: the same, wider.
        acts: what they did, with the days.
        made_by: who made them, where a key's or an account's making was seen.
        made_at: when that was, UTC.
    """

    __slots__ = ("_seen", "acts", "days", "hours", "made_at", "made_by", "networks", "places")

    def __init__(self) -> None:
        self._seen: tuple[int, EventKind, str | None, str | None] | None = None
        self.days = Days()
        self.hours = [Days() for _ in range(_HOURS)]
        self.networks: OrderedDict[str, Days] = OrderedDict()
        self.places: OrderedDict[str, Days] = OrderedDict()
        self.acts: dict[str, Days] = {}
        self.made_by: str | None = None
        self.made_at: datetime | None = None

    def see(self, event: Event, window: int) -> bool:
        """Adds what they did; returns whether it tells more than the hour."""
        day = day_of(event.at)
        self.hours[event.at.hour].add(day, window)
        seen = day, event.kind, event.address, event.subject
        if seen == self._seen:
            return False  # a key, all day
        self._seen = seen
        self.days.add(day, window)
        self.acts.setdefault(event.kind.value, Days()).add(day, window)
        for kept, name in ((self.networks, network_of(event.address)), (self.places, place_of(event.address))):
            if name is not None:
                kept.setdefault(name, Days()).add(day, window)
                kept.move_to_end(name)
                if len(kept) > _MOST_NETWORKS:
                    kept.popitem(last=False)
        return True

    def share_at(self, at: datetime, window: int) -> float:
        """Returns the share of their days on which they were there at an hour, give or take two: enough for summer time and overtime."""
        day, seen = day_of(at), 0
        for step in range(-_NEIGHBOURS, _NEIGHBOURS + 1):
            seen |= self.hours[(at.hour + step) % _HOURS].within(day, window)
        return seen.bit_count() / max(self.days.count(day, window), 1)

    def age(self, at: datetime, window: int) -> int:
        """Returns how many days ago they first did something, as far back as is looked; 0 where they never did."""
        bits = self.days.within(day_of(at), window)
        return window - (bits & -bits).bit_length() + 1 if bits else 0

    def did(self, kind: str, at: datetime, window: int) -> bool:
        """Whether they did something of a kind before, that day included."""
        days = self.acts.get(kind)
        return days is not None and days.has(day_of(at), window)

    def weekdays_like(self, at: datetime, window: int) -> int:
        """Returns on how many such days of the week they were there."""
        day = day_of(at)
        bits = self.days.within(day, window)
        # The window's last bit is the day before.
        return sum(1 for back in range(7, window, 7) if bits >> (window - back) & 1)


def is_young(profile: Profile | None, event: Event, settings: ReviewSettings) -> bool:
    """Whether somebody else made an account a short while before it did something."""
    if profile is None or profile.made_at is None or profile.made_by in (None, event.actor):
        return False
    return event.at - profile.made_at <= timedelta(hours=settings.young_hours)


class Known:
    """What is known of all, bounded: where there are too many, those who were not seen for longest are forgotten.

    Args:
        settings: how far back it goes.
    """

    def __init__(self, settings: ReviewSettings) -> None:
        self.window, self._learning = settings.history_days, settings.learning_days
        self.began_at: datetime | None = None
        self._profiles: OrderedDict[str, Profile] = OrderedDict()
        self._places: OrderedDict[str, Days] = OrderedDict()

    def see(self, entry: Entry) -> None:
        """Adds an entry, after the rules have looked at it."""
        event = entry.event
        if self.began_at is None:
            self.began_at = event.at
        if event.outcome is not Outcome.DONE or event.kind in _AUTOMATIC or entry.erased_by is not None:
            return
        name = self.name_of(event)
        if name in ("nobody", "loopback"):
            return
        if not self._profile(name).see(event, self.window):
            return
        place = place_of(event.address)
        if place is not None:
            self._places.setdefault(place, Days()).add(day_of(event.at), self.window)
            self._places.move_to_end(place)
            if len(self._places) > _MOST_PLACES:
                self._places.popitem(last=False)
        if event.kind in (EventKind.KEY_ADDED, EventKind.USER_ADDED, EventKind.CERTIFICATE_ADDED):
            made = key_id(event) if event.kind is not EventKind.USER_ADDED else told(event.subject)
            if made is not None:
                of_made = self._profile(made)
                of_made.made_by, of_made.made_at = event.actor, event.at

    def name_of(self, event: Event) -> str:
        """Returns who acts: a person's name, or the id of a key, which stays when it is named otherwise."""
        if event.actor.startswith("key:"):
            return f"key:{event.actor[4:].rpartition('.')[2]}"
        return event.actor

    def profile(self, name: str | None) -> Profile | None:
        """Returns what is known of somebody, None where that is nothing."""
        return None if name is None else self._profiles.get(name)

    def is_learning(self, at: datetime) -> bool:
        """Whether the log is so young that nothing is usual yet."""
        return self.began_at is None or (at - self.began_at).total_seconds() < self._learning * 86400

    def knows_place(self, address: str | None, at: datetime) -> bool:
        """Whether anybody came from such an address before, until the day itself."""
        place = place_of(address)
        days = None if place is None else self._places.get(place)
        return place is None or (days is not None and days.has(day_of(at), self.window))

    def is_new_network(self, name: str, event: Event) -> bool:
        """Whether somebody never came from the network of an event."""
        return self._is_new(name, event, network_of(event.address), wide=False)

    def is_new_place(self, name: str, event: Event) -> bool:
        """Whether neither they nor anybody else ever came from so near it."""
        return self._is_new(name, event, place_of(event.address), wide=True) and not self.knows_place(
            event.address, event.at
        )

    def _is_new(self, name: str, event: Event, where: str | None, *, wide: bool) -> bool:
        profile = self._profiles.get(name)
        if where is None or profile is None:
            return False
        days = (profile.places if wide else profile.networks).get(where)
        return days is None or not days.has(day_of(event.at), self.window)

    def _profile(self, name: str) -> Profile:
        found = self._profiles.get(name)
        if found is None:
            found = self._profiles[name] = Profile()
            if len(self._profiles) > _MOST_PROFILES:
                self._profiles.popitem(last=False)
        self._profiles.move_to_end(name)
        return found
