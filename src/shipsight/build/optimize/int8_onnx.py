# SPDX-License-Identifier: Apache-2.0
"""INT8 for ONNX Runtime: its static quantization (Q/DQ pairs), with activation ranges of our own measuring.

Activations are unsigned on x86 (its kernels are for those; signed ones fuse few convolutions and run slower than
float) and signed on Arm; weights are signed, per channel, kept in 7 bits where the processor lacks VNNI.

Two recipes. `weighted` quantizes convolutions and matrix products only: each activation function between two of them
costs a way back to float. `fused` quantizes what lies between as well (sigmoid, products, sums, concatenations, splits,
pooling, resizing): fewer conversions, faster, and coarser. Which one pays, or neither, is measured by the guard.

Leaves to others: which layers stay float (`layers`, `guard`), measuring. Invariants: the same model, images, options and
versions give the same bytes; opset and IR version are those of the float model; no file is written. Stable.
Source: ONNX Runtime, "Quantize ONNX models".
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.optimize._calibration import check_calibration
from shipsight.build.optimize._graph import import_onnx, load_named
from shipsight.build.optimize._ranges import measure_ranges, pixel_casts
from shipsight.build.optimize.cpu_target import Int8Target, detect_target
from shipsight.build.optimize.layers import FloatLayers
from shipsight.engines._onnxruntime_import import import_onnxruntime
from shipsight.errors import UnsupportedError
from shipsight.model import Card

__all__ = ["OnnxRanges", "OnnxRecipe", "measure_onnx_ranges", "quantize_onnx"]

_MAX_OPSET = 20  # ONNX Runtime's static quantization does not take newer ones
_WEIGHTED = ("Conv", "Gemm", "MatMul")
_BETWEEN = (
    "Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Pad", "Relu",
    "Reshape", "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip


class OnnxRecipe(StrEnum):
    """What is quantized: `weighted` layers only, or `fused`, also what lies between them."""

    WEIGHTED = "weighted"
    FUSED = "fused"


@dataclass(frozen=True)
class OnnxRanges:
    """Ranges of a model's activations over the calibration images: measured once, used for every quantization of it.

    Attributes:
        ranges: tensor name -> (least, greatest).
    """

    ranges: Mapping[str, tuple[float, float]]


def measure_onnx_ranges(model_onnx: bytes, calibration: Sequence[NDArray[np.uint8]], *, card: Card) -> OnnxRanges:
    """Measures the ranges of all activations of a float model.

    Args and Raises as `quantize_onnx`.
    """
    proto = prepare_onnx(model_onnx)
    check_calibration(proto, calibration)
    return OnnxRanges(ranges=measure_ranges(proto, calibration, card=card))


def quantize_onnx(
    model_onnx: bytes,
    calibration: Sequence[NDArray[np.uint8]],
    *,
    card: Card,
    float_layers: FloatLayers,
    recipe: OnnxRecipe = OnnxRecipe.FUSED,
    target: Int8Target | None = None,
    ranges: OnnxRanges | None = None,
) -> bytes:
    """Quantizes a float ONNX model for ONNX Runtime.

    Args:
        model_onnx: the float model, batch 1, static; input float32 NCHW or uint8 NHWC; opset 13 to 20.
        calibration: images brought to the input size, (h, w, 3) uint8 RGB; not looked at where `ranges` is given.
        card: says how a float input is normalised.
        float_layers: groups of `map_layers(model_onnx)` that stay float.
        recipe: what is quantized.
        target: kind of processor the file is made for; None (default) for this machine's.
        ranges: of `measure_onnx_ranges` for the same model and images, where they have been measured already.

    Returns:
        The quantized ONNX model.

    Raises:
        MissingDependencyError: ONNX Runtime or onnx is not installed.
        CorruptError: the model cannot be read or run.
        UnsupportedError: the input is neither of the two, or the opset is not 13 to 20.
        TensorError: an image has another shape or type than the model takes.
    """
    ranges = ranges or measure_onnx_ranges(model_onnx, calibration, card=card)
    proto = prepare_onnx(model_onnx)
    target = detect_target() if target is None else target
    quantized = insert_pairs(proto, ranges, excluded=float_layers.nodes, recipe=recipe, target=target)
    _feed_pixels_directly(quantized, pixel_casts(proto))
    _restore_header(quantized, proto)
    return bytes(quantized.SerializeToString(deterministic=True))


def insert_pairs(
    proto: Any,  # noqa: ANN401 - onnx.ModelProto is untyped
    ranges: OnnxRanges,
    *,
    excluded: frozenset[str] = frozenset(),
    only: frozenset[str] = frozenset(),
    recipe: OnnxRecipe = OnnxRecipe.WEIGHTED,
    target: Int8Target = Int8Target.X86,
) -> Any:  # noqa: ANN401
    """Returns a copy of a prepared model with Q/DQ pairs; for this room (`sensitivity`), others call `quantize_onnx`.

    Args:
        proto: of `prepare_onnx`.
        ranges: of its activations.
        excluded: names of nodes that stay float.
        only: names of the nodes that are quantized; empty for all but the excluded.
        recipe: what is quantized.
        target: kind of processor.
    """
    import_onnxruntime()
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    measured = {
        name: (np.array(low, dtype=np.float32), np.array(high, dtype=np.float32))
        for name, (low, high) in ranges.ranges.items()
    }
    copied = type(proto)()
    copied.CopyFrom(proto)
    with _quiet_root_logger():
        quantizer = QDQQuantizer(
            copied,
            per_channel=True,
            reduce_range=target.reduces_weight_range,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if target.signed_activations else QuantType.QUInt8,
            tensors_range=TensorsData(CalibrationMethod.MinMax, measured),
            nodes_to_quantize=sorted(only),
            nodes_to_exclude=sorted(excluded | _before_weights(proto)),
            op_types_to_quantize=[*_WEIGHTED, *(_BETWEEN if recipe is OnnxRecipe.FUSED else ())],
            extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
        )
        quantizer.quantize_model()
    return quantizer.model.model


def _before_weights(proto: Any) -> frozenset[str]:  # noqa: ANN401 - onnx.ModelProto is untyped
    """Returns nodes before the first layer with weights: bringing pixels to floats is no place to lose them."""
    fed: set[str] = {value.name for value in proto.graph.input}
    found = set()
    for node in proto.graph.node:
        if node.op_type not in _WEIGHTED and any(name in fed for name in node.input):
            fed.update(node.output)
            found.add(node.name)
    return frozenset(found)


def prepare_onnx(model_onnx: bytes) -> Any:  # noqa: ANN401 - onnx.ModelProto is untyped
    """Parses a model, names its nodes and infers shapes; for this room.

    Raises:
        CorruptError: the bytes are not an ONNX model.
        UnsupportedError: the opset is not 13 to 20.
    """
    onnx = import_onnx()
    proto = load_named(model_onnx)
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    if not 13 <= opsets.get("", 0) <= _MAX_OPSET:
        raise UnsupportedError(
            "ONNX Runtime's INT8 does not take this opset", expected=f"13 to {_MAX_OPSET}", got=opsets.get("", 0)
        )
    return onnx.shape_inference.infer_shapes(proto)


def _feed_pixels_directly(quantized: Any, casts: Mapping[str, str]) -> None:  # noqa: ANN401 - onnx.ModelProto
    """Takes out the way of uint8 pixels to float and back: with scale 1 and zero point 0 it changes nothing."""
    numpy_helper = import_onnx().numpy_helper
    graph = quantized.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in casts]:
        scale, zero_point = (numpy_helper.to_array(stored[name]) for name in node.input[1:3])
        if scale == 1 and zero_point == 0 and zero_point.dtype == np.uint8:
            for reader in graph.node:
                names = [casts[node.input[0]] if name == node.output[0] else name for name in reader.input]
                reader.input[:] = names
            graph.node.remove(node)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.output[0] in casts]:
        if node.output[0] not in read:
            graph.node.remove(node)


def _restore_header(quantized: Any, proto: Any) -> None:  # noqa: ANN401 - onnx.ModelProto is untyped
    quantized.ir_version = max(proto.ir_version, 7)
    for field in ("producer_name", "producer_version", "domain", "doc_string"):
        setattr(quantized, field, getattr(proto, field))
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(proto.metadata_props)
    kept = {entry.domain for entry in proto.opset_import}
    used = {node.domain for node in quantized.graph.node}
    entries = [entry for entry in quantized.opset_import if entry.domain in kept | used]
    del quantized.opset_import[:]
    quantized.opset_import.extend(entries)


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keeps the quantizer's remarks, which it makes on the root logger, off the terminal."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
