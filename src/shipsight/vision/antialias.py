# SPDX-License-Identifier: Apache-2.0
"""Antialiased bilinear resize, at most one level off Pillow's `Image.resize(..., BILINEAR)`.

Classifiers are trained behind torchvision's `Resize`, which on images is Pillow's; OpenCV's bilinear does not filter
when it shrinks and gives other pixels. Rules: a triangle filter as wide as the shrink factor, weights in 22-bit fixed
point, along x first, rounded to uint8, then along y. That is Pillow's arithmetic to the bit; newer releases (13) filter
along y first for some, mostly tall, shapes, and then single pixels differ by one level. Stable inside the package.

Source: Pillow's documented `Resampling.BILINEAR`; checked against it pixel by pixel in `tests/vision/test_prepare.py`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["resize_antialiased"]

_FIXED_POINT_BITS = 22


def resize_antialiased(
    image: NDArray[np.uint8], size_hw: tuple[int, int], *, window: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """Resizes an image and returns a window of the result (nothing outside it is computed).

    Args:
        image: (H, W, C) uint8.
        size_hw: height and width in pixels to resize to, each 1 and more.
        window: top, left, height, width of the part wanted, within the resized image.

    Returns:
        (height, width, C) uint8.
    """
    top, left, height, width = window
    row_taps = _taps(image.shape[0], size_hw[0], top, height)
    column_taps = _taps(image.shape[1], size_hw[1], left, width)
    first, last = int(row_taps[0].min()), int(row_taps[0].max()) + 1
    rows = image[first:last]
    if size_hw[1] != image.shape[1]:
        across = np.ascontiguousarray(rows.transpose(1, 0, 2))
        rows = np.ascontiguousarray(_weigh(across, *column_taps).transpose(1, 0, 2))
    else:
        rows = rows[:, left : left + width]
    if size_hw[0] == image.shape[0]:
        return np.ascontiguousarray(rows[top - first : top - first + height])
    return _weigh(np.ascontiguousarray(rows), row_taps[0] - first, row_taps[1])


def _taps(old: int, new: int, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Returns for outputs start..start+count the input indices (T, count) and their fixed-point weights (T, count)."""
    scale = old / new
    support = max(scale, 1.0)
    centres = (np.arange(start, start + count) + 0.5) * scale
    firsts = np.maximum((centres - support + 0.5).astype(np.int64), 0)
    lasts = np.minimum((centres + support + 0.5).astype(np.int64), old)
    taps = firsts + np.arange(math.ceil(support) * 2 + 1)[:, None]
    weights = np.maximum(1.0 - np.abs((taps - centres + 0.5) * (1.0 / support)), 0.0)
    weights[taps >= lasts] = 0.0
    weights /= np.cumsum(weights, axis=0)[-1]
    fixed = (weights * (1 << _FIXED_POINT_BITS) + 0.5).astype(np.int32)
    return np.minimum(taps, old - 1), fixed


def _weigh(lines: NDArray[np.uint8], taps: NDArray[np.int64], weights: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Returns weighted sums over the first axis: (L, M, C) uint8 -> (count, M, C) uint8."""
    total = np.full((taps.shape[1], *lines.shape[1:]), 1 << (_FIXED_POINT_BITS - 1), dtype=np.int32)
    for index, weight in zip(taps, weights, strict=True):
        if weight.any():
            total += np.multiply(lines[index], weight[:, None, None], dtype=np.int32)
    total >>= _FIXED_POINT_BITS
    result: NDArray[np.uint8] = np.clip(total, 0, 255, out=total).astype(np.uint8)
    return result
