# SPDX-License-Identifier: Apache-2.0
"""How recording fares, in Prometheus' terms. Reading waits for no disk: what is kept is told as of a minute ago at most. Stable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from shipsight.serve.recordings import Recordings

__all__ = ["RecordingMetrics"]


class RecordingMetrics(Collector):
    """Reads the recorder's state when somebody asks.

    Args:
        recordings: that are being made.
    """

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings

    def collect(self) -> Iterator[Metric]:
        """Yields what there is to tell now."""
        state, watching = self._recordings.recorder.state, self._recordings.watching
        yield CounterMetricFamily("shipsight_recordings_offered", "Images that were looked at.", watching.told)
        yield CounterMetricFamily("shipsight_recordings_kept", "Images that were recorded.", state.recorded)
        dropped = CounterMetricFamily(
            "shipsight_recordings_dropped", "Images that were picked and not recorded, by the reason.", labels=["why"]
        )
        # Named from the start, so that an alarm has something to stand on.
        reasons = {
            "no-room": state.dropped + watching.dropped,
            "failed": state.failed,
            **dict.fromkeys(("sealed", "no-subject", "day-full", "class-full"), 0),
            **state.left_out,
        }
        for why, count in reasons.items():
            dropped.add_metric([why], count)
        yield dropped
        yield GaugeMetricFamily("shipsight_recordings_waiting", "Images that wait to be recorded.", state.waiting)
        yield GaugeMetricFamily("shipsight_recordings_bytes", "Of all recordings.", state.kept_bytes)
        age_s = 0.0 if state.oldest is None else (self._recordings.store.now() - state.oldest).total_seconds()
        yield GaugeMetricFamily(
            "shipsight_recordings_oldest_age_seconds", "Of the oldest recording; 0 for none.", age_s
        )
