# SPDX-License-Identifier: Apache-2.0
"""Pictures that convince: what the model should have been fed beside what it was fed. Pure. Private to the room."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.finding import Picture
from shipsight.doctor.preprocessing.tensors import Solved
from shipsight.proof.arrays import write_png
from shipsight.vision import import_cv2

__all__ = ["draw_inputs", "draw_pair"]

_SIDE = 320


def draw_inputs(solved: Solved, *, is_other: bool) -> Picture:
    """Draws what is asked, what was fed, and their difference three times as strong where their sizes agree."""
    caption = "Left: what the model should have been fed; right: what it was fed"
    words = ", which is of another image." if is_other else ", its values as levels."
    return draw_pair(solved.expected, solved.found, caption + words)


def draw_pair(expected: NDArray[Any], found: NDArray[Any], caption: str) -> Picture:
    """Draws two inputs side by side.

    Args:
        expected: (h, w, 3) levels from 0 to 255.
        found: likewise, of any size.
        caption: what is seen.
    """
    shown = [_shrink(one) for one in (expected, found)]
    if expected.shape == found.shape:
        shown.append(_shrink(3 * np.abs(expected - found)))
        caption += " Beside them the difference, three times as strong."
    height = max(one.shape[0] for one in shown)
    parts = []
    for one in shown:
        canvas = np.full((height, one.shape[1] + 8, 3), 255, dtype=np.uint8)
        canvas[: one.shape[0], : one.shape[1]] = one
        parts.append(canvas)
    return Picture(caption, png=write_png(np.ascontiguousarray(np.concatenate(parts, axis=1))))


def _shrink(levels: NDArray[Any]) -> NDArray[np.uint8]:
    cv2 = import_cv2()
    image = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
