# SPDX-License-Identifier: Apache-2.0
"""Rules about signing in: guesses, guesses that succeeded, and people who come from elsewhere. Private to the room."""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import datetime, timedelta

from shipsight.access.audit import Entry
from shipsight.access.events import EventKind, Outcome
from shipsight.access.review.acts import SENSITIVE, failed_account
from shipsight.access.review.findings import Severity, shown
from shipsight.access.review.known import Known, day_of, network_of
from shipsight.access.review.rule import Rule, Tell
from shipsight.access.review.settings import ReviewSettings

__all__ = ["Burst", "ClonedPasskey", "Elsewhere", "Guessed", "Spray"]

_TRIES = frozenset({EventKind.SIGN_IN, EventKind.STEP_UP, EventKind.LIMITED})
_MOST = 20_000
_KEPT = 40
_MANY = 100
_DAY = timedelta(days=1)


class Burst(Rule):
    """Many failed sign-ins of one account, within an hour or slowly over a week."""

    code = "sign-in-burst"
    title = "Failed sign-ins of one account"
    why = "Somebody guesses a password or a code. The server slows them down, and does not stop them."
    advice = (
        "Ask the person whether it was them. If not, look where it came from, keep that network out, and see that "
        "the account has a second factor that cannot be phished (a passkey)."
    )
    kinds = _TRIES

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._failed: OrderedDict[str, deque[Entry]] = OrderedDict()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Counts failures."""
        event = entry.event
        account = failed_account(event)
        if account is None or account == "nobody":
            return
        failed = self._failed.setdefault(account, deque(maxlen=4 * _MANY))
        self._failed.move_to_end(account)
        if len(self._failed) > _MOST:
            self._failed.popitem(last=False)
        failed.append(entry)
        while failed and failed[0].event.at < event.at - timedelta(days=self.settings.slow_days):
            failed.popleft()
        recent = event.at - timedelta(minutes=self.settings.burst_minutes)
        quick = sum(1 for one in failed if one.event.at >= recent)
        if quick < self.settings.burst_failures and len(failed) < self.settings.slow_failures:
            return
        networks = {network_of(one.event.address) for one in failed}
        severity = Severity.ALARM if len(failed) >= _MANY and known.profile(account) is not None else Severity.WARNING
        if known.profile(account) is None:
            severity = Severity.NOTE  # nobody of that name ever signed in here: there is nothing to guess
        what = f"{len(failed)} sign-ins of {shown(account)} failed within {self.settings.slow_days} days"
        tell(self, account, severity, what, failed, who=[account], failures=len(failed), networks=len(networks))


class Spray(Rule):
    """Many accounts that fail: from one network, or each from somewhere else, far above what is usual."""

    code = "sign-in-spray"
    title = "Failed sign-ins of many accounts"
    why = "A few likely passwords, tried on all accounts, stay below what slows guesses down."
    advice = (
        "Keep the networks out at the firewall. Look whether one of these accounts was signed in to afterwards from there, "
        "and have their passwords changed."
    )
    kinds = _TRIES

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._open: OrderedDict[str, OrderedDict[str, Entry]] = OrderedDict()
        self._people: OrderedDict[str, set[str]] = OrderedDict()
        self._day, self._strange = 0, OrderedDict[str, Entry]()
        self._usual: deque[int] = deque(maxlen=settings.learning_days)

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Counts accounts that fail and do not succeed from the same network; names that nobody has are tried by robots everywhere."""
        event = entry.event
        self._turn(day_of(event.at))
        network = network_of(event.address) or "nowhere"
        account = failed_account(event)
        if account is None:
            if event.outcome is Outcome.DONE and event.kind is EventKind.SIGN_IN:
                self._open.get(network, OrderedDict()).pop(event.actor, None)
                self._strange.pop(event.actor, None)
                people = self._people.setdefault(network, set())
                self._people.move_to_end(network)
                if len(self._people) > _MOST:
                    self._people.popitem(last=False)
                if len(people) < _MANY:
                    people.add(event.actor)
            return
        if known.profile(account) is None:
            return
        self._from_network(network, account, entry, tell)
        if known.is_new_network(account, event):
            self._from_all_over(account, entry, tell)

    def _from_network(self, network: str, account: str, entry: Entry, tell: Tell) -> None:
        failed = self._open.setdefault(network, OrderedDict())
        self._open.move_to_end(network)
        if len(self._open) > _MOST:
            self._open.popitem(last=False)
        while failed and (len(failed) > _MOST or next(iter(failed.values())).event.at < entry.event.at - _DAY):
            failed.popitem(last=False)
        failed.setdefault(account, entry)
        people = len(self._people.get(network, ()))
        most = self.settings.sprayed_accounts_known if people > 1 else self.settings.sprayed_accounts
        if len(failed) >= most:
            what = f"{len(failed)} accounts were tried from {network} within a day, and did not get in from there"
            names = list(failed)[: _KEPT // 2]
            evidence = [*list(failed.values())[:_KEPT], entry]
            severity = Severity.ALARM if len(failed) >= _MANY else Severity.WARNING
            tell(self, network, severity, what, evidence, who=names, accounts=len(failed))

    def _from_all_over(self, account: str, entry: Entry, tell: Tell) -> None:
        self._strange.setdefault(account, entry)
        if len(self._usual) < self._usual.maxlen // 4:  # type: ignore[operator]  # it has one
            return
        usual = sorted(self._usual)[len(self._usual) * 3 // 4]
        if len(self._strange) < 3 * usual + self.settings.strange_accounts:
            return
        what = (
            f"{len(self._strange)} accounts failed to sign in on one day from where they never were; {usual} are usual"
        )
        evidence, names = [*list(self._strange.values())[:_KEPT], entry], list(self._strange)[: _KEPT // 2]
        tell(
            self,
            f"day {self._day}",
            Severity.WARNING,
            what,
            evidence,
            who=names,
            accounts=len(self._strange),
            usual=usual,
        )

    def _turn(self, day: int) -> None:
        while day > self._day:
            if self._day:
                self._usual.append(len(self._strange))
            self._strange = OrderedDict()
            self._day = day if not self._day or day - self._day > 60 else self._day + 1


class Guessed(Rule):
    """A sign-in that succeeded from a new network after several that failed."""

    code = "sign-in-guessed"
    title = "Success after failures, from elsewhere"
    why = "That is what a guessed or bought password looks like."
    advice = (
        "Ask the person. If it was not them: disable the account, end its sessions, look at all that it did since, and "
        "have password and factors set anew."
    )
    kinds = _TRIES

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._failed: OrderedDict[str, deque[Entry]] = OrderedDict()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Remembers failures until a success."""
        event = entry.event
        account = failed_account(event)
        if account is not None:
            failed = self._failed.setdefault(account, deque(maxlen=_KEPT))
            self._failed.move_to_end(account)
            failed.append(entry)
            if len(self._failed) > _MOST:
                self._failed.popitem(last=False)
            return
        if event.outcome is not Outcome.DONE or event.kind is not EventKind.SIGN_IN:
            return
        before = self._failed.pop(event.actor, None)
        recent = [one for one in before or () if one.event.at >= event.at - _DAY]
        if len(recent) < self.settings.guessed_failures:
            return
        profile = known.profile(event.actor)
        if profile is None or not known.is_new_network(event.actor, event):
            return
        what = f"{shown(event.actor)} signed in from a network that is new for them, after {len(recent)} failures"
        tell(self, event.actor, Severity.ALARM, what, [*recent, entry], who=[event.actor], failures=len(recent))


class Elsewhere(Rule):
    """A sensitive act by a person from where neither they nor anybody else ever was before the day."""

    code = "act-from-elsewhere"
    title = "Sensitive act from elsewhere"
    why = "A session or a password that was stolen is used from where the thief is."
    advice = "Ask the person where they were. If it was not them, end their sessions, and look at what was done."
    kinds = SENSITIVE | {EventKind.SIGN_IN, EventKind.ALLOWED, EventKind.ROLLOUT_CHANGED, EventKind.KEY_ADDED}

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._arrived: OrderedDict[tuple[str, str], Entry] = OrderedDict()
        self._signed: OrderedDict[tuple[str, str], tuple[datetime, str]] = OrderedDict()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Remembers who came from elsewhere, for a day."""
        event = entry.event
        if not event.actor.startswith("person:") or event.outcome is not Outcome.DONE or event.address is None:
            return
        profile, network = known.profile(event.actor), network_of(event.address) or ""
        where = event.actor, network
        if event.kind is EventKind.SIGN_IN:
            self._keep(self._signed, where, (event.at, event.factor or ""))
        is_known = (
            profile is not None and profile.days.count(day_of(event.at), known.window) >= self.settings.least_days
        )
        if is_known and known.is_new_place(event.actor, event) and where not in self._arrived:
            self._keep(self._arrived, where, entry)
        came = self._arrived.get(where)
        if came is None or came.event.at < event.at - _DAY or event.kind is EventKind.SIGN_IN:
            return
        signed = self._signed.get(where)
        if signed is None or signed[0] < event.at - _DAY:
            what = f"{shown(event.actor)} acted from {network} without having signed in there"
            tell(self, event.actor, Severity.ALARM, what, [came, entry], who=[event.actor], network=network)
        elif event.kind in SENSITIVE:
            what = f"{shown(event.actor)}: {event.kind.value} from {network}, where nobody was before"
            # Who travels takes their second factor along; what they then export is weighed by its amount.
            is_usual = event.kind is EventKind.EXPORTED and any(one in signed[1] for one in ("totp", "passkey"))
            severity = Severity.NOTE if is_usual else Severity.WARNING
            tell(self, event.actor, severity, what, [came, entry], who=[event.actor], network=network)

    def _keep(self, kept: OrderedDict, where: tuple[str, str], what: object) -> None:  # type: ignore[type-arg]  # of either kind
        kept[where] = what
        kept.move_to_end(where)
        if len(kept) > _MOST:
            kept.popitem(last=False)


class ClonedPasskey(Rule):
    """A passkey whose counter did not grow."""

    code = "passkey-cloned"
    title = "A passkey that may be a copy"
    why = "Two devices show the same passkey: one of them is a copy."
    advice = "Have the person remove this passkey and add another; look at where both sign-ins came from."
    kinds = frozenset({EventKind.REFUSED, EventKind.SIGN_IN, EventKind.STEP_UP})

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Looks at why something was refused."""
        event = entry.event
        if event.why == "passkey-cloned":
            what = f"a passkey of {shown(event.actor)} may be a copy: its counter did not grow"
            tell(self, event.actor, Severity.ALARM, what, [entry], who=[event.actor])
