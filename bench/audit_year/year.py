# SPDX-License-Identifier: Apache-2.0
"""The year as one stream of entries in order, each week together with what was planted in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

from audit_year.incidents import KINDS
from audit_year.life import Life
from audit_year.organisation import BEGIN, WEEKS, Organisation, Size
from audit_year.people import Told
from audit_year.planner import Incident, NotHereError, Planner
from shipsight.access.audit import Entry
from shipsight.access.events import EventKind

FIRST_WEEK = 9
FIRST_WEEK_OF = {"dormant_key": 24}
"""What is usual has to be there before something can be unusual: two months; and a key sleeps for more than three."""


class Year:
    """Yields the entries of each week.

    Args:
        size: of the organisation.
        seed: of everything that is drawn.
        weeks: how long.
        rounds: how often each kind of incident is planted.
    """

    def __init__(self, size: Size, seed: int, *, weeks: int = WEEKS, rounds: int = 1, first_strength: int = 0) -> None:
        # zlib-free and stable: a seed for each organisation, and one apart for incidents.
        self.org = Organisation(size, random.Random(f"{size.name} {seed}"))
        self.life = Life(self.org)
        rng = random.Random(f"incidents {size.name} {seed}")
        self.planner = Planner(self.life, rng, KINDS)
        self.incidents: list[Incident] = []
        self.not_here: list[tuple[str, int]] = []
        self.weeks, self._seq = weeks, 0
        self._pending: list[tuple[Told, Incident | None]] = []
        self._last_of: dict[str, int] = {}
        self._muted: dict[str, Incident] = {}
        self._plan: dict[int, list[tuple[str, int]]] = {}
        for at_round in range(rounds):
            for number, kind in enumerate(KINDS):
                first = FIRST_WEEK_OF.get(kind, FIRST_WEEK)
                if first < weeks - 2:
                    strength = (number + first_strength + at_round) % 3
                    self._plan.setdefault(rng.randrange(first, weeks - 2), []).append((kind, strength))

    def by_week(self) -> Iterator[list[Entry]]:
        for week in range(self.weeks):
            planted = self._planted(week)
            told: list[tuple[Told, Incident | None]] = [(one, None) for one in self.life.make_week(week)]
            told += self._pending
            for incident in planted:
                told += [(one, incident) for one in incident.entries]
            end = datetime.combine(BEGIN + timedelta(weeks=week + 1), time(), UTC)
            told = [(self._late(one), source) for one, source in told]
            told.sort(key=lambda one: one[0][0])
            self._pending = [one for one in told if one[0][0] >= end]
            yield list(self._entries(one for one in told if one[0][0] < end))

    def _planted(self, week: int) -> list[Incident]:
        made = []
        for kind, strength in self._plan.pop(week, []):
            try:
                incident = self.planner.make(kind, strength, week)
            except NotHereError:
                # Another week, while there is one: somebody may be back.
                tries = getattr(self, "_tries", {})
                tries[kind, strength] = tries.get((kind, strength), 0) + 1
                self._tries = tries
                if week < self.weeks - 4 and tries[kind, strength] < 12:
                    self._plan.setdefault(week + 1, []).append((kind, strength))
                else:
                    self.not_here.append((kind, strength))
                continue
            self.life.skipped_reviews |= {week + 1 + one for one in range(incident.skips)}
            self.incidents.append(incident)
            made.append(incident)
        for person in self.org.people:
            person.taken = person.taken and self.planner.rng.random() < 0.85  # after some weeks they may be hit again
        return made

    def _entries(self, told: Iterator[tuple[Told, Incident | None]]) -> Iterator[Entry]:
        mutes = [one for one in self.incidents if one.mute is not None]
        backs = [one for one in self.incidents if one.back is not None]
        gaps = [one for one in self.incidents if one.missing is not None]
        for (at, server, event), source in told:
            touched = [] if source is None else [source]
            if (
                any(one.mute and one.mute[0] == server and one.mute[1] <= at < one.mute[2] for one in mutes)
                and source is None
            ):
                self._mark_mute(mutes, server, at)
                continue
            for one in backs:
                assert one.back is not None
                where, begin, span, far = one.back
                if server == where and begin <= at < begin + span:
                    event = replace(event, at=event.at - far)
                    touched.append(one)
            for one in gaps:
                if one.missing is not None and at >= one.missing[0]:
                    self._take_away(one)
            entry = Entry(self._seq, server, event)
            self._seq += 1
            for one in touched:
                one.seqs.add(entry.seq)
            after = self._muted.pop(server, None)
            if after is not None:
                after.seqs.add(entry.seq)
            self._last_of[server] = entry.seq
            yield entry

    def _late(self, told: Told) -> Told:
        """Who cannot sign a review off while the server is cut off does so afterwards."""
        at, server, event = told
        for one in self.incidents:
            if (
                event.kind is EventKind.REVIEW_SIGNED
                and one.mute
                and one.mute[0] == server
                and one.mute[1] <= at < one.mute[2]
            ):
                at = one.mute[2] + timedelta(hours=1)
                return at, server, replace(event, at=at)
        return told

    def _mark_mute(self, mutes: list[Incident], server: str, at: datetime) -> None:
        for one in mutes:
            if one.mute and one.mute[0] == server and one.mute[1] <= at < one.mute[2]:
                if server in self._last_of:
                    one.seqs.add(self._last_of[server])
                self._muted[server] = one

    def _take_away(self, one: Incident) -> None:
        assert one.missing is not None
        one.seqs.add(self._seq - 1)
        self._seq += one.missing[1]
        one.seqs.add(self._seq)
        one.missing = None
