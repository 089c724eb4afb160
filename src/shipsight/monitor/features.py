# SPDX-License-Identifier: Apache-2.0
"""What is kept of an image and its answer to tell drift by: some twenty numbers, on request the model's own view, nothing of the picture. Pure.

Leaves to others: which images (`watching`), comparing (`permuting`). Invariants: a function of the pixels and the answer
alone; every number is finite, also where nothing was found. Stable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import ImageError, InputError
from shipsight.model import ImagePredictions
from shipsight.proof.image_measures import MEASURES, measure_image

__all__ = ["ANSWERS", "CLASSES", "EMBEDDING", "Observation", "columns", "leading", "numbers", "observe"]

ANSWERS: Mapping[str, str] = {
    "objects": "number found",
    "confidence": "mean score, 0 to 1; 0 where nothing was found",
    "best_confidence": "highest score, 0 to 1; 0 where nothing was found",
    "object_size": "mean side, square root of the share of the image; 0 where nothing was found",
}
"""Name -> unit of each number of an answer."""
CLASSES = "classes"
"""Name of the feature that counts what was found by class."""
EMBEDDING = "embedding"
"""Name of the feature that is the model's own view of an image: a vector."""
_LEADING = 3


@dataclass(frozen=True)
class Observation:
    """One image and its answer.

    Attributes:
        numbers: one for every name of `MEASURES` and `ANSWERS`, in that order.
        counts: objects of each class, by class id; of a classifier, 1 for the class it named.
        scores: of what was found, from a threshold on, 0 to 1; None where nobody estimates accuracy from them.
        embedding: the model's own view of the image; None where nobody asks the model for it.
    """

    numbers: tuple[float, ...]
    counts: tuple[int, ...]
    scores: tuple[float, ...] | None = None
    embedding: tuple[float, ...] | None = None


def observe(
    image_rgb: NDArray[np.uint8],
    predictions: ImagePredictions,
    *,
    conf: float | None = None,
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float64]] | None = None,
) -> Observation:
    """Reduces an image and its answer to numbers.

    Args:
        image_rgb: (H, W, 3) uint8 RGB, as it was answered.
        predictions: the answer.
        conf: score from which on each is kept, 0 to 1; None for none.
        embed: gives the model's own view of an image, (d,); None for none.

    Raises:
        ImageError: the image is not (H, W, 3) uint8.
        InputError: a number of the answer, or of the vector, is not finite.
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
    told = (*(float(measures[name]) for name in MEASURES), *answers)
    return Observation(
        told, tuple(int(one) for one in counts), kept, None if embed is None else _view(embed(image_rgb))
    )


def _view(vector: NDArray[np.float64]) -> tuple[float, ...]:
    if vector.ndim != 1 or not np.isfinite(vector).all():
        raise InputError("an image's vector cannot be taken", expected="(d,) finite numbers", got=vector.shape)
    # Seven digits are what float32 computed.
    return tuple(float(f"{one:.7g}") for one in vector.tolist())


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
    """Returns the features of observations: name -> (n,) numbers; `classes` -> (n, classes); `embedding` -> (n, d) where all have one."""
    table = np.array([one.numbers for one in observations], np.float64).reshape(len(observations), -1)
    found = {name: table[:, place] for place, name in enumerate((*MEASURES, *ANSWERS)) if table.size}
    if observations:
        found[CLASSES] = np.array([one.counts for one in observations], np.float64)
    if observations and all(one.embedding is not None for one in observations):
        found[EMBEDDING] = np.array([one.embedding for one in observations], np.float64)
    return found


def numbers(columns: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Returns the features that are numbers, without classes and vectors."""
    return {name: values for name, values in columns.items() if values.ndim == 1}


def leading(columns: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """Returns the features with vectors along the three directions in which they vary most, (n, 3): memory is looked for there."""
    if EMBEDDING not in columns:
        return dict(columns)
    centred = columns[EMBEDDING] - columns[EMBEDDING].mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:_LEADING]
    return {**columns, EMBEDDING: centred @ directions.T}
