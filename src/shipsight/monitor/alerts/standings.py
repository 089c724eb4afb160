# SPDX-License-Identifier: Apache-2.0
"""How each alert stands: pending, firing, resolved; and what is to be told when signals come. Pure. Private to the room.

Rules. An alert is told once its signal has fired for `for_s` without a break, again after `repeat_s` while it fires, at once where it becomes worse
than was told, and when it has been quiet for `resolve_s` without a break. One that comes back within `repeat_s` has to be quiet for twice as long
each time: what flaps becomes one alert that goes on. A signal that an evaluation does not tell of (too few images) changes nothing; one that is not
told of for `repeat_s` ends its alert, and that is said. The order in which signals come does not matter; a clock that is set back delays, and
loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple, Self

from shipsight.errors import CorruptError
from shipsight.monitor.alerts.message import Alert, Reason, finite, one_line
from shipsight.monitor.alerts.settings import SEVERITIES, AlertSettings
from shipsight.monitor.signal import Signal

__all__ = ["Key", "Phase", "Standing", "advance"]

_MOST_DOUBLINGS = 30


class Key(NamedTuple):
    """What an alert is about: its subject, and the name of the signal."""

    subject: str
    name: str


class Phase(StrEnum):
    """Where an alert is in its life."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one alert stands. Times are seconds since 1970, UTC.

    Attributes:
        phase: where it is.
        since: when its signal began to fire.
        seen: when the signal was told of last.
        quiet: since when a firing alert's signal is quiet, None while it fires.
        told: when a message that it fires was made last; None while it is pending.
        told_severity: the worst that was told of since it fires.
        ended: when it was resolved last, None where it never was.
        returns: how often it came back soon after it was resolved.
        severity: of the signal as it fired last, like all that follows.
        what: one line.
        evidence: one line.
        remedy: one line.
        value: that was measured.
        threshold: that it is held against.
    """

    phase: Phase
    since: float
    seen: float
    quiet: float | None = None
    told: float | None = None
    told_severity: str | None = None
    ended: float | None = None
    returns: int = 0
    severity: str
    what: str
    evidence: str
    remedy: str
    value: float | None
    threshold: float | None

    def to_state(self) -> dict[str, Any]:
        """Returns what `from_state` reads."""
        return asdict(self)

    @classmethod
    def from_state(cls, told: dict[str, Any]) -> Self:
        """Reads what `to_state` wrote.

        Raises:
            CorruptError: it is something else.
        """
        try:
            made = cls(**{**told, "phase": Phase(told["phase"])})
            times = [made.since, made.seen, made.quiet, made.told, made.ended]
            is_timed = all(one is None or (type(one) in (int, float) and abs(one) < 1e11) for one in times)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptError("not the state of an alert", got=type(error).__name__) from error
        is_told = made.told is not None and made.told_severity in SEVERITIES
        if not is_timed or made.severity not in SEVERITIES or (made.phase is Phase.FIRING and not is_told):
            raise CorruptError("not the state of an alert", got=made.phase)
        return made


def advance(
    standings: Mapping[Key, Standing], signals: Iterable[Signal], now: float, settings: AlertSettings
) -> tuple[dict[Key, Standing], dict[Key, Alert]]:
    """Returns how alerts stand after an evaluation, and what is to be told of it.

    Args:
        standings: how they stood.
        signals: of the evaluation, in any order; of several about one thing the worst counts.
        now: seconds since 1970, UTC.
        settings: which, and when.
    """
    told: dict[Key, Signal] = {}
    for one in signals:
        if settings.watches(one.name):
            key = Key(one.subject, one.name)
            told[key] = max((told.get(key, one), one), key=lambda each: _weight(each, settings))
    after: dict[Key, Standing] = {}
    alerts: dict[Key, Alert] = {}
    for key in sorted(standings.keys() | told.keys()):
        standing = standings.get(key)
        before = None if standing is None else _not_after(standing, now)
        signal = told.get(key)
        if signal is None:
            found, reason = _unseen(before, now, settings)
        elif _fires(signal, settings):
            found, reason = _fire(before, signal, now, settings)
        else:
            found, reason = _rest(before, now, settings)
        if found is not None:
            after[key] = found
            if reason is not None:
                alerts[key] = _alert(key.name, found, reason)
    return after, alerts


def _fires(signal: Signal, settings: AlertSettings) -> bool:
    return signal.is_firing and SEVERITIES.index(signal.severity) >= SEVERITIES.index(settings.least_severity)


def _weight(signal: Signal, settings: AlertSettings) -> tuple[bool, int, str]:
    return _fires(signal, settings), SEVERITIES.index(signal.severity), repr(signal)


def _not_after(standing: Standing, now: float) -> Standing:
    """Returns it with no time after now: of a clock that was set back."""
    return replace(
        standing,
        since=min(standing.since, now),
        seen=min(standing.seen, now),
        quiet=None if standing.quiet is None else min(standing.quiet, now),
        told=None if standing.told is None else min(standing.told, now),
        ended=None if standing.ended is None else min(standing.ended, now),
    )


_Stood = tuple[Standing | None, Reason | None]


def _unseen(before: Standing | None, now: float, settings: AlertSettings) -> _Stood:
    if before is None or now - before.seen < settings.repeat_s:
        return before, None
    return _end(before, now, Reason.UNSEEN) if before.phase is Phase.FIRING else (None, None)


def _rest(before: Standing | None, now: float, settings: AlertSettings) -> _Stood:
    if before is None:
        return None, None
    if before.phase is Phase.FIRING:
        quiet = now if before.quiet is None else before.quiet
        needed = min(settings.resolve_s * 2.0 ** min(before.returns, _MOST_DOUBLINGS), settings.repeat_s)
        if now - quiet >= needed:
            return _end(before, now, Reason.QUIET)
        return replace(before, quiet=quiet, seen=now), None
    # What was resolved is remembered for as long as coming back makes it one that flaps.
    if before.ended is None or now - before.ended >= settings.repeat_s:
        return None, None
    return replace(before, phase=Phase.RESOLVED, seen=now), None


def _end(before: Standing, now: float, reason: Reason) -> _Stood:
    ended = replace(before, phase=Phase.RESOLVED, quiet=None, told=None, told_severity=None, ended=now, seen=now)
    return ended, reason


def _fire(before: Standing | None, signal: Signal, now: float, settings: AlertSettings) -> _Stood:
    if before is None or before.phase is Phase.RESOLVED:
        is_back = before is not None and before.ended is not None and now - before.ended < settings.repeat_s
        current = _described(
            Standing(
                phase=Phase.PENDING,
                since=now,
                seen=now,
                ended=before.ended if before is not None and is_back else None,
                returns=before.returns if before is not None and is_back else 0,
                severity=signal.severity,
                what="",
                evidence="",
                remedy="",
                value=None,
                threshold=None,
            ),
            signal,
        )
    else:
        current = replace(_described(before, signal), seen=now, quiet=None)
    if current.phase is Phase.PENDING:
        if now - current.since < settings.for_s:
            return current, None
        returns = current.returns + (current.ended is not None)
        return replace(
            current, phase=Phase.FIRING, told=now, told_severity=signal.severity, returns=returns
        ), Reason.NEW
    if current.told_severity is not None and SEVERITIES.index(signal.severity) > SEVERITIES.index(
        current.told_severity
    ):
        return replace(current, told=now, told_severity=signal.severity), Reason.WORSE
    if current.told is not None and now - current.told >= settings.repeat_s:
        return replace(current, told=now), Reason.AGAIN
    return current, None


def _described(standing: Standing, signal: Signal) -> Standing:
    return replace(
        standing,
        severity=signal.severity,
        what=one_line(signal.what),
        evidence=one_line(signal.evidence),
        remedy=one_line(signal.remedy),
        value=finite(signal.value),
        threshold=finite(signal.threshold),
    )


def _alert(name: str, standing: Standing, reason: Reason) -> Alert:
    return Alert(
        name=name,
        reason=reason,
        severity=standing.severity,
        what=standing.what,
        evidence=standing.evidence,
        remedy=standing.remedy,
        value=standing.value,
        threshold=standing.threshold,
        since=standing.since,
    )
