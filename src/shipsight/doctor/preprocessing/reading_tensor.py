# SPDX-License-Identifier: Apache-2.0
"""Tensors from `.npy` files: refused from the header where they cannot be an image's, never unpickled. Private to the room."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from shipsight.errors import CorruptError, TensorError

__all__ = ["as_images", "read_tensor"]

_MOST_BYTES = 2**28
_KINDS = {"uint8", "float16", "float32", "float64"}
_SIDES = (8, 8192)
_EXPECTED = "NCHW, NHWC, CHW, HWC or HW of 1 or 3 channels, sides of 8 to 8192, uint8 or float16, 32 or 64"

FloatImage = NDArray[np.float32]


def read_tensor(path: Path) -> NDArray[Any]:
    """Reads what another pipeline fed its model.

    Args:
        path: a `.npy` file.

    Returns:
        (N, ...) array of N images, of the file's type: uint8, float16, float32 or float64; all finite.

    Raises:
        CorruptError: it is no `.npy` file, or ends early.
        TensorError: it cannot be images: another shape or type, too large, or not finite.
    """
    try:
        with path.open("rb") as file:
            shape, dtype = _read_header(file)
            _check(path, shape, dtype)
            file.seek(0)
            array: NDArray[Any] = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise CorruptError("not a tensor that numpy wrote", where=path, expected=".npy", got=error) from error
    if not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        raise TensorError(
            "the tensor holds values that are no numbers", where=path, expected="finite", got=f"{count} NaN or infinite"
        )
    return array if array.ndim == 4 else array[None]


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:  # noqa: ANN401 - a binary file
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _check(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.hasobject or dtype.name not in _KINDS:
        raise TensorError("the tensor has another type", where=path, expected=", ".join(sorted(_KINDS)), got=dtype)
    if math.prod(shape) * dtype.itemsize > _MOST_BYTES:
        raise TensorError(
            "the tensor is too large", where=path, expected=f"at most {_MOST_BYTES} bytes", got=f"{dtype} {shape}"
        )
    one = shape[1:] if len(shape) == 4 else shape
    channels = [size for size in one if size in (1, 3)] if len(one) == 3 else [1]
    sides = [size for size in one if size not in (1, 3)]
    is_image = len(sides) == 2 and all(_SIDES[0] <= size <= _SIDES[1] for size in sides) and bool(channels)
    if len(shape) not in (2, 3, 4) or 0 in shape or not is_image:
        raise TensorError("the tensor is not of images", where=path, expected=_EXPECTED, got=f"{dtype} {shape}")


def as_images(tensor: NDArray[Any]) -> Iterator[tuple[str, FloatImage]]:
    """Returns what one image's tensor may mean: name of the layout, (H, W, 3) float32.

    Args:
        tensor: (C, H, W), (H, W, C) or (H, W), C of 1 or 3.
    """
    array = tensor.astype(np.float32)
    if array.ndim == 2:
        yield "nchw", np.repeat(array[..., None], 3, axis=2)
        return
    if array.shape[0] in (1, 3):
        channels, height, width = array.shape
        yield "nchw", _three(array.transpose(1, 2, 0))
        if channels == 3:
            yield "reshaped", array.reshape(height, width, 3)
            yield "transposed", array.transpose(2, 1, 0)
        return
    if array.shape[2] in (1, 3):
        height, width, channels = array.shape
        yield "nhwc", _three(array)
        if channels == 3:
            yield "reshaped", array.reshape(3, height, width).transpose(1, 2, 0)
            yield "transposed", array.transpose(1, 0, 2)
        return
    # Channels in the middle: rows of channels, as an array that was transposed by the wrong axes has them.
    yield "transposed", _three(array.transpose(0, 2, 1))


def _three(image: FloatImage) -> FloatImage:
    return image if image.shape[2] == 3 else np.repeat(image, 3, axis=2)
