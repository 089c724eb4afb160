# SPDX-License-Identifier: Apache-2.0
"""Systematic changes of boxes and of scores: fitted to pairs, with what proves them, and undone. Pure. Private to the room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.dataset.evidence import Boxes
from shipsight.doctor.dataset.pairing import CONFIDENT, Pairs

__all__ = ["BoxMap", "ScoreMap", "fit_boxes", "fit_scores", "pair_far"]

FloatArray = NDArray[np.float64]

_LEAST_PAIRS = 12
_LEAST_SHIFT = 0.0007
"""Least typical displacement as a share of the input's side (0.45 px of 640): healthy variants gave up to 0.00026."""

_LEAST_GAIN = 0.4
"""Least share of the median distance between corners that the transformation explains: healthy variants gave up to 0.23."""

_LEAST_SCORE_CHANGE = 0.04
"""Least median change of scores in the middle or at either end that is told at all; `score_rules` says what has weight."""


@dataclass(frozen=True)
class BoxMap:
    """A transformation of boxes, in pixels of the model's input: edge' = shift + scale x edge + grow x half side, along x and y.

    Attributes:
        shift_xy: pixels of the model's input.
        scale_xy: factor about the image's left top corner.
        grow_xy: change of half the box's side, relative to it.
        typical_px: median displacement of an edge, in pixels of the model's input.
        low_px: lower bound of its 95 % interval.
        gain: share of the median distance that is explained.
        pairs: number of pairs.
    """

    shift_xy: tuple[float, float]
    scale_xy: tuple[float, float]
    grow_xy: tuple[float, float]
    typical_px: float
    low_px: float
    gain: float
    pairs: int

    def undo(self, boxes: Boxes, ratio: float) -> Boxes:
        """Returns the boxes as they were before; `ratio` is the image's, as in `Seen`."""
        shift, scale, grow = (np.array(one) for one in (self.shift_xy, self.scale_xy, self.grow_xy))
        low, high = boxes.boxes_xyxy[:, :2] * ratio, boxes.boxes_xyxy[:, 2:] * ratio
        centre = ((low + high) / 2 - shift) / scale
        half = (high - low) / 2 / (scale + grow)
        undone = np.concatenate([centre - half, centre + half], axis=1) / ratio
        return Boxes(boxes.class_ids, boxes.scores, undone)


@dataclass(frozen=True)
class ScoreMap:
    """A transformation of scores: logit' = offset + slope x logit.

    Attributes:
        offset: in logits.
        slope: above 0.
        change: median change of scores where it is largest: in the middle, of the low or of the high ones.
        bound: of the 95 % interval of that change, the one nearer to 0.
        threshold: score of the suspect that stands for 0.25 of the source.
        pairs: number of pairs.
    """

    offset: float
    slope: float
    change: float
    bound: float
    threshold: float
    pairs: int

    def undo(self, scores: FloatArray) -> FloatArray:
        """Returns the scores as they were before."""
        return _sigmoid((_logit(scores) - self.offset) / self.slope)


def pair_far(source: Sequence[Boxes], suspect: Sequence[Boxes], ratios: Sequence[float], side: int) -> Pairs:
    """Pairs confident objects of one class though their boxes lie elsewhere: scores are what they were, and all moved alike.

    The scale is taken from the sizes of objects with the nearest scores; the shift is the one that most candidates agree on.
    """
    rows = [
        (number, int(i), int(j))
        for number, (one, other) in enumerate(zip(source, suspect, strict=True))
        for i in np.flatnonzero(one.scores >= CONFIDENT)
        for j in np.flatnonzero((other.class_ids == one.class_ids[i]) & (np.abs(other.scores - one.scores[i]) <= 0.1))
    ]
    pairs = _gather(source, suspect, rows)
    if len(pairs) < _LEAST_PAIRS:
        return pairs
    ratio = np.array([ratios[number] for number in pairs.image])[:, None, None]
    boxes = pairs.boxes * ratio
    sizes = np.maximum(boxes[:, :, 2:] - boxes[:, :, :2], 1e-3)
    alike = np.abs(np.diff(pairs.scores, axis=1)[:, 0]) <= 0.03
    scale = np.median((sizes[:, 1] / sizes[:, 0])[alike if alike.any() else slice(None)], axis=0)
    centres = (boxes[:, :, :2] + boxes[:, :, 2:]) / 2
    moved = centres[:, 1] - scale * centres[:, 0]
    bins = np.round(moved / (side / 64)).astype(np.int64)
    cells, counts = np.unique(bins, axis=0, return_counts=True)
    agreed = np.abs(moved - cells[counts.argmax()] * (side / 64)).max(axis=1) <= side / 40
    return pairs.pick(agreed)


def _gather(source: Sequence[Boxes], suspect: Sequence[Boxes], rows: Sequence[tuple[int, int, int]]) -> Pairs:
    image, left, right = (np.array([row[part] for row in rows], np.int64) for part in range(3))
    both = [(source[n], i, suspect[n], j) for n, i, j in rows]
    return Pairs(
        image,
        left,
        right,
        np.array([(a.class_ids[i], b.class_ids[j]) for a, i, b, j in both], np.int64).reshape(-1, 2),
        np.array([(a.scores[i], b.scores[j]) for a, i, b, j in both], np.float64).reshape(-1, 2),
        np.array([(a.boxes_xyxy[i], b.boxes_xyxy[j]) for a, i, b, j in both], np.float64).reshape(-1, 2, 4),
        np.ones(len(rows)),
        len(source),
        sum(int((one.scores >= CONFIDENT).sum()) for one in source),
    )


def fit_boxes(pairs: Pairs, ratios: Sequence[float], side: int) -> BoxMap | None:
    """Returns the transformation of boxes that pairs show, None where it is within what healthy variants do.

    Args:
        pairs: the first description is how it should be.
        ratios: one an image, as in `Seen`.
        side: the longer side of the model's input, in pixels.
    """
    if len(pairs) < _LEAST_PAIRS:
        return None
    ratio = np.array([ratios[number] for number in pairs.image])[:, None, None]
    boxes = pairs.boxes * ratio
    fits = [_fit_axis(boxes, axis, np.ones(len(boxes))) for axis in (0, 1)]
    moved = np.concatenate([np.abs(_predict(boxes, axis, fits[axis]) - _edges(boxes, 0, axis)) for axis in (0, 1)])
    before = np.concatenate([np.abs(_edges(boxes, 1, axis) - _edges(boxes, 0, axis)) for axis in (0, 1)])
    after = np.concatenate([np.abs(_edges(boxes, 1, axis) - _predict(boxes, axis, fits[axis])) for axis in (0, 1)])
    typical, whole = float(np.median(moved)), float(np.median(before))
    gain = 1 - float(np.median(after)) / whole if whole > 0 else 0.0
    if typical < _LEAST_SHIFT * side or gain < _LEAST_GAIN:
        return None
    low = _low_bound(boxes, pairs)
    if low < _LEAST_SHIFT * side / 2:
        return None
    (shift_x, scale_x, grow_x), (shift_y, scale_y, grow_y) = fits
    if min(scale_x, scale_y, scale_x + grow_x, scale_y + grow_y) < 0.02:
        return None
    return BoxMap((shift_x, shift_y), (scale_x, scale_y), (grow_x, grow_y), typical, low, gain, len(pairs))


def _edges(boxes: FloatArray, which: int, axis: int) -> FloatArray:
    return np.concatenate([boxes[:, which, axis], boxes[:, which, axis + 2]])


def _terms(boxes: FloatArray, axis: int) -> FloatArray:
    low, high = boxes[:, 0, axis], boxes[:, 0, axis + 2]
    half = (high - low) / 2
    return np.stack([np.ones(2 * len(low)), np.concatenate([low, high]), np.concatenate([-half, half])], axis=1)


def _predict(boxes: FloatArray, axis: int, fit: tuple[float, float, float]) -> FloatArray:
    return np.asarray(_terms(boxes, axis) @ np.array(fit))


def _fit_axis(boxes: FloatArray, axis: int, weights: FloatArray) -> tuple[float, float, float]:
    """Fits by least squares, reweighted so that pairs that are none do not count (bisquare; Beaton and Tukey, 1974)."""
    terms, target = _terms(boxes, axis), _edges(boxes, 1, axis) - _edges(boxes, 0, axis)
    each = np.concatenate([weights, weights])
    solution = np.array([float(np.median(target)), 0.0, 0.0])
    steady = 1e-9 * np.eye(3) * len(target)  # boxes of one size leave the normal equations without an answer
    for _ in range(10):
        rest = target - terms @ solution
        scale = max(1.4826 * float(np.median(np.abs(rest))), 1e-6)
        robust = np.clip(1 - (rest / (4.685 * scale)) ** 2, 0, None) ** 2 * each
        weighted = terms * robust[:, None]
        solution = np.linalg.solve(weighted.T @ terms + steady, weighted.T @ target)
    return float(solution[0]), float(solution[1] + 1), float(solution[2])


def _low_bound(boxes: FloatArray, pairs: Pairs) -> float:
    """Returns the lower bound of the typical displacement, images resampled."""
    rng = np.random.default_rng(0)
    values = []
    for _ in range(40):
        drawn = np.bincount(rng.integers(0, pairs.images, pairs.images), minlength=pairs.images)
        weights = drawn[pairs.image].astype(np.float64)
        if (weights > 0).sum() < 4:
            continue
        moved = [
            np.abs(_predict(boxes, axis, _fit_axis(boxes, axis, weights)) - _edges(boxes, 0, axis)) for axis in (0, 1)
        ]
        values.append(float(np.median(np.concatenate(moved))))
    return float(np.percentile(values, 2.5)) if values else 0.0


def fit_scores(pairs: Pairs, *, is_classifier: bool = False) -> ScoreMap | None:
    """Returns the transformation of scores that pairs of one class show, None where it is within what healthy variants do.

    Args:
        pairs: the first description is how it should be.
        is_classifier: whether scores are best probabilities.
    """
    same = (pairs.classes[:, 0] == pairs.classes[:, 1]) & (pairs.ious >= 0.5)
    # Chosen by both sides: chosen by one, noise alone would pull the other down.
    sums = pairs.scores.sum(axis=1)
    pairs = pairs.pick(same & (np.ones(len(same), np.bool_) if is_classifier else sums >= CONFIDENT))
    if len(pairs) < _LEAST_PAIRS:
        return None
    first, second = _logit(pairs.scores[:, 0]), _logit(pairs.scores[:, 1])
    change, bound = _largest_change(pairs)
    if abs(change) < _LEAST_SCORE_CHANGE or abs(bound) < _LEAST_SCORE_CHANGE / 2:
        return None
    slope = float(np.clip(_spread(second) / max(_spread(first), 1e-3), 0.05, 20.0))
    offset = float(np.median(second) - slope * np.median(first))
    threshold = float(_sigmoid(np.array([offset + slope * float(_logit(np.array([CONFIDENT]))[0])]))[0])
    return ScoreMap(offset, slope, change, bound, threshold, len(pairs))


def _largest_change(pairs: Pairs) -> tuple[float, float]:
    """Returns the largest median change of scores over all pairs, the lower and the higher half, and its nearer bound."""
    change = pairs.scores[:, 1] - pairs.scores[:, 0]
    middle = pairs.scores.mean(axis=1)
    high = middle >= np.median(middle)
    rng = np.random.default_rng(0)
    best = 0.0, 0.0
    for group in (np.ones(len(pairs), np.bool_), high, ~high):
        if group.sum() < _LEAST_PAIRS:
            continue
        value = float(np.median(change[group]))
        image, values = pairs.image[group], change[group]
        drawn = []
        for _ in range(200):
            counts = np.bincount(rng.integers(0, pairs.images, pairs.images), minlength=pairs.images)[image]
            if counts.any():
                drawn.append(float(np.median(np.repeat(values, counts))))
        low, up = np.percentile(drawn, [2.5, 97.5])
        bound = 0.0 if low <= 0 <= up else float(low if value > 0 else up)
        if abs(bound) > abs(best[1]):
            best = value, bound
    return best


def _spread(values: FloatArray) -> float:
    low, high = np.percentile(values, [20, 80])
    return float(high - low)


def _logit(scores: FloatArray) -> FloatArray:
    clipped = np.clip(scores, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _sigmoid(values: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-values)))
