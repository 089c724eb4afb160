# SPDX-License-Identifier: Apache-2.0
"""Reads what stands in an ONNX graph: suppression, quantization, precision, shapes. Needs `onnx`. Private to the room."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.conversion.evidence import GraphFacts, Nms
from shipsight.proof.layers import import_onnx

__all__ = ["base_name", "initializers", "producers", "read_facts", "users"]

_LAYERS = {"Conv", "MatMul", "Gemm", "ConvTranspose"}
_INTEGER_LAYERS = {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm"}
_SIGNED = {"int8", "int16"}


def initializers(model: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401 - onnx has no types
    """Returns the constants of a graph by name."""
    from onnx import numpy_helper

    import_onnx()
    found = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            for one in node.attribute:
                if one.name == "value":
                    found[node.output[0]] = numpy_helper.to_array(one.t)
    return found


def producers(model: Any) -> dict[str, Any]:  # noqa: ANN401 - onnx has no types
    """Returns the node that makes each tensor."""
    return {name: node for node in model.graph.node for name in node.output}


def users(model: Any) -> dict[str, list[Any]]:  # noqa: ANN401 - onnx has no types
    """Returns the nodes that take each tensor."""
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


def base_name(name: str) -> str:
    """Returns a tensor's name without what quantizers append."""
    for ending in (
        "_DequantizeLinear_Output",
        "_QuantizeLinear_Output",
        "_QuantizeLinear_Input",
        "_quantized",
        "/dequant",
    ):
        name = name.removesuffix(ending)
    return name


def read_facts(model: Any) -> GraphFacts:  # noqa: ANN401 - onnx has no types
    """Returns the facts of a graph."""
    constants, made = initializers(model), producers(model)
    graph = model.graph
    half = import_onnx().TensorProto.FLOAT16
    kinds = [node.op_type for node in graph.node]
    layers = [node for node in graph.node if node.op_type in _LAYERS | _INTEGER_LAYERS]
    points = [_zero_point_type(node, constants) for node in graph.node if node.op_type == "QuantizeLinear"]
    fed = [one for one in graph.input if one.name not in constants]
    sides = [side for one in fed for side in one.type.tensor_type.shape.dim]
    metadata = {one.key: one.value for one in model.metadata_props}
    return GraphFacts(
        opset=max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0),
        ir_version=model.ir_version,
        has_free_shape=any(not side.dim_value for side in sides),
        nms=tuple(_nms(graph.node, constants)),
        says_nms=_says_nms(metadata),
        layers=len(layers),
        quantized=sum(_is_quantized(node, made) for node in layers),
        dynamic=sum(kind in ("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger") for kind in kinds),
        signed=sum(one in _SIGNED for one in points),
        unsigned=sum(one not in _SIGNED for one in points),
        full_range=sum(_is_full_range(node, constants) for node in graph.node if node.op_type == "DequantizeLinear"),
        half_output=any(one.type.tensor_type.elem_type == half for one in graph.output),
        is_half=any(one.dtype == np.float16 and one.size > 1 for one in constants.values()),
    )


def _says_nms(metadata: dict[str, str]) -> bool | None:
    if "args" not in metadata and "end2end" not in metadata:
        return None
    return metadata.get("end2end") == "True" or "'nms': True" in metadata.get("args", "")


def _is_quantized(node: Any, made: dict[str, Any]) -> bool:  # noqa: ANN401 - onnx has no types
    if node.op_type in _INTEGER_LAYERS:
        return True
    source = made.get(node.input[0])
    return source is not None and source.op_type == "DequantizeLinear"


def _zero_point_type(node: Any, constants: dict[str, NDArray[Any]]) -> str:  # noqa: ANN401 - onnx has no types
    point = constants.get(node.input[2]) if len(node.input) > 2 else None
    return "uint8" if point is None else str(point.dtype)


def _is_full_range(node: Any, constants: dict[str, NDArray[Any]]) -> bool:  # noqa: ANN401 - onnx has no types
    weight = constants.get(node.input[0])
    return (
        weight is not None
        and weight.dtype == np.int8
        and weight.ndim > 1
        and int(np.abs(weight.astype(int)).max()) > 64
    )


def _nms(nodes: Iterable[Any], constants: dict[str, NDArray[Any]]) -> Iterable[Nms]:
    """Yields suppressions: the standard operator's inputs 2 to 4 are most boxes a class, IoU and score."""
    for node in nodes:
        if node.op_type != "NonMaxSuppression":
            continue
        values = [constants.get(name) if name else None for name in node.input[2:5]]
        values += [None] * (3 - len(values))
        most, iou, conf = (None if one is None or not one.size else float(one.ravel()[0]) for one in values)
        yield Nms(conf, iou, None if most is None else int(most))
