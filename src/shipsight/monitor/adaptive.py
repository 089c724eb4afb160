# SPDX-License-Identifier: Apache-2.0
"""The mean of a stream since it last changed: a window that grows while nothing changes, and forgets what came before a change (ADWIN).

Buckets of 1, 2, 4, ... values hold sums alone, at most five of a size, so a window of a million values is a hundred buckets. Wherever the means
before and behind a border between buckets differ by more than chance gives, the oldest bucket goes. Leaves to others: what the values are.
Not thread-safe. Stable. Source: A. Bifet, R. Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", SDM 2007, sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

__all__ = ["AdaptiveWindow"]

_MOST_ALIKE = 5
_LEAST_SIDE = 10
_LOOK_EVERY = 8
"""Looking costs a hundred times what adding does, and a change that is seen up to 7 images later is seen."""


@dataclass(eq=False)
class AdaptiveWindow:
    """Values from 0 to 1, the latest that belong together.

    Attributes:
        error: chance of a cut at one look where nothing changed, 0 to 1.
        buckets: (number of values, their sum, sum of their squares), the oldest first.
        unseen: values that were added since the last look.
    """

    error: float
    buckets: list[tuple[int, float, float]] = field(default_factory=list)
    unseen: int = 0

    def __len__(self) -> int:
        """Values that it holds."""
        return sum(count for count, _, _ in self.buckets)

    @property
    def mean(self) -> float:
        """Of its values; NaN without any."""
        count = len(self)
        return sum(total for _, total, _ in self.buckets) / count if count else float("nan")

    def add(self, value: float) -> bool:
        """Takes a value, 0 to 1; returns whether older ones were let go."""
        self.buckets.append((1, value, value * value))
        self._merge()
        self.unseen += 1
        if self.unseen < _LOOK_EVERY:
            return False
        self.unseen = 0
        has_cut = False
        while self._has_changed():
            # The oldest alone: the next look at what is left says whether that was enough.
            del self.buckets[0]
            has_cut = True
        return has_cut

    def _merge(self) -> None:
        size = 1
        while True:
            alike = [place for place, one in enumerate(self.buckets) if one[0] == size]
            if len(alike) <= _MOST_ALIKE:
                return
            first = alike[0]
            older, newer = self.buckets[first : first + 2]
            self.buckets[first : first + 2] = [_sum(older, newer)]
            size *= 2

    def _has_changed(self) -> bool:
        """Tells whether any border parts two means that differ by more than the bound of section 3.1, its variance included."""
        counts, totals, squares = (np.array(one, np.float64) for one in _columns(self.buckets))
        count, total = counts.sum(), totals.sum()
        if count < 2 * _LEAST_SIDE:
            return False
        before = counts.cumsum()[:-1]
        behind = count - before
        there = (before >= _LEAST_SIDE) & (behind >= _LEAST_SIDE)
        if not there.any():
            return False
        first = totals.cumsum()[:-1]
        apart = np.abs(first / before - (total - first) / behind)
        variance = max(float(squares.sum() / count - (total / count) ** 2), 0.0)
        shorter = 1 / (1 / before + 1 / behind)
        chance = np.log(2 * np.log(count) / self.error)
        bound = np.sqrt(2 / shorter * variance * chance) + 2 / (3 * shorter) * chance
        return bool((apart[there] > bound[there]).any())


def _columns(buckets: Sequence[tuple[int, float, float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(zip(*buckets, strict=True))


def _sum(one: tuple[int, float, float], other: tuple[int, float, float]) -> tuple[int, float, float]:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
