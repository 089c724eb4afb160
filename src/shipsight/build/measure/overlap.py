# SPDX-License-Identifier: Apache-2.0
"""How much two objects overlap: boxes, rotated boxes, keypoints.

What for: the number that matching compares with a threshold. Leaves to others: masks (`coco_backend`), matching.
Invariants: pure functions on float64 arrays; symmetric (boxes, rotated boxes); 0 to 1; empty inputs give empty
matrices. Stable.

Sources: COCO API (https://github.com/cocodataset/cocoapi, `maskApi.c` bbIou and `cocoeval.py` computeOks);
COCO keypoint sigmas: https://cocodataset.org/#keypoints-eval section 1.3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["COCO_SIGMAS", "box_iou", "keypoint_sigmas", "object_keypoint_similarity", "rotated_iou"]

FloatArray = NDArray[np.float64]

COCO_SIGMAS: FloatArray = (
    np.array([0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89])
    / 10.0
)
"""Spread of human annotators at COCO's 17 keypoints, relative to the object's scale."""

_EPSILON = 1e-9
_CHUNK = 4096


def keypoint_sigmas(count: int) -> FloatArray:
    """Returns (count,) sigmas: COCO's for 17 keypoints, else 1 / count each."""
    return COCO_SIGMAS if count == len(COCO_SIGMAS) else np.full(count, 1.0 / count)


def box_iou(boxes_xywh: FloatArray, others_xywh: FloatArray) -> FloatArray:
    """Returns intersection over union of each pair of axis-parallel boxes.

    Args:
        boxes_xywh: (N, 4) left, top, width, height.
        others_xywh: (M, 4) likewise.

    Returns:
        (N, M); 0 where the union is empty.
    """
    first, second = boxes_xywh[:, None, :], others_xywh[None, :, :]
    width = np.minimum(first[..., 0] + first[..., 2], second[..., 0] + second[..., 2])
    width = width - np.maximum(first[..., 0], second[..., 0])
    height = np.minimum(first[..., 1] + first[..., 3], second[..., 1] + second[..., 3])
    height = height - np.maximum(first[..., 1], second[..., 1])
    shared = np.maximum(width, 0.0) * np.maximum(height, 0.0)
    union = first[..., 2] * first[..., 3] + second[..., 2] * second[..., 3] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def object_keypoint_similarity(
    points_xy: FloatArray, labels_xyv: FloatArray, boxes_xywh: FloatArray, *, areas: FloatArray, sigmas: FloatArray
) -> FloatArray:
    """Returns COCO's object keypoint similarity of each pair.

    Args:
        points_xy: (N, K, 2) predicted, pixels.
        labels_xyv: (M, K, 3) labelled x, y and visibility; keypoints of visibility 0 do not count.
        boxes_xywh: (M, 4) left, top, width, height of the labelled objects in pixels.
        areas: (M,) of the labelled objects in square pixels.
        sigmas: (K,).

    Returns:
        (N, M). Where a label has no visible keypoint, how near the points are to its box enlarged threefold: matching
        ignores such labels, and with them the predictions made there.
    """
    offsets = points_xy[:, None] - labels_xyv[None, :, :, :2]
    visible = np.asarray(labels_xyv[:, :, 2] > 0)
    hidden = np.asarray(~visible.any(axis=1))
    low, high = boxes_xywh[:, :2] - boxes_xywh[:, 2:], boxes_xywh[:, :2] + 2 * boxes_xywh[:, 2:]
    before = np.maximum(low[None, hidden, None] - points_xy[:, None], 0.0)
    after = np.maximum(points_xy[:, None] - high[None, hidden, None], 0.0)
    offsets[:, hidden] = before + after
    squared = (offsets**2).sum(axis=3)
    # spacing(1) as in the COCO API, which a label of no area relies on.
    scale = 2 * (areas + np.spacing(1))[None, :, None] * ((sigmas * 2) ** 2)[None, None, :]
    similarity = np.exp(-squared / scale)
    counted = visible | hidden[:, None]
    return np.asarray(np.where(counted[None], similarity, 0.0).sum(axis=2) / counted.sum(axis=1))


def rotated_iou(corners_xy: FloatArray, others_xy: FloatArray) -> FloatArray:
    """Returns the exact intersection over union of each pair of convex quadrilaterals.

    The intersection of two convex polygons is the convex hull of the corners of each that lie in the other and of the
    points where their edges cross; its area is summed over these points in order of angle.

    Args:
        corners_xy: (N, 4, 2) convex, either orientation, pixels.
        others_xy: (M, 4, 2) likewise.

    Returns:
        (N, M); 0 where the union is empty.
    """
    count, other_count = len(corners_xy), len(others_xy)
    result = np.zeros((count, other_count))
    if not count or not other_count:
        return result
    first, second = _oriented(corners_xy), _oriented(others_xy)
    areas, other_areas = _polygon_area(first), _polygon_area(second)
    near = np.asarray((first.min(axis=1)[:, None] <= second.max(axis=1)[None]).all(axis=2))
    near &= np.asarray((second.min(axis=1)[None] <= first.max(axis=1)[:, None]).all(axis=2))
    rows, columns = np.nonzero(near)
    for start in range(0, len(rows), _CHUNK):
        i, j = rows[start : start + _CHUNK], columns[start : start + _CHUNK]
        shared = np.minimum(_intersection_area(first[i], second[j]), np.minimum(areas[i], other_areas[j]))
        union = areas[i] + other_areas[j] - shared
        result[i, j] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return result


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])


def _polygon_area(corners_xy: FloatArray) -> FloatArray:
    return np.asarray(_cross(corners_xy, np.roll(corners_xy, -1, axis=-2)).sum(axis=-1) / 2)


def _oriented(corners_xy: FloatArray) -> FloatArray:
    """Returns the corners in the order that makes the area positive."""
    turned = np.asarray(corners_xy, dtype=np.float64)
    negative = _polygon_area(turned) < 0
    return np.where(negative[:, None, None], turned[:, ::-1], turned)


def _intersection_area(a: FloatArray, b: FloatArray) -> FloatArray:
    """Returns (P,) areas of the intersections of P pairs of positively oriented convex quadrilaterals (P, 4, 2)."""
    # Sizes near 1 and a centre at the origin keep the tolerances below meaningful at any scale.
    centre = np.concatenate([a, b], axis=1).mean(axis=1, keepdims=True)
    scale = np.abs(np.concatenate([a, b], axis=1) - centre).max(axis=(1, 2))
    scale = np.where(scale > 0, scale, 1.0)
    a, b = (a - centre) / scale[:, None, None], (b - centre) / scale[:, None, None]
    crossings, crosses = _edge_crossings(a, b)
    points = np.concatenate([a, b, crossings], axis=1)
    valid = np.concatenate([_inside(a, b), _inside(b, a), crosses], axis=1)
    count = valid.sum(axis=1)
    middle = (points * valid[..., None]).sum(axis=1) / np.maximum(count, 1)[:, None]
    # Points that do not belong are moved to the first that does: they then add no area.
    first = np.take_along_axis(points, valid.argmax(axis=1)[:, None, None].repeat(2, axis=2), axis=1)
    points = np.where(valid[..., None], points, first) - middle[:, None]
    order = np.argsort(np.arctan2(points[..., 1], points[..., 0]), axis=1, kind="stable")
    area = _polygon_area(np.take_along_axis(points, order[..., None], axis=1))
    return np.asarray(np.where(count >= 3, np.abs(area), 0.0) * scale**2)


def _inside(points: FloatArray, polygon: FloatArray) -> NDArray[np.bool_]:
    """Returns (P, 4): whether each of the points lies in its positively oriented polygon, border included."""
    edges = np.roll(polygon, -1, axis=1) - polygon
    offsets = points[:, :, None, :] - polygon[:, None, :, :]
    return np.asarray((_cross(edges[:, None], offsets) >= -_EPSILON).all(axis=2))


def _edge_crossings(a: FloatArray, b: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Returns (P, 16, 2) points where edges of a cross edges of b, and (P, 16) whether they do."""
    direction_a = (np.roll(a, -1, axis=1) - a)[:, :, None]
    direction_b = (np.roll(b, -1, axis=1) - b)[:, None]
    between = b[:, None] - a[:, :, None]
    denominator = _cross(direction_a, direction_b)
    # Parallel edges need no crossing: their end points are corners inside the other polygon.
    crossing = np.abs(denominator) > _EPSILON
    safe = np.where(crossing, denominator, 1.0)
    along_a = _cross(between, direction_b) / safe
    along_b = _cross(between, direction_a) / safe
    for along in (along_a, along_b):
        crossing &= (along >= 0) & (along <= 1)
    points = a[:, :, None] + along_a[..., None] * direction_a
    return points.reshape(len(a), 16, 2), crossing.reshape(len(a), 16)
