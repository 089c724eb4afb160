# SPDX-License-Identifier: Apache-2.0
"""What the bundle recorded of the training images, in the form that production is compared with. Pure.

Leaves to others: reading the bundle (`collecting`), testing (`deviations`). Rules: a measure is compared on a scale on which
the same change moves every image by about the same (logarithms for what is multiplied, plain levels for what is not); between the
recorded quantiles the distribution is taken as straight. Private.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCALES", "Distribution", "Embedding", "Scale", "Training"]

FloatArray = NDArray[np.float64]
_SHARES = np.array([0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0])
_KEYS = ("q00", "q01", "q05", "q25", "q50", "q75", "q95", "q99", "q100")
_KEPT_VARIANCE = 0.9
_MOST_COMPONENTS = 12


@dataclass(frozen=True)
class Scale:
    """How a measure is compared.

    Attributes:
        word: what people call it.
        unit: of the measure itself; empty for a plain number.
        forward: measure -> the scale it is compared on.
        least: change on that scale that is too small to matter, whatever its certainty. Set to what cameras of one kind, other
            halves of one data set and a re-encoded file differ by.
    """

    word: str
    unit: str
    forward: Callable[[Any], Any]
    least: float


def _log(offset: float) -> Callable[[Any], Any]:
    return lambda value: np.log(np.maximum(value, 0) + offset)


SCALES: Mapping[str, Scale] = {
    "brightness": Scale("brightness", "levels", _log(2.0), 0.06),
    "contrast": Scale("contrast", "levels", _log(1.0), 0.10),
    "sharpness": Scale("sharpness", "", _log(0.5), 0.35),
    "noise": Scale("noise", "levels", _log(0.2), 0.25),
    "red": Scale("red", "levels", _log(2.0), 0.06),
    "green": Scale("green", "levels", _log(2.0), 0.06),
    "blue": Scale("blue", "levels", _log(2.0), 0.06),
    "saturation": Scale("saturation", "", _log(0.05), 0.15),
    "colourfulness": Scale("colourfulness", "", _log(3.0), 0.15),
    "width": Scale("width", "px", _log(0.0001), 0.08),
    "height": Scale("height", "px", _log(0.0001), 0.08),
    "aspect": Scale("aspect", "", _log(0.0001), 0.05),
    "jpeg_quality": Scale("JPEG quality", "", lambda value: np.asarray(value, dtype=np.float64) / 25, 0.16),
}
"""Measures of `proof.image_measures` that are compared."""


@dataclass(frozen=True, eq=False)
class Distribution:
    """A measure over the training images.

    Attributes:
        count: of values.
        mean: of them, as measured.
        std: of them, as measured.
        quantiles: (9,) rising, at the shares 0, 1, 5, 25, 50, 75, 95, 99 and 100 %.
    """

    count: int
    mean: float
    std: float
    quantiles: FloatArray

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Distribution:
        """Takes an entry of `quantiles` of `proof/training-stats.json`."""
        return cls(
            int(summary["count"]),
            float(summary["mean"]),
            float(summary["std"]),
            np.array([float(summary[key]) for key in _KEYS]),
        )

    @property
    def median(self) -> float:
        """The middle value."""
        return float(self.quantiles[4])

    def scaled(self, forward: Callable[[Any], Any]) -> Distribution:
        """Returns it on another, rising scale; mean and deviation follow from the quantiles there."""
        quantiles = np.asarray(forward(self.quantiles), dtype=np.float64)
        draws = np.interp((np.arange(400) + 0.5) / 400, _SHARES, quantiles)
        return Distribution(self.count, float(draws.mean()), float(draws.std()), quantiles)

    def at(self, shares: FloatArray) -> FloatArray:
        """Returns the values below which these shares lie."""
        result: FloatArray = np.interp(shares, _SHARES, self.quantiles)
        return result

    def share_below(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Returns the shares below each value, without and with the value itself: they differ where many images share one."""
        low, high = np.interp(values, self.quantiles, _SHARES), np.interp(values, self.quantiles, _SHARES)
        for quantile in np.unique(self.quantiles):
            same = np.flatnonzero(self.quantiles == quantile)
            # Quantiles carry seven digits, so a value that many images share is met within them only.
            near = np.abs(values - quantile) <= 1e-5 * max(abs(float(quantile)), 1e-3)
            low[near], high[near] = _SHARES[same[0]], _SHARES[same[-1]]
        high[values >= self.quantiles[-1]] = 1.0
        low[values <= self.quantiles[0]] = 0.0
        return low, high


@dataclass(frozen=True, eq=False)
class Embedding:
    """The model's own view of the training images, by their main directions.

    Attributes:
        mean: (D,).
        whiten: (K, D) brings a difference from the mean to K numbers of deviation 1 over the training images.
        count: of images.
    """

    mean: FloatArray
    whiten: FloatArray
    count: int

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> Embedding:
        """Takes `embedding` of `proof/training-stats.json`: the directions that hold 90 % of the variance, 12 at most.

        The others are known too badly from a few hundred images to be divided by.
        """
        covariance = np.asarray(recorded["covariance"], dtype=np.float64)
        values, vectors = np.linalg.eigh(covariance)
        order = np.argsort(-values)
        shares = np.cumsum(values[order]) / max(float(values.sum()), 1e-12)
        count = min(_MOST_COMPONENTS, int(np.searchsorted(shares, _KEPT_VARIANCE)) + 1)
        kept = order[:count]
        whiten = vectors[:, kept].T / np.sqrt(np.maximum(values[kept], 1e-12))[:, None]
        return cls(np.asarray(recorded["mean"], dtype=np.float64), whiten, int(recorded["images"]))

    def place(self, vectors: FloatArray) -> FloatArray:
        """Returns (n, K) places of (n, D) vectors; the training images lie around 0 with deviation 1."""
        result: FloatArray = (vectors - self.mean) @ self.whiten.T
        return result


@dataclass(frozen=True, eq=False)
class Training:
    """`proof/training-stats.json`, read.

    Attributes:
        images: number of images it was made from.
        measures: name -> distribution, as measured; object sizes and scores among them.
        classes: class name -> number of labels.
        embedding: the model's own view, None where it was not recorded.
    """

    images: int
    measures: Mapping[str, Distribution]
    classes: Mapping[str, int]
    embedding: Embedding | None

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> Training:
        """Reads it.

        Raises:
            KeyError, TypeError, ValueError: it is not what `docs/formats/bundle.md` describes.
        """
        embedding = recorded.get("embedding")
        return cls(
            int(recorded["images"]),
            {name: Distribution.of(one) for name, one in recorded["quantiles"].items()},
            {str(name): int(count) for name, count in recorded["classes"].items()},
            None if not embedding else Embedding.of(embedding),
        )
