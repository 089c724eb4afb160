# SPDX-License-Identifier: Apache-2.0
"""Tiling: where windows lie, and what becomes of objects that they cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shipsight
from shipsight.errors import LimitError, UsageError
from shipsight.model import ImagePredictions, Task
from shipsight.vision import PredictSettings, TileSettings, predict_windows
from shipsight.vision.obb import rotated_to_corners
from shipsight.vision.tiling import lay_windows

Object = tuple[int, float, tuple[float, float, float, float]]
"""Class id, score, box."""


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 3000),
    width=st.integers(1, 3000),
    size=st.integers(32, 1000),
    overlap=st.floats(0, 0.9),
    whole=st.booleans(),
)
def test_windows_cover_the_image_and_overlap_as_asked(
    height: int, width: int, size: int, overlap: float, whole: bool
) -> None:
    if (height / size + 1) * (width / size + 1) / (1 - overlap) ** 2 > 5000:
        return
    laid = lay_windows(height, width, TileSettings(size, overlap, whole))
    tiles = laid[:-1] if whole and len(laid) > 1 else laid
    for begin, end, length in (("left", "right", width), ("top", "bottom", height)):
        spans = sorted({(getattr(one, begin), getattr(one, end)) for one in tiles})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(stop - start == min(size, length) for start, stop in spans)
        least = int(size * overlap) - 1
        assert all(stop - start >= least for (_, stop), (start, _) in itertools.pairwise(spans))


def test_an_image_that_fits_is_one_window() -> None:
    assert len(lay_windows(600, 640, TileSettings(640))) == 1


class Model:
    """Sees the objects of a scene in a window, cut where the window cuts them; larger ones surer, cut ones too."""

    def __init__(self, objects: list[Object], *, least: float = 0.0, most: float = 1e9) -> None:
        self.objects, self.least, self.most = objects, least, most
        self.calls = 0

    def __call__(self, pixels: np.ndarray) -> ImagePredictions:
        self.calls += 1
        # The scene's pixels say where they are.
        left, top = (int(pixels[0, 0, 0]) * 32, int(pixels[0, 0, 1]) * 32)
        height, width = pixels.shape[:2]
        seen = []
        for class_id, score, (x0, y0, x1, y1) in self.objects:
            box = np.clip((x0 - left, y0 - top, x1 - left, y1 - top), 0, (width, height) * 2)
            is_seen = box[2] - box[0] > 4 and box[3] - box[1] > 4
            share = max(x1 - x0, y1 - y0) / max(height, width)
            if is_seen and self.least <= share <= self.most:
                seen.append((class_id, score, box))
        seen.sort(key=lambda one: -one[1])
        return found([(one, score, tuple(box)) for one, score, box in seen], height, width)


def found(objects: list[Any], height: int, width: int) -> ImagePredictions:
    return ImagePredictions(
        source="scene",
        width=width,
        height=height,
        class_names=("car", "bus"),
        class_ids=np.array([one[0] for one in objects], dtype=np.int64),
        scores=np.array([one[1] for one in objects], dtype=np.float32),
        boxes_xyxy=np.array([one[2] for one in objects], dtype=np.float32).reshape(-1, 4),
    )


def scene(height: int = 640, width: int = 960) -> np.ndarray:
    """An image whose every pixel tells its place in units of 32 px."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(width)[None, :] // 32
    pixels[..., 1] = np.arange(height)[:, None] // 32
    return pixels


TILES = TileSettings(320, 0.2, whole=False)  # windows at 0, 213 (or 214), 427, 640
ALIGNED = TileSettings(320, 0.0, whole=False)


def merged(model: Model, tiles: TileSettings, **more: Any) -> list[tuple[int, list[int]]]:
    told = predict_windows(scene(), model, tiles=tiles, settings=PredictSettings(**more), task=Task.DETECT)
    assert (told.width, told.height) == (960, 640)
    assert told.scores.tolist() == sorted(told.scores.tolist(), reverse=True)
    assert told.boxes_xyxy is not None
    return [(int(c), np.round(b).astype(int).tolist()) for c, b in zip(told.class_ids, told.boxes_xyxy, strict=True)]


def test_an_object_in_two_windows_is_told_once() -> None:
    # The windows begin at multiples of 32 px, since that is all the scene's pixels can tell.
    tiles = TileSettings(320, 0.5, whole=False)
    objects: list[Object] = [(0, 0.9, (200, 100, 260, 160)), (1, 0.8, (20, 20, 60, 60)), (0, 0.7, (600, 400, 700, 500))]
    assert merged(Model(objects), tiles) == [(c, list(map(int, box))) for c, _, box in objects]


def test_objects_that_lie_on_each_other_in_one_window_stay_two() -> None:
    objects: list[Object] = [(0, 0.9, (10, 10, 110, 110)), (0, 0.8, (30, 10, 130, 110))]
    assert len(merged(Model(objects), ALIGNED)) == 2


def test_a_piece_goes_where_the_whole_object_was_seen_however_sure_it_is() -> None:
    objects: list[Object] = [(0, 0.9, (250, 100, 420, 300))]

    class SureOfPieces(Model):
        def __call__(self, pixels: np.ndarray) -> ImagePredictions:
            told = super().__call__(pixels)
            is_whole = pixels.shape[1] == 960
            return ImagePredictions(**{**vars(told), "scores": told.scores * (0.5 if is_whole else 1.0)})

    assert merged(SureOfPieces(objects), TileSettings(320, 0.0)) == [(0, [250, 100, 420, 300])]


def test_pieces_of_an_object_that_no_window_holds_are_joined() -> None:
    objects: list[Object] = [(0, 0.9, (100, 100, 800, 220)), (1, 0.6, (300, 300, 900, 600))]
    tiles = TileSettings(320, 0.5, whole=False)
    assert merged(Model(objects), tiles) == [(0, [100, 100, 800, 220]), (1, [300, 300, 900, 600])]


def test_pieces_that_do_not_agree_where_both_windows_look_stay_apart() -> None:
    objects: list[Object] = [(0, 0.9, (100, 40, 310, 90)), (0, 0.8, (170, 250, 400, 310))]
    told = merged(Model(objects), TileSettings(320, 0.5, whole=False))
    assert told == [(0, [100, 40, 310, 90]), (0, [170, 250, 400, 310])]


def test_classes_are_merged_apart_unless_told_otherwise() -> None:
    objects: list[Object] = [(0, 0.9, (200, 100, 260, 160)), (1, 0.8, (200, 100, 260, 160))]
    tiles = TileSettings(320, 0.5, whole=False)
    assert len(merged(Model(objects), tiles)) == 2
    assert len(merged(Model(objects), tiles, agnostic_nms=True)) <= 2
    assert len(merged(Model(objects), tiles, max_det=1)) == 1


def test_large_objects_come_from_the_whole_image() -> None:
    large: Object = (0, 0.9, (20, 20, 940, 620))
    small: Object = (1, 0.8, (400, 300, 430, 330))
    # A model that sees nothing of what fills a window.
    model = Model([large, small], most=0.97)
    assert merged(model, TileSettings(320, 0.5)) == [(0, [20, 20, 940, 620]), (1, [400, 300, 430, 330])]


def test_keypoints_move_along_and_the_surest_stay() -> None:
    def predict(pixels: np.ndarray) -> ImagePredictions:
        left = int(pixels[0, 0, 0]) * 32
        height, width = pixels.shape[:2]
        x0, x1 = max(100 - left, 0), min(500 - left, width)
        if x1 - x0 < 5:
            return ImagePredictions(
                **{**vars(found([], height, width)), "keypoints_xyc": np.zeros((0, 2, 3), np.float32)}
            )
        told = found([(0, 0.9, (x0, 10, x1, 90))], height, width)
        sure = [0.9 if 0 <= x - left < width else 0.1 for x in (120, 480)]
        points = [[(min(max(x - left, 0), width), 50, c) for x, c in zip((120, 480), sure, strict=True)]]
        return ImagePredictions(**{**vars(told), "keypoints_xyc": np.array(points, dtype=np.float32)})

    tiles = TileSettings(320, 0.5, whole=False)
    told = predict_windows(scene(320), predict, tiles=tiles, settings=PredictSettings(), task=Task.POSE)
    assert told.boxes_xyxy is not None
    assert told.boxes_xyxy.tolist() == [[100, 10, 500, 90]]
    assert told.keypoints_xyc is not None
    assert told.keypoints_xyc[0, :, 0].tolist() == [120, 480]


def test_rotated_boxes_are_merged() -> None:
    def predict(pixels: np.ndarray) -> ImagePredictions:
        left = int(pixels[0, 0, 0]) * 32
        height, width = pixels.shape[:2]
        centres = [x - left for x in (200.0, 600.0) if -20 < x - left < width + 20]
        boxes = np.array([(x, 100, 80, 20, 0.5) for x in centres], dtype=np.float32).reshape(-1, 5)
        scores = [0.9 if 40 < x < width - 40 else 0.95 for x in centres]
        told = found([(0, score, (0, 0, 1, 1)) for score in scores], height, width)
        return ImagePredictions(**{**vars(told), "boxes_xyxy": None, "corners_xy": rotated_to_corners(boxes)})

    tiles = TileSettings(320, 0.5, whole=False)
    told = predict_windows(scene(320), predict, tiles=tiles, settings=PredictSettings(), task=Task.OBB)
    assert told.corners_xy is not None
    np.testing.assert_allclose(told.corners_xy.mean(axis=1), [(200, 100), (600, 100)], atol=0.01)


def test_nothing_found_is_nothing() -> None:
    assert merged(Model([]), TILES) == []


@pytest.mark.parametrize("task", [Task.SEGMENT, Task.CLASSIFY])
def test_tasks_that_are_not_merged_are_refused_before_anything_is_predicted(task: Task) -> None:
    model = Model([])
    with pytest.raises(UsageError, match="not merged"):
        predict_windows(scene(), model, tiles=TILES, settings=PredictSettings(), task=task)
    assert model.calls == 0


def test_more_windows_than_allowed_are_refused_before_anything_is_predicted() -> None:
    model = Model([])
    with pytest.raises(LimitError, match="more windows"):
        predict_windows(scene(), model, tiles=TILES, settings=PredictSettings(), task=Task.DETECT, most=5)
    assert model.calls == 0


@pytest.mark.parametrize("wrong", [{"size": 16}, {"size": 64, "overlap": 1.0}, {"size": 64, "overlap": -0.1}], ids=str)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TileSettings(**wrong)


@pytest.mark.slow
def test_digits_too_small_for_the_model_are_found_by_windows(
    digits_bundle: Path, digit_scenes: Callable[[int, int], tuple[Any, Any]]
) -> None:
    rows, truth = [], []
    for row in range(4):
        line = []
        for column in range(4):
            pixels, labels = digit_scenes(10 * row + column, 256)
            line.append(pixels)
            truth += [
                (one, x0 + 256 * column, y0 + 256 * row, x1 + 256 * column, y1 + 256 * row)
                for one, x0, y0, x1, y1 in labels
            ]
        rows.append(np.concatenate(line, axis=1))
    image = np.concatenate(rows)

    def overlap(one: Any, other: Any) -> float:
        across = min(one[2], other[2]) - max(one[0], other[0])
        down = min(one[3], other[3]) - max(one[1], other[1])
        common = max(across, 0) * max(down, 0)
        areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
        return float(common / (sum(areas) - common))

    def recall(**options: Any) -> tuple[float, int]:
        told = model.predict(image, **options)[0]
        hits = 0
        for class_id, *box in truth:
            near = np.array([overlap(box, other) for other in told.boxes_xyxy.tolist()]) > 0.5
            hits += bool((near & (told.class_ids == class_id)).any())
        return hits / len(truth), len(told)

    with shipsight.load(digits_bundle) as model:
        plain, _ = recall()
        tiled, count = recall(tile=256, overlap=0.35, whole=False)
        with_whole, _ = recall(tile=256, overlap=0.35)
    assert plain < 0.4
    assert min(tiled, with_whole) > 0.85
    assert count < 1.25 * len(truth), "each is told once"
