# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph while it is edited: who makes a tensor, who reads it, what shape it has.

Leaves to others: what to change (`_trim`, `_half`). Invariants: `dump` gives the same bytes for the same graph; names
that are made never collide. Private to `build.formats`. Source: ONNX IR specification.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import CorruptError, MissingDependencyError, UnsupportedError

__all__ = ["FLOAT", "INT32", "UINT8", "OnnxEditor", "import_onnx"]

FLOAT, UINT8, INT32 = 1, 2, 6
_INPUTS = frozenset({(FLOAT, 3), (UINT8, 3)})


def import_onnx() -> Any:  # noqa: ANN401 - a module without types
    """Returns the module `onnx`.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        module = importlib.import_module("onnx")
        for part in ("helper", "numpy_helper", "shape_inference"):
            importlib.import_module(f"onnx.{part}")
    except ImportError as error:
        raise MissingDependencyError(
            "the package onnx is not installed", where="onnx", got=error, hint="pip install 'shipsight[build]'"
        ) from error
    return module


class OnnxEditor:
    """A model's graph with one image input, opened for editing.

    Args:
        content: the model file.

    Attributes:
        graph: the `GraphProto`.
        opset: version of the standard operator set.
        input_name: of the one input.
        input_shape: of it.
        is_pixels: whether the input is (batch, H, W, 3) uint8, else (batch, 3, H, W) float32.

    Raises:
        CorruptError: the bytes are not ONNX.
        UnsupportedError: the graph's input is not one static image tensor of 3 channels.
    """

    def __init__(self, content: bytes) -> None:
        self.onnx = import_onnx()
        try:
            self.model: Any = self.onnx.shape_inference.infer_shapes(self.onnx.load_model_from_string(content))
        except Exception as error:  # protobuf and onnx raise classes of their own; all mean unreadable
            raise CorruptError("not an ONNX model", got=str(error)[:300]) from error
        self.graph: Any = self.model.graph
        if not self.graph.node:
            raise CorruptError("the ONNX model holds no graph")
        self.opset = max((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), default=0)
        self._initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        values = [*self.graph.value_info, *self.graph.input, *self.graph.output]
        self._types = {value.name: value.type.tensor_type for value in values}
        self._made = 0
        self._taken = {name for node in self.graph.node for name in (*node.input, *node.output)}
        inputs = [value.name for value in self.graph.input if value.name not in self._initializers]
        if len(inputs) != 1:
            raise UnsupportedError("the model must have one input", got=", ".join(inputs) or "none")
        self.input_name: str = inputs[0]
        shape = self.shape(self.input_name)
        elem_type = self.elem_type(self.input_name)
        if shape is None or len(shape) != 4 or (elem_type, shape[1 if elem_type == FLOAT else 3]) not in _INPUTS:
            raise UnsupportedError(
                "the model's input does not fit",
                where=self.input_name,
                expected="float32 (batch, 3, H, W) or uint8 (batch, H, W, 3)",
                got=shape,
            )
        self.input_shape: tuple[int, ...] = shape
        self.is_pixels = elem_type == UINT8

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Returns a tensor's static shape, None where it is not known or not static."""
        if name in self._initializers:
            return tuple(self._initializers[name].dims)
        if name not in self._types or not self._types[name].HasField("shape"):
            return None
        sides = self._types[name].shape.dim
        return tuple(side.dim_value for side in sides) if all(side.dim_value > 0 for side in sides) else None

    def elem_type(self, name: str) -> int:
        """Returns the number of a tensor's element type, 0 where unknown."""
        return int(self._types[name].elem_type) if name in self._types else 0

    def is_float(self, name: str) -> bool:
        """Tells whether a tensor, computed or constant, is float32."""
        value = self.constant(name)
        return self.elem_type(name) == FLOAT if value is None else value.dtype == np.float32

    def producer(self, name: str) -> Any | None:  # noqa: ANN401 - protobuf message
        """Returns the node that makes a tensor, None for inputs and weights."""
        return next((node for node in self.graph.node if name in node.output), None)

    def consumers(self, name: str) -> list[Any]:
        """Returns the nodes that read a tensor."""
        return [node for node in self.graph.node if name in node.input]

    def attribute(self, node: Any, name: str, default: Any = None) -> Any:  # noqa: ANN401 - protobuf
        """Returns a node's attribute."""
        found = next((a for a in node.attribute if a.name == name), None)
        return default if found is None else self.onnx.helper.get_attribute_value(found)

    def constant(self, name: str) -> NDArray[Any] | None:
        """Returns the value of a weight or of a `Constant` node's output, None for anything that is computed."""
        if name in self._initializers:
            return np.asarray(self.onnx.numpy_helper.to_array(self._initializers[name]))
        node = self.producer(name)
        if node is None or node.op_type != "Constant":
            return None
        value = self.attribute(node, "value")
        return None if value is None else np.asarray(self.onnx.numpy_helper.to_array(value))

    def replace_constant(self, name: str, value: NDArray[Any]) -> None:
        """Gives a weight another value."""
        self._initializers[name].CopyFrom(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))

    def add_constant(self, value: NDArray[Any], hint: str) -> str:
        """Adds a weight and returns its name."""
        name = self.fresh(hint)
        self.graph.initializer.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        self._initializers[name] = self.graph.initializer[-1]
        return name

    def add(self, op_type: str, inputs: Sequence[str], *, output: str | None = None, **attributes: object) -> str:
        """Appends a node with one output and returns that output's name."""
        name = output or self.fresh(op_type.lower())
        node = self.onnx.helper.make_node(op_type, list(inputs), [name], name=f"{name}/{op_type}", **attributes)
        self.graph.node.append(node)
        return name

    def maximum(self, name: str, *, axis: int, keepdims: bool) -> str:
        """Appends a maximum over one axis, written as the model's operator set wants it."""
        if self.opset >= 18:
            axes = self.add_constant(np.array([axis], np.int64), "axes")
            return self.add("ReduceMax", [name, axes], keepdims=int(keepdims))
        return self.add("ReduceMax", [name], axes=[axis], keepdims=int(keepdims))

    def fresh(self, hint: str) -> str:
        """Returns a name that nothing in the graph has."""
        while True:
            self._made += 1
            name = f"shipsight/{self._made}/{hint}"
            if name not in self._taken:
                return name

    def free(self, name: str) -> None:
        """Renames the tensor of that name, if there is one, so that the name can be given to another."""
        self.rename(name, self.fresh(name))

    def rename(self, old: str, new: str) -> None:
        """Gives a tensor another name wherever it is made, read or given out."""
        for node in self.graph.node:
            node.input[:] = [new if each == old else each for each in node.input]
            node.output[:] = [new if each == old else each for each in node.output]
        for value in (*self.graph.initializer, *self.graph.output):
            value.name = new if value.name == old else value.name
        for known in (self._types, self._initializers):
            if old in known:
                known[new] = known.pop(old)

    def redirect(self, old: str, new: str) -> None:
        """Lets every node that reads a tensor read another one."""
        for node in self.graph.node:
            node.input[:] = [new if each == old else each for each in node.input]

    def set_outputs(self, outputs: Sequence[tuple[str, int, Sequence[int]]]) -> None:
        """Replaces the graph's outputs: name, element type, shape."""
        del self.graph.output[:]
        for name, elem_type, shape in outputs:
            self.graph.output.append(self.onnx.helper.make_tensor_value_info(name, elem_type, list(shape)))

    def prune(self) -> None:
        """Drops nodes and weights that no output needs, and brings nodes into topological order."""
        makers = {name: node for node in self.graph.node for name in node.output if name}
        ordered: list[Any] = []
        placed: set[int] = set()
        stack: list[tuple[Any, bool]] = [
            (makers[o.name], False) for o in reversed(self.graph.output) if o.name in makers
        ]
        while stack:
            node, is_ready = stack.pop()
            if id(node) in placed:
                continue
            if is_ready:
                placed.add(id(node))
                ordered.append(node)
                continue
            stack.append((node, True))
            stack.extend((makers[name], False) for name in reversed(node.input) if name in makers)
        copies = [self._copy(node) for node in ordered]
        used = {name for node in ordered for name in node.input}
        weights = [self._copy(tensor) for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(copies)
        self.graph.initializer.extend(weights)
        self._initializers = {tensor.name: tensor for tensor in self.graph.initializer}

    @staticmethod
    def _copy(message: Any) -> Any:  # noqa: ANN401 - protobuf
        copy = type(message)()
        copy.CopyFrom(message)
        return copy

    def dump(self) -> bytes:
        """Returns the model file, the same for the same graph, without what a source wrote beside it."""
        self.prune()
        for text in ("doc_string", "producer_version"):
            self.model.ClearField(text)
        self.model.producer_name = "shipsight"
        self.graph.ClearField("doc_string")
        del self.model.metadata_props[:]
        self.onnx.checker.check_model(self.model, full_check=True)
        return bytes(self.model.SerializeToString(deterministic=True))
