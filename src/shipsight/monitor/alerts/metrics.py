# SPDX-License-Identifier: Apache-2.0
"""Signals and alerts as figures for Prometheus, without its library: who exposes them makes families of them. Pure. Stable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shipsight.monitor.alerts.alerts import AlertsState
from shipsight.monitor.alerts.standings import Phase
from shipsight.monitor.signal import Signal

__all__ = ["Sample", "alert_samples", "samples", "signal_samples"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure.

    Attributes:
        name: of the family; a counter's is without `_total`.
        help: what it is.
        labels: their names and values.
        value: of it.
        is_counter: whether it only grows.
    """

    name: str
    help: str
    labels: Mapping[str, str]
    value: float
    is_counter: bool = False


def samples(state: AlertsState) -> list[Sample]:
    """Returns all figures of a state, those of one family one after the other."""
    return [*signal_samples(state.signals.values()), *alert_samples(state)]


def alert_samples(state: AlertsState) -> list[Sample]:
    """Returns the figures of alerts and their receivers alone."""
    found: list[Sample] = []
    for phase in (Phase.FIRING, Phase.PENDING):
        counts = Counter((key.subject, one.severity) for key, one in state.standings.items() if one.phase is phase)
        found += [
            Sample(
                f"shipsight_alerts_{phase}",
                f"Alerts that are {phase}, by the severity of their signal.",
                {"subject": subject, "severity": severity},
                float(count),
            )
            for (subject, severity), count in sorted(counts.items())
        ]
    told = {
        "sent": "Messages that a receiver of alerts took.",
        "failed": "Messages that a receiver of alerts refused, or that became too old.",
        "dropped": "Messages that found no room in the queue of a receiver of alerts.",
    }
    for name, text in told.items():
        found += [
            Sample(f"shipsight_alert_messages_{name}", text, {"receiver": one.name}, float(getattr(one, name)), True)
            for one in state.receivers
        ]
    waiting = "Messages that wait for a receiver of alerts."
    found += [
        Sample("shipsight_alert_messages_waiting", waiting, {"receiver": one.name}, float(one.waiting))
        for one in state.receivers
    ]
    up = "1 where a receiver of alerts took the latest message, or was sent none."
    found += [
        Sample("shipsight_alert_receiver_up", up, {"receiver": one.name}, float(one.error is None))
        for one in state.receivers
    ]
    kept = "1 where a restart would know how alerts stand."
    return [*found, Sample("shipsight_alerts_kept", kept, {}, float(state.is_kept))]


def signal_samples(signals: Iterable[Signal]) -> list[Sample]:
    """Returns the figures of signals."""
    found = []
    ordered = sorted(signals, key=lambda one: (one.subject, one.name))
    for name, text in (("value", "That was measured."), ("threshold", "That a signal's value is held against.")):
        for one in ordered:
            number = getattr(one, name)
            if number is not None:
                labels = {"subject": one.subject, "signal": one.name}
                found.append(Sample(f"shipsight_drift_{name}", text, labels, float(number)))
    firing = "1 where a signal fires."
    for one in ordered:
        labels = {"subject": one.subject, "signal": one.name, "severity": one.severity}
        found.append(Sample("shipsight_drift_firing", firing, labels, float(one.is_firing)))
    return found
