# SPDX-License-Identifier: Apache-2.0
"""Tracking against Ultralytics' own BYTETracker, run beside it, and its own laws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.errors import UsageError
from shipsight.model import ImagePredictions
from shipsight.vision import ByteTrack, Tracker, TrackSettings
from shipsight.vision.obb import rotated_to_corners

Frame = tuple[np.ndarray, np.ndarray]
"""Boxes and scores."""


class Peer:
    """Ultralytics' tracker, fed with arrays as its predictor feeds it."""

    def __init__(self, **thresholds: Any) -> None:
        from ultralytics.trackers.byte_tracker import BYTETracker
        from ultralytics.utils import YAML
        from ultralytics.utils.checks import check_yaml

        self._tracker = BYTETracker(SimpleNamespace(**{**YAML.load(check_yaml("bytetrack.yaml")), **thresholds}))

    def update(self, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        from ultralytics.engine.results import OBB, Boxes

        data = np.concatenate((boxes, scores[:, None], np.zeros((len(boxes), 1))), axis=1).astype(np.float32)
        kind = OBB if boxes.shape[1] == 5 else Boxes
        return np.asarray(self._tracker.update(kind(data, (1000, 1000))))


def compare(frames: Sequence[Frame], settings: TrackSettings = TrackSettings(), **thresholds: Any) -> int:
    """Holds both trackers against each other on each frame; returns how many tracks there were."""
    ours, theirs = ByteTrack(settings), Peer(**thresholds)
    ids: set[int] = set()
    for number, (boxes, scores) in enumerate(frames):
        told, expected = ours.update(boxes, scores), theirs.update(boxes, scores)
        if len(expected) == 0:
            assert len(told.track_ids) == 0, f"frame {number}"
            continue
        width = boxes.shape[1]
        order, other = np.argsort(told.track_ids), np.argsort(expected[:, width])
        assert told.track_ids[order].tolist() == expected[other, width].tolist(), f"frame {number}"
        assert told.indices[order].tolist() == expected[other, -1].tolist(), f"frame {number}"
        ours_box, their_box = told.boxes[order], expected[other, :width]
        if width == 5:
            # Half a turn gives the same box; where Ultralytics' angle goes on counting, ours is the model's.
            half_turns = np.round((their_box[:, 4] - ours_box[:, 4]) / np.pi)
            their_box = their_box - np.outer(half_turns, (0, 0, 0, 0, np.pi))
        np.testing.assert_allclose(ours_box, their_box, rtol=1e-4, atol=1e-3)
        ids |= set(told.track_ids.tolist())
    return len(ids)


def crowd(seed: int, *, frames: int, objects: int, is_rotated: bool) -> list[Frame]:
    """Objects that cross, fade, vanish and come back, with false alarms between them."""
    rng = np.random.default_rng(seed)
    place, size = rng.random((objects, 2)) * 400, 15 + rng.random((objects, 2)) * 60
    speed, angle = rng.normal(0, 4, (objects, 2)), rng.random(objects) * 3
    gone = np.zeros(objects, dtype=int)
    told = []
    for _ in range(frames):
        place, speed = place + speed, speed + rng.normal(0, 0.6, speed.shape)
        gone = np.where(gone > 0, gone - 1, np.where(rng.random(objects) < 0.02, rng.integers(1, 45, objects), 0))
        seen = np.flatnonzero((gone == 0) & (rng.random(objects) > 0.05))
        alarms = rng.integers(0, 3)
        centre = np.concatenate((place[seen] + rng.normal(0, 1, (len(seen), 2)), rng.random((alarms, 2)) * 400))
        sides = np.concatenate((size[seen] * rng.normal(1, 0.03, (len(seen), 2)), 10 + rng.random((alarms, 2)) * 50))
        scores = np.concatenate((np.clip(rng.normal(0.5, 0.25, len(seen)), 0.05, 0.99), rng.random(alarms) * 0.5))
        if is_rotated:
            turns = np.concatenate((angle[seen] + rng.normal(0, 0.02, len(seen)), rng.random(alarms)))
            boxes = np.concatenate((centre, sides, turns[:, None]), axis=1)
        else:
            boxes = np.concatenate((centre - sides / 2, centre + sides / 2), axis=1)
        told.append((boxes.astype(np.float32), scores.astype(np.float32)))
    return told


@pytest.mark.torch
@pytest.mark.parametrize("is_rotated", [False, True], ids=["upright", "rotated"])
@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), objects=st.integers(1, 25), buffer=st.sampled_from([1, 5, 30]))
def test_tracks_equal_ultralytics_in_a_crowd(is_rotated: bool, seed: int, objects: int, buffer: int) -> None:
    compare(
        crowd(seed, frames=90, objects=objects, is_rotated=is_rotated),
        TrackSettings(buffer_frames=buffer),
        track_buffer=buffer,
    )


@pytest.mark.torch
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (TrackSettings(fuse_score=False), {"fuse_score": False}),
        (TrackSettings(match=0.5), {"match_thresh": 0.5}),
        (
            TrackSettings(high=0.5, low=0.2, new=0.6),
            {"track_high_thresh": 0.5, "track_low_thresh": 0.2, "new_track_thresh": 0.6},
        ),
    ],
    ids=["no-fusing", "match", "scores"],
)
def test_thresholds_equal_ultralytics(ours: TrackSettings, theirs: dict[str, Any]) -> None:
    for seed in range(2):
        assert compare(crowd(seed, frames=100, objects=12, is_rotated=False), ours, **theirs) > 5


@pytest.mark.torch
@pytest.mark.parametrize("gap", range(4, 10))
def test_a_lost_track_is_kept_as_long_as_ultralytics_keeps_it(gap: int) -> None:
    box, score = np.array([[100, 100, 150, 180]], dtype=np.float32), np.array([0.9], dtype=np.float32)
    nothing = np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.float32)
    frames = [(box, score)] * 5 + [nothing] * gap + [(box, score)] * 4 + [nothing] * 2 + [(box, score)] * 3
    assert compare(frames, TrackSettings(buffer_frames=5), track_buffer=5) in (1, 2)


@pytest.mark.torch
@pytest.mark.shared
def test_tracks_of_a_real_model_on_moving_views_equal_ultralytics(shared_data: Path, tmp_path: Path) -> None:
    import shutil

    from ultralytics import YOLO

    weights = tmp_path / "yolo11n.pt"
    shutil.copyfile(shared_data / "models" / "yolo11n.pt", weights)
    model = YOLO(weights)
    tracks = 0
    for path in sorted((shared_data / "coco128/images/val2017").glob("*.jpg"))[:9:3]:
        image = cv2.imread(str(path))
        frames = []
        for step in range(20):
            # A camera that pans and zooms over a photograph, with a shake.
            zoom, shift = 1.0 + 0.01 * step, np.array([3 * step, 2 * np.sin(step)])
            view = np.array([[zoom, 0, -shift[0]], [0, zoom, -shift[1]]])
            moved = cv2.warpAffine(image, view, (image.shape[1], image.shape[0]))
            found = model.predict(moved, conf=0.1, imgsz=320, verbose=False, device="cpu")[0].boxes
            frames.append((found.xyxy.numpy(), found.conf.numpy()))
        tracks += compare(frames)
    assert tracks >= 5


def predictions(boxes: Any, scores: Any, **more: Any) -> ImagePredictions:
    return ImagePredictions(
        source=None,
        width=640,
        height=480,
        class_names=("car", "bus"),
        class_ids=np.zeros(len(scores), dtype=np.int64),
        scores=np.asarray(scores, dtype=np.float32),
        boxes_xyxy=None if boxes is None else np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
        **more,
    )


def test_predictions_on_a_track_get_its_number_and_the_others_are_left_out() -> None:
    tracker = Tracker()
    first = tracker.update(predictions([[10, 10, 50, 60], [200, 10, 260, 80]], [0.9, 0.8]))
    assert first.track_ids is not None
    assert first.track_ids.tolist() == [1, 2]
    assert first.to_dict()["predictions"][0]["track_id"] == 1
    # The second comes first now, a newcomer is unconfirmed, and what is weak begins nothing.
    frame = predictions(
        [[203, 10, 263, 80], [400, 10, 460, 80], [11, 10, 51, 60], [300, 300, 330, 340]], [0.9, 0.8, 0.15, 0.2]
    )
    second = tracker.update(frame)
    assert second.track_ids is not None
    assert second.track_ids.tolist() == [2, 1]
    assert second.boxes_xyxy is not None
    assert second.boxes_xyxy.tolist() == [[203, 10, 263, 80], [11, 10, 51, 60]]
    third = tracker.update(frame)
    assert third.track_ids is not None
    assert third.track_ids.tolist() == [2, 3, 1]


def test_rotated_boxes_are_followed() -> None:
    tracker = Tracker()
    for step in range(5):
        box = np.array([[100 + 3 * step, 100, 80, 20, 0.4]], dtype=np.float32)
        told = tracker.update(predictions(None, [0.9], corners_xy=rotated_to_corners(box)))
        assert told.track_ids is not None
        assert told.track_ids.tolist() == [1]


def test_empty_frames_and_boxes_without_height_are_no_tracks() -> None:
    tracker = Tracker()
    assert len(tracker.update(predictions([], []))) == 0
    assert len(tracker.update(predictions([[10, 10, 20, 10]], [0.9]))) == 0
    assert tracker.update(predictions([], [])).to_dict()["predictions"] == []


def test_a_classifiers_answers_are_refused() -> None:
    answer = predictions(None, [], probabilities=np.array([0.5, 0.5], dtype=np.float32))
    with pytest.raises(UsageError, match="classifier"):
        Tracker().update(answer)


@pytest.mark.parametrize("wrong", [{"high": 1.5}, {"low": -0.1}, {"buffer_frames": 0}], ids=str)
def test_thresholds_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TrackSettings(**wrong)
