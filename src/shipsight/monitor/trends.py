# SPDX-License-Identifier: Apache-2.0
"""Changes that are too slow or too small for one window: where each number of a stream stands in the reference, since it last changed.

Every value becomes its rank in the reference, 0 to 1, whatever its distribution; one that did not change has a mean of a half. `AdaptiveWindow` keeps
the ranks since the last change, and their mean is held against a half (Mann and Whitney's test, every feature at its share of the level). The
window grows for as long as nothing changes, so that small shifts become certain; after a change it is short, so that they become certain soon.

Leaves to others: which images are news to each other (`watching`). Invariants: one feature says nothing of another; classes are left to windows.
Not thread-safe. Stable. Source: H. B. Mann, D. R. Whitney, Annals of Mathematical Statistics 18 (1947).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from shipsight.monitor.adaptive import AdaptiveWindow
from shipsight.monitor.drift import Drift, MonitorSettings

__all__ = ["Trends"]

_CUT = 0.05
"""Chance of letting values go where nothing changed. That alone alarms nobody: it costs certainty, as too cautious a cut costs time."""
LEAST_IMAGES = 30
"""From here on the mean of ranks is normal enough."""
Kept = Mapping[str, tuple[int, list[list[float]]]]
"""Feature -> values since the last look, and the buckets."""


class Trends:
    """Ranks of the numbers of a stream.

    Args:
        reference: feature -> (n,) values.
        settings: of the monitor.
        kept: what `kept` gave, to go on with.
    """

    def __init__(
        self, reference: Mapping[str, NDArray[np.float64]], settings: MonitorSettings, kept: Kept | None = None
    ) -> None:
        self._settings = settings
        self._sorted = {name: np.sort(values) for name, values in reference.items()}
        self._windows = {name: self._window(*(kept or {}).get(name, (0, []))) for name in self._sorted}

    def _window(self, unseen: int, rows: list[list[float]]) -> AdaptiveWindow:
        return AdaptiveWindow(_CUT, [(int(count), total, squares) for count, total, squares in rows], unseen)

    def add(self, values: Mapping[str, float]) -> None:
        """Takes the numbers of an image that is news."""
        for name, ordered in self._sorted.items():
            low, high = np.searchsorted(ordered, values[name], "left"), np.searchsorted(ordered, values[name], "right")
            self._windows[name].add(float(low + high) / (2 * len(ordered)))

    def found(self) -> tuple[Drift, ...]:
        """Returns how every number stands that enough images are known of, the likeliest change first."""
        told = [self._judge(name, window) for name, window in self._windows.items() if len(window) >= LEAST_IMAGES]
        return tuple(sorted(told, key=lambda one: (not one.is_alarm, one.p_family, -one.effect)))

    def _judge(self, name: str, window: AdaptiveWindow) -> Drift:
        ordered, count = self._sorted[name], len(window)
        effect = abs(window.mean - 0.5)
        deviation = math.sqrt(self._variance(ordered) * (1 / count + 1 / len(ordered)))
        p_value = math.erfc(effect / deviation / math.sqrt(2)) if deviation else float(effect < 1e-9)
        p_family = min(1.0, p_value * len(self._sorted))
        is_alarm = p_family <= self._settings.error and effect >= self._settings.least_trend
        here = float(np.quantile(ordered, min(max(window.mean, 0.0), 1.0)))
        return Drift(name, effect, p_family, is_alarm, here, float(np.median(ordered)), count)

    @staticmethod
    def _variance(ordered: NDArray[np.float64]) -> float:
        """Returns the variance of the ranks of the reference among itself: 1/12, less for ties."""
        _, counts = np.unique(ordered, return_counts=True)
        shares = counts / len(ordered)
        return float((1 - (shares**3).sum()) / 12)

    def kept(self) -> dict[str, tuple[int, list[list[float]]]]:
        """Returns the windows as plain numbers."""
        return {name: (window.unseen, [list(one) for one in window.buckets]) for name, window in self._windows.items()}
