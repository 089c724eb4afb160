# SPDX-License-Identifier: Apache-2.0
"""Ranges of activations over calibration images, measured by ONNX Runtime. Private.

The range of a tensor is the mean over images of each image's least and greatest value: one outlier does not widen it,
and the order of the images does not matter (a moving average weighs the first image most). The input of a SiLU
(x * sigmoid(x)) is cut at -8 below, where SiLU is -0.003: the steps saved go to the values that matter. Pixels that enter as uint8 have the range 0 to 255.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.optimize._calibration import feed
from shipsight.build.optimize._graph import import_onnx
from shipsight.engines._onnxruntime_import import import_onnxruntime
from shipsight.errors import CorruptError
from shipsight.model import Card

__all__ = ["SILU_FLOOR", "float_tensors", "measure_ranges", "pixel_casts", "silu_inputs"]

SILU_FLOOR = -8.0
_FLOAT, _UINT8 = 1, 2  # onnx.TensorProto


def float_tensors(proto: Any) -> tuple[str, ...]:  # noqa: ANN401 - onnx.ModelProto is untyped
    """Returns the names of all float32 activations, the inputs first, then in graph order (shapes must be inferred)."""
    graph = proto.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    stored = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in stored]
    names += [name for node in graph.node if node.op_type != "Constant" for name in node.output]
    return tuple(dict.fromkeys(name for name in names if types.get(name) == _FLOAT))


def silu_inputs(proto: Any) -> frozenset[str]:  # noqa: ANN401 - onnx.ModelProto is untyped
    """Returns the names of tensors that only feed a sigmoid and the product with that sigmoid."""
    readers: dict[str, list[Any]] = {}
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {value.name for value in proto.graph.output}
    found = set()
    for node in proto.graph.node:
        if node.op_type != "Sigmoid" or node.input[0] in outputs:
            continue
        others = [reader for reader in readers[node.input[0]] if reader is not node]
        pair = {node.input[0], node.output[0]}
        if len(others) == 1 and others[0].op_type == "Mul" and set(others[0].input) == pair:
            found.add(node.input[0])
    return frozenset(found)


def pixel_casts(proto: Any) -> Mapping[str, str]:  # noqa: ANN401 - onnx.ModelProto is untyped
    """Returns the float tensors that are uint8 pixels as they came: name -> the uint8 tensor they were cast from."""
    pixels = {value.name for value in proto.graph.input if value.type.tensor_type.elem_type == _UINT8}
    found = {}
    for node in proto.graph.node:
        if node.op_type == "Transpose" and node.input[0] in pixels:
            pixels.add(node.output[0])
        elif node.op_type == "Cast" and node.input[0] in pixels:
            found[node.output[0]] = node.input[0]
    return found


def measure_ranges(
    proto: Any,  # noqa: ANN401 - onnx.ModelProto is untyped
    calibration: Sequence[NDArray[np.uint8]],
    *,
    card: Card,
) -> Mapping[str, tuple[float, float]]:
    """Runs the float model on the images.

    Args:
        proto: the model, shapes inferred.
        calibration: (h, w, 3) uint8 RGB images of the input size.
        card: says how a float input is normalised.

    Returns:
        Tensor name -> (least, greatest).

    Raises:
        CorruptError: ONNX Runtime refuses the model.
    """
    names = float_tensors(proto)
    session, outputs = _open_watched(proto, names)
    input_name = session.get_inputs()[0].name
    seen = np.zeros((len(calibration), 2, len(names)))
    for position, image in enumerate(calibration):
        values = session.run(outputs, {input_name: feed(image, proto, card)})
        seen[position] = np.asarray(values, dtype=np.float64).reshape(2, len(names))
    low, high = seen.mean(axis=0)
    floored = silu_inputs(proto)
    found = {
        name: (max(float(a), SILU_FLOOR) if name in floored else float(a), max(float(b), float(a) + 1e-6))
        for name, a, b in zip(names, low, high, strict=True)
    }
    return found | dict.fromkeys(pixel_casts(proto), (0.0, 255.0))


def _open_watched(proto: Any, names: Sequence[str]) -> tuple[Any, list[str]]:  # noqa: ANN401 - untyped modules
    """Opens a copy of the model that gives the least and greatest value of each tensor, and nothing else."""
    onnx, onnxruntime = import_onnx(), import_onnxruntime()
    watched = onnx.ModelProto()
    watched.CopyFrom(proto)
    del watched.graph.output[:]
    outputs = []
    for operator in ("ReduceMin", "ReduceMax"):
        for position, name in enumerate(names):
            result = f"shipsight/{operator}/{position}"
            watched.graph.node.append(onnx.helper.make_node(operator, [name], [result], keepdims=0))
            watched.graph.output.append(onnx.helper.make_tensor_value_info(result, _FLOAT, []))
            outputs.append(result)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise CorruptError("ONNX Runtime refuses the model", got=str(error)[:300]) from error
    return session, outputs
