# SPDX-License-Identifier: Apache-2.0
"""Makes objects in an image unrecognizable: of each region at most four colours stay, whatever was in it.

A region is averaged down to 2 x 2 cells at most, and these are spread over it again. A wide Gaussian blur looks alike, but keeps as many
numbers as there are pixels, and can be undone in part. Of 4 x 4 cells a detector still told some of the sample's digits, of 2 x 2 none. Leaves
to others: finding objects (`predictor`), and saying which are meant (`policy`). Pure. Unstable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.model import ImagePredictions
from shipsight.vision import import_cv2

__all__ = ["Region", "blur", "regions_of"]

_CELLS = 2


@dataclass(frozen=True, eq=False)
class Region:
    """Part of an image.

    Attributes:
        box_xyxy: x0, y0, x1, y1 in whole pixels, x1 and y1 beyond the last; within the image.
        mask: (y1 - y0, x1 - x0) bool, which pixels of the box; None for all.
    """

    box_xyxy: tuple[int, int, int, int]
    mask: NDArray[np.bool_] | None = None


def regions_of(found: ImagePredictions, classes: Sequence[str], *, margin: float, score: float) -> list[Region]:
    """Returns where objects of some classes are, enlarged.

    Args:
        found: in an image.
        classes: names.
        margin: share of a box's size that it is enlarged by on each side; a mask grows by that share of its box's larger side.
        score: least, 0 to 1.

    Returns:
        A region an object. Where there are masks it is the mask's, never less than a pixel around it; a rotated box gives the upright
        box around it.
    """
    wanted = [
        index
        for index, class_id in enumerate(found.class_ids)
        if found.class_names[class_id] in classes and found.scores[index] >= score
    ]
    return [region for index in wanted for region in _region(found, index, margin)]


def _region(found: ImagePredictions, index: int, margin: float) -> Iterator[Region]:
    if found.masks is not None:
        rows, columns = np.nonzero(found.masks[index])
        if len(rows):
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            yield from _masked(found, index, [float(one) for one in box], margin)
            return
    if found.boxes_xyxy is not None:
        x0, y0, x1, y1 = (float(one) for one in found.boxes_xyxy[index])
    elif found.corners_xy is not None:
        (x0, y0), (x1, y1) = found.corners_xy[index].min(axis=0), found.corners_xy[index].max(axis=0)
    else:
        return
    box_xyxy = _enlarged((x0, y0, x1, y1), (margin * (x1 - x0), margin * (y1 - y0)), found)
    if box_xyxy is not None:
        yield Region(box_xyxy)


def _masked(found: ImagePredictions, index: int, box: Sequence[float], margin: float) -> Iterator[Region]:
    """Grows a mask; a box alone would take what stands beside a slanted object with it."""
    assert found.masks is not None
    grown_by = max(int(np.ceil(margin * max(box[2] - box[0], box[3] - box[1]))), 1)
    box_xyxy = _enlarged(box, (grown_by, grown_by), found)
    if box_xyxy is None:
        return
    x0, y0, x1, y1 = box_xyxy
    cv2 = import_cv2()
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grown_by + 1, 2 * grown_by + 1))
    grown = cv2.dilate(found.masks[index, y0:y1, x0:x1].astype(np.uint8), kernel)
    yield Region(box_xyxy, grown.astype(np.bool_))


def _enlarged(
    box: Sequence[float], by_xy: tuple[float, float], found: ImagePredictions
) -> tuple[int, int, int, int] | None:
    """Returns a box in whole pixels within the image, None where nothing of it is there."""
    x0, y0 = max(int(np.floor(box[0] - by_xy[0])), 0), max(int(np.floor(box[1] - by_xy[1])), 0)
    x1 = min(int(np.ceil(box[2] + by_xy[0])), found.width)
    y1 = min(int(np.ceil(box[3] + by_xy[1])), found.height)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def blur(image_rgb: NDArray[np.uint8], regions: Sequence[Region]) -> NDArray[np.uint8]:
    """Returns a copy of an image in which regions are unrecognizable.

    Args:
        image_rgb: (height, width, 3) uint8.
        regions: within it; they may overlap.

    Returns:
        (height, width, 3) uint8; outside of the regions nothing differs.
    """
    cv2 = import_cv2()
    blurred = image_rgb.copy()
    for region in regions:
        x0, y0, x1, y1 = region.box_xyxy
        # Of the image as it was: overlapping regions else leave seams that tell where they meet.
        part = image_rgb[y0:y1, x0:x1]
        height, width = part.shape[:2]
        # A region of a few pixels would else keep a cell for each of them.
        size = (_cells(width), _cells(height))
        cells = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
        spread = cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR)
        target = blurred[y0:y1, x0:x1]
        target[...] = spread if region.mask is None else np.where(region.mask[..., None], spread, target)
    return blurred


def _cells(side: int) -> int:
    """Returns into how many cells a side of so many pixels is divided: each averages at least 8 pixels, where there are so many."""
    return min(_CELLS, max(side // 8, 1))
