# SPDX-License-Identifier: Apache-2.0
"""Rules about what is done to people and their rights: resets, grants, new administrators, new accounts, removals. Private to the room."""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import timedelta

from shipsight.access.audit import Entry
from shipsight.access.events import EventKind, Outcome
from shipsight.access.review.acts import (
    ADMINISTRATION,
    FACTORS,
    GIVING,
    SENSITIVE,
    Roles,
    grants_after,
    grants_before,
)
from shipsight.access.review.findings import Severity, shown
from shipsight.access.review.known import Known, is_young, network_of, told
from shipsight.access.review.rule import Rule, Tell
from shipsight.access.review.settings import ReviewSettings

__all__ = [
    "FirstAdministration",
    "GivenAndTaken",
    "OwnGrant",
    "Removals",
    "ResetThenChange",
    "StrongGrant",
    "YoungAccount",
]

_MOST = 20_000
_DAY = timedelta(days=1)
_GIVEN_FOR = timedelta(days=3)
_TAKING = frozenset(
    {EventKind.USER_REMOVED, EventKind.KEY_REVOKED, EventKind.CERTIFICATE_REMOVED, EventKind.USER_CHANGED}
)


class ResetThenChange(Rule):
    """Somebody's factors were reset, and then they were given more, or did what is sensitive as they never had, or from elsewhere."""

    code = "reset-then-change"
    title = "Factors reset, then rights or acts"
    why = "Who talks an administrator into a reset, or is one, takes a person's place, and then uses it."
    advice = (
        "Ask the person, not by what was reset, whether they asked for it, and the administrator who did it. If not: "
        "disable the account, undo what it was given and did."
    )
    kinds = (
        FACTORS | SENSITIVE | {EventKind.SIGN_IN, EventKind.ROLLOUT_CHANGED, EventKind.KEY_ADDED, EventKind.DATA_READ}
    )

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._reset: OrderedDict[str, list[Entry]] = OrderedDict()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Remembers resets for some days."""
        event = entry.event
        if event.outcome is not Outcome.DONE:
            return
        subject = told(event.subject)
        if event.kind in FACTORS and subject is not None and subject != event.actor and known.profile(subject):
            self._remember(subject, entry)
        if event.kind is EventKind.SIGN_IN and "recovery" in (event.factor or ""):
            if known.is_new_network(event.actor, event):
                self._remember(event.actor, entry)
            return
        if (
            event.kind in GIVING
            and subject is not None
            and subject in self._reset
            and set(grants_after(event)) - set(grants_before(event))
        ):
            self._given(subject, entry, known, tell)
        if event.actor in self._reset and event.kind is not EventKind.SIGN_IN:
            self._done(event.actor, entry, known, tell)

    def _remember(self, person: str, entry: Entry) -> None:
        self._reset[person] = [*self._reset.get(person, [])[-10:], entry]
        self._reset.move_to_end(person)
        if len(self._reset) > _MOST:
            self._reset.popitem(last=False)

    def _of(self, person: str, entry: Entry) -> list[Entry]:
        since = entry.event.at - timedelta(days=self.settings.reset_days)
        recent = [one for one in self._reset[person] if one.event.at >= since]
        if recent:
            self._reset[person] = recent
        else:
            del self._reset[person]
        return recent

    def _given(self, person: str, entry: Entry, known: Known, tell: Tell) -> None:
        before = self._of(person, entry)
        if before:
            what = f"{shown(person)} was given more rights within {self.settings.reset_days} days of a reset of their factors"
            who = [person, entry.event.actor, *(one.event.actor for one in before)]
            tell(self, person, Severity.ALARM, what, [*before, entry], who=who)

    def _done(self, person: str, entry: Entry, known: Known, tell: Tell) -> None:
        before, event = self._of(person, entry), entry.event
        profile = known.profile(person)
        if not before or profile is None:
            return
        since = before[0].event.at
        is_new_act = event.kind.value not in {
            kind for kind, days in profile.acts.items() if days.count(since.toordinal(), known.window)
        }
        network = network_of(event.address)
        days = None if network is None else profile.networks.get(network)
        is_elsewhere = network is not None and (days is None or not days.count(since.toordinal(), known.window))
        who = [person, *(one.event.actor for one in before)]
        what = f"{shown(person)}: {event.kind.value} within {self.settings.reset_days} days of a reset of their factors"
        if is_elsewhere:
            tell(
                self, person, Severity.ALARM, f"{what}, from a network that is new for them", [*before, entry], who=who
            )
        elif is_new_act and event.kind in SENSITIVE:
            tell(self, person, Severity.WARNING, f"{what}, for the first time", [*before, entry], who=who)
        else:
            tell(self, person, Severity.NOTE, what, [*before, entry], who=who)


class OwnGrant(Rule):
    """Somebody changed what they may do themselves: the server does not let anybody."""

    code = "own-grant"
    title = "Rights that somebody gave themselves"
    why = "No way to do it is known: either the server was gone round, or it has a fault."
    advice = "Stop the server, keep the log and the database as they are, and find out how it was done."
    kinds = GIVING

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Compares who gives with who is given."""
        event = entry.event
        if (
            event.outcome is Outcome.DONE
            and event.kind is EventKind.GRANTS_CHANGED
            and told(event.subject) == event.actor
        ):
            what = f"{shown(event.actor)} changed their own grants"
            tell(self, event.actor, Severity.ALARM, what, [entry], who=[event.actor])


class StrongGrant(Rule):
    """Power over access, data, model keys or the audit log was given."""

    code = "strong-grant"
    title = "Strong rights given"
    why = "Few ever need them, and an attacker wants them first."
    advice = "Ask who decided it. See that it is one of few, and that it ends when it is not needed any more."
    kinds = GIVING | {EventKind.ROLE_CHANGED}

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._roles = Roles()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Compares what was held with what is."""
        event = entry.event
        if event.outcome is not Outcome.DONE:
            return
        if event.kind is EventKind.ROLE_CHANGED:
            role = (event.subject or "").removeprefix("role:")
            had = self._roles.strong([role])
            self._roles.see(event)
            gained = self._roles.strong([role]) - had
        else:
            gained = self._roles.strong(grants_after(event)) - self._roles.strong(grants_before(event))
        if not gained:
            return
        subject = told(event.subject) or event.actor
        name = event.details.get("name")
        label = f"{subject} ({name})" if isinstance(name, str) else subject
        what = f"{shown(event.actor)} let {shown(label)} do {', '.join(sorted(gained))}"
        severity = Severity.NOTE if known.is_learning(event.at) else Severity.WARNING
        tell(self, subject, severity, what, [entry], who=[event.actor, subject], rights=", ".join(sorted(gained)))


class GivenAndTaken(Rule):
    """Rights that were given and soon taken back, with what was done in between."""

    code = "given-and-taken"
    title = "Rights given for a short while"
    why = "Who wants to leave no trace gives, uses and takes back. Some mistakes look the same."
    advice = "Look at what was done in between, and ask both."
    kinds = GIVING | SENSITIVE

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._given: OrderedDict[str, tuple[frozenset[str], list[Entry]]] = OrderedDict()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Remembers what was given."""
        event = entry.event
        if event.outcome is not Outcome.DONE:
            return
        if event.kind is EventKind.GRANTS_CHANGED:
            subject, before, after = told(event.subject) or "", set(grants_before(event)), set(grants_after(event))
            gained, evidence = self._given.get(subject, (frozenset(), []))
            taken = gained & (before - after)
            if taken and evidence[0].event.at >= event.at - _GIVEN_FOR:
                used = len(evidence) > 1
                what = (
                    f"{shown(subject)} was given {', '.join(sorted(taken))}, and it was taken back after a short while"
                )
                severity = Severity.ALARM if used else Severity.NOTE
                who = [event.actor, subject, evidence[0].event.actor]
                tell(self, subject, severity, what, [*evidence, entry], who=who, acts=len(evidence) - 1)
            self._given.pop(subject, None)
            if after - before:
                self._given[subject] = frozenset(after - before), [entry]
                if len(self._given) > _MOST:
                    self._given.popitem(last=False)
            return
        held = self._given.get(event.actor)
        if held is not None and event.kind in SENSITIVE and len(held[1]) < 40:
            held[1].append(entry)


class FirstAdministration(Rule):
    """A person who administers for the first time."""

    code = "first-administration"
    title = "First-time administrator"
    why = "New administrators are rare, and known to those who review."
    advice = "See that somebody decided that this person administers, and that they do."
    kinds = ADMINISTRATION

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Looks whether they did any of it before."""
        event = entry.event
        if event.outcome is not Outcome.DONE or not event.actor.startswith(("person:", "server:")):
            return
        if told(event.subject) in (None, event.actor) and event.kind is EventKind.USER_ADDED:
            return  # somebody whom a provider vouches for, or the first of all
        profile, window = known.profile(event.actor), known.window
        did = {kind for kind in ADMINISTRATION if profile is not None and profile.did(kind.value, event.at, window)}
        if event.kind in did:
            return
        if not did:
            what = f"{shown(event.actor)} administers for the first time: {event.kind.value}"
            severity = Severity.NOTE if known.is_learning(event.at) else Severity.WARNING
        else:
            what = f"{shown(event.actor)}: {event.kind.value} for the first time"
            severity = Severity.NOTE
        tell(self, event.actor, severity, what, [entry], who=[event.actor])


class YoungAccount(Rule):
    """A sensitive act by an account that was made a short while before."""

    code = "young-account"
    title = "New account does what is sensitive"
    why = "Who makes an account for themselves uses it at once."
    advice = "Ask who made the account, and whom for. See that the person exists."
    kinds = SENSITIVE

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Looks at the age of the account."""
        event = entry.event
        profile = known.profile(known.name_of(event))
        if (
            event.outcome is not Outcome.DONE
            or not is_young(profile, event, self.settings)
            or known.is_learning(event.at)
        ):
            return
        assert profile is not None
        assert profile.made_at is not None
        hours = int((event.at - profile.made_at).total_seconds() // 3600)
        what = f"{shown(event.actor)}: {event.kind.value} {hours} h after {shown(profile.made_by or '')} made it"
        who = [event.actor, profile.made_by]
        tell(self, known.name_of(event), Severity.WARNING, what, [entry], who=who, hours=hours)


class Removals(Rule):
    """Many people, keys and certificates that one actor removed or shut out within a day."""

    code = "removals"
    title = "Many removals by one"
    why = "Who is about to leave, or wants to be alone, shuts the others out."
    advice = "Ask why. See that those who are left can still administer, and restore from a backup if they cannot."
    kinds = _TAKING

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._done: dict[str, deque[Entry]] = {}
        self._most: dict[str, OrderedDict[int, int]] = {}

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Counts them within a day."""
        event = entry.event
        if event.outcome is not Outcome.DONE:
            return
        if event.kind is EventKind.USER_CHANGED and event.details.get("is_disabled") is not True:
            return
        done = self._done.setdefault(event.actor, deque(maxlen=500))
        done.append(entry)
        while done[0].event.at < event.at - _DAY:
            done.popleft()
        today = event.at.toordinal()
        days = self._most.setdefault(event.actor, OrderedDict())
        days[today] = max(days.get(today, 0), len(done))
        while len(days) > known.window or next(iter(days)) < today - known.window:
            days.popitem(last=False)
        usual = max((count for day, count in days.items() if day < today - 1), default=0)
        people = sum(1 for one in done if one.event.kind in (EventKind.USER_CHANGED, EventKind.USER_REMOVED))
        if len(done) >= max(self.settings.removals_least, 2 * usual) or people >= max(4, 2 * usual):
            what = f"{shown(event.actor)} removed or shut out {len(done)} within a day, at most {usual} before"
            severity = Severity.NOTE if known.is_learning(event.at) else Severity.WARNING
            tell(
                self,
                event.actor,
                severity,
                what,
                done,
                who=[event.actor],
                removed=len(done),
                people=people,
                usual=usual,
            )
