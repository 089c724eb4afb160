# SPDX-License-Identifier: Apache-2.0
"""Float16 ONNX: weights and convolutions in 16 bits, tensors in and out as they were, boxes decoded in 32 bits.

A float16 has 11 bits of mantissa: at 640 px a box would move by up to a quarter of a pixel. So everything after the last
convolution of each branch (softmax over distances, decoding of boxes, sigmoids) stays float32, and so does the first
convolution, whose weights carry the factor 1/255 and would fall among float16's subnormal numbers. Leaves to others:
whether it pays (`build.measure`). Invariants: the same bytes give the same bytes; a model that overflows 16 bits is
refused, never clipped. Private to `build.formats`. Source: IEEE 754-2019, binary16.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.formats._onnx_model import OnnxEditor
from shipsight.engines import EngineSession, get_engine
from shipsight.errors import UnsupportedError
from shipsight.model import OutputForm, Precision, TensorLayout, Variant

__all__ = ["onnx_to_fp16"]

_FLOAT, _HALF = 1, 10
_HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_FLOAT_ONLY_INPUTS = {"Resize": frozenset({1, 2}), "Upsample": frozenset({1})}
_LIMIT = float(np.finfo(np.float16).max)
_HEADROOM = 2.0


def onnx_to_fp16(model: bytes, *, probe: NDArray[Any] | None = None) -> bytes:
    """Makes the float16 form of a model.

    Args:
        model: float ONNX file, with float or uint8 input, raw or trimmed.
        probe: an input tensor to look for overflow with; None for noise: 0 to 255 for a uint8 input, 0 to 1 for a float
            input (give one where a float input has another range).

    Returns:
        ONNX file with the same inputs and outputs, types included.

    Raises:
        CorruptError: the bytes are not ONNX.
        UnsupportedError: a weight or an activation leaves float16's range, or comes within a factor of 2 of it.
    """
    editor = OnnxEditor(model)
    region = _region(editor)
    if not region:
        raise UnsupportedError("no layer of the model can be moved to float16")
    tensor = _probe(editor) if probe is None else probe
    _check_range(model, editor, region, tensor)
    _convert(editor, region)
    half = editor.dump()
    for name, array in _open(half, editor).infer(tensor).items():
        if not np.isfinite(array).all():
            raise UnsupportedError("the float16 model gives values that are not finite", where=name)
    return half


def _region(editor: OnnxEditor) -> list[Any]:
    """Returns the nodes to move: between the first convolutions and the last ones, in graph order."""
    nodes = list(editor.graph.node)  # checked to be in topological order
    weighted = {place for place, node in enumerate(nodes) if _is_heavy(editor, node)}
    after: set[str] = set()
    moved: set[int] = set()
    for place, node in enumerate(nodes):
        if any(name in after for name in node.input):
            moved.add(place)
        if place in moved or place in weighted:
            after.update(node.output)
    needed = {name for place in weighted & moved for name in nodes[place].input}
    region: list[Any] = []
    for place in sorted(moved, reverse=True):
        node = nodes[place]
        if place in weighted or needed.intersection(node.output):
            needed.update(node.input)
            if not _has_subgraph(node) and _is_float(editor, node):
                region.append(node)
    return region[::-1]


def _is_heavy(editor: OnnxEditor, node: Any) -> bool:  # noqa: ANN401 - protobuf
    """Tells layers with weights; not those that turn a distribution into its mean (DFL): they follow a softmax or its exponentials."""
    if node.op_type not in _HEAVY or editor.constant(node.input[1]) is None:
        return False
    feeding = editor.producer(node.input[0])
    return feeding is None or feeding.op_type not in ("Softmax", "Exp")


def _has_subgraph(node: Any) -> bool:  # noqa: ANN401 - protobuf
    return any(attribute.HasField("g") or len(attribute.graphs) for attribute in node.attribute)


def _is_float(editor: OnnxEditor, node: Any) -> bool:  # noqa: ANN401 - protobuf
    """Tells nodes all of whose outputs are float32: only these can be moved as a whole."""
    return all(editor.elem_type(name) == _FLOAT for name in node.output if name)


def _convert(editor: OnnxEditor, region: list[Any]) -> None:
    half_outputs = {name: editor.fresh(f"half/{name}") for node in region for name in node.output if name}
    half_inputs: dict[str, str] = {}
    for node in region:
        skipped = _FLOAT_ONLY_INPUTS.get(node.op_type, frozenset())
        for i, name in enumerate(node.input):
            if name and i not in skipped and name not in half_outputs and editor.is_float(name):
                if name not in half_inputs:
                    half_inputs[name] = _to_half(editor, name)
                node.input[i] = half_inputs[name]
            elif name in half_outputs and i not in skipped:
                node.input[i] = half_outputs[name]
        node.output[:] = [half_outputs.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to":
                attribute.i = _HALF
    made = set(half_outputs.values())
    outside = {name for node in editor.graph.node if made.isdisjoint(node.output) for name in node.input}
    outside.update(output.name for output in editor.graph.output)
    skipped_reads = {name for node in region for name in node.input}
    for name, half in half_outputs.items():
        if name in outside or name in skipped_reads:
            editor.add("Cast", [half], output=name, to=_FLOAT)


def _to_half(editor: OnnxEditor, name: str) -> str:
    value = editor.constant(name)
    if value is None:
        return editor.add("Cast", [name], to=_HALF)
    if not np.isfinite(value).all() or np.abs(value).max(initial=0.0) > _LIMIT:
        raise UnsupportedError("a weight does not fit float16", where=name, expected=f"up to {_LIMIT:g}")
    return editor.add_constant(value.astype(np.float16), f"half/{name}")


def _probe(editor: OnnxEditor) -> NDArray[Any]:
    noise = np.random.default_rng(0).integers(0, 256, editor.input_shape, dtype=np.uint8)
    return noise if editor.is_pixels else noise.astype(np.float32) / np.float32(255)


def _check_range(model: bytes, editor: OnnxEditor, region: list[Any], tensor: NDArray[Any]) -> None:
    """Runs the float model and looks at the largest magnitude of every tensor that would be float16."""
    watched = OnnxEditor(model)
    names = [name for node in region for name in node.output if name]
    peaks = []
    for name in names:
        flat = watched.add("Reshape", [watched.add("Abs", [name]), watched.add_constant(np.array([-1]), "flat")])
        peaks.append(watched.maximum(flat, axis=0, keepdims=True))
    joined = watched.add("Concat", peaks, axis=0)
    watched.set_outputs([(joined, _FLOAT, (len(names),))])
    values = next(iter(_open(watched.dump(), watched).infer(tensor).values()))
    worst = int(np.argmax(np.nan_to_num(values, nan=np.inf)))
    if not np.isfinite(values).all() or values[worst] > _LIMIT / _HEADROOM:
        raise UnsupportedError(
            "an activation does not fit float16",
            where=names[worst],
            expected=f"up to {_LIMIT / _HEADROOM:g}",
            got=f"{values[worst]:g}",
        )


def _open(model: bytes, editor: OnnxEditor) -> EngineSession:
    height, width = editor.input_shape[1:3] if editor.is_pixels else editor.input_shape[2:4]
    layout = TensorLayout.UINT8_NHWC if editor.is_pixels else TensorLayout.FLOAT_NCHW
    precision = Precision.FP32
    variant = Variant(
        "probe", "onnxruntime", precision, (height, width), layout, OutputForm.RAW, ("probe.onnx",), precision
    )
    return get_engine("onnxruntime").open({"probe.onnx": model}, variant)
