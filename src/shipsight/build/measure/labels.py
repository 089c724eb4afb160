# SPDX-License-Identifier: Apache-2.0
"""Labels of one image, and the text lines they are written in.

What for: reads a YOLO label file of any task into arrays, and refuses a line that does not fit with its file and
number. Leaves to others: which files belong to a data set (`dataset`), pixels (labels are relative to the image, so
every consumer scales them by the width and height it works in). Invariants: parallel arrays of one length; reading
writes nothing; a missing file means an image without objects. Stable.

Source: the label formats that Ultralytics documents (https://docs.ultralytics.com/datasets/): detect `c x y w h`,
segment `c x1 y1 x2 y2 ...`, pose `c x y w h` + keypoints of 2 or 3 values, obb `c` + four corners.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import DatasetError
from shipsight.model import Task

__all__ = ["LabelFormat", "Labels", "read_labels"]

FloatArray = NDArray[np.float64]

_SLACK = 0.01
"""How far a coordinate may lie outside the image: labels written with few decimals do."""

_OBB_SLACK = 1.0
"""Corners of a rotated box may lie well outside the image: the box does not end where the image does."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Objects of one image; coordinates relative to its width and height, 0 to 1.

    Attributes:
        class_ids: (N,) int64; for classify N is 1.
        boxes_cxcywh: (N, 4) float64 centre x, centre y, width, height; the enclosing box where lines hold polygons or
            corners; (N, 4) zeros for classify.
        polygons_xy: one (P, 2) float64 array an object, segment only.
        keypoints_xyv: (N, K, 3) float64 x, y, visibility (0 not labelled, 1 hidden, 2 visible), pose only.
        corners_xy: (N, 4, 2) float64 in the order written, obb only.
        repeated_lines: number of lines left out because they repeat an earlier one of the file.
    """

    class_ids: NDArray[np.int64]
    boxes_cxcywh: FloatArray
    polygons_xy: tuple[FloatArray, ...] | None = None
    keypoints_xyv: FloatArray | None = None
    corners_xy: FloatArray | None = None
    repeated_lines: int = 0

    def __len__(self) -> int:
        return len(self.class_ids)


@dataclass(frozen=True)
class LabelFormat:
    """What the lines of a data set's label files mean.

    Attributes:
        task: decides the form of a line.
        class_count: class ids are below it.
        keypoint_shape: (keypoints, 2 or 3 values each), pose only.
    """

    task: Task
    class_count: int
    keypoint_shape: tuple[int, int] | None = None


def read_labels(file: Path, layout: LabelFormat) -> Labels:
    """Reads a label file.

    Args:
        file: need not exist: the image then has no objects.
        layout: what its lines mean.

    Returns:
        The objects in the order written, repeated lines left out.

    Raises:
        DatasetError: a line is not of the format; the message names file and line, what was expected and found.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError("labels cannot be read", where=file, got=error) from error
    rows: dict[tuple[float, ...], None] = {}
    lines = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        lines += 1
        rows[_read_row(line, f"{file}:{number}", layout)] = None
    return _to_labels(list(rows), layout, lines - len(rows))


def _read_row(line: str, where: str, layout: LabelFormat) -> tuple[float, ...]:
    try:
        row = tuple(float(word) for word in line.split())
    except ValueError as error:
        raise DatasetError("label line is not made of numbers", where=where, got=repr(line[:120])) from error
    if not all(map(math.isfinite, row)):
        raise DatasetError("label line holds a value that is not finite", where=where, got=repr(line[:120]))
    _check_length(len(row), where, layout)
    if row[0] != int(row[0]) or not 0 <= row[0] < layout.class_count:
        raise DatasetError(
            "class id out of range", where=where, expected=f"0 to {layout.class_count - 1}", got=f"{row[0]:g}"
        )
    low, high = _bounds(layout.task)
    coordinates = _coordinates(row, layout)
    outside = [value for value in coordinates if not low <= value <= high]
    if outside:
        raise DatasetError(
            "coordinate outside the image",
            where=where,
            expected="0 to 1, relative to the image",
            got=f"{outside[0]:g}",
        )
    if layout.task in (Task.DETECT, Task.POSE) and len(row) == _box_length(layout) and min(row[3:5]) < 0:
        raise DatasetError("box with negative width or height", where=where, got=repr(line[:120]))
    return row


def _bounds(task: Task) -> tuple[float, float]:
    slack = _OBB_SLACK if task is Task.OBB else _SLACK
    return -slack, 1.0 + slack


def _box_length(layout: LabelFormat) -> int:
    if layout.task is Task.POSE and layout.keypoint_shape is not None:
        return 5 + layout.keypoint_shape[0] * layout.keypoint_shape[1]
    return 5


def _check_length(length: int, where: str, layout: LabelFormat) -> None:
    """Refuses a line with a number of values that its task has no form for."""
    polygon = length >= 7 and length % 2 == 1
    if layout.task is Task.DETECT:
        fits, expected = length == 5 or polygon, "5 values: class x y width height (or class and a polygon)"
    elif layout.task is Task.SEGMENT:
        fits, expected = polygon, "class and a polygon of 3 or more points: an odd number of values, 7 or more"
    elif layout.task is Task.POSE:
        count = _box_length(layout)
        fits, expected = length == count, f"{count} values: class x y width height and keypoints"
    else:
        fits, expected = length == 9, "9 values: class and four corners"
    if not fits:
        raise DatasetError("label line has another form", where=where, expected=expected, got=f"{length} values")


def _coordinates(row: tuple[float, ...], layout: LabelFormat) -> tuple[float, ...]:
    """Returns the values of a line that must lie in the image: all but class and visibilities."""
    if layout.task is not Task.POSE or layout.keypoint_shape is None:
        return row[1:]
    values = layout.keypoint_shape[1]
    points = [value for i, value in enumerate(row[5:]) if values == 2 or i % 3 != 2]
    return (*row[1:5], *points)


def _to_labels(rows: list[tuple[float, ...]], layout: LabelFormat, repeated: int) -> Labels:
    class_ids = np.array([row[0] for row in rows], dtype=np.int64)
    if layout.task is Task.POSE:
        boxes = np.array([row[1:5] for row in rows], dtype=np.float64).reshape(-1, 4)
        return Labels(class_ids, boxes, keypoints_xyv=_keypoints(rows, layout), repeated_lines=repeated)
    if layout.task is Task.DETECT:
        boxes = np.array([row[1:] if len(row) == 5 else _enclosing(_points(row)) for row in rows], dtype=np.float64)
        return Labels(class_ids, boxes.reshape(-1, 4), repeated_lines=repeated)
    points = [_points(row) for row in rows]
    if layout.task is Task.OBB:
        boxes = np.array([_enclosing(one) for one in points], dtype=np.float64).reshape(-1, 4)
        corners = np.array(points, dtype=np.float64).reshape(-1, 4, 2)
        return Labels(class_ids, boxes, corners_xy=corners, repeated_lines=repeated)
    points = [np.clip(one, 0.0, 1.0) for one in points]
    boxes = np.array([_enclosing(one) for one in points], dtype=np.float64).reshape(-1, 4)
    return Labels(class_ids, boxes, polygons_xy=tuple(points), repeated_lines=repeated)


def _points(row: tuple[float, ...]) -> FloatArray:
    return np.array(row[1:], dtype=np.float64).reshape(-1, 2)


def _enclosing(points_xy: FloatArray) -> FloatArray:
    low, high = points_xy.min(axis=0), points_xy.max(axis=0)
    return np.concatenate([(low + high) / 2, high - low])


def _keypoints(rows: list[tuple[float, ...]], layout: LabelFormat) -> FloatArray:
    if layout.keypoint_shape is None:
        raise DatasetError("keypoint shape is not known", where="kpt_shape", expected="[keypoints, 2 or 3]")
    count, values = layout.keypoint_shape
    given = np.array([row[5:] for row in rows], dtype=np.float64).reshape(-1, count, values)
    if values == 3:
        return given
    # Two values a keypoint: the format has no visibility, and (0, 0) is how "not labelled" is written.
    visible = np.where((given == 0).all(axis=2), 0.0, 2.0)
    return np.concatenate([given, visible[..., None]], axis=2)
