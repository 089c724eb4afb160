# SPDX-License-Identifier: Apache-2.0
"""One test for all features at once: do two stretches of images come from one distribution. Pure.

The rows of both stretches are dealt anew into two, thousands of times. A feature's p-value is its rank among the deals; the
family's is that of its smallest p-value among the smallest of each deal (Westfall and Young's min-p), so the chance that
anything at all is named where nothing changed is the level asked for, however the features hang together. Deals of one rank
in different features are told apart by how far they stand out, or the smallest chance that can be told would grow with the
number of features. Rows must be far enough apart in time not to know of each other: `spacing` says how far.

Leaves to others: what the features are, what matters (`monitor`). Invariants: the order of rows does not matter; every
number is right for ties and small samples. Stable. Sources: P. H. Westfall and S. S. Young, "Resampling-Based Multiple
Testing", 1993; P. Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005, chapter 3; A. Sokal, "Monte
Carlo Methods in Statistical Mechanics", 1997, section 3 (integrated autocorrelation time); E. B. Wilson and M. M. Hilferty,
"The Distribution of Chi-Square", PNAS 17 (1931); G. J. Székely and M. L. Rizzo, "Energy statistics: A class of statistics based on
distances", Journal of Statistical Planning and Inference 143 (2013).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.monitor.drift import LEAST_ROWS

__all__ = ["Comparison", "class_shift", "compare", "spacing"]

FloatArray = NDArray[np.float64]
_DEALS = 1999
_NO_MEMORY = 1.5  # images; chance alone gives less
_TIMES = 2.0  # autocorrelation times between rows: what is left of an exponential memory is under 0.02
_LEAST_BATCHES = 8  # fewer tell their variance too badly
_BATCH_DEVIATIONS = 3.0  # above what chance gives the variance of batch means
_BLOCK = 512  # rows whose distances to all others are held at a time
_TYPICAL = 0.95  # share of the deals below what a feature's statistic is measured by


@dataclass(frozen=True)
class Comparison:
    """One feature of two stretches.

    Attributes:
        effect: of numbers, the largest distance between the shares below any value; of counts by class, the most that the share of
            a class among the objects, or of the images that hold it, changed; of vectors, the root of the share of the distance between
            two of different stretches that no distance within one explains, half the deviations by which a normal number moved a little.
            0 to 1.
        p_value: chance of as much in this feature where nothing changed.
        p_family: chance that any of the features shows as much.
    """

    effect: float
    p_value: float
    p_family: float


def spacing(columns: Mapping[str, FloatArray]) -> int:
    """Returns how many images apart rows must lie, from the longest memory of any feature; 1 where each is news.

    More than 1 is a prime: cameras that take turns then all keep theirs.

    Args:
        columns: feature -> (n,) or (n, k) values of consecutive images, in order of time.
    """
    longest = 1.0
    for values in columns.values():
        for column in np.atleast_2d(values.T):
            longest = max(longest, _memory(column))
    return 1 if longest < _NO_MEMORY else _next_prime(int(np.ceil(_TIMES * longest)))


def _next_prime(number: int) -> int:
    while any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number


def _memory(values: FloatArray) -> float:
    """Returns the integrated autocorrelation time in images, 1 for independent ones: the longer of two estimates."""
    count = len(values)
    centred = values - values.mean()
    power = float(centred @ centred)
    if power <= 1e-12 * count * max(1.0, float(np.abs(values).max()) ** 2):
        return 1.0
    return max(_memory_of_lags(centred, power), _memory_of_batches(centred, power))


def _memory_of_lags(centred: FloatArray, power: float) -> float:
    """Returns the sum of the autocorrelation while it stands out from chance."""
    count = len(centred)
    time, chance = 1.0, 2 / np.sqrt(count)
    for lag in range(1, count // 4):
        correlation = float(centred[:-lag] @ centred[lag:]) / power
        if correlation < chance:
            break
        time += 2 * correlation
    return time


def _memory_of_batches(centred: FloatArray, power: float) -> float:
    """Returns how many times as much the means of batches vary as those of independent images would; 1 within chance.

    Where cameras take turns, neighbours know nothing of each other and yet each remembers its own last image: the lags
    begin with silence, batches see it. A level that each camera has of its own is no memory, and cancels.
    """
    count, longest, size = len(centred), 1.0, 2
    while count // size >= _LEAST_BATCHES:
        batches = count // size
        means = centred[: batches * size].reshape(batches, size).mean(axis=1)
        ratio = size * float(means.var(ddof=1)) * count / power
        unit = 2 / (9 * (batches - 1))
        if ratio > (1 - unit + _BATCH_DEVIATIONS * np.sqrt(unit)) ** 3:
            longest = max(longest, ratio)
        size *= 2
    return longest


def compare(
    first: Mapping[str, FloatArray],
    second: Mapping[str, FloatArray],
    *,
    vectors: Collection[str] = (),
    seed: int = 0,
) -> dict[str, Comparison]:
    """Compares two stretches.

    Args:
        first: feature -> (n,) numbers or (n, k) counts by class.
        second: the same features, (m,) or (m, k).
        vectors: features whose (n, k) are vectors, not counts.
        seed: of the 1,999 deals.

    Returns:
        A comparison for every feature; empty where a stretch has fewer than `LEAST_ROWS` rows.
    """
    sizes = [len(next(iter(side.values()), ())) for side in (first, second)]
    if min(sizes) < LEAST_ROWS:
        return {}
    draw = np.random.default_rng(seed)
    seen = np.repeat([False, True], sizes)
    # What was seen is one of the deals that it is ranked among.
    deals = np.stack([seen, *(draw.permutation(seen) for _ in range(_DEALS))])
    effects: dict[str, float] = {}
    p_values: dict[str, float] = {}
    keys: list[FloatArray] = []
    for name in first:
        rows = np.concatenate([first[name], second[name]]).astype(np.float64)
        statistic, effect = _judge(rows, deals, is_vector=name in vectors)
        # Rounding must not tell two equal ones apart.
        rounded = np.round(statistic, 6)
        order = np.sort(rounded)
        ranks = 1 - np.searchsorted(order, rounded, side="left") / len(order)
        p_values[name] = float(ranks[0])
        excess = rounded / (order[int(_TYPICAL * len(order))] or 1.0)
        # Less than one rank apart: it orders what is of equal rank, and nothing else.
        keys.append(ranks - excess / (1 + excess) / len(order))
        effects[name] = effect
    least = np.sort(np.min(keys, axis=0))
    return {
        name: Comparison(
            effects[name], p_values[name], float(np.searchsorted(least, key[0], side="right")) / len(least)
        )
        for name, key in zip(first, keys, strict=True)
    }


def _judge(rows: FloatArray, deals: NDArray[np.bool_], *, is_vector: bool) -> tuple[FloatArray, float]:
    """Returns the statistic of each deal, and the effect in the first."""
    if is_vector:
        return _energy(rows, deals)
    if rows.ndim == 1:
        statistic = _distances(rows, deals)
        return statistic, float(statistic[0])
    seen = deals[0]
    return _mix(rows, deals), float(class_shift(rows[~seen], rows[seen]).max(initial=0.0))


def _energy(rows: FloatArray, deals: NDArray[np.bool_]) -> tuple[FloatArray, float]:
    """Returns the energy distance of each deal, as a share of the mean distance of all rows; and the effect in the first."""
    second = int(deals[0].sum())
    first = len(rows) - second
    dealt = deals.astype(np.float32)
    within, touching, whole = np.zeros(len(deals)), np.zeros(len(deals)), 0.0
    squares = (rows * rows).sum(axis=1)
    for start in range(0, len(rows), _BLOCK):
        some = slice(start, start + _BLOCK)
        gaps = squares[some, None] + squares - 2 * rows[some] @ rows.T
        apart = np.sqrt(np.maximum(gaps, 0)).astype(np.float32)
        apart[np.arange(len(apart)), np.arange(len(apart)) + start] = 0  # no rounding between a row and itself
        sums = dealt[:, some] @ apart
        within += (sums * dealt).sum(axis=1, dtype=np.float64)
        touching += sums.sum(axis=1, dtype=np.float64)
        whole += float(apart.sum(dtype=np.float64))
    if not whole:
        return np.zeros(len(deals)), 0.0
    across, others = touching - within, whole - 2 * touching + within
    statistic = (2 * across / (first * second) - within / second**2 - others / first**2) / (whole / len(rows) ** 2)
    # Without the distance of a row to itself, which is none: chance then gives as much below 0 as above.
    fair = 2 * across[0] / (first * second) - within[0] / (second * (second - 1)) - others[0] / (first * (first - 1))
    between = 2 * across[0] / (first * second)
    return np.maximum(statistic, 0), float(np.sqrt(max(fair / between, 0.0))) if between else 0.0


def _distances(values: FloatArray, deals: NDArray[np.bool_]) -> FloatArray:
    """Returns Kolmogorov and Smirnov's distance of each deal."""
    order = np.argsort(values, kind="stable")
    last = np.append(np.diff(values[order]) > 0, True)
    second = int(deals[0].sum())
    below = np.cumsum(deals[:, order], axis=1, dtype=np.int32)[:, last]
    others = np.arange(1, len(values) + 1)[last] - below
    distances: FloatArray = np.abs(below / second - others / (len(values) - second)).max(axis=1)
    return distances


def _mix(counts: FloatArray, deals: NDArray[np.bool_]) -> FloatArray:
    """Returns the largest difference of a class's mean counts an image, in its own deviations."""
    spread = counts.std(axis=0)
    seen = spread > 0
    second = int(deals[0].sum())
    sums = deals.astype(np.float32) @ counts[:, seen].astype(np.float32)
    means, others = sums / second, (counts[:, seen].sum(axis=0) - sums) / (len(counts) - second)
    found: FloatArray = (np.abs(means - others) / spread[seen]).max(axis=1, initial=0.0).astype(np.float64)
    return found


def class_shift(first: FloatArray, second: FloatArray) -> FloatArray:
    """Returns (2, k): by how much each class's share of the objects changed, and that of the images that hold it.

    Args:
        first: (n, k) counts by class.
        second: (m, k).
    """
    among = [side.sum(axis=0) / max(float(side.sum()), 1.0) for side in (first, second)]
    held = [(side > 0).mean(axis=0) for side in (first, second)]
    found: FloatArray = np.abs(np.stack([among[1] - among[0], held[1] - held[0]]))
    return found
