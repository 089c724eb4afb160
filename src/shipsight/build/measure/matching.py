# SPDX-License-Identifier: Apache-2.0
"""Which prediction found which label, by COCO's rules, image by image.

What for: matches are computed once an image; every accuracy number and every resample is made from them. Leaves to
others: the overlap of a pair (`overlap`, `coco_backend`), average precision (`average_precision`). Invariants: a label
is found at most once a threshold; predictions choose in order of falling score; a table's rows keep the order of
images and, within an image, of the predictions given. Stable.

Source: COCO API `cocoeval.py`, evaluateImg (crowd regions left out: YOLO labels have none).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AREAS", "IOU_THRESHOLDS", "MAX_DETECTIONS", "MatchTable", "Objects", "TableBuilder"]

FloatArray = NDArray[np.float64]

IOU_THRESHOLDS: FloatArray = np.linspace(0.5, 0.95, 10)
"""COCO's ten thresholds of overlap."""

MAX_DETECTIONS = 300
"""Predictions that count, an image and class: as many as Ultralytics validates with (COCO's own default is 100)."""

AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
"""COCO's ranges of object area in square pixels of the original image, borders included."""


@dataclass(frozen=True, eq=False)
class Objects:
    """Predictions or labels of one image, as matching sees them.

    Attributes:
        class_ids: (N,) int64.
        areas: (N,) square pixels of the original image.
        scores: (N,) of predictions; None for labels.
        ignored: (N,) labels that count neither as found nor as missed; None for none.
    """

    class_ids: NDArray[np.int64]
    areas: FloatArray
    scores: FloatArray | None = None
    ignored: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class MatchTable:
    """All predictions of a set of images with what they found; D predictions, I images, K classes, T thresholds.

    Attributes:
        image: (D,) int32 index of the image.
        class_ids: (D,) int32.
        scores: (D,) float64.
        matched: (T, D) bool: found a label that counts.
        ignored: (T, D) bool: counts neither as right nor as wrong.
        label_counts: (I, K) int32 labels that count.
    """

    image: NDArray[np.int32]
    class_ids: NDArray[np.int32]
    scores: FloatArray
    matched: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    label_counts: NDArray[np.int32]


class TableBuilder:
    """Collects the matches of one image after another, for every range of area at once."""

    def __init__(self, class_count: int) -> None:
        """Starts empty.

        Args:
            class_count: number of classes.
        """
        self._class_count = class_count
        self._rows: list[tuple[NDArray[np.int64], FloatArray, NDArray[np.bool_], NDArray[np.bool_]]] = []
        self._counts: list[NDArray[np.int32]] = []

    def add(self, predictions: Objects, labels: Objects, overlap: FloatArray) -> None:
        """Matches one image.

        Args:
            predictions: of the image, with scores.
            labels: of the image.
            overlap: (predictions, labels); pairs of different classes are not looked at.
        """
        assert predictions.scores is not None
        label_ignored = _ignored_labels(labels)
        self._counts.append(_count_labels(labels.class_ids, label_ignored, self._class_count))
        kept = _keep_best(predictions.class_ids, predictions.scores)
        class_ids, scores = predictions.class_ids[kept], predictions.scores[kept]
        found = _match(class_ids, scores, overlap[kept], labels.class_ids, label_ignored)
        matched = found == _FOUND
        low, high = _area_bounds()
        areas = predictions.areas[kept]
        outside = (areas[None] < low) | (areas[None] > high)
        ignored = (found == _FOUND_IGNORED) | ((found == _NOTHING) & outside[:, None])
        self._rows.append((class_ids, scores, matched, ignored))

    def build(self, area: str = "all") -> MatchTable:
        """Returns the table of one range of area."""
        a = list(AREAS).index(area)
        threshold_count = len(IOU_THRESHOLDS)
        empty = np.zeros((threshold_count, 0), dtype=bool)
        lengths = [len(row[0]) for row in self._rows]
        counts = np.zeros((0, self._class_count), dtype=np.int32)
        return MatchTable(
            image=np.repeat(np.arange(len(self._rows), dtype=np.int32), lengths),
            class_ids=np.concatenate([np.zeros(0, np.int64), *(row[0] for row in self._rows)]).astype(np.int32),
            scores=np.concatenate([np.zeros(0), *(row[1] for row in self._rows)]),
            matched=np.concatenate([empty, *(row[2][a] for row in self._rows)], axis=1),
            ignored=np.concatenate([empty, *(row[3][a] for row in self._rows)], axis=1),
            label_counts=np.concatenate([counts, *(one[a][None] for one in self._counts)]).astype(np.int32),
        )


_NOTHING, _FOUND, _FOUND_IGNORED = 0, 1, 2


def _area_bounds() -> tuple[FloatArray, FloatArray]:
    bounds = np.array(list(AREAS.values()))
    return bounds[:, :1], bounds[:, 1:]


def _ignored_labels(labels: Objects) -> NDArray[np.bool_]:
    """Returns (areas, labels): which labels a range of area leaves out."""
    low, high = _area_bounds()
    outside = (labels.areas[None] < low) | (labels.areas[None] > high)
    return outside if labels.ignored is None else outside | labels.ignored[None]


def _count_labels(class_ids: NDArray[np.int64], ignored: NDArray[np.bool_], class_count: int) -> NDArray[np.int32]:
    rows = [np.bincount(class_ids[~one], minlength=class_count) for one in ignored]
    return np.stack(rows).astype(np.int32)


def _keep_best(class_ids: NDArray[np.int64], scores: FloatArray) -> NDArray[np.int64]:
    """Returns indices, in the order given, without what lies beyond the best 300 of a class."""
    kept = np.ones(len(class_ids), dtype=bool)
    if len(class_ids) > MAX_DETECTIONS:
        for class_id in np.unique(class_ids):
            own = np.flatnonzero(class_ids == class_id)
            kept[own[np.argsort(-scores[own], kind="stable")[MAX_DETECTIONS:]]] = False
    return np.flatnonzero(kept)


def _match(
    class_ids: NDArray[np.int64],
    scores: FloatArray,
    overlap: FloatArray,
    label_class_ids: NDArray[np.int64],
    label_ignored: NDArray[np.bool_],
) -> NDArray[np.int8]:
    """Returns (areas, thresholds, predictions): found nothing, a label, or a label that is ignored."""
    area_count, label_count = label_ignored.shape
    result = np.zeros((area_count, len(IOU_THRESHOLDS), len(class_ids)), dtype=np.int8)
    if not label_count or not len(class_ids):
        return result
    same = class_ids[:, None] == label_class_ids[None]
    allowed = np.where(same, overlap, -1.0)
    # The COCO API keeps an overlap of exactly 1 matchable at any threshold.
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    free = np.ones((area_count, len(thresholds), label_count), dtype=bool)
    areas, steps = np.indices((area_count, len(thresholds)))
    order = np.argsort(-scores, kind="stable")
    # Most predictions at a low score threshold reach no label at all: only the others need the loop.
    for d in order[(allowed[order] >= thresholds[0]).any(axis=1)]:
        reachable = free & (allowed[d] >= thresholds[:, None])
        wanted = reachable & ~label_ignored[:, None]
        any_wanted = wanted.any(axis=2, keepdims=True)
        candidates = np.where(any_wanted, wanted, reachable)
        value = np.where(candidates, allowed[d], -1.0)
        # Of equal overlaps the COCO API takes the last.
        best = label_count - 1 - value[..., ::-1].argmax(axis=2)
        hit = candidates.any(axis=2)
        free[areas[hit], steps[hit], best[hit]] = False
        result[..., d] = np.where(hit, np.where(any_wanted[..., 0], _FOUND, _FOUND_IGNORED), _NOTHING)
    return result
