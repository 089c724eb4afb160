# SPDX-License-Identifier: Apache-2.0
"""Which objects of two descriptions of one image are the same. Pure. Private to the room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.dataset.evidence import Boxes

__all__ = ["CONFIDENT", "Pairs", "agreement", "overlaps", "pair_all"]

CONFIDENT = 0.25
"""Least score of a prediction that counts: what Ultralytics and shipsight show by default."""

_THRESHOLDS = np.arange(0.5, 1.0, 0.05)

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs over all images; arrays run over the pairs.

    Attributes:
        image: number of the image.
        left: index in the image's first description.
        right: in its second.
        classes: (P, 2) int64.
        scores: (P, 2).
        boxes: (P, 2, 4) in pixels of the image.
        ious: overlap.
        images: number of images in all.
        offered: number of confident objects in the first descriptions.
    """

    image: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    classes: NDArray[np.int64]
    scores: FloatArray
    boxes: FloatArray
    ious: FloatArray
    images: int
    offered: int

    def __len__(self) -> int:
        return len(self.image)

    def pick(self, index: NDArray[np.bool_]) -> Pairs:
        """Returns those that a mask picks."""
        return Pairs(
            self.image[index],
            self.left[index],
            self.right[index],
            self.classes[index],
            self.scores[index],
            self.boxes[index],
            self.ious[index],
            self.images,
            self.offered,
        )


def overlaps(one: FloatArray, other: FloatArray) -> FloatArray:
    """Returns (N, M) intersection over union of (N, 4) and (M, 4) boxes x0, y0, x1, y1."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - inner
    return np.asarray(np.divide(inner, union, out=np.zeros_like(inner), where=union > 0))


def pair_all(
    first: Sequence[Boxes], second: Sequence[Boxes], *, conf: float = CONFIDENT, least_iou: float = 0.5
) -> Pairs:
    """Pairs confident objects of the first with objects of the second, whatever their classes, by overlap.

    Where several of the second overlap enough, the one with the most overlap times score is taken: at low scores the same box is
    answered under several classes.

    Args:
        first: one entry an image.
        second: of the same images.
        conf: least score of the first.
        least_iou: least overlap of a pair.
    """
    found: list[tuple[int, int, int, float]] = []
    offered = 0
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        kept = np.flatnonzero(one.scores >= conf)
        offered += len(kept)
        table = overlaps(one.boxes_xyxy[kept], other.boxes_xyxy)
        worth = np.where(table >= least_iou, table * np.maximum(other.scores[None, :], 1e-6), 0.0)
        for _ in range(min(table.shape)):
            at = int(worth.argmax())
            i, j = divmod(at, worth.shape[1])
            if worth[i, j] <= 0:
                break
            found.append((number, int(kept[i]), j, float(table[i, j])))
            worth[i, :] = 0
            worth[:, j] = 0
    image = np.array([one[0] for one in found], np.int64)
    left = np.array([one[1] for one in found], np.int64)
    right = np.array([one[2] for one in found], np.int64)
    both = [(first[n], i, second[n], j) for n, i, j, _ in found]
    return Pairs(
        image,
        left,
        right,
        np.array([(a.class_ids[i], b.class_ids[j]) for a, i, b, j in both], np.int64).reshape(-1, 2),
        np.array([(a.scores[i], b.scores[j]) for a, i, b, j in both], np.float64).reshape(-1, 2),
        np.array([(a.boxes_xyxy[i], b.boxes_xyxy[j]) for a, i, b, j in both], np.float64).reshape(-1, 2, 4),
        np.array([one[3] for one in found], np.float64),
        len(first),
        offered,
    )


def agreement(first: Sequence[Boxes], second: Sequence[Boxes], *, conf: float = CONFIDENT) -> float:
    """Returns how far two descriptions agree at a confidence, 0 to 1.

    The mean over overlaps from 0.5 to 0.95 of the F1 of one against the other, class by class: what mAP50-95 asks, of predictions as
    they are shown. 1 where neither says anything.
    """
    matched = np.zeros(len(_THRESHOLDS))
    count = 0
    for one, other in zip(first, second, strict=True):
        ours, theirs = one.pick(one.scores >= conf), other.pick(other.scores >= conf)
        count += len(ours) + len(theirs)
        table = overlaps(ours.boxes_xyxy, theirs.boxes_xyxy)
        table = np.where(ours.class_ids[:, None] == theirs.class_ids[None, :], table, 0.0)
        for _ in range(min(table.shape)):
            i, j = divmod(int(table.argmax()), table.shape[1])
            if table[i, j] < _THRESHOLDS[0]:
                break
            matched += table[i, j] >= _THRESHOLDS
            table[i, :] = 0
            table[:, j] = 0
    return float((2 * matched / count).mean()) if count else 1.0
