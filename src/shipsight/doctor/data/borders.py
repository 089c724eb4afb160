# SPDX-License-Identifier: Apache-2.0
"""Borders: even bands that somebody put around images, as letterboxes, screenshots and players do. Pure. Private."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.data.shifts import Moved

__all__ = ["Border", "add_border", "crop_border", "find_border", "find_margins"]

Image = NDArray[np.uint8]
_EVEN_LEVELS = 2.5
_SAME_LEVELS = 4.0
_LEAST_SHARE = 0.02
_MOST_SHARE = 0.45
_LEAST_IMAGES = 0.5
"""Share of the images that must have one: single photographs have white or black edges of their own (5 of the 192 of coco128)."""


@dataclass(frozen=True)
class Border:
    """Bands around most images.

    Attributes:
        share: of the images that have them.
        margins: share of height or width that they take: top, bottom, left, right; medians.
        level: (red, green, blue) of them.
    """

    share: float
    margins: tuple[float, float, float, float]
    level: tuple[int, int, int]

    @property
    def area(self) -> float:
        """Share of the image that they take."""
        top, bottom, left, right = self.margins
        return 1 - (1 - top - bottom) * (1 - left - right)


def find_margins(image_rgb: Image) -> tuple[int, int, int, int]:
    """Returns the pixels of even bands at top, bottom, left and right; bands below 2 % of a side count as 0."""
    rows = _edge(image_rgb)
    lower = _edge(image_rgb[::-1])
    inner = image_rgb[rows : len(image_rgb) - lower].transpose(1, 0, 2)
    return rows, lower, _edge(inner), _edge(inner[::-1])


def _edge(lines: Image) -> int:
    """Returns how many lines from the first on are even and of its colour."""
    most = int(len(lines) * _MOST_SHARE)
    first = lines[:1].astype(np.float32)
    if float(first.std(axis=1).max()) > _EVEN_LEVELS:
        return 0
    head = lines[:most].astype(np.float32)
    level = first.mean(axis=(0, 1))
    even = (head.std(axis=1).max(axis=1) <= _EVEN_LEVELS) & (
        np.abs(head.mean(axis=1) - level).max(axis=1) <= _SAME_LEVELS
    )
    count = 0 if even.all() else int(np.argmin(even))  # so much of one colour is the scene itself
    return count if count >= max(2, _LEAST_SHARE * len(lines)) else 0


def find_border(images: Sequence[Image]) -> Border | None:
    """Returns the border that most of the images have, None where they have none."""
    margins = [find_margins(image) for image in images]
    having = [at for at, one in enumerate(margins) if any(one)]
    if not having or len(having) < _LEAST_IMAGES * len(images):
        return None
    shares = np.array([_shares(images[at], margins[at]) for at in having])
    levels = np.array([_level(images[at], margins[at]) for at in having])
    top, bottom, left, right = (float(value) for value in np.median(shares, axis=0))
    red, green, blue = (int(value) for value in np.median(levels, axis=0))
    return Border(len(having) / len(images), (top, bottom, left, right), (red, green, blue))


def _shares(image: Image, margins: tuple[int, int, int, int]) -> tuple[float, ...]:
    height, width = image.shape[:2]
    return margins[0] / height, margins[1] / height, margins[2] / width, margins[3] / width


def _level(image: Image, margins: tuple[int, int, int, int]) -> NDArray[np.float64]:
    top, bottom, left, _ = margins
    band = image[:top] if top else image[-bottom:] if bottom else image[:, :left] if left else image[:, -margins[3] :]
    level: NDArray[np.float64] = band.reshape(-1, 3).mean(axis=0)
    return level


def crop_border(image_rgb: Image) -> Image:
    """Returns the image without its even bands."""
    top, bottom, left, right = find_margins(image_rgb)
    height, width = image_rgb.shape[:2]
    return np.ascontiguousarray(image_rgb[top : height - bottom, left : width - right])


def add_border(image_rgb: Image, border: Border) -> Moved:
    """Returns the image within such a border, not scaled."""
    height, width = image_rgb.shape[:2]
    top, bottom, left, right = border.margins
    full_height, full_width = round(height / (1 - top - bottom)), round(width / (1 - left - right))
    canvas = np.empty((full_height, full_width, 3), dtype=np.uint8)
    canvas[:] = border.level
    y, x = round(full_height * top), round(full_width * left)
    y, x = min(y, full_height - height), min(x, full_width - width)
    canvas[y : y + height, x : x + width] = image_rgb
    return Moved(canvas, np.array([[1.0, 0.0, x], [0.0, 1.0, y]]))
