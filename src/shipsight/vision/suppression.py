# SPDX-License-Identifier: Apache-2.0
"""Suppression: of boxes that overlap, keep the one with the highest score.

Leaves to others: thresholds on scores, class filters (`heads`). Rules: equal to what Ultralytics runs, in its float32
arithmetic: for upright boxes torchvision's greedy suppression with boxes of different classes moved apart by 7680 px
per class id; for rotated boxes the one-pass variant over probabilistic IoU, where a box that is itself suppressed still
suppresses. Ties in score keep their input order. Both stop once `max_det` boxes are kept. Stable.

Sources: torchvision.ops.nms (documented behaviour); Fast NMS, arXiv:1904.02689 section 3.2; probabilistic IoU,
arXiv:2106.06072.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["probabilistic_iou", "suppress", "suppress_rotated"]

FloatArray = NDArray[np.float32]
Index = NDArray[np.int64]

_CLASS_OFFSET_PX = 7680
_BLOCK = 128
_EPSILON = np.float32(1e-7)


def suppress(
    boxes_xyxy: FloatArray, scores: FloatArray, *, class_ids: NDArray[np.integer] | None, iou: float, max_det: int
) -> Index:
    """Suppresses upright boxes greedily.

    Args:
        boxes_xyxy: (N, 4) float32, any unit.
        scores: (N,) float32.
        class_ids: (N,), boxes of different classes do not suppress each other; None if they shall.
        iou: overlap above which the lower-scored box goes, 0 to 1.
        max_det: most boxes to keep.

    Returns:
        (M,) int64 indices of the boxes kept, by falling score, M <= max_det.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = _apart(boxes_xyxy, class_ids)[order]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept: list[int] = []
    for start in range(0, len(order), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(order)))
        if kept:
            block = block[~_overlaps(boxes, areas, np.array(kept), block, iou).any(axis=0)]
        kept.extend(_greedy(block, _overlaps(boxes, areas, block, block, iou)))
        if len(kept) >= max_det:
            break
    return order[np.array(kept[:max_det], dtype=np.int64)]


def suppress_rotated(
    boxes_xywhr: FloatArray, scores: FloatArray, *, class_ids: NDArray[np.integer] | None, iou: float, max_det: int
) -> Index:
    """Suppresses rotated boxes in one pass: a box goes if any higher-scored one overlaps it.

    Args:
        boxes_xywhr: (N, 5) float32 centre x, y, width, height in pixels, angle in radians.
        scores: (N,) float32.
        class_ids: (N,), boxes of different classes do not suppress each other; None if they shall.
        iou: probabilistic IoU above which the lower-scored box goes, 0 to 1.
        max_det: most boxes to keep.

    Returns:
        (M,) int64 indices of the boxes kept, by falling score, M <= max_det.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = _apart(boxes_xywhr, class_ids)[order]
    kept: list[Index] = []
    count = 0
    for start in range(0, len(order), _BLOCK):
        stop = min(start + _BLOCK, len(order))
        overlap = probabilistic_iou(boxes[:stop], boxes[start:stop]) > np.float32(iou)
        earlier = np.arange(stop)[:, None] < np.arange(start, stop)[None, :]
        free = start + np.flatnonzero(~(overlap & earlier).any(axis=0))
        kept.append(free)
        count += len(free)
        if count >= max_det:
            break
    return order[np.concatenate(kept)[:max_det]] if kept else order


def _apart(boxes: FloatArray, class_ids: NDArray[np.integer] | None) -> FloatArray:
    """Moves boxes of different classes apart: both corners (four columns) or the centre (five columns)."""
    moved = np.array(boxes, dtype=np.float32)
    if class_ids is not None:
        columns = 4 if boxes.shape[1] == 4 else 2
        moved[:, :columns] += (class_ids.astype(np.float32) * np.float32(_CLASS_OFFSET_PX))[:, None]
    return moved


def _overlaps(boxes: FloatArray, areas: FloatArray, rows: Index, columns: Index, iou: float) -> NDArray[np.bool_]:
    """Returns (rows, columns): whether two boxes overlap by more than `iou`."""
    one, other = boxes[rows], boxes[columns]
    across = np.minimum(one[:, 2, None], other[:, 2]) - np.maximum(one[:, 0, None], other[:, 0])
    down = np.minimum(one[:, 3, None], other[:, 3]) - np.maximum(one[:, 1, None], other[:, 1])
    common = np.maximum(across, 0) * np.maximum(down, 0)
    with np.errstate(invalid="ignore", divide="ignore"):  # two empty boxes: 0 / 0 is no overlap
        ratio = common / (areas[rows][:, None] + areas[columns] - common)
    result: NDArray[np.bool_] = ratio > np.float64(iou)  # compared in float64, as torchvision does
    return result


def _greedy(block: Index, overlaps: NDArray[np.bool_]) -> list[int]:
    gone = np.zeros(len(block), dtype=np.bool_)
    kept: list[int] = []
    for i, index in enumerate(block.tolist()):
        if not gone[i]:
            kept.append(index)
            gone |= overlaps[i]
    return kept


def probabilistic_iou(one: FloatArray, other: FloatArray) -> FloatArray:
    """Returns (N, M): 1 - the Hellinger distance of the boxes taken as Gaussians."""
    a1, b1, c1 = (term[:, None] for term in _covariance(one))
    a2, b2, c2 = _covariance(other)
    x1, y1 = one[:, 0, None], one[:, 1, None]
    x2, y2 = other[:, 0], other[:, 1]
    a, b, c = a1 + a2, b1 + b2, c1 + c2
    determinant = a * b - c * c
    quarter = (a * (y1 - y2) ** 2 + b * (x1 - x2) ** 2) / (determinant + _EPSILON) * np.float32(0.25)
    half = (c * (x2 - x1) * (y1 - y2)) / (determinant + _EPSILON) * np.float32(0.5)
    spread = np.sqrt(np.maximum(a1 * b1 - c1 * c1, 0) * np.maximum(a2 * b2 - c2 * c2, 0))
    with np.errstate(invalid="ignore", divide="ignore"):  # degenerate boxes: NaN compares as no overlap
        shape = np.log(determinant / (4 * spread + _EPSILON) + _EPSILON) * np.float32(0.5)
    distance = np.clip(quarter + half + shape, _EPSILON, np.float32(100))
    result: FloatArray = 1 - np.sqrt(1 - np.exp(-distance) + _EPSILON)
    return result


def _covariance(boxes_xywhr: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Returns the covariance [[a, c], [c, b]] of uniform rectangles, each (N,)."""
    along = boxes_xywhr[:, 2] ** 2 / np.float32(12)
    across = boxes_xywhr[:, 3] ** 2 / np.float32(12)
    cos, sin = np.cos(boxes_xywhr[:, 4]), np.sin(boxes_xywhr[:, 4])
    a = along * cos**2 + across * sin**2
    b = along * sin**2 + across * cos**2
    return a, b, (along - across) * cos * sin
