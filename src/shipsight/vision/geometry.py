# SPDX-License-Identifier: Apache-2.0
"""Geometry: where a pixel of the input tensor lies in the original image, and back.

Leaves to others: moving pixels (`prepare`). Rules: coordinates are continuous, x to the right and y down, the image
spans [0, width] x [0, height]; mapping back clips boxes and keypoints to the image, as Ultralytics does, but neither
rotated boxes nor their corners. Arithmetic is float32, in the order that Ultralytics' `scale_boxes` uses. Stable.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Geometry"]

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Geometry:
    """How an original image was placed in the input.

    `x_input = x_original * scale_xy[0] + pad_left`, and likewise for y.

    Attributes:
        original_hw: height and width of the original image in pixels, after EXIF orientation.
        input_hw: height and width of the input in pixels.
        scale_xy: input pixels per original pixel, along x and y (they differ by rounding to whole pixels).
        pad_left: input pixels left of the image; negative where a centre crop cut them off.
        pad_top: input pixels above the image; negative where a centre crop cut them off.
    """

    original_hw: tuple[int, int]
    input_hw: tuple[int, int]
    scale_xy: tuple[float, float]
    pad_left: int
    pad_top: int

    @property
    def content_hw(self) -> tuple[int, int]:
        """Height and width in input pixels that the whole scaled image takes."""
        height, width = self.original_hw
        return max(round(height * self.scale_xy[1]), 1), max(round(width * self.scale_xy[0]), 1)

    def boxes_to_original(self, boxes_xyxy: FloatArray) -> FloatArray:
        """Maps boxes to the original image and clips them to it.

        Args:
            boxes_xyxy: (N, 4) x0, y0, x1, y1 in input pixels.

        Returns:
            (N, 4) float32 in original pixels, a new array.
        """
        points = self.points_to_original(np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 2))
        return points.reshape(-1, 4)

    def points_to_original(self, points_xy: FloatArray, *, clip: bool = True) -> FloatArray:
        """Maps points to the original image.

        Args:
            points_xy: (..., 2) x, y in input pixels.
            clip: whether points outside are moved to the image's edge.

        Returns:
            (..., 2) float32 in original pixels, a new array.
        """
        pad = np.array((self.pad_left, self.pad_top), dtype=np.float32)
        mapped: FloatArray = np.asarray(points_xy, dtype=np.float32) - pad
        mapped /= np.array(self.scale_xy, dtype=np.float32)
        if clip:
            height, width = self.original_hw
            np.clip(mapped, 0, np.array((width, height), dtype=np.float32), out=mapped)
        return mapped

    def keypoints_to_original(self, keypoints_xyc: FloatArray) -> FloatArray:
        """Maps keypoints to the original image and clips them to it; confidences stay.

        Args:
            keypoints_xyc: (N, K, 3) x, y in input pixels, confidence.

        Returns:
            (N, K, 3) float32 in original pixels, a new array.
        """
        mapped = np.array(keypoints_xyc, dtype=np.float32)
        mapped[..., :2] = self.points_to_original(mapped[..., :2])
        return mapped

    def rotated_to_original(self, boxes_xywhr: FloatArray) -> FloatArray:
        """Maps rotated boxes to the original image, unclipped; angles stay.

        Args:
            boxes_xywhr: (N, 5) centre x, y, width, height in input pixels, angle in radians.

        Returns:
            (N, 5) float32 in original pixels, a new array.
        """
        mapped = np.array(boxes_xywhr, dtype=np.float32)
        mapped[:, :2] = self.points_to_original(mapped[:, :2], clip=False)
        mapped[:, 2:4] /= np.array(self.scale_xy, dtype=np.float32)
        return mapped

    def boxes_to_input(self, boxes_xyxy: FloatArray) -> FloatArray:
        """Maps boxes of the original image to the input, unclipped.

        Args:
            boxes_xyxy: (N, 4) x0, y0, x1, y1 in original pixels.

        Returns:
            (N, 4) float32 in input pixels, a new array.
        """
        return self.points_to_input(np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 2)).reshape(-1, 4)

    def points_to_input(self, points_xy: FloatArray) -> FloatArray:
        """Maps points of the original image to the input, unclipped.

        Args:
            points_xy: (..., 2) x, y in original pixels.

        Returns:
            (..., 2) float32 in input pixels, a new array.
        """
        pad = np.array((self.pad_left, self.pad_top), dtype=np.float32)
        return np.asarray(points_xy, dtype=np.float32) * np.array(self.scale_xy, dtype=np.float32) + pad
