# SPDX-License-Identifier: Apache-2.0
"""Rules about the time of day: what cannot be taken back, done when the same person is never there. Private to the room."""

from __future__ import annotations

from shipsight.access.audit import Entry
from shipsight.access.events import EventKind, Outcome
from shipsight.access.review.acts import SENSITIVE
from shipsight.access.review.findings import Severity, shown
from shipsight.access.review.known import Known, day_of
from shipsight.access.review.rule import Rule, Tell

__all__ = ["OffHours"]

_LEAST_WEEKS = 8


class OffHours(Rule):
    """Administration, an export or the release of a model's key at an hour, or on a day of the week, when this person is never there."""

    code = "off-hours"
    title = "Sensitive act at an unusual hour"
    why = "Somebody else with their password mostly lives elsewhere, and who wants to be unseen comes at night."
    advice = "Ask the person whether it was them, and what for."
    kinds = SENSITIVE

    def see(self, entry: Entry, known: Known, tell: Tell) -> None:
        """Compares with all that they did before, in UTC: no zone needs to be known."""
        event = entry.event
        if event.outcome is not Outcome.DONE or not event.actor.startswith("person:"):
            return
        profile, window = known.profile(event.actor), known.window
        days = 0 if profile is None else profile.days.count(day_of(event.at), window)
        if profile is None or days < self.settings.least_days:
            return
        share = profile.share_at(event.at, window)
        is_odd_hour = share < self.settings.unusual_share
        age_weeks = profile.age(event.at, window) // 7
        is_odd_day = age_weeks >= _LEAST_WEEKS and profile.weekdays_like(event.at, window) == 0
        if not is_odd_hour and not is_odd_day:
            return
        when = f"{event.at:%a %H:%M} UTC"
        whats = "at an hour" if is_odd_hour else "on a day of the week"
        what = f"{shown(event.actor)}: {event.kind.value} on {when}, {whats} when they are never there"
        if not is_odd_hour and event.kind is EventKind.EXPORTED:
            tell(self, f"{event.actor} day", Severity.NOTE, what, [entry], who=[event.actor])
            return
        weighty = event.kind in (EventKind.KEY_RELEASED, EventKind.EXPORTED) and is_odd_hour
        severity = Severity.ALARM if weighty else Severity.WARNING
        then = round(share * days)
        tell(self, event.actor, severity, what, [entry], who=[event.actor], days_known=days, days_at_this_hour=then)
