# SPDX-License-Identifier: Apache-2.0
"""Fitting images to the input size, normalising, and mapping back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.errors import TensorError
from shipsight.model import Fit, InputContract, TensorLayout
from shipsight.vision import decode_image, prepare, to_tensor

SIDES = st.integers(1, 300)
INPUT_SIDES = st.integers(1, 10).map(lambda n: 32 * n)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.torch
@pytest.mark.shared
def test_letterbox_equals_ultralytics_on_every_validation_image(shared_data):
    from ultralytics.data.augment import LetterBox

    paths = sorted([*shared_data.glob("coco128/images/val2017/*.jpg"), *shared_data.glob("bccd/images/val/*.jpg")])
    assert len(paths) == 151
    for path in paths:
        image = decode_image(path)
        prepared, _ = prepare(image, InputContract((640, 640)))
        expected = LetterBox((640, 640), auto=False, center=True, scaleup=True)(image=image)
        assert np.array_equal(prepared, expected), path


@pytest.mark.torch
@settings(max_examples=40, deadline=None, derandomize=True)
@given(height=SIDES, width=SIDES, size_hw=st.tuples(INPUT_SIDES, INPUT_SIDES))
def test_letterbox_equals_ultralytics_whatever_the_size(height, width, size_hw):
    from ultralytics.data.augment import LetterBox

    image = noise(height, width)
    prepared, _ = prepare(image, InputContract(size_hw))
    expected = LetterBox(size_hw, auto=False, center=True, scaleup=True)(image=image)
    assert np.array_equal(prepared, expected)


@pytest.mark.torch
@settings(max_examples=40, deadline=None, derandomize=True)
@given(height=SIDES, width=SIDES, size=st.integers(8, 256))
def test_centre_crop_is_at_most_one_level_off_torchvision(height, width, size):
    from PIL import Image
    from torchvision import transforms

    image = noise(height, width)
    size = min(size, 4 * min(height, width))  # keeps the long side of thin images within memory
    prepared, _ = prepare(image, InputContract((size, size), fit=Fit.CENTRE_CROP))
    transform = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])
    expected = np.asarray(transform(Image.fromarray(image))).astype(int)
    assert np.abs(prepared - expected).max() <= 1


def test_centre_crop_stretches_when_the_input_is_a_rectangle():
    image = np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], 40, axis=0).repeat(3, axis=2)
    prepared, geometry = prepare(image, InputContract((32, 64), fit=Fit.CENTRE_CROP))
    assert prepared.shape == (32, 64, 3)
    assert (np.diff(prepared[0, :, 0].astype(int)) >= 0).all()
    assert geometry.scale_xy == (64 / 60, 32 / 40)


def test_top_left_letterbox_pads_right_and_bottom_alone():
    prepared, geometry = prepare(np.zeros((100, 51, 3), np.uint8), InputContract((64, 96), fit=Fit.LETTERBOX_TOP_LEFT))
    assert (geometry.pad_left, geometry.pad_top) == (0, 0)
    assert (prepared[:, :32] == 0).all()  # int(51 * 0.64) = 32
    assert (prepared[:, 32:] == 114).all()


@pytest.mark.parametrize("fit", list(Fit))
@pytest.mark.parametrize("hw", [(1, 1), (1, 500), (500, 1), (64, 96), (65, 97), (63, 95)])
def test_prepared_image_has_the_input_size_and_memory_of_its_own(fit, hw):
    image = noise(*hw)
    before = image.copy()
    prepared, geometry = prepare(image, InputContract((64, 64), fit=fit))
    assert prepared.shape == (64, 64, 3)
    assert prepared.flags["C_CONTIGUOUS"]
    assert not np.shares_memory(prepared, image)
    assert geometry.original_hw == hw
    prepared[...] = 0
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["grayscale", "alpha", "float", "empty"],
)
def test_prepare_refuses_what_is_no_rgb_image(image):
    with pytest.raises(TensorError):
        prepare(image, InputContract((64, 64)))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    hw=st.tuples(st.integers(8, 400), st.integers(8, 400)),
    size_hw=st.tuples(INPUT_SIDES, INPUT_SIDES),
    fit=st.sampled_from([Fit.LETTERBOX, Fit.LETTERBOX_TOP_LEFT]),
    corners=st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4),
)
def test_boxes_return_to_where_they_were(hw, size_hw, fit, corners):
    _, geometry = prepare(np.zeros((*hw, 3), np.uint8), InputContract(size_hw, fit=fit))
    height, width = hw
    boxes = np.array([corners], np.float32) * np.array([width, height, width, height], np.float32)
    in_input = geometry.boxes_to_input(boxes)
    assert (in_input >= -1e-3).all()
    assert (in_input <= np.array([*size_hw[::-1], *size_hw[::-1]]) + 1e-3).all()
    # float32 at up to 320 px of padding, divided by the scale
    tolerance = 1e-4 / min(1, *geometry.scale_xy) + 1e-4
    np.testing.assert_allclose(geometry.boxes_to_original(in_input), boxes, rtol=0, atol=tolerance)


def test_boxes_and_keypoints_are_clipped_and_rotated_boxes_are_not():
    _, geometry = prepare(np.zeros((50, 100, 3), np.uint8), InputContract((64, 64)))
    assert geometry.boxes_to_original(np.array([[-50, -50, 500, 500]], np.float32)).tolist() == [[0, 0, 100, 50]]
    points = geometry.keypoints_to_original(np.array([[[-50, 500, 0.25]]], np.float32))
    assert points.tolist() == [[[0, 50, 0.25]]]
    rotated = geometry.rotated_to_original(np.array([[-64, 16, 64, 32, 1.5]], np.float32))
    np.testing.assert_allclose(rotated, [[-100, 0, 100, 50, 1.5]])


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize(
    "contract",
    [
        {},
        {"scale": 1.0},
        {"scale": 1 / 127.5, "mean": (1.0, 1.0, 1.0)},
        {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)},
    ],
    ids=["unit", "levels", "signed", "mean-and-std"],
)
def test_float_tensor_is_scaled_centred_and_in_colour_order(contract, colour):
    contract = InputContract((32, 64), colour=colour, **contract)
    image = noise(32, 64)
    tensor = to_tensor(image, contract, TensorLayout.FLOAT_NCHW)
    channels = image.astype(np.float64) if colour == "rgb" else image[..., ::-1].astype(np.float64)
    expected = ((channels * contract.scale - contract.mean) / contract.std).transpose(2, 0, 1)[None]
    assert tensor.dtype == np.float32
    assert tensor.shape == (1, 3, 32, 64)
    np.testing.assert_allclose(tensor, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))


@pytest.mark.torch
def test_float_tensor_equals_pytorch_at_every_level():
    import torch

    image = np.arange(256, dtype=np.uint8).repeat(12).reshape(32, 32, 3)
    tensor = to_tensor(image, InputContract((32, 32)), TensorLayout.FLOAT_NCHW)
    expected = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).float() / 255
    assert np.array_equal(tensor, expected.numpy())


def test_uint8_tensor_is_the_pixels_in_rgb_whatever_the_colour_order():
    batch = np.stack([noise(32, 64, seed) for seed in range(3)])
    tensor = to_tensor(batch, InputContract((32, 64), colour="bgr"), TensorLayout.UINT8_NHWC)
    assert np.array_equal(tensor, batch)


def test_batched_images_give_the_tensors_they_give_alone():
    contract = InputContract((32, 64), colour="bgr")
    batch = np.stack([noise(32, 64, seed) for seed in range(3)])
    together = to_tensor(batch, contract, TensorLayout.FLOAT_NCHW)
    alone = [to_tensor(image, contract, TensorLayout.FLOAT_NCHW) for image in batch]
    assert np.array_equal(together, np.concatenate(alone))


def test_to_tensor_refuses_another_size():
    with pytest.raises(TensorError, match="32"):
        to_tensor(noise(64, 64), InputContract((32, 64)), TensorLayout.FLOAT_NCHW)
