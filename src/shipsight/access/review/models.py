# SPDX-License-Identifier: Apache-2.0
"""Rules about models: another one under the same version, and promotions that skip what they always went through. Private to the room."""

from __future__ import annotations

from collections import OrderedDict, deque
from datetime import datetime, timedelta

from shipsight.access.audit import Entry
from shipsight.access.events import EventKind, Outcome
from shipsight.access.review.findings import Severity, shown
from shipsight.access.review.known import Known, day_of
from shipsight.access.review.rule import Rule, Tell
from shipsight.access.review.settings import ReviewSettings

__all__ = ["LoadedByAnother", "PromotedUntried", "ReplacedModel"]

_MOST = 20_000
_TRIED = timedelta(days=30)
_LEAST_PROMOTIONS = 3
_MOSTLY = 0.8


class ReplacedModel(Rule):
    """A model of a version that was there before, with other bytes."""

    code = "model-replaced"
    title = "Same version, another model"
    why = "Who exchanges a bundle's files changes what is answered, and no rollout shows it."
    advice = "Verify the bundle's signature and compare its manifest with what was built. Take it out of service until that is done."
    kinds = frozenset({EventKind.MODEL_LOADED, EventKind.BUNDLE_READ})

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._digests: OrderedDict[tuple[str, str], Entry] = OrderedDict()

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Compares digests."""
        event = entry.event
        version, digest = str(event.details.get("version")), event.details.get("digest")
        if event.outcome is not Outcome.DONE or not isinstance(digest, str):
            return
        which = (event.subject or "", version)
        before = self._digests.get(which)
        if before is not None and before.event.details.get("digest") != digest:
            what = f"version {shown(version)} of {shown(which[0])} is another model than before"
            tell(self, f"{which}", Severity.ALARM, what, [before, entry], who=[event.actor])
        self._digests[which] = entry
        self._digests.move_to_end(which)
        if len(self._digests) > _MOST:
            self._digests.popitem(last=False)


class PromotedUntried(Rule):
    """A version that was promoted without the trial (canary or shadow) that versions go through here."""

    code = "promoted-untried"
    title = "Promoted without a trial"
    why = "Who exchanges a model does not wait for a canary. Nor does who mends something in haste."
    advice = "Ask why. Compare the version's golden images with what it answers now."
    kinds = frozenset({EventKind.ROLLOUT_CHANGED})

    def __init__(self, settings: ReviewSettings) -> None:
        super().__init__(settings)
        self._tried: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        self._usual: deque[bool] = deque(maxlen=50)
        self._when: deque[datetime] = deque(maxlen=50)

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Remembers which versions were tried."""
        event, model = entry.event, entry.event.subject or ""
        if event.outcome is not Outcome.DONE:
            return
        details = event.details
        for one in ("canary", "shadow"):
            if details.get(one) is not None and details.get("action") == "share":
                version = str(details[one]).partition("=")[0]
                self._tried[model, version] = event.at
                self._tried.move_to_end((model, version))
                if len(self._tried) > _MOST:
                    self._tried.popitem(last=False)
        if details.get("action") != "promote":
            return
        version = str(details.get("current"))
        tried = self._tried.get((model, version))
        is_tried = tried is not None and tried >= event.at - _TRIED
        while self._when and self._when[0] < event.at - timedelta(days=known.window):
            self._when.popleft()
            self._usual.popleft()
        share = sum(self._usual) / len(self._usual) if self._usual else 0.0
        if not is_tried and len(self._usual) >= _LEAST_PROMOTIONS and share >= _MOSTLY:
            what = f"version {shown(version)} of {shown(model)} was promoted without a trial, which others had"
            tell(self, f"{model} {version}", Severity.WARNING, what, [entry], who=[event.actor])
        self._usual.append(is_tried)
        self._when.append(event.at)


class LoadedByAnother(Rule):
    """A model loaded or promoted by somebody who never did so."""

    code = "model-by-another"
    title = "Models changed by somebody new"
    why = "Few bring models into service."
    advice = "See that it is part of their work."
    kinds = frozenset({EventKind.MODEL_LOADED, EventKind.ROLLOUT_CHANGED})

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Looks whether they did so before."""
        event, name = entry.event, known.name_of(entry.event)
        if event.outcome is not Outcome.DONE or event.actor.startswith("server:"):
            return
        profile = known.profile(name)
        if profile is not None and any(profile.did(kind.value, event.at, known.window) for kind in self.kinds):
            return
        days = 0 if profile is None else profile.days.count(day_of(event.at), known.window)
        # Who was here for long and never did so; who is new has to begin some day.
        is_old = days >= 3 * self.settings.least_days and not known.is_learning(event.at)
        is_elsewhere = known.is_new_place(name, event)
        severity = Severity.WARNING if is_old and is_elsewhere else Severity.NOTE
        what = f"{shown(event.actor)}: {event.kind.value} for the first time ({shown(event.subject or '')})"
        tell(self, name, severity, what, [entry], who=[event.actor])
