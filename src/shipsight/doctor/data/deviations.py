# SPDX-License-Identifier: Apache-2.0
"""How far production lies from training, measure by measure, with its error. Pure.

A measure deviates where two things hold: chance does not explain it (Kolmogorov and Smirnov's test against the recorded
quantiles, or the shift of the middle against its error; all measures together at one error rate, Holm's way), and it moved by
more than is too small to matter. Private.

Sources: A. Kolmogorov 1933 with M. Stephens' correction for small samples (JASA 69, 1974); S. Holm, Scand. J. Statist. 6 (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.data.training import SCALES, Distribution

__all__ = ["FAMILY_ERROR", "LEAST_IMAGES", "Deviation", "deviate", "holm", "ks_distance", "ks_p_value"]

FloatArray = NDArray[np.float64]
FAMILY_ERROR = 0.01
"""Share of healthy sets in which any measure may pass the test by chance."""
LEAST_IMAGES = 12
"""Fewer tell nothing of a distribution: with 11 images, a shift of one deviation is seen half of the time."""

_TRIM = np.linspace(0.05, 0.95, 19)


@dataclass(frozen=True)
class Deviation:
    """One measure, here and in training.

    Attributes:
        measure: name, as in `SCALES`.
        here: median over the production images, as measured.
        training: median over the training images, as measured.
        shift: how far the middle nine tenths moved, on the measure's scale.
        error: standard error of `shift`.
        spread: deviation over the training images, on the measure's scale.
        p_value: chance of as much where nothing changed.
        is_clear: whether it passes the test together with all the others, and matters.
    """

    measure: str
    here: float
    training: float
    shift: float
    error: float
    spread: float
    p_value: float
    is_clear: bool = False

    @property
    def deviations(self) -> float:
        """`shift` in deviations of the training images."""
        return self.shift / max(self.spread, SCALES[self.measure].least / 4)


def ks_distance(values: FloatArray, training: Distribution) -> float:
    """Returns the largest difference between the shares of production and of training below any value, 0 to 1."""
    ordered = np.sort(values)
    low, high = training.share_below(ordered)
    upto = np.searchsorted(ordered, ordered, side="right") / len(ordered)
    before = np.searchsorted(ordered, ordered, side="left") / len(ordered)
    return float(max(np.max(upto - high), np.max(low - before), 0.0))


def ks_p_value(distance: float, count: int, other_count: int) -> float:
    """Returns the chance of such a distance between two samples of one distribution."""
    effective = math.sqrt(count * other_count / (count + other_count))
    value = (effective + 0.12 + 0.11 / effective) * distance
    if value < 0.2:
        return 1.0
    total = 2 * math.fsum((-1.0) ** (k - 1) * math.exp(-2 * k * k * value * value) for k in range(1, 101))
    return min(max(total, 0.0), 1.0)


def holm(p_values: Sequence[float], error: float = FAMILY_ERROR) -> list[bool]:
    """Returns which of several tests pass when all together may err with this chance."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    passed = [False] * len(p_values)
    for rank, at in enumerate(order):
        if p_values[at] > error / (len(p_values) - rank):
            break
        passed[at] = True
    return passed


def compare(name: str, values: Sequence[float], training: Distribution) -> Deviation:
    """Compares the values of one measure, two and more, with its distribution in training."""
    scale = SCALES[name]
    here = np.asarray(scale.forward(np.asarray(values, dtype=np.float64)), dtype=np.float64)
    there = training.scaled(scale.forward)
    shift = float(np.mean(np.quantile(here, _TRIM) - there.at(_TRIM)))
    # A few images that happen to be alike are no proof that all are.
    variance = max(float(here.var(ddof=1)), there.std**2) / len(here) + there.std**2 / max(there.count, 1)
    error = math.sqrt(float(variance)) + 1e-9
    by_shape = ks_p_value(ks_distance(here, there), len(here), there.count)
    # An eighth of what matters is added: no error is known better than two halves of one data set agree.
    by_shift = math.erfc(abs(shift) / math.hypot(error, scale.least / 8) / math.sqrt(2))
    chance = min(1.0, 2 * min(by_shape, by_shift))
    return Deviation(name, float(np.median(values)), training.median, shift, error, there.std, chance)


def deviate(values: Mapping[str, Sequence[float]], training: Mapping[str, Distribution]) -> tuple[Deviation, ...]:
    """Compares every measure that both sides have.

    Args:
        values: measure -> one value an image, `LEAST_IMAGES` and more; others are passed over.
        training: measure -> its distribution.
    """
    names = [name for name in SCALES if name in training and len(values.get(name, ())) >= LEAST_IMAGES]
    found = [compare(name, values[name], training[name]) for name in names]
    passed = holm([one.p_value for one in found])
    return tuple(
        replace(one, is_clear=is_sure and abs(one.shift) >= SCALES[one.measure].least)
        for one, is_sure in zip(found, passed, strict=True)
        # Files that are compressed less than those of training lack nothing.
        if not (one.measure == "jpeg_quality" and one.shift > 0)
    )
