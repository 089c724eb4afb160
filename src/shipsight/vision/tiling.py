# SPDX-License-Identifier: Apache-2.0
"""Tiling: a large image predicted on window by window, the answers merged into one, in the whole image's pixels.

Windows overlap, so that an object that one of them cuts is whole in the next; the whole image is one more window, for
objects larger than a window. Merging:

    whole    of boxes of the same class from different windows that overlap by more than half, the best stays
    cut      a box that ends at an inner border of its window goes where a whole one covers more than half of it, or
             where a whole one of any class, cut by that window, would be the same box: half an 8 looks like a 3;
    joined   those left are one object where, in the strip that both their windows saw, they agree: the box around them

Boxes of one window do not suppress each other: the model's own suppression has been there. Of joined boxes the score
is the best, and of each keypoint the surest. Rotated boxes are not joined. Leaves to others: predicting. Stable.

Slicing and suppression by the smaller box's share are SAHI's idea (arXiv:2202.06934); the rule for cut objects is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import LimitError, UsageError
from shipsight.model import ImagePredictions, Task
from shipsight.vision._opencv import import_cv2
from shipsight.vision.obb import corners_to_rotated
from shipsight.vision.settings import PredictSettings
from shipsight.vision.suppression import probabilistic_iou

__all__ = ["TileSettings", "Window", "check_task", "lay_windows", "merge", "predict_windows"]

Pixels = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
Matrix = NDArray[np.floating]

_SAME = 0.5
_SEEN_BY = 5
_BORDER_SHARE = 0.01
_LEAST_BORDER_PX = 2.0


@dataclass(frozen=True)
class TileSettings:
    """How an image is cut.

    Attributes:
        size: side of a window in pixels of the image, 32 and more.
        overlap: share of a window that the next one covers too, 0 to 0.9; more than the objects are large.
        whole: whether the whole image is a window, too.
    """

    size: int
    overlap: float = 0.2
    whole: bool = True

    def __post_init__(self) -> None:
        if self.size < 32:
            raise UsageError("windows are too small", where="tile", expected="32 or more", got=self.size)
        if not 0.0 <= self.overlap <= 0.9:
            raise UsageError("overlap out of range", where="overlap", expected="0 to 0.9", got=self.overlap)


@dataclass(frozen=True)
class Window:
    """A part of an image, in its pixels; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int


def check_task(task: Task) -> None:
    """Refuses a task whose answers are not merged.

    Raises:
        UsageError: segment or classify.
    """
    if task not in (Task.DETECT, Task.POSE, Task.OBB):
        raise UsageError(
            "answers of this task are not merged", where="tile", expected="detect, pose or obb", got=task.value
        )


def lay_windows(height: int, width: int, settings: TileSettings) -> list[Window]:
    """Returns the windows of an image: evenly spread rows and columns, each overlapping by what was asked or more."""
    tops, lefts = _places(height, settings), _places(width, settings)
    laid = [
        Window(left, top, min(left + settings.size, width), min(top + settings.size, height))
        for top in tops
        for left in lefts
    ]
    whole = Window(0, 0, width, height)
    return [*laid, whole] if settings.whole and laid != [whole] else laid


def predict_windows(
    image_rgb: Pixels,
    predict: Callable[[Pixels], ImagePredictions],
    *,
    tiles: TileSettings,
    settings: PredictSettings,
    task: Task,
    most: int | None = None,
) -> ImagePredictions:
    """Predicts on an image window by window.

    Args:
        image_rgb: (height, width, 3) uint8 RGB.
        predict: makes the predictions of a window's pixels.
        tiles: how the image is cut.
        settings: what `predict` uses.
        task: of the model.
        most: most windows, None for any number.

    Returns:
        Predictions in the image's pixels, by falling score.

    Raises:
        LimitError: the image needs more windows.
        UsageError: the model's task is not one that is merged.
    """
    check_task(task)
    height, width = image_rgb.shape[:2]
    laid = lay_windows(height, width, tiles)
    if most is not None and len(laid) > most:
        raise LimitError(
            "the image needs more windows than allowed",
            where="tile",
            expected=f"at most {most}",
            got=len(laid),
            hint="Give larger windows or less overlap.",
        )
    parts = [predict(np.ascontiguousarray(image_rgb[one.top : one.bottom, one.left : one.right])) for one in laid]
    return merge(laid, parts, height=height, width=width, settings=settings)


def merge(
    laid: Sequence[Window],
    parts: Sequence[ImagePredictions],
    *,
    height: int,
    width: int,
    settings: PredictSettings,
) -> ImagePredictions:
    """Merges what was found in windows; rules in the module's description.

    Args:
        laid: the windows, one and more.
        parts: of each window, in its own pixels, of a task that `check_task` lets pass.
        height: of the whole image.
        width: of the whole image.
        settings: `max_det` and `agnostic_nms` are meant.
    """
    found = _gather(laid, parts, height=height, width=width)
    window = np.repeat(np.arange(len(parts)), [len(one) for one in parts])
    # Up to half an overlap, four windows and the whole see a point: so many hold as many objects as are wanted.
    order = np.argsort(-found.scores, kind="stable")[: _SEEN_BY * settings.max_det]
    found, window = found.select(order), window[order]
    class_ids = np.zeros_like(found.class_ids) if settings.agnostic_nms else found.class_ids
    windows = [laid[i] for i in window.tolist()]
    is_cut = _cut(found, windows, height=height, width=width)
    whole = _best(found, np.flatnonzero(~is_cut), class_ids, window)[: settings.max_det]
    cut = np.flatnonzero(is_cut)
    is_other = (window[cut][:, None] != window[whole]) & (class_ids[cut][:, None] == class_ids[whole])
    is_covered = ((_shares(found, cut, whole, is_other) > _SAME) & is_other).any(axis=1)
    if found.corners_xy is None:
        is_covered |= _would_be_cut_so(found, cut, whole, windows)
        pieces = _join(found, cut[~is_covered], class_ids, window, laid)
    else:
        pieces = found.select(_best(found, cut[~is_covered], class_ids, window))
    merged = _concatenate([found.select(whole), pieces])
    return merged.select(np.argsort(-merged.scores, kind="stable")[: settings.max_det])


def _places(length: int, settings: TileSettings) -> list[int]:
    if length <= settings.size:
        return [0]
    step = max(settings.size * (1 - settings.overlap), 1.0)
    gaps = math.ceil((length - settings.size) / step)
    return [round(i * (length - settings.size) / gaps) for i in range(gaps + 1)]


def _gather(laid: Sequence[Window], parts: Sequence[ImagePredictions], *, height: int, width: int) -> ImagePredictions:
    """Returns all predictions in the whole image's pixels."""
    moved = []
    for window, one in zip(laid, parts, strict=True):
        shift = np.array((window.left, window.top), dtype=np.float32)
        points = one.keypoints_xyc
        if points is not None:
            points = np.concatenate((points[..., :2] + shift, points[..., 2:]), axis=2)
        moved.append(
            replace(
                one,
                width=width,
                height=height,
                boxes_xyxy=None if one.boxes_xyxy is None else one.boxes_xyxy + np.tile(shift, 2),
                corners_xy=None if one.corners_xy is None else one.corners_xy + shift,
                keypoints_xyc=points,
            )
        )
    return _concatenate(moved)


def _concatenate(parts: Sequence[ImagePredictions]) -> ImagePredictions:
    def all_of(name: str) -> NDArray[np.generic] | None:
        arrays = [getattr(one, name) for one in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    names = ("class_ids", "scores", "boxes_xyxy", "corners_xy", "keypoints_xyc")
    return replace(parts[0], **{name: all_of(name) for name in names})  # type: ignore[arg-type]


def _hulls(found: ImagePredictions) -> FloatArray:
    """Returns (N, 4) upright boxes around the predictions."""
    if found.corners_xy is not None:
        return np.concatenate((found.corners_xy.min(axis=1), found.corners_xy.max(axis=1)), axis=1)
    assert found.boxes_xyxy is not None  # merge refuses what has neither
    return found.boxes_xyxy


def _cut(found: ImagePredictions, windows: Sequence[Window], *, height: int, width: int) -> NDArray[np.bool_]:
    """Tells which predictions end at a border of their window that is none of the image."""
    hulls = _hulls(found)
    is_cut = np.zeros(len(found), dtype=np.bool_)
    for i, one in enumerate(windows):
        border = max(_LEAST_BORDER_PX, _BORDER_SHARE * max(one.right - one.left, one.bottom - one.top))
        x0, y0, x1, y1 = hulls[i].tolist()
        is_cut[i] = (
            (one.left > 0 and x0 - one.left <= border)
            or (one.top > 0 and y0 - one.top <= border)
            or (one.right < width and one.right - x1 <= border)
            or (one.bottom < height and one.bottom - y1 <= border)
        )
    return is_cut


def _common(one: Matrix, other: Matrix) -> Matrix:
    """Returns (N, M) areas that boxes share."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    area: Matrix = np.prod(np.maximum(high - low, 0), axis=2)
    return area


def _areas(boxes: Matrix) -> Matrix:
    area: Matrix = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    return area


def _ratio(part: Matrix, whole: Matrix) -> Matrix:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _shares(
    found: ImagePredictions, cut: NDArray[np.int64], whole: NDArray[np.int64], is_other: NDArray[np.bool_]
) -> Matrix:
    """Returns (cut, whole): how much of a cut prediction a whole one covers."""
    hulls = _hulls(found)
    common = _common(hulls[cut], hulls[whole])
    if found.corners_xy is None:
        return _ratio(common, np.repeat(_areas(hulls[cut])[:, None], len(whole), axis=1))
    cv2 = import_cv2()
    shares: Matrix = np.zeros(common.shape, dtype=np.float32)
    for i, j in np.argwhere((common > 0) & is_other).tolist():
        one, other = found.corners_xy[cut[i]], found.corners_xy[whole[j]]
        area = cv2.contourArea(one)
        shares[i, j] = cv2.intersectConvexConvex(one, other)[0] / area if area > 0 else 0.0
    return shares


def _would_be_cut_so(
    found: ImagePredictions, cut: NDArray[np.int64], whole: NDArray[np.int64], windows: Sequence[Window]
) -> NDArray[np.bool_]:
    """Returns (cut,): whether a whole box, cut by the window of a cut one, is the same."""
    boxes = _hulls(found)
    return np.array([_agree(boxes[i], boxes[whole], _bounds(windows[i])).any() for i in cut.tolist()], dtype=np.bool_)


def _best(
    found: ImagePredictions, indices: NDArray[np.int64], class_ids: NDArray[np.int64], window: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Returns those of the indices, which fall by score, that no better one of another window stands for."""
    hulls = _hulls(found)
    boxes = hulls if found.corners_xy is None else corners_to_rotated(found.corners_xy)
    kept = []
    left = indices
    while len(left):
        i, left = left[0], left[1:]
        kept.append(i)
        # Row by row: all pairs of thousands of boxes would take gigabytes.
        if found.corners_xy is None:
            common = _common(boxes[i : i + 1], boxes[left])
            overlap = _ratio(common, _areas(boxes[i : i + 1]) + _areas(boxes[left]) - common)[0]
        else:
            overlap = probabilistic_iou(boxes[i : i + 1], boxes[left])[0]
        left = left[~((overlap > _SAME) & (window[left] != window[i]) & (class_ids[left] == class_ids[i]))]
    return np.array(kept, dtype=np.int64)


def _join(
    found: ImagePredictions,
    cut: NDArray[np.int64],
    class_ids: NDArray[np.int64],
    window: NDArray[np.int64],
    laid: Sequence[Window],
) -> ImagePredictions:
    """Joins cut predictions that agree in the strip that both their windows saw."""
    hulls = _hulls(found).astype(np.float64)
    bounds = np.array([_bounds(one) for one in laid])
    group = {i: i for i in cut.tolist()}

    def first(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    for place, i in enumerate(cut.tolist()):
        later = cut[place + 1 :]
        later = later[(window[later] != window[i]) & (class_ids[later] == class_ids[i])]
        mine, theirs = bounds[window[i]], bounds[window[later]]
        strips = np.concatenate((np.maximum(mine[:2], theirs[:, :2]), np.minimum(mine[2:], theirs[:, 2:])), axis=1)
        for j in later[_agree(hulls[i], hulls[later], strips)].tolist():
            one, other = sorted((first(i), first(j)))
            group[other] = one
    members: dict[int, list[int]] = {}
    for i in cut.tolist():
        members.setdefault(first(i), []).append(i)
    joined = found.select(np.array(list(members), dtype=np.int64))
    boxes = [np.concatenate((hulls[one][:, :2].min(axis=0), hulls[one][:, 2:].max(axis=0))) for one in members.values()]
    points = found.keypoints_xyc
    if points is not None:
        places = np.arange(points.shape[1])
        surest = [points[one][points[one][..., 2].argmax(axis=0), places] for one in members.values()]
        points = np.array(surest, dtype=np.float32).reshape(-1, *points.shape[1:])
    return replace(joined, boxes_xyxy=np.array(boxes, dtype=np.float32).reshape(-1, 4), keypoints_xyc=points)


def _bounds(window: Window) -> NDArray[np.int64]:
    return np.array((window.left, window.top, window.right, window.bottom))


def _agree(box: Matrix, others: Matrix, within: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Returns (N,): whether a box (4,) and others (N, 4) are the same within bounds, (4,) or (N, 4)."""
    low, high = within[..., :2], within[..., 2:]
    is_room = np.broadcast_to((high > low).all(axis=-1), len(others))
    high = np.maximum(high, low)
    one, two = (
        np.broadcast_to(
            np.concatenate((np.clip(b[..., :2], low, high), np.clip(b[..., 2:], low, high)), axis=-1), (len(others), 4)
        )
        for b in (box, others)
    )
    sides = np.minimum(one[:, 2:], two[:, 2:]) - np.maximum(one[:, :2], two[:, :2])
    common = np.prod(np.maximum(sides, 0), axis=1)
    result: NDArray[np.bool_] = (_ratio(common, _areas(one) + _areas(two) - common) > _SAME) & is_room
    return result
