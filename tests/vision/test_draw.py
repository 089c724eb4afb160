# SPDX-License-Identifier: Apache-2.0
"""Drawing: what must hold of every picture; its looks are judged by eye."""

from __future__ import annotations

import numpy as np
import pytest

from shipsight.errors import TensorError
from shipsight.model import ImagePredictions
from shipsight.vision import draw


def predictions(count=2, *, height=200, width=300, **arrays):
    return ImagePredictions(
        source=None,
        width=width,
        height=height,
        class_names=("cat", "naïve dog", "bird"),
        class_ids=np.arange(count) % 3,
        scores=np.linspace(0.9, 0.3, count, dtype=np.float32),
        **arrays,
    )


BOXES = np.array([[20, 40, 120, 160], [100, 0, 299, 199]], np.float32)
KINDS = {
    "boxes": {"boxes_xyxy": BOXES},
    "masks": {"boxes_xyxy": BOXES, "masks": np.tri(200, 300, dtype=bool)[None].repeat(2, axis=0)},
    "coco-keypoints": {"boxes_xyxy": BOXES, "keypoints_xyc": np.full((2, 17, 3), 50, np.float32)},
    "other-keypoints": {"boxes_xyxy": BOXES, "keypoints_xyc": np.full((2, 4, 3), 50, np.float32)},
    "rotated": {"corners_xy": np.array([[[20, 20], [80, 40], [60, 100], [0, 80]]] * 2, np.float32)},
    "far-outside": {"corners_xy": np.full((2, 4, 2), 1e9, np.float32)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("background", [0, 255])
def test_drawing_leaves_the_image_alone_and_changes_a_copy(kind, background):
    image = np.full((200, 300, 3), background, np.uint8)
    drawn = draw(image, predictions(**KINDS[kind]))
    assert (image == background).all()
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    assert (drawn != background).any()


def test_nothing_is_drawn_when_nothing_was_found():
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    assert np.array_equal(draw(image, predictions(0, boxes_xyxy=np.zeros((0, 4), np.float32))), image)


def test_a_class_keeps_its_colour_and_classes_differ():
    blank = np.zeros((200, 300, 3), np.uint8)
    one = predictions(1, boxes_xyxy=np.array([[50, 50, 250, 150]], np.float32))
    other = ImagePredictions(**{**one.__dict__, "class_ids": np.array([1])})
    side = (slice(100, 101), slice(50, 51))
    assert np.array_equal(draw(blank, one)[side], draw(blank, one)[side])
    assert not np.array_equal(draw(blank, one)[side], draw(blank, other)[side])


@pytest.mark.parametrize("hw", [(1, 1), (8, 400), (400, 8), (32, 32)])
def test_tiny_images_can_be_drawn_on(hw):
    found = predictions(1, height=hw[0], width=hw[1], boxes_xyxy=np.array([[0, 0, hw[1], hw[0]]], np.float32))
    assert draw(np.zeros((*hw, 3), np.uint8), found).shape == (*hw, 3)


@pytest.mark.parametrize("hw", [(64, 48), (400, 500)])
def test_classes_are_listed_on_an_image_large_enough_to_read(hw):
    found = predictions(0, height=hw[0], width=hw[1], probabilities=np.array([0.2, 0.7, 0.1], np.float32))
    image = np.full((*hw, 3), 255, np.uint8)
    drawn = draw(image, found)
    assert min(drawn.shape[:2]) >= 320
    assert (drawn != 255).any()


def test_another_image_is_refused():
    with pytest.raises(TensorError, match="200"):
        draw(np.zeros((100, 300, 3), np.uint8), predictions(boxes_xyxy=BOXES))
