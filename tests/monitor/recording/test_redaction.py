# SPDX-License-Identifier: Apache-2.0
"""What is blurred is gone: at most four colours of it stay, and the detector that found it finds it no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.monitor.recording.recordings import NAMES, answer, pixels

from shipsight.model import ImagePredictions
from shipsight.monitor.recording.redaction import Region, blur, regions_of
from shipsight.predictor import load

sides = st.integers(1, 96)


@settings(max_examples=60, deadline=None)
@given(half_height=st.integers(4, 20), width=st.integers(8, 40), seed=st.integers(0, 99), other=st.integers(100, 199))
def test_region_is_told_by_the_means_of_its_cells_alone(half_height: int, width: int, seed: int, other: int) -> None:
    """Two regions whose 2 x 2 cells have the same means are blurred to the same pixels, whatever was in them."""
    means = np.random.default_rng(seed).integers(60, 196, (2, 2, 1, 1, 3))

    def image(noise_seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        # Each deviation stands there with both signs, so that the mean of a cell stays.
        noise = np.random.default_rng(noise_seed).integers(0, 60, (2, 2, half_height, width, 3))
        cells = np.concatenate([means + noise, means - noise], axis=2)
        return cells.transpose(0, 2, 1, 3, 4).reshape(4 * half_height, 2 * width, 3).astype(np.uint8)

    one, another = image(seed), image(other)
    whole = Region((0, 0, 2 * width, 4 * half_height))
    assert not np.array_equal(one, another)
    assert np.array_equal(blur(one, [whole]), blur(another, [whole]))


@settings(max_examples=60, deadline=None)
@given(x0=st.integers(0, 63), y0=st.integers(0, 47), width=sides, height=sides, seed=st.integers(0, 99))
def test_nothing_outside_of_regions_changes(x0: int, y0: int, width: int, height: int, seed: int) -> None:
    image = pixels(seed)
    x1, y1 = min(x0 + width, 64), min(y0 + height, 48)
    blurred = blur(image, [Region((x0, y0, x1, y1))])
    outside = np.ones(image.shape[:2], np.bool_)
    outside[y0:y1, x0:x1] = False
    assert np.array_equal(blurred[outside], image[outside])
    inside = blurred[y0:y1, x0:x1]
    assert inside.astype(float).std() <= image[y0:y1, x0:x1].astype(float).std() + 1


def test_variance_within_a_region_is_gone() -> None:
    image = pixels(size_hw=(256, 256))
    blurred = blur(image, [Region((64, 64, 192, 192))])
    assert image[64:192, 64:192].astype(float).var() > 5000
    assert blurred[64:192, 64:192].astype(float).var(axis=(0, 1)).max() < 60


def test_box_is_enlarged_by_the_margin_and_stays_in_the_image() -> None:
    found = answer(("face", 0.9, (10.0, 10.0, 30.0, 20.0)), ("face", 0.9, (50.0, 40.0, 64.0, 48.0)))
    boxes = [one.box_xyxy for one in regions_of(found, ("face",), margin=0.5, score=0.1)]
    assert boxes == [(0, 5, 40, 25), (43, 36, 64, 48)]


def test_other_classes_and_lower_scores_are_left_alone() -> None:
    found = answer(("car", 0.9, (1, 1, 9, 9)), ("face", 0.05, (1, 1, 9, 9)), ("plate", 0.1, (2, 2, 9, 9)))
    told = regions_of(found, ("face", "plate"), margin=0, score=0.1)
    assert [one.box_xyxy for one in told] == [(2, 2, 9, 9)]


def test_mask_grows_by_the_margin_and_leaves_the_rest_of_its_box() -> None:
    masks = np.zeros((1, 48, 64), np.bool_)
    for step in range(24):
        masks[0, 8 + step, 8 + step : 14 + step] = True  # a slanted plate
    found = ImagePredictions(
        None, 64, 48, NAMES, np.array([1]), np.array([0.9], np.float32),
        boxes_xyxy=np.array([[8, 8, 37, 32]], np.float32), masks=masks,
    )  # fmt: skip
    image = pixels()
    (region,) = regions_of(found, ("plate",), margin=0.1, score=0.1)
    blurred = blur(image, [region])
    changed = (blurred != image).any(axis=2)
    assert changed[masks[0]].mean() > 0.99  # by chance a pixel is its region's mean
    assert not changed[8:12, 30:].any()  # a corner of the box, far from the mask
    assert region.mask is not None
    assert region.mask.sum() > masks.sum() * 1.5


def test_rotated_box_is_blurred_as_the_upright_one_around_it() -> None:
    found = ImagePredictions(
        None, 64, 48, NAMES, np.array([1]), np.array([0.9], np.float32),
        corners_xy=np.array([[[10, 20], [20, 10], [30, 20], [20, 30]]], np.float32),
    )  # fmt: skip
    assert [one.box_xyxy for one in regions_of(found, ("plate",), margin=0, score=0.1)] == [(10, 10, 30, 30)]


def test_no_region_leaves_the_image_as_it_is() -> None:
    image = pixels()
    blurred = blur(image, [])
    assert np.array_equal(blurred, image)
    assert blurred is not image


def test_digits_that_are_blurred_are_found_no_more(
    digits_bundle: Path, digit_scenes: Callable[[int, int], tuple[Any, Any]]
) -> None:
    found_before = found_after = 0
    with load(digits_bundle, threads=1) as predictor:
        names = predictor.card.class_names
        for seed in range(12):
            image, digits = digit_scenes(seed, 128)
            before = predictor.predict(image, conf=0.25)[0]
            # All that are there, also those that the model missed: what is asked is whether blurring removes.
            boxes = np.array([one[1:] for one in digits], np.float32)
            told = ImagePredictions(
                None, 128, 128, names, np.array([int(one[0]) for one in digits]), np.ones(len(digits), np.float32),
                boxes_xyxy=boxes,
            )  # fmt: skip
            clean = blur(image, regions_of(told, names, margin=0.2, score=0.1))
            found_before += len(before)
            found_after += len(predictor.predict(clean, conf=0.25)[0])
    assert found_before >= 12
    assert found_after == 0
