# SPDX-License-Identifier: Apache-2.0
"""Average precision from match tables, once or for many resamples of the images at the same time.

What for: COCO's mean average precision, its value by class, precision and recall over confidence, and the bootstrap.
Leaves to others: matching, confidence intervals (`intervals`). Invariants: weights of 1 give exactly what the COCO API
gives for the same matches; an image of weight 2 counts like two copies of it. Stable.

How it is fast: precision only rises at predictions that found a label, so the interpolated curve is decided at these
alone. Everything else enters as a cumulative count, which is summed between them.

Source: COCO API `cocoeval.py`, accumulate (101 recall points, precision made monotonic from the right).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure.matching import IOU_THRESHOLDS, MatchTable

__all__ = ["ConfidenceCurves", "average_precision", "confidence_curves", "mean_average_precision"]

FloatArray = NDArray[np.float64]

_RECALL_POINTS: FloatArray = np.linspace(0.0, 1.0, 101)
_CHUNK_ELEMENTS = 2_000_000


def mean_average_precision(table: MatchTable, weights: FloatArray) -> FloatArray:
    """Returns mAP over classes for each weighting of the images.

    Args:
        table: matches of I images.
        weights: (R, I) how often each image counts, 0 and more.

    Returns:
        (R, T) mean over the classes that have a label under the weighting; NaN where none has.
    """
    total = np.zeros((len(weights), len(IOU_THRESHOLDS)))
    count = np.zeros(len(weights))
    for class_id in np.flatnonzero(table.label_counts.any(axis=0)):
        values, present = _class_precision(table, int(class_id), weights)
        total += np.where(present[:, None], values, 0.0)
        count += present
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], np.nan))


def average_precision(table: MatchTable) -> FloatArray:
    """Returns (K, T) average precision by class and threshold; NaN for classes without labels."""
    result = np.full((table.label_counts.shape[1], len(IOU_THRESHOLDS)), np.nan)
    weights = np.ones((1, len(table.label_counts)))
    for class_id in np.flatnonzero(table.label_counts.any(axis=0)):
        result[class_id] = _class_precision(table, int(class_id), weights)[0][0]
    return result


def _class_precision(table: MatchTable, class_id: int, weights: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Returns (R, T) average precision of a class, and (R,) whether the class has labels under the weighting."""
    label_counts = weights @ table.label_counts[:, class_id].astype(np.float64)
    own = np.flatnonzero(table.class_ids == class_id)
    own = own[np.argsort(-table.scores[own], kind="stable")]
    matched, ignored, image = table.matched[:, own], table.ignored[:, own], table.image[own]
    result = np.zeros((len(weights), len(matched)))
    ends = np.flatnonzero(matched.any(axis=0))
    if not len(ends):
        return result, label_counts > 0
    last = ends[-1] + 1
    matched, ignored, image = matched[:, ends], ignored[:, :last], image[:last]
    starts = np.concatenate([[0], ends[:-1] + 1])
    size = max(len(image), matched.size)
    for start in range(0, len(weights), max(1, _CHUNK_ELEMENTS // size)):
        rows = slice(start, start + max(1, _CHUNK_ELEMENTS // size))
        chunk = weights[rows][:, image]
        seen = _cumulative_counts(chunk, ignored, starts)
        right = np.cumsum(chunk[:, None, ends] * matched[None], axis=2)
        result[rows] = _interpolate(right, seen, label_counts[rows])
    return result, label_counts > 0


def _cumulative_counts(chunk: FloatArray, ignored: NDArray[np.bool_], starts: NDArray[np.int64]) -> FloatArray:
    """Returns (R, 1 or T, P) the weight of all predictions that count, up to each that found a label."""
    if not ignored.any():
        return np.asarray(np.cumsum(np.add.reduceat(chunk, starts, axis=1), axis=1)[:, None])
    steps = [np.cumsum(np.add.reduceat(chunk * ~one, starts, axis=1), axis=1) for one in ignored]
    return np.stack(steps, axis=1)


def _interpolate(right: FloatArray, seen: FloatArray, label_counts: FloatArray) -> FloatArray:
    """Returns (R, T) mean of the interpolated precision at 101 recalls.

    Args:
        right: (R, T, P) weight of predictions that found a label, up to and with each.
        seen: (R, 1 or T, P) weight of all predictions that count, likewise.
        label_counts: (R,).
    """
    precision = right / (seen + np.spacing(1))
    precision = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]
    recall = right / np.maximum(label_counts, 1.0)[:, None, None]
    # A recall point is served by the first prediction that reaches it; comparing floats as the COCO API does.
    served = np.searchsorted(_RECALL_POINTS, recall.ravel(), side="right").reshape(recall.shape)
    steps = np.diff(served, axis=2, prepend=0)
    return np.asarray((precision * steps).sum(axis=2) / len(_RECALL_POINTS))


@dataclass(frozen=True, eq=False)
class ConfidenceCurves:
    """Precision, recall and F1 at IoU 0.5 over the confidence threshold; G thresholds, K classes.

    Attributes:
        confidence: (G,) from 0 to 1.
        precision: (K, G); NaN for classes without labels, 1 where nothing is predicted.
        recall: (K, G); NaN for classes without labels.
        f1: (K, G); NaN for classes without labels.
    """

    confidence: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray

    def best(self) -> int:
        """Returns the index of the threshold with the best mean F1 over classes.

        The curve is averaged over 0.02 of confidence first, so that one lucky prediction does not decide; of equal
        thresholds the middle one is taken.
        """
        present = ~np.isnan(self.f1[:, 0])
        if not present.any():
            return 0
        mean = np.pad(self.f1[present].mean(axis=0), 10, mode="edge")
        smooth = np.convolve(mean, np.full(21, 1 / 21), mode="valid")
        best = np.flatnonzero(smooth >= smooth.max() - 1e-12)
        return int(best[len(best) // 2])


def confidence_curves(table: MatchTable) -> ConfidenceCurves:
    """Computes precision, recall and F1 at IoU 0.5 for 1,001 thresholds; predictions at the threshold count."""
    confidence = np.linspace(0.0, 1.0, 1001)
    class_count = table.label_counts.shape[1]
    precision, recall, f1 = (np.full((class_count, len(confidence)), np.nan) for _ in range(3))
    counts = table.label_counts.sum(axis=0)
    counted = ~table.ignored[0]
    for class_id in np.flatnonzero(counts):
        own = (table.class_ids == class_id) & counted
        seen = _count_from(table.scores[own], confidence)
        right = _count_from(table.scores[own & table.matched[0]], confidence)
        recall[class_id] = right / counts[class_id]
        precision[class_id] = np.where(seen > 0, right / np.maximum(seen, 1), 1.0)
        f1[class_id] = 2 * right / (seen + counts[class_id])
    return ConfidenceCurves(confidence, precision, recall, f1)


def _count_from(scores: FloatArray, confidence: FloatArray) -> FloatArray:
    return np.asarray(len(scores) - np.searchsorted(np.sort(scores), confidence, side="left"), dtype=np.float64)
