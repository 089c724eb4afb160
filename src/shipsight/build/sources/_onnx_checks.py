# SPDX-License-Identifier: Apache-2.0
"""An ONNX file, checked before any runtime sees it. Runs in the sandboxed child only.

Refused: data outside the file (whatever its path), operators that are not ONNX's own, functions, loops, deep nesting,
absurd shapes and counts, everything that onnx's own checker refuses. Leaves to others: whether the model is what its
card says (`onnx_source`), what it computes when run (`_onnx_worker` tries that under the same limits). Private. Sources:
onnx/onnx.proto, onnx/docs/ExternalDataSecurity.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shipsight.errors import CorruptError, LimitError, UnsupportedError, UntrustedError

__all__ = ["MAX_OPSET", "MIN_OPSET", "check_structure", "main_opset", "parse_model"]

MIN_OPSET, MAX_OPSET = 9, 26
MAX_NODES = 20_000
MAX_DEPTH = 3
MAX_DIMENSION = 65_536
MAX_ELEMENTS = 1 << 28
MAX_TENSORS = 50_000
MAX_NAME = 1_000
_OWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
_MICROSOFT = {
    "BiasGelu", "FusedConv", "FusedMatMul", "Gelu", "NhwcMaxPool", "QGemm", "QLinearAdd", "QLinearAveragePool",
    "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid", "QuickGelu",
}  # fmt: skip
_REFUSED_OPERATORS = {"Loop", "Scan", "SequenceMap"}
_EXTERNAL = 1  # TensorProto.EXTERNAL


def parse_model(data: bytes, *, where: str) -> Any:  # noqa: ANN401 - onnx.ModelProto
    """Parses a model.

    Raises:
        CorruptError: the bytes are not a model.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, RecursionError) as error:
        raise CorruptError("the file is not an ONNX model, or is cut off", where=where, got=str(error)[:200]) from error
    if not model.graph.node or not model.graph.output:
        raise CorruptError("the ONNX model has no graph, or is cut off", where=where)
    return model


def check_structure(model: Any, *, where: str) -> None:  # noqa: ANN401 - onnx.ModelProto
    """Checks a parsed model.

    Raises:
        UntrustedError: it refers to data outside the file, or uses custom operators.
        LimitError: a count, depth or shape is beyond its limit.
        UnsupportedError: its operator set or a construct is not handled.
        CorruptError: onnx's checker refuses it.
    """
    import onnx

    if model.functions:
        raise UnsupportedError(
            "the model brings functions of its own",
            where=where,
            got=", ".join(str(function.name)[:60] for function in list(model.functions)[:3]),
            hint="Export it with inlined functions (onnx.inliner)",
        )
    _check_opsets(model, where)
    walk = _Walk(where)
    walk.graph(model.graph, depth=0)
    if model.training_info:
        raise UnsupportedError("the model carries training graphs", where=where)
    try:
        onnx.checker.check_model(model, full_check=False)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, IndexError) as error:
        raise CorruptError("the ONNX model does not hold together", where=where, got=_last_line(error)) from error
    for info in inferred.graph.value_info:
        walk.value(info)


def main_opset(model: Any) -> int:  # noqa: ANN401 - onnx.ModelProto
    """Returns the version of ONNX's own operator set, 0 where there is none."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def _check_opsets(model: Any, where: str) -> None:  # noqa: ANN401 - onnx.ModelProto
    foreign = [str(entry.domain)[:80] for entry in model.opset_import if entry.domain not in _OWN_DOMAINS]
    used = {str(node.domain) for node in model.graph.node}
    if [domain for domain in foreign if domain != "com.microsoft" and domain in used]:
        raise UntrustedError(
            "the model uses operators that are not ONNX's own",
            where=where,
            expected="operators of ai.onnx",
            got=", ".join(map(repr, foreign)),
        )
    opset = main_opset(model)
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UnsupportedError(
            "the model's operator set is not handled",
            where=where,
            expected=f"{MIN_OPSET} to {MAX_OPSET}",
            got=opset,
            hint="Export it again with opset 17",
        )


class _Walk:
    """Visits everything that hangs on a graph, counting."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._nodes = 0
        self._tensors = 0

    def graph(self, graph: Any, *, depth: int) -> None:  # noqa: ANN401 - onnx.GraphProto
        if depth > MAX_DEPTH:
            raise LimitError("graphs are nested too deeply", where=self._where, expected=f"<= {MAX_DEPTH} levels")
        for tensor in _tensors_of(graph):
            self._tensor(tensor)
        for info in [*graph.input, *graph.output, *graph.value_info]:
            self.value(info)
        for node in graph.node:
            self._node(node, depth)

    def value(self, info: Any) -> None:  # noqa: ANN401 - onnx.ValueInfoProto
        if not info.type.HasField("tensor_type"):
            return
        sides = [int(side.dim_value) for side in info.type.tensor_type.shape.dim if side.HasField("dim_value")]
        self._shape(sides, str(info.name))

    def _node(self, node: Any, depth: int) -> None:  # noqa: ANN401 - onnx.NodeProto
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise LimitError("the model has too many nodes", where=self._where, expected=f"<= {MAX_NODES}")
        name = f"{node.domain}::{node.op_type}"[:120] if node.domain else str(node.op_type)[:80]
        is_microsoft = node.domain == "com.microsoft" and node.op_type in _MICROSOFT
        if node.domain not in _OWN_DOMAINS and not is_microsoft:
            raise UntrustedError(
                "the model uses an operator that is not ONNX's own",
                where=self._where,
                expected="operators of ai.onnx",
                got=repr(name),
            )
        if node.op_type in _REFUSED_OPERATORS:
            raise UnsupportedError(
                "the model contains a loop, whose length nobody can tell beforehand",
                where=self._where,
                got=name,
                hint="Export it without suppression (nms=False); shipsight does that itself",
            )
        if sum(map(len, (*node.input, *node.output))) > MAX_NAME * 64:
            raise LimitError("a node has too many or too long names", where=self._where, got=name)
        for attribute in node.attribute:
            for tensor in [attribute.t] * attribute.HasField("t") + list(attribute.tensors):
                self._tensor(tensor)
            for sparse in [attribute.sparse_tensor] * attribute.HasField("sparse_tensor"):
                self._tensor(sparse.values)
                self._tensor(sparse.indices)
            for inner in [attribute.g] * attribute.HasField("g") + list(attribute.graphs):
                self.graph(inner, depth=depth + 1)

    def _tensor(self, tensor: Any) -> None:  # noqa: ANN401 - onnx.TensorProto
        self._tensors += 1
        if self._tensors > MAX_TENSORS:
            raise LimitError("the model has too many tensors", where=self._where, expected=f"<= {MAX_TENSORS}")
        if tensor.data_location == _EXTERNAL or tensor.external_data:
            entries = {str(entry.key)[:40]: str(entry.value)[:120] for entry in list(tensor.external_data)[:4]}
            raise UntrustedError(
                "the model keeps data outside its file, which is never followed",
                where=self._where,
                got=f"tensor {str(tensor.name)[:80]!r}: {entries}",
                hint="Save it as one file (onnx.save_model(..., save_as_external_data=False))",
            )
        self._shape([int(side) for side in tensor.dims], str(tensor.name))

    def _shape(self, sides: list[int], name: str) -> None:
        if len(sides) > 16 or any(side < 0 for side in sides):
            raise CorruptError(
                "a tensor has an impossible shape", where=self._where, got=f"{name[:80]!r}: {sides[:20]}"
            )
        elements = 1
        for side in sides:
            elements *= side
        if max(sides, default=0) > MAX_DIMENSION or elements > MAX_ELEMENTS:
            raise LimitError(
                "a tensor is absurdly large",
                where=self._where,
                expected=f"sides <= {MAX_DIMENSION}, <= {MAX_ELEMENTS} elements",
                got=f"{name[:80]!r}: {sides}",
            )


def _tensors_of(graph: Any) -> Iterator[Any]:  # noqa: ANN401 - onnx.GraphProto
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
