# SPDX-License-Identifier: Apache-2.0
"""Rules about the log: numbers and times that do not follow, servers that fall silent, what was lost, erased, never reviewed.

Private to the room.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import datetime, timedelta

from shipsight.access.audit import Entry
from shipsight.access.events import EventKind, Outcome
from shipsight.access.review.findings import Severity, shown
from shipsight.access.review.known import Known
from shipsight.access.review.rule import Rule, Tell
from shipsight.access.review.settings import ReviewSettings

__all__ = ["ClockBackwards", "KeysOfTheLog", "Lost", "ReviewOverdue", "SequenceGap", "Silent"]

_WEEK_HOURS = 168
_WEEKS = 8
_ERASURES = 3


class SequenceGap(Rule):
    """Numbers that are missing or come twice."""

    code = "sequence-gap"
    title = "Entries missing"
    why = "Numbers have no gaps: one that is missing was taken away."
    advice = "Verify the log, also with a copy of a checkpoint that lies elsewhere. Keep it as it is."

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._last: Entry | None = None

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Compares with the number before."""
        before = self._last
        if before is not None and entry.seq != before.seq + 1:
            missing = entry.seq - before.seq - 1
            what = f"after entry {before.seq} comes {entry.seq}"
            tell(self, f"{before.seq}", Severity.ALARM, what, [before, entry], missing=missing)
        self._last = entry


class ClockBackwards(Rule):
    """Times of one server that go backwards."""

    code = "clock-backwards"
    title = "A clock that was set back"
    why = "Who sets a clock back makes what they do look older, or lets what has ended be good again."
    advice = "Find out who set it. See that servers take the time from a source that you trust."

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._last: dict[str, Entry] = {}

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Compares with the latest time of the same server."""
        last, at = self._last.get(entry.server), time_of(entry)
        if last is not None and at < time_of(last):
            back_s = (time_of(last) - at).total_seconds()
            if back_s >= self.settings.backwards_s:
                what = f"times of server {shown(entry.server)} went back by {_span(timedelta(seconds=back_s))}"
                tell(self, entry.server, Severity.WARNING, what, [last, entry], back_s=int(back_s))
                self._last[entry.server] = entry
            return
        self._last[entry.server] = entry


class Silent(Rule):
    """A server that told nothing for far longer than ever at such hours, and had not said that it stops."""

    code = "server-silent"
    title = "A server that fell silent"
    why = "It was cut off from the log, or what it told was kept from it."
    advice = "Find out what it did meanwhile: its own log, the proxy's, the machine's."

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._last: dict[str, Entry] = {}
        self._stopped: set[str] = set()
        self._active: dict[str, OrderedDict[int, None]] = {}
        self._least = timedelta(hours=settings.silent_hours)

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Compares a pause with the hours at which this server always told something."""
        server, at = entry.server, time_of(entry)
        last = self._last.get(server)
        last_at = None if last is None else time_of(last)
        if last is not None and last_at is not None and at - last_at >= self._least:
            self._pause(entry, last, at, tell)
        if last_at is None or at >= last_at:
            self._last[server] = entry
        if entry.event.kind is EventKind.STOPPED:
            self._stopped.add(server)
        else:
            self._stopped.discard(server)
        self._learn(server, at)

    def finish(self, at: datetime, known: Known, tell: Tell) -> None:
        """Looks at servers that have not told anything until the end."""
        for last in self._last.values():
            if at > time_of(last):
                self._pause(None, last, at, tell)

    def _learn(self, server: str, at: datetime) -> None:
        hour = _hour_of(at)
        active = self._active.setdefault(server, OrderedDict())
        if hour not in active:
            active[hour] = None
            while len(active) > _WEEKS * _WEEK_HOURS or next(iter(active)) < hour - _WEEKS * _WEEK_HOURS:
                active.popitem(last=False)

    def _pause(self, entry: Entry | None, last: Entry, until: datetime, tell: Tell) -> None:
        server, begin = last.server, time_of(last)
        hours = int((until - begin).total_seconds() // 3600)
        if hours < self.settings.silent_hours or server in self._stopped:
            return
        active = self._active.get(server, OrderedDict())
        oldest = next(iter(active), 0)
        first = _hour_of(begin) + 1
        weeks = min((first - oldest) // _WEEK_HOURS, _WEEKS)
        if weeks < 4:
            return
        # Hours of the pause at which this server told something in nearly every week that is known.
        missed = 0
        for hour in range(first, min(first + hours, first + 14 * 24)):
            told = sum(1 for back in range(1, weeks + 1) if hour - back * _WEEK_HOURS in active)
            missed += told >= weeks - weeks // 4
        if missed >= self.settings.silent_hours:
            what = (
                f"server {shown(server)} told nothing for {_span(until - begin)}, {missed} h of it when it always does"
            )
            evidence = [last] if entry is None else [last, entry]
            is_now = entry is None
            tell(
                self,
                f"{server} {last.seq}",
                Severity.WARNING,
                what,
                evidence,
                is_now=is_now,
                hours=hours,
                missed=missed,
            )


class Lost(Rule):
    """Entries that were lost, and servers that again and again came back without having stopped."""

    code = "log-interrupted"
    title = "Entries lost, or a server that is killed again and again"
    why = "What is flooded, or killed, does not tell what happened meanwhile."
    advice = "Find out why: a full disk, a crash, or somebody. Look at the machine's own log of that time."
    kinds = frozenset({EventKind.AUDIT_LOST, EventKind.AUDIT_RECOVERED})

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._back: dict[str, deque[Entry]] = {}

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Tells of it."""
        event, server = entry.event, shown(entry.server)
        if event.kind is EventKind.AUDIT_LOST:
            count = max((one for one in event.details.values() if isinstance(one, int)), default=0)
            what = f"server {server} lost entries ({count})"
            tell(self, f"{entry.server} lost", Severity.WARNING, what, [entry], lost=count)
            return
        back = self._back.setdefault(entry.server, deque(maxlen=50))
        back.append(entry)
        while back[0].event.at < event.at - timedelta(days=self.settings.interval_days):
            back.popleft()
        often = len(back) >= self.settings.recoveries_least
        what = f"server {server} came back {len(back)} times within a week without having stopped"
        severity = Severity.WARNING if often else Severity.NOTE
        tell(self, f"{entry.server} recovered", severity, what, back if often else [entry], times=len(back))


class KeysOfTheLog(Rule):
    """Keys of the log changed, data erased, entries archived."""

    code = "log-administration"
    title = "The log's keys, erasures and archives"
    why = "Who holds the key can write the log anew; who erases takes names away; who archives moves entries out of sight."
    advice = "See that it was decided, by whom, and that copies of checkpoints elsewhere still fit."
    kinds = frozenset(
        {EventKind.AUDIT_KEY_ADDED, EventKind.AUDIT_KEY_RETIRED, EventKind.AUDIT_ERASED, EventKind.AUDIT_ARCHIVED}
    )

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._erased: deque[Entry] = deque(maxlen=50)
        self._has_key = False

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Tells of it."""
        event, who = entry.event, [entry.event.actor]
        if event.outcome is not Outcome.DONE:
            return
        if event.kind in (EventKind.AUDIT_KEY_ADDED, EventKind.AUDIT_KEY_RETIRED):
            is_first, self._has_key = not self._has_key, True
            severity = Severity.NOTE if is_first and known.is_learning(event.at) else Severity.WARNING
            tell(
                self,
                "keys",
                severity,
                f"{shown(event.actor)} changed the log's keys: {event.kind.value}",
                [entry],
                who=who,
            )
        elif event.kind is EventKind.AUDIT_ARCHIVED:
            tell(self, "archived", Severity.NOTE, f"{shown(event.actor)} archived entries", [entry], who=who)
        else:
            self._erased.append(entry)
            while self._erased[0].event.at < event.at - timedelta(days=7):
                self._erased.popleft()
            many = len(self._erased) >= _ERASURES
            what = f"{shown(event.actor)} erased data of {len(self._erased)} within a week"
            severity = Severity.WARNING if many else Severity.NOTE
            tell(self, "erased", severity, what, self._erased if many else [entry], who=who, erasures=len(self._erased))


class ReviewOverdue(Rule):
    """Too long between reviews that somebody signed off."""

    code = "review-overdue"
    title = "Nobody reviewed"
    why = "What nobody looks at is not reviewed, and who knows that is not afraid."
    advice = "Review and sign off each week. Let `shipsight audit review --check` tell when it was forgotten."

    kinds = frozenset({EventKind.REVIEW_SIGNED})

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._last: Entry | None = None

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Compares with the review before."""
        self._look(self._last, entry, entry.event.at, known, tell)
        self._last = entry

    def finish(self, at: datetime, known: Known, tell: Tell) -> None:
        """Looks at how long ago the last one was."""
        self._look(self._last, None, at, known, tell)

    def _look(self, last: Entry | None, entry: Entry | None, at: datetime, known: Known, tell: Tell) -> None:
        begin = known.began_at if last is None else last.event.at
        if begin is None:
            return
        late = (at - begin) - timedelta(days=self.settings.interval_days + self.settings.grace_days)
        if late > timedelta(0):
            what = f"no review was signed off for {_span(at - begin)}"
            evidence = [one for one in (last, entry) if one is not None]
            key = "first" if last is None else f"{last.seq}"
            is_now = entry is None
            tell(self, key, Severity.WARNING, what, evidence, is_now=is_now, days=(at - begin).days)


def _hour_of(at: datetime) -> int:
    """Returns the number of an hour, UTC."""
    return at.toordinal() * 24 + at.hour


def time_of(entry: Entry) -> datetime:
    """Returns when an entry was written, where it tells; what waited for the disk happened before."""
    return entry.written or entry.event.at


def _span(time: timedelta) -> str:
    """Returns a span of time in words."""
    if time >= timedelta(days=2):
        return f"{time.days} days"
    hours = time.total_seconds() / 3600
    return f"{hours:.0f} h" if hours >= 2 else f"{time.total_seconds() / 60:.0f} min"
