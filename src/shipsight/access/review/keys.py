# SPDX-License-Identifier: Apache-2.0
"""Rules about keys and certificates: dormant ones, other networks, leavers, looking for what may be done, two secrets for ever.

Private to the room.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import datetime, timedelta

from shipsight.access.audit import Entry
from shipsight.access.events import EventKind, Outcome
from shipsight.access.review.findings import Severity, shown
from shipsight.access.review.known import Known, day_of, key_id, network_of, told
from shipsight.access.review.rule import Rule, Tell
from shipsight.access.review.settings import ReviewSettings

__all__ = ["DormantKey", "KeyGuessed", "KeyMoved", "KeyOfLeaver", "Probing", "TwoSecrets"]

_USES = frozenset({EventKind.KEY_USED, EventKind.CERTIFICATE_USED})
_REFUSED = frozenset({EventKind.KEY_REFUSED, EventKind.CERTIFICATE_REFUSED})
_MOST = 20_000
_DAY = timedelta(days=1)
_ROAMS = 4
_WATCHED = timedelta(days=10)


class DormantKey(Rule):
    """A key that is used again after a long time."""

    code = "dormant-key"
    title = "Dormant key used"
    why = "Nobody misses a key that nobody uses: who finds it can use it unseen."
    advice = "Ask its owner. If nobody needs it, revoke it; if it is a yearly job's, give it a key that ends."
    kinds = _USES

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._used: OrderedDict[str, tuple[datetime, int, str | None]] = OrderedDict()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Compares with the last use."""
        key, event = key_id(entry.event), entry.event
        if key is None:
            return
        last, slept, address = self._used.get(key, (None, 0, None))
        if last is not None and event.at - last < _DAY:
            if event.at > last:
                self._used[key] = event.at, slept, event.address
            return
        days, now = self._slept(last, key, event.at, known), event.address
        is_dormant = days >= self.settings.dormant_days
        if is_dormant:
            # A job that comes each quarter, from where it always does, wakes after as long as the last time.
            is_regular = slept > 0 and abs(days - slept) <= slept // 10 and network_of(address) == network_of(now)
            what = f"{shown(event.actor)} was used after {days} days without"
            severity = Severity.NOTE if is_regular else Severity.WARNING
            # Those that wake on one day mostly do so for one reason.
            kept = f"{severity} {day_of(event.at)}"
            tell(self, kept, severity, what, [entry], who=[event.actor], days=days)
        self._used[key] = max(event.at, last or event.at), days if is_dormant else slept, now
        self._used.move_to_end(key)
        if len(self._used) > _MOST:
            self._used.popitem(last=False)

    def _slept(self, last: datetime | None, key: str, at: datetime, known: Known) -> int:
        """Returns for how many days a key was not used; one that was never seen, and not made meanwhile, for as long as is known."""
        if last is not None:
            return (at - last).days
        profile = known.profile(key)
        made = known.began_at if profile is None else profile.made_at or known.began_at
        return 0 if made is None else (at - made).days


class KeyMoved(Rule):
    """A key that is used from a network that is new for it, while it is still used from where it was."""

    code = "key-new-network"
    title = "Key used from another network as well"
    why = "A program is in one place, or moves. A key that is in two was copied."
    advice = "Ask its owner. If the other place is not theirs, rotate it without an overlap, and look at what was asked from there."
    kinds = _USES

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._watched: OrderedDict[str, dict[str, list[Entry]]] = OrderedDict()
        self._last: dict[str, str | None] = {}

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Watches a key that came from elsewhere, until it is seen where it was."""
        event = entry.event
        name = known.name_of(event)
        if self._last.get(name) == event.address and name not in self._watched:
            return  # where it always is
        if len(self._last) > _MOST:
            self._last.clear()
        self._last[name] = event.address
        network = network_of(event.address)
        if network is None:
            return
        profile = known.profile(name)
        if profile is None or profile.age(event.at, known.window) < self.settings.learning_days // 2:
            return
        today = day_of(event.at)
        watched = self._watched.get(name, {})
        if network in watched:
            if len(watched[network]) < 40:
                watched[network].append(entry)
            return
        if known.is_new_network(name, event):
            if sum(1 for days in profile.networks.values() if days.has(today, known.window)) >= _ROAMS:
                self._note(entry, network, tell)
                return
            if known.knows_place(event.address, event.at):
                self._note(entry, network, tell)
                return
            self._watched.setdefault(name, {})[network] = [entry]
            if len(self._watched) > _MOST:
                self._watched.popitem(last=False)
            return
        if watched:
            self._look(name, network, entry, tell)

    def _look(self, name: str, network: str, entry: Entry, tell: Tell) -> None:
        """The key is where it was: so what came from elsewhere was no move."""
        for where, evidence in self._watched.pop(name).items():
            if evidence[0].event.at >= entry.event.at - _WATCHED:
                what = f"{shown(entry.event.actor)} was used from {where}, which nobody used before, and from {network} as well"
                who = [entry.event.actor]
                tell(self, where, Severity.WARNING, what, [*evidence, entry], who=who, network=where)

    def _note(self, entry: Entry, network: str, tell: Tell) -> None:
        what = f"{shown(entry.event.actor)} was used from {network}, which is new for it"
        tell(self, f"{entry.event.actor} {network}", Severity.NOTE, what, [entry], who=[entry.event.actor])


class KeyOfLeaver(Rule):
    """A key of somebody who was shut out, shown from elsewhere; and keys that somebody made shortly before they were shut out."""

    code = "leaver-key"
    title = "Keys of somebody who left"
    why = "Who leaves may take a key along, or leave one behind for themselves."
    advice = "Revoke what they made and nobody else needs. Look at what it was used for, and from where."
    kinds = (
        _REFUSED | _USES | {EventKind.KEY_ADDED, EventKind.KEY_REVOKED, EventKind.USER_CHANGED, EventKind.USER_REMOVED}
    )

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._made: OrderedDict[str, deque[Entry]] = OrderedDict()
        self._left: OrderedDict[str, tuple[Entry, Entry]] = OrderedDict()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Remembers who made which key."""
        event = entry.event
        if event.kind in _REFUSED:
            self._refused(entry, known, tell)
        elif event.outcome is not Outcome.DONE:
            return
        elif event.kind is EventKind.KEY_ADDED:
            self._made.setdefault(event.actor, deque(maxlen=100)).append(entry)
            self._made.move_to_end(event.actor)
            if len(self._made) > _MOST:
                self._made.popitem(last=False)
        elif event.kind is EventKind.KEY_REVOKED:
            self._left.pop(event.subject or "", None)
        elif event.kind in _USES:
            self._used(entry, known, tell)
        elif event.kind is EventKind.USER_REMOVED or event.details.get("is_disabled") is True:
            self._gone(entry)

    def _gone(self, entry: Entry) -> None:
        person, at = told(entry.event.subject) or "", entry.event.at
        for made in self._made.pop(person, ()):
            is_service = made.event.details.get("owner") is None
            if is_service and made.event.at >= at - timedelta(days=self.settings.leaver_days):
                self._left[made.event.subject or ""] = (made, entry)

    def _used(self, entry: Entry, known: Known, tell: Tell) -> None:
        """A service's key outlives who made it: with a place of its own that is its purpose, from a place that nobody knows it is not."""
        key, event = key_id(entry.event), entry.event
        if key is None or key not in self._left:
            return
        made, gone = self._left[key]
        person = made.event.actor
        is_odd = not known.knows_place(event.address, event.at)
        severity = Severity.ALARM if is_odd else Severity.NOTE
        what = f"{shown(event.actor)} was made by {shown(person)} shortly before they were shut out, and is used"
        if is_odd:
            what += " from where nobody was before"
        tell(self, key, severity, what, [made, gone, entry], who=[person, event.actor])

    def _refused(self, entry: Entry, known: Known, tell: Tell) -> None:
        event, key = entry.event, key_id(entry.event)
        if event.why not in ("owner-disabled", "revoked") or key is None:
            return
        profile, network = known.profile(key), network_of(event.address)
        is_elsewhere = (
            profile is not None
            and network is not None
            and network not in profile.networks
            and not known.knows_place(event.address, event.at)
        )
        severity = Severity.WARNING if is_elsewhere else Severity.NOTE
        what = f"{key} was shown, though it is shut out ({event.why})"
        if is_elsewhere:
            what += ", from where it never was"
        tell(self, f"{key} {event.why}", severity, what, [entry], who=[key])


class KeyGuessed(Rule):
    """A key whose secret was wrong many times, from somewhere else."""

    code = "key-guessed"
    title = "Wrong secrets of one key"
    why = "A secret cannot be guessed, but who tries has the key's id from somewhere."
    advice = "Find out where the id was read (logs, an old disk), and keep the network out."
    kinds = _REFUSED

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._wrong: OrderedDict[str, deque[Entry]] = OrderedDict()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Counts them."""
        event, key = entry.event, key_id(entry.event)
        if event.why != "secret" or key is None:
            return
        wrong = self._wrong.setdefault(key, deque(maxlen=200))
        self._wrong.move_to_end(key)
        if len(self._wrong) > _MOST:
            self._wrong.popitem(last=False)
        wrong.append(entry)
        while wrong[0].event.at < event.at - _DAY:
            wrong.popleft()
        if len(wrong) < self.settings.burst_failures:
            return
        profile, networks = known.profile(key), {network_of(one.event.address) for one in wrong}
        strange = [one for one in networks if one is not None and (profile is None or one not in profile.networks)]
        severity = Severity.WARNING if strange else Severity.NOTE
        what = f"{len(wrong)} wrong secrets of {key} within a day" + (", from where it never was" if strange else "")
        tell(self, key, severity, what, wrong, who=[key], tries=len(wrong))


class Probing(Rule):
    """One principal that was refused many different things within a day."""

    code = "probing"
    title = "Looks for what it may do"
    why = "Who has stolen a key does not know what it opens, and tries."
    advice = "Ask the owner whether they tried something out. If not, rotate the key without an overlap, or end the sessions."
    kinds = frozenset({EventKind.REFUSED})

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._seen: OrderedDict[str, tuple[int, dict[tuple[str, str, str], Entry], int]] = OrderedDict()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Counts different refusals of a day."""
        event = entry.event
        if event.actor in ("nobody", "loopback") or event.actor.startswith("platform"):
            return
        day, details = day_of(event.at), event.details
        last, kinds, count = self._seen.get(event.actor, (day, {}, 0))
        if last != day:
            kinds, count = {}, 0
        what = (str(details.get("route")), str(details.get("action") or event.why), event.subject or "")
        if len(kinds) < 200:
            kinds.setdefault(what, entry)
        self._seen[event.actor] = day, kinds, count + 1
        self._seen.move_to_end(event.actor)
        if len(self._seen) > _MOST:
            self._seen.popitem(last=False)
        if len(kinds) >= self.settings.probing_kinds:
            text = f"{shown(event.actor)} was refused {len(kinds)} different things on one day"
            who, evidence = [event.actor], [*kinds.values(), entry]
            tell(self, event.actor, Severity.WARNING, text, evidence, who=who, different=len(kinds), refused=count + 1)


class TwoSecrets(Rule):
    """A key that is given a new secret again and again while the one before is still good."""

    code = "two-secrets"
    title = "Rotations with an overlap that never ends"
    why = "Each overlap keeps the secret before alive: chained, two holders share one key for ever."
    advice = "Rotate once without an overlap, and see who asks for the key afterwards."
    kinds = frozenset({EventKind.KEY_ROTATED})

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._chains: OrderedDict[str, list[Entry]] = OrderedDict()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Counts rotations within the overlap of the one before."""
        event = entry.event
        key, overlap = event.subject or "", event.details.get("overlap_s")
        chain = self._chains.get(key, [])
        if chain:
            before = chain[-1].event
            good_s = before.details.get("overlap_s")
            if (event.at - before.at).total_seconds() > _seconds(good_s):
                chain = []
        if _seconds(overlap) <= 0:
            self._chains.pop(key, None)
            return
        chain = [*chain[-20:], entry]
        self._chains[key] = chain
        self._chains.move_to_end(key)
        if len(self._chains) > _MOST:
            self._chains.popitem(last=False)
        if len(chain) >= self.settings.rotations_least:
            what = f"{shown(key)} was rotated {len(chain)} times, each within the overlap of the one before"
            tell(self, key, Severity.WARNING, what, chain, who=[event.actor, key], rotations=len(chain))


def _seconds(value: object) -> float:
    """Returns a number of seconds as entries tell it: a number, or a text of one."""
    if isinstance(value, bool):
        return 0.0
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(value) if isinstance(value, str) else 0.0
    except ValueError:
        return 0.0
