# SPDX-License-Identifier: Apache-2.0
"""Drift and alerts in Prometheus' terms, read when somebody asks. Stable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from shipsight.monitor.alerts import Sample
    from shipsight.serve.monitors import Monitors

__all__ = ["MonitorMetrics"]

_COUNTS = {
    "taken": "Images that a monitor looked at.",
    "unreadable": "Of them, those that could not be measured.",
    "windows": "Windows of images that were compared with the reference.",
}


class MonitorMetrics(Collector):
    """Reads monitors' states.

    Args:
        monitors: of the server.
    """

    def __init__(self, monitors: Monitors) -> None:
        self._monitors = monitors

    def collect(self) -> Iterator[Metric]:
        """Yields what there is to tell now."""
        from shipsight.monitor.alerts.metrics import alert_samples, signal_samples

        reports = self._monitors.reports()
        for name, text in _COUNTS.items():
            counter = CounterMetricFamily(f"shipsight_monitor_{name}", text, labels=["subject"])
            for key, report, _ in reports:
                counter.add_metric([str(key)], getattr(report, name))
            yield counter
        learned = GaugeMetricFamily(
            "shipsight_monitor_learned", "1 where the reference is complete.", labels=["subject"]
        )
        kept = GaugeMetricFamily("shipsight_monitor_kept", "1 where a restart would go on.", labels=["subject"])
        for key, report, is_kept in reports:
            learned.add_metric([str(key)], float(report.is_learned))
            kept.add_metric([str(key)], float(is_kept))
        precision = GaugeMetricFamily(
            "shipsight_monitor_precision",
            "Precision of the latest window, estimated from its scores: the value, its 95 % interval, and what was measured at the build.",
            labels=["subject", "bound"],
        )
        for key, report, _ in reports:
            if report.accuracy is not None:
                for bound in ("value", "low", "high", "measured"):
                    precision.add_metric([str(key), bound], getattr(report.accuracy, bound))
        yield from (learned, kept, precision)
        yield from _families(signal_samples(self._monitors.signals()))
        if self._monitors.alerts is not None:
            yield from _families(alert_samples(self._monitors.alerts.state))


def _families(samples: Iterable[Sample]) -> Iterator[Metric]:
    for name, group in groupby(samples, key=lambda one: one.name):
        told = list(group)
        kind = CounterMetricFamily if told[0].is_counter else GaugeMetricFamily
        family = kind(name, told[0].help, labels=list(told[0].labels))
        for one in told:
            family.add_metric(list(one.labels.values()), one.value)
        yield family
