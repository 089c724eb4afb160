# SPDX-License-Identifier: Apache-2.0
"""From calibration images to what a graph takes. Private."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import TensorError, UnsupportedError, UsageError
from shipsight.model import Card, TensorLayout

__all__ = ["check_calibration", "feed", "input_layout"]


def input_layout(proto: Any) -> TensorLayout:  # noqa: ANN401 - onnx.ModelProto is untyped
    """Tells what the one input of a graph takes.

    Raises:
        UnsupportedError: there is not one input of float32 (1, 3, h, w) or uint8 (1, h, w, 3), static.
    """
    stored = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in stored]
    shapes = [tuple(side.dim_value for side in value.type.tensor_type.shape.dim) for value in inputs]
    types = [value.type.tensor_type.elem_type for value in inputs]  # onnx.TensorProto: 1 is FLOAT, 2 is UINT8
    if len(inputs) == 1 and len(shapes[0]) == 4 and min(shapes[0]) > 0 and shapes[0][0] == 1:
        if types[0] == 1 and shapes[0][1] == 3:
            return TensorLayout.FLOAT_NCHW
        if types[0] == 2 and shapes[0][3] == 3:
            return TensorLayout.UINT8_NHWC
    raise UnsupportedError(
        "INT8 needs one static input of batch 1",
        expected="float32 (1, 3, h, w) or uint8 (1, h, w, 3)",
        got=[(value.name, shape) for value, shape in zip(inputs, shapes, strict=True)],
    )


def check_calibration(proto: Any, calibration: Sequence[NDArray[np.uint8]]) -> None:  # noqa: ANN401
    """Refuses calibration images that the graph cannot take.

    Raises:
        UsageError: there is no image.
        TensorError: an image is not (h, w, 3) uint8 of the graph's size.
        UnsupportedError: as `input_layout`.
    """
    layout = input_layout(proto)
    stored = {tensor.name for tensor in proto.graph.initializer}
    value = next(value for value in proto.graph.input if value.name not in stored)
    sides = [side.dim_value for side in value.type.tensor_type.shape.dim]
    height_width = (sides[2], sides[3]) if layout is TensorLayout.FLOAT_NCHW else (sides[1], sides[2])
    if not calibration:
        raise UsageError("INT8 needs calibration images", where="calibration", got=0)
    for position, image in enumerate(calibration):
        if image.shape != (*height_width, 3) or image.dtype != np.uint8:
            raise TensorError(
                "a calibration image does not fit the model",
                where=f"calibration[{position}]",
                expected=f"uint8 {(*height_width, 3)}",
                got=f"{image.dtype} {image.shape}",
            )


def feed(image: NDArray[np.uint8], proto: Any, card: Card) -> NDArray[Any]:  # noqa: ANN401 - onnx.ModelProto
    """Returns the batch of one that the graph takes for an image.

    Args:
        image: (h, w, 3) uint8 RGB.
        proto: the graph, checked by `check_calibration`.
        card: says how a float input is normalised.
    """
    from shipsight.vision import to_tensor

    return to_tensor(image[None], card.input, input_layout(proto))
