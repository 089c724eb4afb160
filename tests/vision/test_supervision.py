# SPDX-License-Identifier: Apache-2.0
"""Conversion to and from `supervision.Detections`."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from shipsight.errors import MissingDependencyError, UsageError
from shipsight.model import ImagePredictions
from shipsight.vision.supervision import from_supervision, to_supervision

BOXES = np.array([[1, 2, 30, 40], [5, 5, 20, 20.5]], np.float32)
CORNERS = np.array([[[10, 0], [20, 10], [10, 20], [0, 10]], [[1, 1], [5, 1], [5, 3], [1, 3]]], np.float32)
KINDS = {
    "detect": {"boxes_xyxy": BOXES},
    "segment": {"boxes_xyxy": BOXES, "masks": np.random.default_rng(0).random((2, 50, 60)) > 0.5},
    "pose": {"boxes_xyxy": BOXES, "keypoints_xyc": np.random.default_rng(0).random((2, 17, 3), dtype=np.float32)},
    "obb": {"corners_xy": CORNERS},
}


def predictions(count=2, **arrays):
    return ImagePredictions(
        source="a.jpg",
        width=60,
        height=50,
        class_names=("cat", "dog"),
        class_ids=np.array([1, 0], dtype=np.int64)[:count],
        scores=np.array([0.9, 0.4], dtype=np.float32)[:count],
        **{name: array[:count] for name, array in arrays.items()},
    )


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_predictions_survive_the_round_trip(kind, count):
    before = predictions(count, **KINDS[kind])
    detections = to_supervision(before)
    after = from_supervision(detections, class_names=before.class_names, width=60, height=50, source="a.jpg")
    assert len(detections) == count
    assert after.to_dict() == before.to_dict()


def test_detections_are_what_supervision_users_expect():
    detections = to_supervision(predictions(**KINDS["obb"]))
    assert detections.xyxy.tolist() == [[0, 0, 20, 20], [1, 1, 5, 3]]
    assert detections["class_name"].tolist() == ["dog", "cat"]
    assert detections[detections.class_id == 0].confidence.tolist() == pytest.approx([0.4])


def test_foreign_detections_come_back_by_falling_score():
    import supervision

    foreign = supervision.Detections(
        xyxy=BOXES.astype(np.float64), confidence=np.array([0.2, 0.8]), class_id=np.array([0, 1])
    )
    found = from_supervision(foreign, class_names=["cat", "dog"], width=60, height=50)
    assert found.class_ids.tolist() == [1, 0]
    assert found.boxes_xyxy.dtype == np.float32


def test_conversion_is_refused_when_something_essential_is_missing():
    import supervision

    bare = supervision.Detections(xyxy=BOXES)
    with pytest.raises(UsageError, match="class ids"):
        from_supervision(bare, class_names=["cat"], width=60, height=50)
    unknown = supervision.Detections(xyxy=BOXES, confidence=np.ones(2), class_id=np.array([0, 7]))
    with pytest.raises(UsageError, match="no name"):
        from_supervision(unknown, class_names=["cat"], width=60, height=50)
    classified = ImagePredictions(
        None, 60, 50, ("cat", "dog"), np.zeros(0, np.int64), np.zeros(0, np.float32),
        probabilities=np.array([0.5, 0.5], np.float32),
    )  # fmt: skip
    with pytest.raises(UsageError, match="classifier"):
        to_supervision(classified)


def test_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingDependencyError, match=r"shipsight\[supervision\]"):
        to_supervision(predictions(**KINDS["detect"]))
