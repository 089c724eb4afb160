# SPDX-License-Identifier: Apache-2.0
"""The layers of a graph in groups that can be returned to float together, found from the graph itself.

The groups, and how each is told:

    decode      everything after the last layers with weights: box decoding, the head's sigmoid, softmax, suppression;
                and DFL: a layer behind a softmax, whose weights only average bins.
                Always float: one 8-bit scale cannot span pixels (0 to 640) and scores (0 to 1).
    head-output the last layers with weights, one group.
    attention   products of two activations and the softmax between them, wherever they are.
    head-tower  layers that lead to one head output alone.
    body        the rest: blocks of backbone and neck.

Where names follow `/model.N/...` (Ultralytics) blocks are the modules; elsewhere (any ONNX) they are layers that lead to
the same head outputs, at most eight in a block. Leaves to others: quantizing (`int8_openvino`, `int8_onnx`), the order
(`sensitivity`, `guard`). Invariants: each layer with weights is in exactly one group; the same bytes give the same
groups. Stable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from shipsight.build.optimize._graph import Graph, read_graph
from shipsight.errors import UnsupportedError

__all__ = ["FloatLayers", "LayerGroup", "LayerMap", "LayerRole", "map_layers"]

_BLOCK = 8
_MODULE = re.compile(r"/?model\.(\d+)/(?:([A-Za-z0-9_]+(?:\.\d+)?)/)?")


class LayerRole(StrEnum):
    """What a group of layers does; in the order in which groups are known to suffer from 8 bits."""

    DECODE = "decode"
    HEAD_OUTPUT = "head-output"
    ATTENTION = "attention"
    HEAD_TOWER = "head-tower"
    BODY = "body"


@dataclass(frozen=True)
class LayerGroup:
    """Layers that go to float together.

    Attributes:
        name: unique in its map, for people: `decode`, `head-output`, `attention`, `model.23/cv2.0`, `block 3`.
        role: what it does.
        nodes: names of its ONNX nodes, in graph order.
        weighted: how many of them multiply by a stored weight (convolutions, and matrix products with a weight).
    """

    name: str
    role: LayerRole
    nodes: tuple[str, ...]
    weighted: int


@dataclass(frozen=True)
class FloatLayers:
    """The groups that stay in float, in the order in which they were given back."""

    groups: tuple[LayerGroup, ...]

    @property
    def nodes(self) -> frozenset[str]:
        """Names of all nodes concerned."""
        return frozenset(node for group in self.groups for node in group.nodes)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups."""
        return tuple(group.name for group in self.groups)

    def plus(self, groups: Iterable[LayerGroup]) -> FloatLayers:
        """Returns these and the given groups, each once."""
        return FloatLayers(tuple(dict.fromkeys((*self.groups, *groups))))


@dataclass(frozen=True)
class LayerMap:
    """All groups of a graph.

    Attributes:
        groups: in graph order of their first node.
        weighted: number of layers with weights in the graph, DFL's included.
    """

    groups: tuple[LayerGroup, ...]
    weighted: int

    @property
    def always_float(self) -> FloatLayers:
        """What is never quantized: the decoding of boxes, DFL, and all behind the last weights."""
        return FloatLayers(self.of_role(LayerRole.DECODE))

    def of_role(self, role: LayerRole) -> tuple[LayerGroup, ...]:
        """Returns the groups with that role."""
        return tuple(group for group in self.groups if group.role is role)


def map_layers(model: bytes) -> LayerMap:
    """Finds the groups of an ONNX model, raw or trimmed.

    Raises:
        CorruptError: the bytes are not an ONNX model.
        UnsupportedError: no node has weights, so there is nothing to quantize.
    """
    graph = read_graph(model)
    if not graph.weighted:
        raise UnsupportedError("a graph without weights has nothing to quantize", expected="Conv, Gemm or MatMul")
    roles = _find_roles(graph)
    names = _name_groups(graph, roles)
    members: dict[tuple[str, LayerRole], list[str]] = {}
    for node in graph.order:
        if node in names:
            members.setdefault((names[node], roles[node]), []).append(node)
    weighted = set(graph.weighted)
    groups = tuple(
        LayerGroup(name=name, role=role, nodes=tuple(nodes), weighted=sum(node in weighted for node in nodes))
        for (name, role), nodes in members.items()
    )
    return LayerMap(groups=groups, weighted=len(graph.weighted))


def _find_roles(graph: Graph) -> dict[str, LayerRole]:
    averaging = {node for node in graph.weighted if _is_bin_average(graph, node)}
    carrying = [node for node in graph.weighted if node not in averaging] or list(graph.weighted)
    before = graph.reach(carrying, downwards=False)
    last = {node for node in carrying if node not in before}
    roles: dict[str, LayerRole] = {}
    after = graph.reach(carrying, downwards=True)
    for node in graph.order:
        if node in last:
            roles[node] = LayerRole.HEAD_OUTPUT
        elif node in after and node not in before:
            roles[node] = LayerRole.DECODE
    for node in _find_attention(graph):
        roles.setdefault(node, LayerRole.ATTENTION)
    reached = _reached_outputs(graph, last)
    for node in carrying:
        alone = len(reached[node]) == 1 and len(last) > 1
        roles.setdefault(node, LayerRole.HEAD_TOWER if alone else LayerRole.BODY)
    return roles


def _is_bin_average(graph: Graph, node: str) -> bool:
    """Tells DFL: it follows a softmax, or a trimmed one's exponentials, with nothing but reordering between."""
    feeding = graph.parents[node]
    while len(feeding) == 1 and graph.op_types[feeding[0]] in ("Reshape", "Transpose", "Identity"):
        feeding = graph.parents[feeding[0]]
    return len(feeding) == 1 and graph.op_types[feeding[0]] in ("Softmax", "Exp")


def _find_attention(graph: Graph) -> list[str]:
    """Finds products of two activations, and softmax and scaling between two of them."""
    weighted = set(graph.weighted)
    products = [node for node in graph.order if graph.op_types[node] == "MatMul" and node not in weighted]
    between = graph.reach(products, downwards=True) & graph.reach(products, downwards=False)
    inner = {
        node
        for node in between
        if graph.op_types[node] in ("Softmax", "Mul", "Div", "Add", "Transpose")
        and _leads_to(graph, node, set(products))
    }
    return [node for node in graph.order if node in inner or node in set(products)]


def _leads_to(graph: Graph, node: str, products: set[str]) -> bool:
    """Tells whether all that a node feeds is a product, a softmax or a chain of plain steps to one."""
    todo, steps = list(graph.children[node]), 0
    while todo:
        child = todo.pop()
        steps += 1
        if child in products:
            continue
        if graph.op_types[child] not in ("Softmax", "Mul", "Div", "Add", "Transpose") or steps > 16:
            return False
        todo.extend(graph.children[child])
    return True


def _reached_outputs(graph: Graph, last: set[str]) -> dict[str, frozenset[str]]:
    reached: dict[str, frozenset[str]] = {}
    for node in reversed(graph.order):
        own = frozenset({node}) if node in last else frozenset()
        reached[node] = own.union(*(reached[child] for child in graph.children[node]))
    return reached


def _name_groups(graph: Graph, roles: dict[str, LayerRole]) -> dict[str, str]:
    plain = {LayerRole.DECODE, LayerRole.HEAD_OUTPUT, LayerRole.ATTENTION}
    names = {node: role.value for node, role in roles.items() if role in plain}
    layers = [node for node in graph.order if node in roles and node not in names]
    modules = {node: _MODULE.match(node) for node in layers}
    if layers and all(modules.values()):
        head = max(int(found[1]) for found in modules.values() if found)
        towers = {node for node in layers if roles[node] is LayerRole.HEAD_TOWER}
        for node, found in modules.items():
            assert found is not None
            inner = node in towers and int(found[1]) == head and found[2]
            names[node] = f"model.{found[1]}/{found[2]}" if inner else f"model.{found[1]}"
        return names
    return names | _name_blocks(graph, layers, roles)


def _name_blocks(graph: Graph, layers: list[str], roles: dict[str, LayerRole]) -> dict[str, str]:
    last = {node for node, role in roles.items() if role is LayerRole.HEAD_OUTPUT}
    reached = _reached_outputs(graph, last)
    ordered: dict[tuple[frozenset[str], int], list[str]] = {}
    counts: dict[frozenset[str], int] = {}
    for node in layers:
        position = counts.get(reached[node], 0)
        counts[reached[node]] = position + 1
        ordered.setdefault((reached[node], position // _BLOCK), []).append(node)
    return {node: f"block {number}" for number, nodes in enumerate(ordered.values(), start=1) for node in nodes}
