# SPDX-License-Identifier: Apache-2.0
"""Predictions read back from their one shape: nothing is lost, and what is none of them is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.errors import CorruptError
from shipsight.model import ImagePredictions, Predictions

NAMES = ("ship", "buoy", "crane")
WIDTH, HEIGHT = 9, 7
KINDS = ("detect", "track", "obb", "pose", "segment", "classify")


def one_image(kind: str, seed: int, count: int) -> ImagePredictions:
    random = np.random.default_rng(seed)

    def numbers(*shape: int) -> Any:
        return random.uniform(0, 9, shape).astype(np.float32)

    if kind == "classify":
        nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
        return ImagePredictions("a.jpg", WIDTH, HEIGHT, NAMES, *nothing, probabilities=numbers(3) / 9)
    return ImagePredictions(
        source=None if seed % 2 else "ä.jpg",
        width=WIDTH,
        height=HEIGHT,
        class_names=NAMES,
        class_ids=random.integers(0, 3, count),
        scores=numbers(count) / 9,
        boxes_xyxy=None if kind == "obb" and count else numbers(count, 4),
        corners_xy=numbers(count, 4, 2) if kind == "obb" and count else None,
        keypoints_xyc=numbers(count, 5, 3) if kind == "pose" and count else None,
        masks=random.random((count, HEIGHT, WIDTH)) > 0.5 if kind == "segment" and count else None,
        track_ids=random.integers(1, 99, count) if kind == "track" and count else None,
    )


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2**32), st.integers(0, 5)), max_size=3), st.booleans())
def test_predictions_survive_the_way_through_json(images: list[tuple[str, int, int]], knows_names: bool) -> None:
    made = Predictions("m", "1", "v", tuple(one_image(*one) for one in images))
    read = Predictions.from_dict(json.loads(json.dumps(made.to_dict())), class_names=NAMES if knows_names else None)
    assert read.to_dict() == made.to_dict()
    for before, after in zip(made, read, strict=True):
        for name in ("boxes_xyxy", "corners_xy", "keypoints_xyc", "masks", "probabilities", "track_ids", "class_ids"):
            mine, theirs = getattr(before, name), getattr(after, name)
            assert (mine is None) == (theirs is None), name
            assert mine is None or (mine.dtype == theirs.dtype and np.array_equal(mine, theirs)), name
        assert not knows_names or after.class_names == NAMES


def test_a_class_that_no_prediction_names_is_called_by_its_number() -> None:
    told = {"class_id": 2, "class_name": "crane", "score": 0.5, "box_xyxy": [0, 0, 1, 1]}
    image = {"source": None, "width": 4, "height": 4, "predictions": [told], "later": "key"}
    read = Predictions.from_dict({"model": "m", "version": "1", "variant": "v", "images": [image], "more": 1})
    assert read[0].class_names == ("0", "1", "crane")


FINE: dict[str, Any] = Predictions("m", "1", "v", (one_image("segment", 3, 2),)).to_dict()


def changed(*path: str | int, value: Any) -> dict[str, Any]:
    told = copy.deepcopy(FINE)
    place: Any = told
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return told


FOUND = ("images", 0, "predictions", 0)


@pytest.mark.parametrize(
    "told",
    [
        None, [], "text", 7, {}, changed("images", value={}), changed("images", value=[None]), changed("model", value=1),
        changed("model", value=...), changed("images", 0, "width", value=-1), changed("images", 0, "width", value=True),
        changed("images", 0, "width", value=2**40), changed("images", 0, "width", value=1.5),
        changed("images", 0, "height", value=10**400), changed("images", 0, "source", value=7),
        changed("images", 0, "predictions", value="text"), changed("images", 0, "predictions", value=[1]),
        changed(*FOUND, "class_id", value=10**9), changed(*FOUND, "class_id", value="0"),
        changed(*FOUND, "class_id", value=-1), changed(*FOUND, "score", value="0.5"), changed(*FOUND, "score", value=None),
        changed(*FOUND, "score", value=float("nan")), changed(*FOUND, "box_xyxy", value=[1, 2, 3]),
        changed(*FOUND, "box_xyxy", value=[[1], 2, 3, 4]), changed(*FOUND, "box_xyxy", value=...),
        changed(*FOUND, "box_xyxy", value=["1", "2", "3", "4"]), changed(*FOUND, "mask", "size_hw", value=[10**6, 10**6]),
        changed(*FOUND, "mask", "counts", value="~~"), changed(*FOUND, "mask", "counts", value=7),
        changed("images", 0, "probabilities", value=[0.1]), changed("images", 0, "probabilities", value={}),
    ],
    ids=lambda told: json.dumps(told)[:70],
)  # fmt: skip
def test_what_is_no_prediction_is_refused(told: object) -> None:
    with pytest.raises(CorruptError, match="not predictions"):
        Predictions.from_dict(told)
