# SPDX-License-Identifier: Apache-2.0
"""Rules about a model's data: exports, reading, copying by asking, keys that open models. Private to the room."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from shipsight.access.audit import Entry
from shipsight.access.events import Event, EventKind, Outcome
from shipsight.access.review.findings import Severity, shown
from shipsight.access.review.known import Known, day_of, is_young
from shipsight.access.review.rule import Rule, Tell
from shipsight.access.review.settings import ReviewSettings

__all__ = ["CopiedByAsking", "FirstOfItsKind", "RecordingsChanged", "Volume"]

_MOST = 20_000
_COUNTS = ("images", "files", "records", "entries")


@dataclass
class _Amounts:
    """What one actor read or exported, a day."""

    days: OrderedDict[int, int] = field(default_factory=OrderedDict)
    widths: OrderedDict[int, int] = field(default_factory=OrderedDict)
    models: set[str] = field(default_factory=set)
    evidence: list[Entry] = field(default_factory=list)
    today: int = 0

    def add(self, entry: Entry, day: int, pieces: int, window: int) -> None:
        if day != self.today:
            self.today, self.models, self.evidence = day, set(), []
        if len(self.evidence) < 40:
            self.evidence.append(entry)
        self.models.add((entry.event.subject or "")[:200])
        self.days[day] = self.days.get(day, 0) + pieces
        self.widths[day] = len(self.models)
        for kept in (self.days, self.widths):
            while next(iter(kept)) < day - window:
                kept.popitem(last=False)


class Volume(Rule):
    """Far more data read or exported on a day than the same one ever did."""

    code = "data-volume"
    title = "Unusual amount of data"
    why = "Who takes data along takes much of it, or of many models."
    advice = "Ask what it was for and where it is now. Where nobody knows, end sessions and keys first."
    kinds = frozenset({EventKind.EXPORTED, EventKind.DATA_READ, EventKind.BUNDLE_READ})

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._amounts: OrderedDict[tuple[str, EventKind], _Amounts] = OrderedDict()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Compares a day with those before it."""
        event, name = entry.event, known.name_of(entry.event)
        if event.outcome is not Outcome.DONE or event.actor.startswith("server:"):
            return
        day, kind = day_of(event.at), event.kind
        amounts = self._amounts.setdefault((name, kind), _Amounts())
        self._amounts.move_to_end((name, kind))
        if len(self._amounts) > _MOST:
            self._amounts.popitem(last=False)
        amounts.add(entry, day, _pieces(event), known.window)
        most = max((count for one, count in amounts.days.items() if one < day), default=0)
        widest = max((count for one, count in amounts.widths.items() if one < day), default=0)
        done, width = amounts.days[day], len(amounts.models)
        is_much = done >= max(self.settings.volume_least, self.settings.volume_factor * most)
        is_wide = width >= self.settings.breadth_least and width >= 2 * widest and kind is not EventKind.BUNDLE_READ
        if not is_much and not is_wide:
            return
        profile = known.profile(name)
        is_new = profile is None or profile.age(event.at, known.window) < self.settings.learning_days
        severity = Severity.NOTE if known.is_learning(event.at) or (is_new and not is_much) else Severity.WARNING
        what = f"{shown(event.actor)}: {done} pieces of {width} models by {kind.value} on one day, at most {most} of {widest} before"
        tell(
            self,
            f"{name} {kind.value}",
            severity,
            what,
            [*amounts.evidence, entry],
            who=[event.actor],
            pieces=done,
            models=width,
            most_before=most,
            widest_before=widest,
        )


class FirstOfItsKind(Rule):
    """Somebody who exports data, or has a model's key released, for the first time."""

    code = "first-export"
    title = "First export or key release"
    why = "Few do either, and those who do are known."
    advice = "See that it is part of their work."
    kinds = frozenset({EventKind.EXPORTED, EventKind.KEY_RELEASED})

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Looks whether they did it before."""
        event, name = entry.event, known.name_of(entry.event)
        profile = known.profile(name)
        if event.outcome is not Outcome.DONE or event.actor.startswith("server:"):
            return
        if profile is not None and profile.did(event.kind.value, event.at, known.window):
            return
        if is_young(profile, event, self.settings):
            return  # another rule tells
        # Where it is usual and when it is, a key release is part of bringing a model into service; else other rules tell.
        is_usual = event.kind is EventKind.KEY_RELEASED and known.knows_place(event.address, event.at)
        severity = Severity.NOTE if known.is_learning(event.at) or is_usual else Severity.WARNING
        what = f"{shown(event.actor)}: {event.kind.value} for the first time ({shown(event.subject or 'no model')})"
        tell(self, f"{name} {event.kind.value}", severity, what, [entry], who=[event.actor])


class CopiedByAsking(Rule):
    """Questions to a model that look as if somebody copies it, as the server told when they were asked."""

    code = "extraction-suspected"
    title = "A model may be copied by asking it"
    why = "The answers to enough well-chosen images are as good as the model."
    advice = "Ask the owner of the key what they do. Give it a smaller quota, or revoke it."
    kinds = frozenset({EventKind.EXTRACTION_SUSPECTED})

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Tells of it, one finding for each who asks."""
        event = entry.event
        what = f"{shown(event.actor)} asks {shown(event.subject or 'a model')} as if to copy it ({event.why})"
        tell(self, known.name_of(event), Severity.WARNING, what, [entry], who=[event.actor])


class RecordingsChanged(Rule):
    """Recordings of production erased, restored, or copied into a backup, by somebody who does not do so, or very many at once."""

    code = "recordings-changed"
    title = "Recordings erased, restored or backed up"
    why = "Who wants to leave no trace erases what was recorded of it; who takes a backup along takes all recordings, though sealed."
    advice = "See that somebody asked for it: a person, an authority, or whoever answers for the data."
    kinds = frozenset({EventKind.RECORDINGS_ERASED, EventKind.RECORDINGS_CHANGED, EventKind.CONFIGURATION_CHANGED})

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Looks who did it, and how many they were."""
        event, name, what = entry.event, known.name_of(entry.event), str(entry.event.details.get("what"))
        if event.kind is EventKind.CONFIGURATION_CHANGED:
            if event.subject == "recordings":
                told = f"server {shown(entry.server)} records under another policy"
                tell(self, f"{entry.server} policy", Severity.NOTE, told, [entry], who=[event.actor])
            return
        # What has ended goes by the policy, whoever has it swept.
        if event.outcome is not Outcome.DONE or what == "expired":
            return
        profile, count = known.profile(name), _pieces(event)
        is_usual = profile is not None and profile.did(event.kind.value, event.at, known.window)
        is_much = event.kind is EventKind.RECORDINGS_ERASED and count >= self.settings.volume_least
        if is_usual and not is_much:
            return
        severity = Severity.NOTE if known.is_learning(event.at) and not is_much else Severity.WARNING
        if event.kind is EventKind.RECORDINGS_ERASED:
            told = f"{shown(event.actor)} erased {count} recordings ({shown(what, 40)})"
        else:
            told = f"{shown(event.actor)} did something to all recordings ({shown(what, 40)})"
        if not is_usual:
            told += " for the first time"
        tell(self, f"{name} {event.kind.value}", severity, told, [entry], who=[event.actor], records=count)


def _pieces(event: Event) -> int:
    """Returns how many pieces an entry is about; one where it does not tell, or only lists them."""
    if event.details.get("what") == "list":
        return 1
    counts = [event.details.get(name) for name in _COUNTS]
    return max((one for one in counts if isinstance(one, int) and not isinstance(one, bool)), default=1)
