# SPDX-License-Identifier: Apache-2.0
"""From an image to what an engine is fed: fit to the input size, then normalise.

Leaves to others: reading files (`decode`), running the engine, mapping back (`geometry`). Rules: `prepare` gives RGB
uint8 whatever the model's colour order, so that one prepared image serves every variant; colour order, scale, mean and
std are `to_tensor`'s (or the graph's, for uint8 inputs). The two letterboxes are bit-equal to Ultralytics' square one and
to YOLOX's; the centre crop is at most one level off Ultralytics' classification transforms (`antialias`). Stable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import TensorError
from shipsight.model import Fit, InputContract, TensorLayout
from shipsight.vision._opencv import import_cv2
from shipsight.vision.antialias import resize_antialiased
from shipsight.vision.geometry import Geometry

__all__ = ["prepare", "to_tensor"]

Image = NDArray[np.uint8]
Fitter = Callable[[Image, InputContract], tuple[Image, Geometry]]


def prepare(image_rgb: Image, contract: InputContract) -> tuple[Image, Geometry]:
    """Brings an image to a model's input size.

    Args:
        image_rgb: (H, W, 3) uint8 RGB, each side 1 and more.
        contract: what the model must be fed.

    Returns:
        (h, w, 3) uint8 RGB of `contract.size_hw`, C-contiguous and never the caller's own array, and where the original
        lies in it.

    Raises:
        TensorError: the image has another shape or type.
    """
    if image_rgb.dtype != np.uint8 or image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or 0 in image_rgb.shape:
        got = f"{image_rgb.dtype} {image_rgb.shape}"
        raise TensorError("not an image", where="image_rgb", expected="uint8 (height, width, 3)", got=got)
    return _FITTERS[contract.fit](image_rgb, contract)


def _letterbox(image_rgb: Image, contract: InputContract) -> tuple[Image, Geometry]:
    (height, width), (to_height, to_width) = image_rgb.shape[:2], contract.size_hw
    ratio = min(to_height / height, to_width / width)
    new_height, new_width = max(round(height * ratio), 1), max(round(width * ratio), 1)
    # the odd pixel of padding goes to the right and the bottom
    top, left = round((to_height - new_height) / 2 - 0.1), round((to_width - new_width) / 2 - 0.1)
    placed = _place(image_rgb, contract, (new_height, new_width), top=top, left=left)
    scale_xy = (new_width / width, new_height / height)
    return placed, Geometry((height, width), contract.size_hw, scale_xy, pad_left=left, pad_top=top)


def _letterbox_top_left(image_rgb: Image, contract: InputContract) -> tuple[Image, Geometry]:
    (height, width), (to_height, to_width) = image_rgb.shape[:2], contract.size_hw
    ratio = min(to_height / height, to_width / width)
    new_hw = max(int(height * ratio), 1), max(int(width * ratio), 1)
    placed = _place(image_rgb, contract, new_hw, top=0, left=0)
    return placed, Geometry((height, width), contract.size_hw, (ratio, ratio), pad_left=0, pad_top=0)


def _place(image_rgb: Image, contract: InputContract, new_hw: tuple[int, int], *, top: int, left: int) -> Image:
    cv2 = import_cv2()
    new_height, new_width = new_hw
    canvas: Image = np.empty((*contract.size_hw, 3), dtype=np.uint8)
    canvas[:top] = contract.pad_value
    canvas[top + new_height :] = contract.pad_value
    canvas[top : top + new_height, :left] = contract.pad_value
    canvas[top : top + new_height, left + new_width :] = contract.pad_value
    inner = canvas[top : top + new_height, left : left + new_width]
    if image_rgb.shape[:2] == new_hw:
        inner[...] = image_rgb
    else:
        inner[...] = cv2.resize(
            np.ascontiguousarray(image_rgb), (new_width, new_height), interpolation=cv2.INTER_LINEAR
        )
    return canvas


def _centre_crop(image_rgb: Image, contract: InputContract) -> tuple[Image, Geometry]:
    (height, width), (to_height, to_width) = image_rgb.shape[:2], contract.size_hw
    if to_height != to_width:  # a rectangle is stretched to, as Ultralytics' transforms do
        new_height, new_width = to_height, to_width
    elif height <= width:
        new_height, new_width = to_height, int(to_height * width / height)
    else:
        new_height, new_width = int(to_width * height / width), to_width
    top, left = round((new_height - to_height) / 2), round((new_width - to_width) / 2)
    window = (top, left, to_height, to_width)
    cropped = resize_antialiased(image_rgb, (new_height, new_width), window=window)
    scale_xy = (new_width / width, new_height / height)
    if np.shares_memory(cropped, image_rgb):
        cropped = cropped.copy()
    return cropped, Geometry((height, width), contract.size_hw, scale_xy, pad_left=-left, pad_top=-top)


_FITTERS: Mapping[Fit, Fitter] = {
    Fit.LETTERBOX: _letterbox,
    Fit.LETTERBOX_TOP_LEFT: _letterbox_top_left,
    Fit.CENTRE_CROP: _centre_crop,
}


def to_tensor(prepared_rgb: Image, contract: InputContract, layout: TensorLayout) -> NDArray[Any]:
    """Makes what an engine is fed.

    Args:
        prepared_rgb: (h, w, 3) or (N, h, w, 3) uint8 RGB from `prepare`.
        contract: what the model must be fed.
        layout: what the variant takes.

    Returns:
        For `float-nchw` (N, 3, h, w) float32, channels in `contract.colour` order, `(pixel * scale - mean) / std`; for
        `uint8-nhwc` the pixels as they are, (N, h, w, 3) uint8 RGB, possibly the caller's own memory.

    Raises:
        TensorError: the pixels have another shape or type than `prepare` gives.
    """
    batch = prepared_rgb[None] if prepared_rgb.ndim == 3 else prepared_rgb
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != (*contract.size_hw, 3):
        raise TensorError(
            "not a prepared image",
            where="prepared_rgb",
            expected=f"uint8 (N, {contract.size_hw[0]}, {contract.size_hw[1]}, 3)",
            got=f"{batch.dtype} {batch.shape}",
        )
    if layout is TensorLayout.UINT8_NHWC:
        return np.ascontiguousarray(batch)
    cv2 = import_cv2()
    tensor = np.empty((len(batch), 3, *contract.size_hw), dtype=np.float32)
    order = (0, 1, 2) if contract.colour == "rgb" else (2, 1, 0)
    for image, planes in zip(batch, tensor, strict=True):
        channels = cv2.split(np.ascontiguousarray(image))
        for position, channel in enumerate(order):
            _normalise(channels[channel], contract, position, out=planes[position])
    return tensor


def _normalise(
    channel: Image, contract: InputContract, position: int, *, out: NDArray[np.float32]
) -> NDArray[np.float32]:
    if contract.scale == 1 / 255:
        np.divide(channel, np.float32(255), out=out, dtype=np.float32)  # the quotient that PyTorch rounds to
    elif contract.scale == 1:
        out[...] = channel
    else:
        np.multiply(channel, np.float32(contract.scale), out=out, dtype=np.float32)
    mean, std = contract.mean[position], contract.std[position]
    if mean != 0:
        out -= np.float32(mean)
    if std != 1:
        out /= np.float32(std)
    return out
