# SPDX-License-Identifier: Apache-2.0
"""Predictions on an image that a step made, in the pixels of the image it was made from.

Rules: coordinates are continuous, the image spans [0, width] x [0, height] (`docs/formats/predictions.md`); of a box the
upright box around its four mapped corners is left; boxes and keypoints are clipped to the image, corners are not; masks
are moved to the nearest pixel, and a prediction of which no pixel is left is left out. Stable.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from shipsight.model import ImagePredictions

__all__ = ["map_predictions"]

Matrix = NDArray[np.float64]


def map_predictions(predictions: ImagePredictions, matrix: Matrix, size_hw: tuple[int, int]) -> ImagePredictions:
    """Maps predictions.

    Args:
        predictions: on one image.
        matrix: 2 x 3, from its pixels to those of the other.
        size_hw: height and width of the other.
    """
    height, width = size_hw
    boxes, corners, keypoints = predictions.boxes_xyxy, predictions.corners_xy, predictions.keypoints_xyc
    masks = predictions.masks
    mapped = replace(
        predictions,
        width=width,
        height=height,
        boxes_xyxy=None if boxes is None else _map_boxes(boxes, matrix, size_hw),
        corners_xy=None if corners is None else _map_points(corners, matrix),
        keypoints_xyc=None if keypoints is None else _map_keypoints(keypoints, matrix, size_hw),
        masks=None if masks is None else _map_masks(masks, matrix, size_hw),
    )
    return mapped if mapped.masks is None else mapped.select(np.asarray(mapped.masks.any(axis=(1, 2))))


def _map_points(points_xy: NDArray[np.float32], matrix: Matrix) -> NDArray[np.float32]:
    mapped: NDArray[np.float32] = (points_xy.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return mapped


def _clip(points_xy: NDArray[np.float32], size_hw: tuple[int, int]) -> NDArray[np.float32]:
    return np.clip(points_xy, 0, np.array(size_hw[::-1], dtype=np.float32))


def _map_boxes(boxes_xyxy: NDArray[np.float32], matrix: Matrix, size_hw: tuple[int, int]) -> NDArray[np.float32]:
    corners = _map_points(boxes_xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2), matrix)
    return np.concatenate((_clip(corners.min(axis=1), size_hw), _clip(corners.max(axis=1), size_hw)), axis=1)


def _map_keypoints(keypoints_xyc: NDArray[np.float32], matrix: Matrix, size_hw: tuple[int, int]) -> NDArray[np.float32]:
    points = _clip(_map_points(keypoints_xyc[..., :2], matrix), size_hw)
    return np.concatenate((points, keypoints_xyc[..., 2:]), axis=-1)


def _map_masks(masks: NDArray[np.bool_], matrix: Matrix, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    import cv2

    # OpenCV counts from the middle of the first pixel, we from its corner.
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    found = np.zeros((len(masks), *size_hw), dtype=np.bool_)
    for position, mask in enumerate(masks):
        found[position] = cv2.warpAffine(mask.view(np.uint8), shifted, size_hw[::-1], flags=cv2.INTER_NEAREST)
    return found
