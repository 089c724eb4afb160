# SPDX-License-Identifier: Apache-2.0
"""Matching the predictions of two models, or of one model on two machines, for the same image.

Leaves to others: what follows from the numbers (`replay`, `parity`). Rules: only predictions of one class match; pairs
are made greedily by falling score with the largest overlap; the share counts both sides, so that a prediction too many
weighs as much as one too few; a prediction near the threshold may fall below it on the other side within the score
tolerance. Stable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.model import ImagePredictions

__all__ = ["Found", "MatchCriteria", "MatchReport", "match"]

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class MatchCriteria:
    """When two predictions are the same.

    Attributes:
        conf: least score of a confident prediction.
        iou: least overlap.
        score: most difference in score; also how far below `conf` a partner may lie.
    """

    conf: float = 0.25
    iou: float = 0.8
    score: float = 0.1

    @property
    def low_conf(self) -> float:
        """Least score that must be known of predictions that are to be matched."""
        return max(self.conf - self.score, self.conf / 2)


@dataclass(frozen=True, eq=False)
class Found:
    """What matching needs of the predictions of one image.

    Attributes:
        class_ids: (N,) int64.
        scores: (N,) float32.
        corners_xy: (N, 4, 2) float32 in pixels of the original image, in turn.
    """

    class_ids: NDArray[np.int64]
    scores: FloatArray
    corners_xy: FloatArray

    @classmethod
    def of(cls, predictions: ImagePredictions) -> Found:
        """Takes what matching needs; a classifier's best class counts as one prediction of the whole image."""
        if predictions.probabilities is not None:
            best = int(predictions.probabilities.argmax())
            boxes = np.array([[0, 0, predictions.width, predictions.height]], dtype=np.float32)
            scores = predictions.probabilities[best : best + 1]
            return cls(np.array([best]), scores, _corners(boxes))
        corners = predictions.corners_xy
        if corners is None:
            boxes = np.zeros((0, 4), dtype=np.float32) if predictions.boxes_xyxy is None else predictions.boxes_xyxy
            corners = _corners(boxes)
        return cls(predictions.class_ids.astype(np.int64), predictions.scores, corners)


@dataclass(frozen=True)
class MatchReport:
    """How far two sets of predictions agree.

    Attributes:
        confident: confident predictions on both sides together.
        matched: those of them that have their partner on the other side.
        worst_iou: least overlap of a pair, 1 where there is none.
        worst_score: largest difference in score of a pair.
        worst_box_px: largest distance between corresponding corners of a pair, in pixels along one axis.
    """

    confident: int
    matched: int
    worst_iou: float
    worst_score: float
    worst_box_px: float

    @property
    def share(self) -> float:
        """Share of confident predictions matched, 1 where there is none."""
        return self.matched / self.confident if self.confident else 1.0

    def to_dict(self) -> dict[str, float | int]:
        """Returns the numbers, the share among them."""
        return {
            "confident": self.confident,
            "matched": self.matched,
            "share": round(self.share, 6),
            "worst_iou": round(self.worst_iou, 6),
            "worst_score": round(self.worst_score, 6),
            "worst_box_px": round(self.worst_box_px, 4),
        }


def match(ours: Sequence[Found], theirs: Sequence[Found], criteria: MatchCriteria) -> MatchReport:
    """Matches predictions image by image.

    Args:
        ours: one entry an image, down to `criteria.low_conf` at least.
        theirs: of the same images, likewise.
        criteria: when two predictions are the same.
    """
    confident = matched = 0
    worst_iou, worst_score, worst_box = 1.0, 0.0, 0.0
    for one, other in zip(ours, theirs, strict=True):
        is_confident, is_other = one.scores >= criteria.conf, other.scores >= criteria.conf
        confident += int(is_confident.sum() + is_other.sum())
        for i, j, iou in _pairs(one, other, criteria):
            if not (is_confident[i] or is_other[j]):
                continue
            matched += int(is_confident[i]) + int(is_other[j])
            worst_iou = min(worst_iou, iou)
            worst_score = max(worst_score, abs(float(one.scores[i]) - float(other.scores[j])))
            worst_box = max(worst_box, _distance(one.corners_xy[i], other.corners_xy[j]))
    return MatchReport(confident, matched, worst_iou, worst_score, worst_box)


def _pairs(one: Found, other: Found, criteria: MatchCriteria) -> list[tuple[int, int, float]]:
    pairs: list[tuple[int, int, float]] = []
    free = other.scores >= criteria.low_conf
    for i in np.argsort(-one.scores, kind="stable").tolist():
        if one.scores[i] < criteria.low_conf:
            break
        near = np.abs(other.scores - one.scores[i]) <= criteria.score
        candidates = np.flatnonzero(free & near & (other.class_ids == one.class_ids[i]))
        if not len(candidates):
            continue
        overlaps = _overlaps(one.corners_xy[i], other.corners_xy[candidates])
        best = int(np.argmax(overlaps))
        if overlaps[best] >= criteria.iou:
            free[candidates[best]] = False
            pairs.append((i, int(candidates[best]), float(overlaps[best])))
    return pairs


def _corners(boxes_xyxy: FloatArray) -> FloatArray:
    return boxes_xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def _distance(one: FloatArray, other: FloatArray) -> float:
    """Returns the largest distance of corresponding corners; a rotated box may start at another corner."""
    return min(float(np.abs(one - np.roll(other, turn, axis=0)).max()) for turn in range(4))


def _overlaps(one: FloatArray, others: FloatArray) -> NDArray[np.float64]:
    """Returns the IoU of one quadrilateral with each of (M, 4, 2) others; upright ones are taken at once."""
    spans = np.stack((one.min(axis=0), one.max(axis=0))).astype(np.float64)
    low, high = others.min(axis=1).astype(np.float64), others.max(axis=1).astype(np.float64)
    shared = np.clip(np.minimum(spans[1], high) - np.maximum(spans[0], low), 0, None).prod(axis=1)
    union = (spans[1] - spans[0]).prod() + (high - low).prod(axis=1) - shared
    equal = (others == one).all(axis=(1, 2)).astype(np.float64)
    overlaps: NDArray[np.float64] = np.where(
        union > 0, shared / np.where(union > 0, union, 1), equal
    )  # empty boxes: 1 where equal
    turned = ~(_is_upright(one[None]) & _is_upright(others)) & (shared > 0)
    for j in np.flatnonzero(turned):
        overlaps[j] = _overlap(one, others[j])
    return overlaps


def _is_upright(corners_xy: FloatArray) -> NDArray[np.bool_]:
    """Tells for each of (M, 4, 2) whether its corners lie on two verticals and two horizontals."""
    x, y = corners_xy[..., 0], corners_xy[..., 1]
    first = (x[:, 0] == x[:, 3]) & (x[:, 1] == x[:, 2]) & (y[:, 0] == y[:, 1]) & (y[:, 2] == y[:, 3])
    second = (x[:, 0] == x[:, 1]) & (x[:, 2] == x[:, 3]) & (y[:, 0] == y[:, 3]) & (y[:, 1] == y[:, 2])
    result: NDArray[np.bool_] = first | second
    return result


def _overlap(one: FloatArray, other: FloatArray) -> float:
    """Returns the IoU of two convex quadrilaterals."""
    area, other_area = abs(_signed_area(one)), abs(_signed_area(other))
    if area <= 0 or other_area <= 0:
        return 1.0 if np.array_equal(one, other) else 0.0
    shared = abs(_signed_area(_clip(one.astype(np.float64), other.astype(np.float64))))
    return float(shared / (area + other_area - shared))


def _signed_area(points: NDArray[np.floating]) -> float:
    if len(points) < 3:
        return 0.0
    x, y = points[:, 0].astype(np.float64), points[:, 1].astype(np.float64)
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _clip(subject: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cuts a convex polygon by every edge of another (Sutherland and Hodgman, 1974)."""
    if _signed_area(window) < 0:
        window = window[::-1]
    for start, end in zip(window, np.roll(window, -1, axis=0), strict=True):
        if len(subject) < 3:
            break
        edge = end - start
        side = edge[0] * (subject[:, 1] - start[1]) - edge[1] * (subject[:, 0] - start[0])
        kept: list[NDArray[np.float64]] = []
        for k in range(len(subject)):
            following = (k + 1) % len(subject)
            if side[k] >= 0:
                kept.append(subject[k])
            if (side[k] >= 0) != (side[following] >= 0):
                at = side[k] / (side[k] - side[following])
                kept.append(subject[k] + at * (subject[following] - subject[k]))
        subject = np.array(kept).reshape(-1, 2)
    return subject
