# SPDX-License-Identifier: Apache-2.0
"""Predictions: parallel arrays, selection, the shape for machines, and COCO's run lengths."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from shipsight.errors import TensorError
from shipsight.model import ImagePredictions, Predictions, decode_rle, encode_rle

HEIGHT, WIDTH, POINTS = 5, 7, 4
NAMES = ("ant", "bee", "cat")
masks = arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def coco_counts(mask: NDArray[np.bool_]) -> str:
    """The COCO API's own answer."""
    from pycocotools import mask as coco

    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")


def blobs(height: int, width: int, seed: int) -> NDArray[np.bool_]:
    """A mask with the runs of real ones: a few ellipses."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(3):
        radius_y, radius_x = rng.uniform(0.05, 0.4, 2) * (height, width)
        centre_y, centre_x = rng.random(2) * (height, width)
        mask |= ((y - centre_y) / radius_y) ** 2 + ((x - centre_x) / radius_x) ** 2 < 1
    return mask


@given(masks)
def test_run_lengths_equal_coco_and_come_back(mask: NDArray[np.bool_]) -> None:
    counts = encode_rle(mask)
    assert counts == coco_counts(mask)
    assert np.array_equal(decode_rle(counts, mask.shape), mask)


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(np.zeros((480, 640), bool), id="empty"),
        pytest.param(np.ones((480, 640), bool), id="full"),
        pytest.param(np.indices((31, 33)).sum(axis=0) % 2 == 0, id="chequered"),
        pytest.param(np.eye(200, dtype=bool), id="diagonal"),
        pytest.param(np.arange(1080 * 1920).reshape(1080, 1920) == 1080 * 1920 - 1, id="last-pixel"),
        *(pytest.param(blobs(480, 640, seed), id=f"blobs-{seed}") for seed in range(5)),
    ],
)
def test_run_lengths_equal_coco_for_masks_of_images(mask: NDArray[np.bool_]) -> None:
    counts = encode_rle(mask)
    assert counts == coco_counts(mask)
    assert np.array_equal(decode_rle(counts, mask.shape), mask)


def test_run_lengths_do_not_depend_on_memory_order() -> None:
    mask = blobs(48, 64, 9)
    assert encode_rle(np.asfortranarray(mask)) == encode_rle(mask)
    assert encode_rle(mask[::2, ::2]) == encode_rle(mask[::2, ::2].copy())


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param("", id="no-runs"),
        pytest.param("P", id="unfinished"),
        pytest.param("2", id="too-short"),
        pytest.param("7", id="too-long"),
        pytest.param("O7", id="negative"),
        pytest.param(" ", id="below-the-alphabet"),
        pytest.param("p", id="above-the-alphabet"),
        pytest.param("o" * 40, id="endless"),
    ],
)
def test_run_lengths_are_refused_when_they_do_not_fill_the_mask(counts: str) -> None:
    assert decode_rle("6", (2, 3)).tolist() == [[False] * 3] * 2
    with pytest.raises(TensorError, match="run lengths"):
        decode_rle(counts, (2, 3))


@given(st.text(st.characters(min_codepoint=30, max_codepoint=130), max_size=12))
def test_any_text_is_a_mask_or_a_tensor_error(counts: str) -> None:
    try:
        mask = decode_rle(counts, (3, 4))
    except TensorError:
        return
    assert (mask.shape, mask.dtype) == ((3, 4), np.bool_)


def make(count: int, *, seed: int = 0, source: str | None = "a.jpg") -> ImagePredictions:
    """Predictions that fill every array a prediction may have."""
    rng = np.random.default_rng(seed)
    return ImagePredictions(
        source=source,
        width=WIDTH,
        height=HEIGHT,
        class_names=NAMES,
        class_ids=rng.integers(0, len(NAMES), count),
        scores=np.sort(rng.random(count, dtype=np.float32))[::-1].copy(),
        boxes_xyxy=rng.random((count, 4), dtype=np.float32),
        corners_xy=rng.random((count, 4, 2), dtype=np.float32),
        keypoints_xyc=rng.random((count, POINTS, 3), dtype=np.float32),
        masks=rng.random((count, HEIGHT, WIDTH)) < 0.5,
    )


@given(
    st.integers(0, 6).flatmap(
        lambda count: st.tuples(
            st.just(count),
            arrays(np.bool_, count)
            | st.lists(st.integers(0, max(count - 1, 0)), max_size=count).map(lambda found: np.array(found, np.int64))
            | st.slices(count),
        )
    )
)
def test_selection_picks_the_same_rows_of_every_array(case: tuple[int, Any]) -> None:
    count, index = case
    whole = make(count)
    rows = np.arange(count)[index]
    picked = whole.select(index)
    assert len(picked) == len(rows)
    assert (picked.source, picked.width, picked.height) == ("a.jpg", WIDTH, HEIGHT)
    every = whole.to_dict()["predictions"]
    assert picked.to_dict()["predictions"] == [every[row] for row in rows]


def test_selection_keeps_probabilities_and_what_is_not_there() -> None:
    none = np.zeros(0, np.int64)
    whole = ImagePredictions(
        None, 4, 3, NAMES, none, none.astype(np.float32), probabilities=np.array([0.5, 0.25, 0.25], np.float32)
    )
    picked = whole.select(slice(None))
    assert picked.boxes_xyxy is None
    assert picked.to_dict() == {"source": None, "width": 4, "height": 3, "probabilities": [0.5, 0.25, 0.25]}


def test_machines_read_plain_values_in_pixels_of_the_image() -> None:
    one = ImagePredictions(
        source="a.jpg",
        width=3,
        height=2,
        class_names=NAMES,
        class_ids=np.array([2]),
        scores=np.array([0.5], np.float32),
        boxes_xyxy=np.array([[0, 0.5, 2, 1.5]], np.float32),
        keypoints_xyc=np.array([[[1, 1.25, 0.75]]], np.float32),
        masks=np.array([[[0, 1, 1], [0, 0, 1]]], bool),
    )
    told = Predictions("cells", "1", "openvino-int8-32", (one,)).to_dict()
    assert told == {
        "model": "cells",
        "version": "1",
        "variant": "openvino-int8-32",
        "images": [
            {
                "source": "a.jpg",
                "width": 3,
                "height": 2,
                "predictions": [
                    {
                        "class_id": 2,
                        "class_name": "cat",
                        "score": 0.5,
                        "box_xyxy": [0.0, 0.5, 2.0, 1.5],
                        "keypoints_xyc": [[1.0, 1.25, 0.75]],
                        # Down the columns: 2 zeros, 1 one, 1 zero, 2 ones.
                        "mask": {"size_hw": [2, 3], "counts": "2111"},
                    }
                ],
            }
        ],
    }
    assert json.loads(json.dumps(told)) == told


def test_machines_read_rotated_boxes_by_their_corners() -> None:
    corners = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    one = ImagePredictions(None, 9, 9, NAMES, np.array([0]), np.array([1], np.float32), corners_xy=corners)
    (found,) = one.to_dict()["predictions"]
    assert set(found) == {"class_id", "class_name", "score", "corners_xy"}
    assert found["corners_xy"] == corners[0].tolist()


def test_no_predictions_are_an_empty_list() -> None:
    assert make(0).to_dict()["predictions"] == []


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("scores", lambda array: array[:1]),
        ("class_ids", lambda array: array[:, None]),
        ("boxes_xyxy", lambda array: array[:, :3]),
        ("corners_xy", lambda array: array[:, :3]),
        ("keypoints_xyc", lambda array: array[..., :2]),
        ("keypoints_xyc", lambda array: array[:1]),
        ("keypoints_xyc", lambda array: array[:, 0]),
        ("masks", lambda array: array.transpose(0, 2, 1)),
        ("masks", lambda array: array[:1]),
    ],
)
def test_arrays_are_refused_when_they_are_not_parallel(
    name: str, damage: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    given_arrays = {key: getattr(make(2), key) for key in make(2).__dataclass_fields__}
    given_arrays[name] = damage(given_arrays[name])
    with pytest.raises(TensorError, match="array has another shape") as caught:
        ImagePredictions(**given_arrays)
    assert caught.value.where == name


def test_probabilities_are_refused_when_they_are_not_one_a_class() -> None:
    none = np.zeros(0, np.int64)
    with pytest.raises(TensorError, match="probabilities"):
        ImagePredictions(None, 4, 3, NAMES, none, none.astype(np.float32), probabilities=np.ones(2, np.float32))


def test_predictions_are_a_sequence_of_images() -> None:
    images = tuple(make(count, source=str(count)) for count in range(3))
    found = Predictions("cells", "1", "v", images)
    assert (len(found), found[1], found[-1], found[1:]) == (3, images[1], images[2], images[1:])
    assert [one.source for one in found] == ["0", "1", "2"]
