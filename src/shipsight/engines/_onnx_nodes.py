# SPDX-License-Identifier: Apache-2.0
"""A small reader of ONNX files: which operators run on which weights, and whether a tensor lies outside the file.

It exists so that the serving install, which has no `onnx` package, can tell what precision ONNX Runtime truly runs.
Leaves to others: validity (ONNX Runtime). Invariants: reads only, copies no weights, raises `CorruptError` on bytes
that are no protocol buffer. Private to `engines`. Sources: onnx.proto3 (field numbers), Protocol Buffers "Encoding".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from shipsight.errors import CorruptError

__all__ = ["OnnxGraph", "OnnxNode", "read_format", "read_graph"]

_MODEL_IR_VERSION, _MODEL_GRAPH, _MODEL_OPSET = 1, 7, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_OP_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_DATA_TYPE, _TENSOR_NAME, _TENSOR_LOCATION = 2, 8, 14
_EXTERNAL = 1


@dataclass(frozen=True)
class OnnxNode:
    """One operator: its type, domain and the names of its inputs and outputs."""

    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass
class OnnxGraph:
    """What was read.

    Attributes:
        nodes: operators of the main graph, in file order.
        initializer_types: name of a weight -> number of its type (`TensorProto.DataType`).
        has_external_data: whether a tensor, also one within a node, lies in another file.
    """

    nodes: list[OnnxNode] = field(default_factory=list)
    initializer_types: dict[str, int] = field(default_factory=dict)
    has_external_data: bool = False


def read_graph(content: bytes) -> OnnxGraph:
    """Reads the graph of an ONNX model.

    Raises:
        CorruptError: the bytes are no protocol buffer, or hold no graph.
    """
    graph = OnnxGraph()
    graphs = [value for number, value in _fields(memoryview(content)) if number == _MODEL_GRAPH]
    if not graphs:
        raise CorruptError("the file holds no ONNX graph")
    for body in graphs:
        _read_body(_bytes(body), graph, depth=0)
    return graph


def read_format(content: bytes) -> tuple[int, int]:
    """Returns the version of the file format (IR) and of ONNX' own operators (opset), 0 where the file does not say.

    Raises:
        CorruptError: the bytes are no protocol buffer.
    """
    ir_version = opset = 0
    for number, value in _fields(memoryview(content)):
        if number == _MODEL_IR_VERSION and isinstance(value, int):
            ir_version = value
        elif number == _MODEL_OPSET:
            told = dict(_fields(_bytes(value)))
            version = told.get(_OPSET_VERSION, 0)
            if not told.get(_OPSET_DOMAIN) and isinstance(version, int):
                opset = version
    return ir_version, opset


def _read_body(body: memoryview, graph: OnnxGraph, *, depth: int) -> None:
    if depth > 16:
        raise CorruptError("graphs are nested too deep", expected="at most 16")
    for number, value in _fields(body):
        if number == _GRAPH_INITIALIZER:
            _read_tensor(_bytes(value), graph)
        elif number == _GRAPH_NODE:
            _read_node(_bytes(value), graph, depth=depth)


def _read_tensor(body: memoryview, graph: OnnxGraph) -> None:
    name, data_type = "", 0
    for number, value in _fields(body):
        if number == _TENSOR_NAME:
            name = _text(value)
        elif number == _TENSOR_DATA_TYPE and isinstance(value, int):
            data_type = value
        elif number == _TENSOR_LOCATION and value == _EXTERNAL:
            graph.has_external_data = True
    graph.initializer_types[name] = data_type


def _read_node(body: memoryview, graph: OnnxGraph, *, depth: int) -> None:
    inputs: list[str] = []
    outputs: list[str] = []
    op_type, domain = "", ""
    for number, value in _fields(body):
        if number == _NODE_INPUT:
            inputs.append(_text(value))
        elif number == _NODE_OUTPUT:
            outputs.append(_text(value))
        elif number == _NODE_OP_TYPE:
            op_type = _text(value)
        elif number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _NODE_ATTRIBUTE:
            _read_attribute(_bytes(value), graph, depth=depth)
    if depth == 0:
        graph.nodes.append(OnnxNode(op_type, domain, tuple(inputs), tuple(outputs)))


def _read_attribute(body: memoryview, graph: OnnxGraph, *, depth: int) -> None:
    for number, value in _fields(body):
        if number in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
            _read_tensor(_bytes(value), graph)
        elif number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
            _read_body(_bytes(value), graph, depth=depth + 1)


def _fields(body: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields field number and value of a message: a number, or the bytes of what has a length."""
    at = 0
    while at < len(body):
        key, at = _varint(body, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(body, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(body, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise CorruptError("the file is no protocol buffer", expected="wire type 0, 1, 2 or 5", got=kind)
        if size > len(body) - at:
            raise CorruptError("the file is truncated", expected=f"{size} bytes more", got=len(body) - at)
        yield key >> 3, body[at : at + size]
        at += size


def _varint(body: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(body):
            raise CorruptError("the file is truncated", expected="a number", got="its end")
        value |= (body[at] & 0x7F) << shift
        at += 1
        if not body[at - 1] & 0x80:
            return value, at
    raise CorruptError("the file is no protocol buffer", got="a number of more than 10 bytes")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise CorruptError("the file is no protocol buffer", expected="bytes", got="a number")
    return value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_bytes(value)).decode()
    except UnicodeDecodeError as error:
        raise CorruptError("the file holds a name that is not UTF-8") from error
