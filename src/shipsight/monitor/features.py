# SPDX-License-Identifier: Apache-2.0
"""What is kept of an image and its answer to tell drift by: some twenty numbers, nothing of the picture. Pure.

Leaves to others: which images (`watching`), comparing (`permuting`). Invariants: a function of the pixels and the answer
alone; every number is finite, also where nothing was found. Stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import ImageError, InputError
from shipsight.model import ImagePredictions
from shipsight.proof.image_measures import MEASURES, measure_image

__all__ = ["ANSWERS", "CLASSES", "Observation", "columns", "observe"]

ANSWERS: Mapping[str, str] = {
    "objects": "number found",
    "confidence": "mean score, 0 to 1; 0 where nothing was found",
    "best_confidence": "highest score, 0 to 1; 0 where nothing was found",
    "object_size": "mean side, square root of the share of the image; 0 where nothing was found",
}
"""Name -> unit of each number of an answer."""
CLASSES = "classes"
"""Name of the feature that counts what was found by class."""


@dataclass(frozen=True)
class Observation:
    """One image and its answer.

    Attributes:
        numbers: one for every name of `MEASURES` and `ANSWERS`, in that order.
        counts: objects of each class, by class id; of a classifier, 1 for the class it named.
        scores: of what was found, from a threshold on, 0 to 1; None where nobody estimates accuracy from them.
    """

    numbers: tuple[float, ...]
    counts: tuple[int, ...]
    scores: tuple[float, ...] | None = None


def observe(image_rgb: NDArray[np.uint8], predictions: ImagePredictions, *, conf: float | None = None) -> Observation:
    """Reduces an image and its answer to numbers.

    Args:
        image_rgb: (H, W, 3) uint8 RGB, as it was answered.
        predictions: the answer.
        conf: score from which on each is kept, 0 to 1; None for none.

    Raises:
        ImageError: the image is not (H, W, 3) uint8.
        InputError: a number of the answer is not finite.
    """
    shape = getattr(image_rgb, "shape", None)
    is_image = isinstance(image_rgb, np.ndarray) and image_rgb.dtype == np.uint8 and image_rgb.ndim == 3
    if not is_image or image_rgb.shape[2] != 3 or 0 in image_rgb.shape:
        raise ImageError(
            "an image cannot be measured", expected="(H, W, 3) uint8", got=shape or type(image_rgb).__name__
        )
    measures = measure_image(image_rgb)
    class_ids, scores = predictions.class_ids, predictions.scores
    if predictions.probabilities is not None:
        class_ids = np.array([int(np.argmax(predictions.probabilities))])
        scores = predictions.probabilities[class_ids]
    is_empty = len(scores) == 0
    answers = (
        float(len(predictions)),
        0.0 if is_empty else float(np.mean(scores, dtype=np.float64)),
        0.0 if is_empty else float(np.max(scores)),
        _mean_side(predictions),
    )
    # One number that is none would spoil every comparison that holds it.
    if not np.isfinite(answers).all():
        raise InputError("an answer cannot be measured", expected="finite scores and boxes", got=answers)
    counts = np.bincount(class_ids, minlength=len(predictions.class_names))
    kept = None if conf is None else tuple(float(one) for one in scores if one >= conf)
    return Observation(
        (*(float(measures[name]) for name in MEASURES), *answers), tuple(int(one) for one in counts), kept
    )


def _mean_side(predictions: ImagePredictions) -> float:
    if predictions.corners_xy is not None:
        corners = predictions.corners_xy.astype(np.float64)
        later = np.roll(corners, -1, axis=1)
        areas = np.abs((corners[..., 0] * later[..., 1] - later[..., 0] * corners[..., 1]).sum(axis=1)) / 2
    elif predictions.boxes_xyxy is not None:
        sides = np.maximum(predictions.boxes_xyxy[:, 2:] - predictions.boxes_xyxy[:, :2], 0).astype(np.float64)
        areas = sides[:, 0] * sides[:, 1]
    else:
        return 0.0
    whole = predictions.width * predictions.height
    return float(np.sqrt(areas / whole).mean()) if len(areas) else 0.0


def columns(observations: Sequence[Observation]) -> dict[str, NDArray[np.float64]]:
    """Returns the features of observations: name -> (n,) numbers; `classes` -> (n, classes)."""
    numbers = np.array([one.numbers for one in observations], np.float64).reshape(len(observations), -1)
    found = {name: numbers[:, place] for place, name in enumerate((*MEASURES, *ANSWERS)) if numbers.size}
    if observations:
        found[CLASSES] = np.array([one.counts for one in observations], np.float64)
    return found
