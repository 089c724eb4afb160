# SPDX-License-Identifier: Apache-2.0
"""Weights of a graph beside the source's, layer by layer: which differ, and in what manner. Private to the room.

Layers are aligned by the name of their node, then by order among those of one shape. Quantized weights are turned back to floats, and
differ where the difference is more than quantizing explains; a BatchNorm that was left unfolded is folded first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.conversion.evidence import Weight
from shipsight.doctor.conversion.graphs import base_name, initializers, producers, users

__all__ = ["LayerWeights", "compare_weights", "read_ir_weights", "read_weights"]

FloatArray = NDArray[np.float32]
_FLOAT, _HALF = 1e-4, 4e-3
"""Share of the norm: healthy FP32 exports differ by under 1e-6, rounding to FP16 makes 3e-4 and small weights more."""
_STEPS = 3.0
"""Times the noise that quantizing makes by theory, a step over the root of 12; the factor was chosen, not measured."""


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One layer's weights.

    Attributes:
        name: of its node.
        values: (out, in, ...) float32.
        step: of the quantization, (out or 1, 1, ...) float32; None for floats.
        is_half: whether they are kept as FP16.
    """

    name: str
    values: FloatArray
    step: FloatArray | None = None
    is_half: bool = False


def read_weights(model: Any) -> list[LayerWeights]:  # noqa: ANN401 - onnx has no types
    """Returns the weights of the convolutions of an ONNX graph, in its order."""
    constants, made, used = initializers(model), producers(model), users(model)
    found = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "QLinearConv", "ConvInteger", "Gemm"):
            continue
        at = {"QLinearConv": 3, "ConvInteger": 1}.get(node.op_type, 1)
        one = _resolve(node.input[at], constants, made)
        if node.op_type == "QLinearConv":
            one = _dequantized(node.input[3], node.input[4], node.input[5], constants, 0)
        if one is None or one[0].ndim < 2:
            continue
        values, step, is_half = one
        after = used.get(node.output[0], [])
        if len(after) == 1 and after[0].op_type == "BatchNormalization":
            values = _folded(values, after[0], constants)
        found.append(LayerWeights(_key(node), values, step, is_half))
    return found


def _key(node: Any) -> str:  # noqa: ANN401 - onnx has no types
    name = str(node.name or node.output[0])
    return base_name(name.rpartition("half/")[2]).removesuffix("_quant").removesuffix("_output_0")


def _resolve(
    name: str, constants: Mapping[str, NDArray[Any]], made: Mapping[str, Any]
) -> tuple[FloatArray, FloatArray | None, bool] | None:
    if name in constants:
        values = constants[name]
        if values.dtype.kind != "f":
            return None
        return values.astype(np.float32), None, values.dtype == np.float16
    node = made.get(name)
    if node is None:
        return None
    if node.op_type in ("Cast", "Identity"):
        return _resolve(node.input[0], constants, made)
    if node.op_type == "DequantizeLinear":
        axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
        point = node.input[2] if len(node.input) > 2 else ""
        return _dequantized(node.input[0], node.input[1], point, constants, axis)
    return None


def _dequantized(
    name: str, scale_name: str, point_name: str, constants: Mapping[str, NDArray[Any]], axis: int
) -> tuple[FloatArray, FloatArray | None, bool] | None:
    values, scale = constants.get(name), constants.get(scale_name)
    if values is None or scale is None:
        return None
    point = constants.get(point_name, np.zeros_like(scale))
    shape = [1] * values.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    step = scale.astype(np.float32).reshape(shape)
    floats = (values.astype(np.float32) - point.astype(np.float32).reshape(shape)) * step
    return floats, step, False


def _folded(values: FloatArray, node: Any, constants: Mapping[str, NDArray[Any]]) -> FloatArray:  # noqa: ANN401 - onnx
    gamma, variance = constants.get(node.input[1]), constants.get(node.input[4])
    if gamma is None or variance is None:
        return values
    epsilon = next((one.f for one in node.attribute if one.name == "epsilon"), 1e-5)
    factor = gamma / np.sqrt(variance + epsilon)
    folded: FloatArray = (values * factor.reshape(-1, *[1] * (values.ndim - 1))).astype(np.float32)
    return folded


def read_ir_weights(model: Any) -> list[LayerWeights]:  # noqa: ANN401 - OpenVINO has no types
    """Returns the weights of the convolutions of an OpenVINO model, in its order."""
    found = []
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        if kind not in ("Convolution", "GroupConvolution"):
            continue
        read = _read_constant(operation.input_value(1).get_node())
        if read is None:
            continue
        values, is_integer, is_half = read
        if kind == "GroupConvolution":
            values = values.reshape(-1, *values.shape[2:])
        step = None
        if is_integer:
            step = np.abs(values).reshape(len(values), -1).max(axis=1).reshape(-1, *[1] * (values.ndim - 1)) / 127
        name = operation.get_friendly_name().removesuffix("/WithoutBiases")
        found.append(LayerWeights(name, values, step, is_half))
    return found


def _read_constant(node: Any) -> tuple[FloatArray, bool, bool] | None:  # noqa: ANN401 - OpenVINO has no types
    """Evaluates what stands between a constant and the layer that takes it: values, whether integers, whether FP16."""
    kind = node.get_type_name()
    if kind == "Constant":
        data = node.data
        return np.asarray(data, dtype=np.float32), data.dtype.kind in "iu", data.dtype == np.float16
    inputs = [node.input_value(number).get_node() for number in range(node.get_input_size())]
    if kind == "Convert":
        return _read_constant(inputs[0])
    if kind == "Reshape":
        read = _read_constant(inputs[0])
        return None if read is None else (read[0].reshape(tuple(node.get_output_shape(0))), *read[1:])
    if kind in ("Multiply", "Subtract"):
        one, other = _read_constant(inputs[0]), _read_constant(inputs[1])
        if one is None or other is None:
            return None
        values = one[0] * other[0] if kind == "Multiply" else one[0] - other[0]
        return values, one[1], one[2]
    return None


def compare_weights(
    source: list[LayerWeights], suspect: list[LayerWeights], *, skips_scale: bool
) -> tuple[list[Weight], int]:
    """Compares layers that can be aligned.

    Args:
        source: of the source, floats.
        suspect: of the other.
        skips_scale: whether one factor on a whole layer is no difference: where it takes pixels, their scale may be in the weights.

    Returns:
        Those that differ in the source's order, and the number compared.
    """
    pairs = _aligned(source, suspect)
    found = [one for ours, theirs in pairs if (one := _compare(ours, theirs, skips_scale=skips_scale)) is not None]
    return found, len(pairs)


def _aligned(source: list[LayerWeights], suspect: list[LayerWeights]) -> list[tuple[LayerWeights, LayerWeights]]:
    named = {one.name: one for one in suspect}
    pairs = [(one, named[one.name]) for one in source if one.name in named]
    pairs = [(one, other) for one, other in pairs if one.values.shape == other.values.shape]
    if len(pairs) * 2 >= len(source):
        return pairs
    left: dict[tuple[int, ...], list[LayerWeights]] = {}
    for one in suspect:
        left.setdefault(one.values.shape, []).append(one)
    counts: dict[tuple[int, ...], int] = {}
    for one in source:
        counts[one.values.shape] = counts.get(one.values.shape, 0) + 1
    # only where each shape has as many layers on both sides is their order a sure guide
    usable = {shape for shape, count in counts.items() if len(left.get(shape, [])) == count}
    return [(one, left[one.values.shape].pop(0)) for one in source if one.values.shape in usable]


def _compare(source: LayerWeights, suspect: LayerWeights, *, skips_scale: bool) -> Weight | None:
    ours, theirs = source.values.astype(np.float64), suspect.values.astype(np.float64)
    norm = float(np.linalg.norm(ours))
    if not norm:
        return None
    if _agrees(ours, theirs, suspect):
        return None
    if skips_scale:
        factor = float((ours * theirs).sum() / max(float((theirs**2).sum()), 1e-30))
        step = None if suspect.step is None else (suspect.step * abs(factor)).astype(np.float32)
        if _agrees(ours, theirs * factor, replace(suspect, step=step)):
            return None
    error = float(np.linalg.norm(ours - theirs)) / norm
    return Weight(source.name, _manner(ours, theirs, suspect), error)


def _agrees(ours: NDArray[np.float64], theirs: NDArray[np.float64], suspect: LayerWeights) -> bool:
    difference = ours - theirs
    if suspect.step is not None:
        noise = np.broadcast_to(suspect.step, ours.shape) / np.sqrt(12)
        allowed = _STEPS * float(np.sqrt((noise**2).mean()))
        return float(np.sqrt((difference**2).mean())) <= allowed
    limit = _HALF if suspect.is_half else _FLOAT
    return float(np.linalg.norm(difference)) <= limit * float(np.linalg.norm(ours))


def _manner(ours: NDArray[np.float64], theirs: NDArray[np.float64], suspect: LayerWeights) -> str:
    if not theirs.any():
        return "zeroed"
    rows, others = ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)
    nearest = ((rows[:, None, 0] - others[None, :, 0]) ** 2 if rows.shape[1] == 1 else _distances(rows, others)).argmin(
        0
    )
    if len(set(nearest.tolist())) == len(nearest) and _agrees(ours[nearest], theirs, suspect):
        return "permuted"
    power = (rows**2).sum(axis=1)
    factors = (rows * others).sum(axis=1) / np.where(power > 0, power, 1.0)
    scaled = rows * factors[:, None]
    # a factor per channel must leave next to nothing; another training leaves much
    return "scaled" if np.linalg.norm(scaled - others) <= 0.02 * np.linalg.norm(others) else "other"


def _distances(rows: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = (rows**2).sum(1)[:, None] + (others**2).sum(1)[None, :] - 2 * rows @ others.T
    return squares
