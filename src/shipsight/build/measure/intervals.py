# SPDX-License-Identifier: Apache-2.0
"""Differences between variants, with the interval they are known to.

What for: a difference measured on few images is uncertain; every one that is shown or decided on carries a paired
bootstrap 95 % interval over images. Leaves to others: the matches that are resampled (`accuracy`). Invariants: the
value is the difference on the images themselves; both sides are resampled with the same images; the seed decides all.
Stable.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile interval).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure.average_precision import mean_average_precision
from shipsight.errors import CorruptError, UsageError

if TYPE_CHECKING:
    from shipsight.build.measure.accuracy import Accuracy

__all__ = ["Interval", "Outcome", "compare", "outcome", "pooled_interval"]


@dataclass(frozen=True)
class Interval:
    """A difference and the 95 % interval it is known to.

    Attributes:
        value: as measured.
        low: lower bound.
        high: upper bound.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Returns `value`, `low` and `high`."""
        return {"value": self.value, "low": self.low, "high": self.high}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Interval:
        """Reads what `to_dict` returned.

        Raises:
            CorruptError: a key is unknown or missing, or a value is not a number.
        """
        if not isinstance(data, Mapping) or set(data) != {"value", "low", "high"}:
            raise CorruptError("keys of an interval do not fit", where="interval", expected="value, low, high")
        try:
            return cls(value=float(data["value"]), low=float(data["low"]), high=float(data["high"]))
        except (TypeError, ValueError) as error:
            raise CorruptError("a value of an interval does not fit", where="interval", got=error) from error


class Outcome(StrEnum):
    """Whether a drop lies within its limit, as far as the images can tell."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"


def outcome(interval: Interval, limit: float) -> Outcome:
    """Judges a drop (source minus variant).

    Args:
        interval: of the drop.
        limit: largest drop that is accepted.

    Returns:
        Passed where the upper bound is within the limit, failed where the lower bound is beyond it, else undecided.
    """
    if interval.high <= limit:
        return Outcome.PASSED
    return Outcome.FAILED if interval.low > limit else Outcome.UNDECIDED


def compare(a: Accuracy, b: Accuracy, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Returns the difference a - b in the headline number (mAP50-95, or top-1), with its interval.

    For the drop of a variant, a is the source and b the variant.

    Args:
        a: measured on some images.
        b: measured on the same images in the same order.
        resamples: number of bootstrap resamples, 100 and more.
        seed: of the resamples.

    Raises:
        UsageError: the two were not measured on the same images and labels, or carry no matches any more (they were
            read back from a bundle).
    """
    return pooled_interval([(a, b)], resamples=resamples, seed=seed)


def pooled_interval(pairs: Sequence[tuple[Accuracy, Accuracy]], *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Returns the mean of the differences a - b over several sets of images, each resampled by itself.

    Args:
        pairs: one (a, b) a set, measured on the same images.
        resamples: number of bootstrap resamples, 100 and more.
        seed: of the resamples.

    Raises:
        UsageError: as `compare`, or there are no pairs.
    """
    if not pairs:
        raise UsageError("nothing to compare", where="pairs", expected="one pair or more")
    if resamples < 100:
        raise UsageError("too few resamples for an interval", where="resamples", expected="100 or more", got=resamples)
    value = 0.0
    differences = np.zeros(resamples)
    for index, (a, b) in enumerate(pairs):
        _check_pair(a, b)
        value += (a.value - b.value) / len(pairs)
        weights = _resample(a.image_count, resamples, np.random.default_rng([seed, index]))
        differences += (_headline(a, weights) - _headline(b, weights)) / len(pairs)
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        raise UsageError("the images have no labels to measure on", where="accuracy")
    low, high = np.percentile(differences, [2.5, 97.5])
    return Interval(value=float(value), low=float(low), high=float(high))


def _check_pair(a: Accuracy, b: Accuracy) -> None:
    if a.task is not b.task or a.image_count != b.image_count or a.sources != b.sources:
        raise UsageError("the two were not measured on the same images", where="compare")
    if (a.table is None) != (b.table is None) or (a.table is None and (a.hits is None or b.hits is None)):
        raise UsageError(
            "no matches to resample", where="compare", hint="Measure again: matches are not stored in a bundle."
        )
    if a.table is not None and b.table is not None:
        counts_a, counts_b = a.table.label_counts, b.table.label_counts
        if counts_a.shape != counts_b.shape or not np.array_equal(counts_a, counts_b):
            raise UsageError("the two were not measured on the same labels", where="compare")


def _resample(image_count: int, resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns (resamples, images): how often each image is drawn."""
    return rng.multinomial(image_count, np.full(image_count, 1 / image_count), size=resamples).astype(np.float64)


def _headline(accuracy: Accuracy, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns (resamples,) the headline number under each weighting."""
    if accuracy.table is not None:
        return np.asarray(mean_average_precision(accuracy.table, weights).mean(axis=1))
    assert accuracy.hits is not None
    return np.asarray(weights @ accuracy.hits / weights.sum(axis=1))
