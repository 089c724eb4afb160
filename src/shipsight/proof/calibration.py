# SPDX-License-Identifier: Apache-2.0
"""How often a detector is right at which score: counted on labelled images, kept by image so that its error can be told. Pure.

Predictions from the recommended threshold on are counted in up to ten ranges of score that hold about as many each: how many there were
in an image, and how many of them found a label (right class, IoU at least 0.5). A range tells the chance of being right.

Leaves to others: matching (`build.measure`), what follows for images without labels (`monitor.accuracy`). Invariants: no file
name, no pixel, no class; the same matches give the same counts. Stable. Format: `docs/formats/bundle.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import CorruptError
from shipsight.model.bundle import Bundle

__all__ = ["PLACE", "Calibration", "calibrate", "calibration_of"]

PLACE = "proof/calibration.json"
"""Where a bundle keeps it: variant -> `Calibration.to_dict()`."""
_LEAST_IMAGES, _LEAST_PREDICTIONS = 20, 100
_MOST_RANGES = 10
_KEYS = {"edges", "found", "right"}

IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often a variant was right, by score.

    Attributes:
        edges: (k + 1,) rising: the threshold, the borders between ranges, 1. A border belongs to the range above it.
        found: (images, k) predictions of each labelled image in each range.
        right: (images, k) of them, those that found a label.
    """

    edges: NDArray[np.float64]
    found: IntArray
    right: IntArray

    @property
    def conf(self) -> float:
        """Score from which on predictions count."""
        return float(self.edges[0])

    @property
    def precision(self) -> float:
        """Share of the predictions that were right."""
        return float(self.right.sum() / self.found.sum())

    def count(self, scores: NDArray[np.floating[Any]]) -> IntArray:
        """Returns how many scores lie in each range, (k,); those below the threshold in none."""
        return _ranges(np.asarray(scores, np.float64), self.edges)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values."""
        return {"edges": self.edges.tolist(), "found": self.found.tolist(), "right": self.right.tolist()}

    @classmethod
    def from_dict(cls, data: object) -> Calibration:
        """Reads what `to_dict` returned.

        Raises:
            CorruptError: it is something else.
        """
        if not isinstance(data, Mapping) or set(data) != _KEYS:
            raise CorruptError("not a calibration", where=PLACE, expected=sorted(_KEYS))
        try:
            edges = np.array(data["edges"], np.float64)
            found, right = (np.array(data[name], np.int64) for name in ("found", "right"))
        except (TypeError, ValueError, OverflowError) as error:
            raise CorruptError("not a calibration", where=PLACE, expected="numbers", got=error) from error
        is_sound = edges.ndim == 1 and len(edges) >= 2 and found.ndim == 2 and found.shape == right.shape
        if not is_sound or found.shape[1] != len(edges) - 1 or not (np.diff(edges) > 0).all():
            raise CorruptError("not a calibration", where=PLACE, expected="rising edges, counts of each range")
        if (right < 0).any() or (right > found).any() or not found.sum():
            raise CorruptError("not a calibration", where=PLACE, expected="no more right than found")
        return cls(edges, found, right)


def calibrate(
    image: NDArray[np.integer[Any]],
    scores: NDArray[np.floating[Any]],
    right: NDArray[np.bool_],
    *,
    images: int,
    conf: float,
) -> Calibration | None:
    """Counts predictions by score; None where there are too few: under 20 images that have some, or 100 in all.

    Args:
        image: (n,) of each prediction, the index of its image.
        scores: (n,) 0 to 1.
        right: (n,) whether it found a label.
        images: number of images.
        conf: score from which on predictions count, 0 to below 1.
    """
    kept = scores >= conf
    image, scores, right = image[kept], scores[kept].astype(np.float64), right[kept]
    if len(scores) < _LEAST_PREDICTIONS or len(np.unique(image)) < _LEAST_IMAGES or not conf < 1:
        return None
    count = min(_MOST_RANGES, len(scores) // (_LEAST_PREDICTIONS // 4))
    borders = np.unique(np.quantile(scores, np.linspace(0, 1, count + 1)[1:-1]))
    edges = np.array([conf, *borders[(borders > conf) & (borders < 1)], 1.0])
    found = np.stack([_ranges(scores[image == at], edges) for at in range(images)])
    hits = np.stack([_ranges(scores[(image == at) & right], edges) for at in range(images)])
    return Calibration(edges, found, hits)


def _ranges(scores: NDArray[np.float64], edges: NDArray[np.float64]) -> IntArray:
    places = np.searchsorted(edges[1:-1], scores[scores >= edges[0]], side="right")
    return np.bincount(places, minlength=len(edges) - 1).astype(np.int64)


def calibration_of(bundle: Bundle, variant: str) -> Calibration | None:
    """Returns a variant's calibration; None where the bundle has none: it was built before there were any, without labels, or of a classifier.

    Args:
        bundle: opened.
        variant: its name.

    Raises:
        CorruptError: what the bundle holds is no calibration.
        TamperedError: the file is not what the manifest promises.
    """
    if PLACE not in bundle.names:
        return None
    told = bundle.read_json(PLACE)
    if not isinstance(told, Mapping):
        raise CorruptError("not calibrations", where=PLACE, expected="one for each variant")
    return None if variant not in told else Calibration.from_dict(told[variant])
