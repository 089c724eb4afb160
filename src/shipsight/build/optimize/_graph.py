# SPDX-License-Identifier: Apache-2.0
"""Reading an ONNX graph for quantization: named nodes, who feeds whom, which nodes carry weights. Private."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shipsight.errors import CorruptError, MissingDependencyError

__all__ = ["WEIGHTED_OPS", "Graph", "import_onnx", "load_named", "read_graph"]

WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that quantization is for: they multiply by a stored weight."""


@dataclass(frozen=True)
class Graph:
    """A graph as names.

    Attributes:
        order: node names, each after all that feed it.
        op_types: node name -> operator.
        weighted: names of nodes that multiply by a stored weight, in `order`.
        children: node name -> names of the nodes that it feeds.
        parents: node name -> names of the nodes that feed it.
        weight_shapes: name of a weighted node -> shape of its weight.
        weight_nodes: name of a weighted node -> name of the weight's tensor.
    """

    order: tuple[str, ...]
    op_types: Mapping[str, str]
    weighted: tuple[str, ...]
    children: Mapping[str, tuple[str, ...]]
    parents: Mapping[str, tuple[str, ...]]
    weight_shapes: Mapping[str, tuple[int, ...]]
    weight_nodes: Mapping[str, str]

    def reach(self, starts: Iterable[str], *, downwards: bool) -> frozenset[str]:
        """Returns all nodes that the given ones feed (downwards) or are fed by, without themselves unless in a path."""
        edges = self.children if downwards else self.parents
        seen: set[str] = set()
        todo = [target for start in starts for target in edges[start]]
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo.extend(edges[node])
        return frozenset(seen)


def import_onnx() -> Any:  # noqa: ANN401 - an untyped module
    """Returns the module `onnx`.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            "package onnx is not installed", hint="Run: pip install 'shipsight[build]'"
        ) from error
    return onnx


def load_named(model: bytes) -> Any:  # noqa: ANN401 - onnx.ModelProto, which has no type information
    """Parses a model and gives every node a unique name, the same one each time.

    A node that has a unique name keeps it; others are called `<operator>#<position>`.

    Raises:
        CorruptError: the bytes are not an ONNX model.
    """
    onnx = import_onnx()
    decode_error = importlib.import_module("google.protobuf.message").DecodeError
    try:
        proto = onnx.load_model_from_string(model)
    except decode_error as error:
        raise CorruptError("not an ONNX model", got=f"{len(model)} bytes") from error
    if not proto.graph.node:
        raise CorruptError("an ONNX model without nodes", got=f"{len(model)} bytes")
    counts: dict[str, int] = {}
    for node in proto.graph.node:
        counts[node.name] = counts.get(node.name, 0) + 1
    for position, node in enumerate(proto.graph.node):
        if not node.name or counts[node.name] > 1:
            node.name = f"{node.op_type}#{position}"
    return proto


def read_graph(model: bytes) -> Graph:
    """Reads the graph of a model.

    Raises:
        CorruptError: the bytes are not an ONNX model, or its nodes are not in topological order.
    """
    proto = load_named(model)
    nodes = list(proto.graph.node)
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for node in nodes:
        if node.op_type == "Constant":
            shapes.update((node.output[0], tuple(a.t.dims)) for a in node.attribute if a.name == "value")
    nodes = [node for node in nodes if node.op_type != "Constant"]
    producers = {output: node.name for node in nodes for output in node.output}
    parents: dict[str, tuple[str, ...]] = {}
    children: dict[str, list[str]] = {node.name: [] for node in nodes}
    for node in nodes:
        feeding = tuple(dict.fromkeys(producers[name] for name in node.input if name in producers))
        if any(name not in parents for name in feeding):
            raise CorruptError("nodes are not in topological order", where=node.name)
        parents[node.name] = feeding
        for name in feeding:
            children[name].append(node.name)
    weights = {
        node.name: next(name for name in node.input[:2] if name in shapes)
        for node in nodes
        if node.op_type in WEIGHTED_OPS and any(name in shapes for name in node.input[:2])
    }
    return Graph(
        order=tuple(node.name for node in nodes),
        op_types={node.name: node.op_type for node in nodes},
        weighted=tuple(weights),
        children={name: tuple(dict.fromkeys(targets)) for name, targets in children.items()},
        parents=parents,
        weight_shapes={name: shapes[tensor] for name, tensor in weights.items()},
        weight_nodes=weights,
    )
