# SPDX-License-Identifier: Apache-2.0
"""Parts of a quantized ONNX graph that are known to suffer, and the same graph with one of them in float. Private to the room.

Works on QuantizeLinear and DequantizeLinear pairs: a pair is taken out by joining what stands before and behind it. What such a
graph answers then measures what quantizing that part costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.conversion.graphs import base_name, initializers, producers, users
from shipsight.doctor.conversion.weights import LayerWeights
from shipsight.proof.layers import import_onnx

__all__ = ["Pair", "Part", "find_pairs", "find_parts", "in_float"]

_HEAVY = frozenset({"Conv", "Gemm", "ConvTranspose"})
_PASSING = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "Reshape", "Transpose", "Cast", "Identity", "Slice", "Split"}
)
_WIDE = 20.0
"""Boxes in pixels reach hundreds, scores 1: one scale over a range this wide leaves scores under 13 levels."""


@dataclass(frozen=True)
class Pair:
    """A quantized activation: `tensor` before, `restored` behind, and the range that its scale can hold."""

    tensor: str
    restored: str
    low: float
    high: float


@dataclass(frozen=True)
class Part:
    """One part of a graph.

    Attributes:
        rule: that it belongs to.
        pairs: activations in it.
        layers: names of the layers whose weights are in it.
        detail: figures.
        is_defect: whether the graph itself shows that something is wrong with it, however little it costs.
    """

    rule: str
    pairs: tuple[Pair, ...]
    layers: tuple[str, ...] = ()
    is_defect: bool = False
    detail: Mapping[str, float] = field(default_factory=dict)


def find_pairs(model: Any) -> list[Pair]:  # noqa: ANN401 - onnx has no types
    """Returns the quantized activations of a graph."""
    constants, used = initializers(model), users(model)
    found = []
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        scale = constants.get(node.input[1])
        if scale is None or scale.size != 1:
            continue
        point = constants.get(node.input[2]) if len(node.input) > 2 else None
        kind = np.dtype(np.uint8) if point is None else point.dtype
        if kind.kind not in "iu":
            continue
        zero, limits = 0 if point is None else int(point.ravel()[0]), np.iinfo(kind)
        step = float(scale.ravel()[0])
        for after in used.get(node.output[0], []):
            if after.op_type == "DequantizeLinear":
                low, high = (limits.min - zero) * step, (limits.max - zero) * step
                found.append(Pair(node.input[0], after.output[0], low, high))
    return found


def find_parts(model: Any, pairs: Iterable[Pair], clipped: Mapping[str, float]) -> list[Part]:  # noqa: ANN401 - onnx
    """Finds the parts that may suffer.

    Args:
        model: quantized.
        pairs: its activations.
        clipped: activation -> share of the source's energy on the golden inputs that lies outside its range.
    """
    pairs = list(pairs)
    graph = _Walk(model)
    decode = graph.behind_last_layers()
    sigmoids = [one for one in decode if one.op_type == "Sigmoid"]
    dfl = [one for one in decode if one.op_type not in ("Sigmoid", "Concat") and not graph.leads_to(one, "Sigmoid")]
    dfl += [
        one
        for one in decode
        if one.op_type == "Concat" and (graph.leads_to(one, "Softmax") or graph.leads_to(one, "Exp"))
    ]
    spans = _spanning(graph, pairs)
    spanned = {one.restored for one in spans}
    rest = [one for one in pairs if one.restored not in spanned]
    heads = graph.last_layers()
    one2one = [one for one in model.graph.node if "one2one" in one.name]
    # Tensors that calibration let clip are that rule's alone: ranges belong to it wherever they lie.
    given = {one.name for one in model.graph.input}
    cut = [one for one in rest if clipped.get(one.tensor, 0.0) > (_CLIPPED_INPUT if one.tensor in given else _CLIPPED)]
    whole = [one for one in rest if one not in cut]
    worst = max(clipped.values(), default=0.0)
    found = [
        Part(
            "int8-scale-spans-boxes-and-scores",
            tuple(spans),
            detail={"range": max((a.high - a.low for a in spans), default=0)},
        ),
        Part(
            "int8-range-clipped",
            tuple(cut),
            is_defect=any(one.tensor in given for one in cut),
            detail={"clipped_energy_share": worst},
        ),
        Part("int8-one2one", tuple(_touching(whole, one2one)), tuple(graph.keys(one2one))),
        Part("int8-dfl", tuple(_touching(whole, dfl))),
        Part("int8-sigmoid", tuple(_touching(whole, sigmoids))),
        Part("int8-head-convolutions", tuple(_touching(whole, heads, outputs_only=True)), tuple(graph.keys(heads))),
    ]
    return [one for one in found if one.pairs]


_CLIPPED = 0.02
"""Share of a tensor's energy beyond its range. Percentile and entropy calibration leave under 0.01 on purpose."""

_CLIPPED_INPUT = 0.002
"""Likewise of the input: levels of pixels have ends, which a calibration on pictures as in production has met."""


def _spanning(graph: _Walk, pairs: list[Pair]) -> list[Pair]:
    """Returns the pairs on what joins boxes and scores: a Concat with a Sigmoid before it, whose one range is that of pixels."""
    last = [one for one in graph.near_outputs() if one.op_type == "Concat"]
    joined = [one for one in last if any(graph.comes_from(name, "Sigmoid") for name in one.input)]
    joined = [one for one in joined if not all(graph.comes_from(name, "Sigmoid") for name in one.input)]
    found = []
    for pair in pairs:
        touches = any(pair.tensor in one.output or pair.restored in one.input for one in joined)
        if touches and pair.high - pair.low > _WIDE:
            found.append(pair)
    return found if any(pair.tensor in one.output for one in joined for pair in found) or _shared(joined, found) else []


def _shared(joined: list[Any], found: list[Pair]) -> bool:
    """Whether each input of the join has the wide range: then scores have it too."""
    restored = {one.restored for one in found}
    return any(all(name in restored for name in one.input) for one in joined)


def _touching(pairs: list[Pair], nodes: list[Any], *, outputs_only: bool = False) -> list[Pair]:
    taken = set() if outputs_only else {name for one in nodes for name in one.input}
    made = {name for one in nodes for name in one.output}
    return [one for one in pairs if one.restored in taken or one.tensor in made]


class _Walk:
    """Questions to a graph: what comes before and behind what."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - onnx has no types
        self.nodes = list(model.graph.node)
        self._made, self._used = producers(model), users(model)
        self._outputs = [one.name for one in model.graph.output]
        self._constants = initializers(model)

    def _before(self, node: Any) -> list[Any]:  # noqa: ANN401 - onnx has no types
        return [self._made[name] for name in node.input if name in self._made]

    def _is_layer(self, node: Any) -> bool:  # noqa: ANN401 - onnx has no types
        """A convolution that learns: the DFL's one of (1, K, 1, 1) only takes a mean."""
        if node.op_type not in _HEAVY:
            return False
        weight = node.input[1]
        source = self._made.get(weight)
        while source is not None and source.op_type in ("DequantizeLinear", "Cast", "QuantizeLinear"):
            weight = source.input[0]
            source = self._made.get(weight)
        values = self._constants.get(weight)
        return values is None or not (values.ndim == 4 and values.shape[0] == 1 and values.shape[2:] == (1, 1))

    def _until(self, stops: Callable[[Any], bool]) -> tuple[list[Any], list[Any]]:
        """Returns the nodes between the outputs and the first that stop on each way, and those that stop."""
        seen: set[int] = set()
        between, stopped = [], []
        ahead = [self._made[name] for name in self._outputs if name in self._made]
        while ahead:
            node = ahead.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if stops(node):
                stopped.append(node)
            else:
                between.append(node)
                ahead += self._before(node)
        return between, stopped

    def behind_last_layers(self) -> list[Any]:
        """Returns the nodes between the last learned layers and the outputs."""
        return self._until(self._is_layer)[0]

    def last_layers(self) -> list[Any]:
        """Returns the last learned layers before each output."""
        return self._until(self._is_layer)[1]

    def near_outputs(self) -> list[Any]:
        """Returns the nodes that make the outputs, through what only moves numbers."""
        return self._until(lambda node: node.op_type not in _PASSING)[1]

    def comes_from(self, name: str, kind: str) -> bool:
        """Whether a tensor is what a node of this kind made, moved about at most."""
        node = self._made.get(name)
        while node is not None and node.op_type in _PASSING and node.input:
            node = self._made.get(node.input[0])
        return node is not None and bool(node.op_type == kind)

    def leads_to(self, node: Any, kind: str) -> bool:  # noqa: ANN401 - onnx has no types
        """Whether what a node makes reaches a node of this kind, moved about at most."""
        ahead = [one for name in node.output for one in self._used.get(name, [])]
        return any(one.op_type == kind or (one.op_type in _PASSING and self.leads_to(one, kind)) for one in ahead)

    def keys(self, nodes: list[Any]) -> list[str]:
        """Returns the names of layers as `read_weights` has them."""
        return [base_name(one.name or one.output[0]).removesuffix("_output_0") for one in nodes if self._is_layer(one)]


def in_float(model: Any, part: Part, source: Mapping[str, LayerWeights]) -> bytes:  # noqa: ANN401 - onnx has no types
    """Returns the graph with one part in float: its activations unquantized, its weights those of the source."""
    from onnx import numpy_helper

    copy = import_onnx().ModelProto()
    copy.CopyFrom(model)
    swaps = {one.restored: one.tensor for one in part.pairs}
    for node in copy.graph.node:
        for at, name in enumerate(node.input):
            while name in swaps:
                name = swaps[name]
            node.input[at] = name
        key = base_name(node.name or node.output[0]).removesuffix("_output_0")
        if key in part.layers and key in source and node.op_type in _HEAVY:
            fresh = numpy_helper.from_array(_as_given(source[key].values), f"doctor/{key}")
            copy.graph.initializer.append(fresh)
            node.input[1] = fresh.name
    outputs = {one.name for one in copy.graph.output}
    for pair in part.pairs:
        if pair.restored in outputs:
            for node in list(copy.graph.node):
                if pair.restored in node.output:
                    copy.graph.node.remove(node)
            copy.graph.node.append(import_onnx().helper.make_node("Identity", [swaps[pair.restored]], [pair.restored]))
    content: bytes = copy.SerializeToString()
    return content


def _as_given(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values)
