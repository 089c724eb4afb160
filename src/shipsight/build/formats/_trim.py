# SPDX-License-Identifier: Apache-2.0
"""Trimming: pixels in as they are, one class an anchor out, everything between left as it was.

The reference graph takes normalised floats and gives every class's score of every anchor. The trimmed one takes
(batch, H, W, 3) uint8 RGB and gives `boxes`, `scores` and `class_ids` (`OutputForm.BEST_CLASS`). Leaves to others:
whether that is faster here (`build.measure` decides). Invariants: predictions equal those of the reference within
1e-4 in score; the same input gives the same bytes. Private to `build.formats`. Source: `docs/formats/heads.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from shipsight.build.formats._layout import average_by_anchor, join_whole
from shipsight.build.formats._onnx_model import FLOAT, INT32, UINT8, OnnxEditor
from shipsight.errors import UnsupportedError
from shipsight.model import Card, Head

__all__ = ["trim_onnx"]

_YOLOX_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class _Head:
    """Names of the tensors that a best-class tail is made from.

    Attributes:
        boxes: (1, 4, A) centre x, y, width, height.
        classes: one (1, classes, ...) tensor a level, or one for all; logits where `is_logit`.
        objectness: (1, 1, A) factor on the scores, None where the head has none.
        extras: (1, E, A), None where the head has none.
        extras_count: E.
        anchors: A.
    """

    boxes: str
    classes: tuple[str, ...]
    is_logit: bool
    objectness: str | None
    extras: str | None
    extras_count: int
    anchors: int


def trim_onnx(model: bytes, card: Card) -> bytes:
    """Makes the uint8 form of a reference model.

    Args:
        model: canonical float ONNX: `images` float32 (1, 3, H, W), raw head outputs.
        card: of the model; its input contract is built into the graph.

    Returns:
        ONNX file with the input `images` (1, H, W, 3) uint8, RGB. For the heads `yolov8` and `yolox` its outputs are
        `OutputForm.BEST_CLASS`; for others they stay as they are.

    Raises:
        CorruptError: the bytes are not ONNX.
        UnsupportedError: input or outputs do not have the shapes that the card's head gives.
    """
    editor = OnnxEditor(model)
    if editor.is_pixels:
        raise UnsupportedError("the model has been trimmed already", where=editor.input_name)
    _take_pixels(editor, card)
    if card.output.head is Head.YOLOV8:
        _best_class(editor, _find_yolov8(editor, card))
        average_by_anchor(editor)
        join_whole(editor)
    elif card.output.head is Head.YOLOX:
        _best_class(editor, _find_yolox(editor, card))
    return editor.dump()


def _take_pixels(editor: OnnxEditor, card: Card) -> None:
    """Puts cast, layout, channel order and normalisation in front of the graph.

    Scale, std and channel order go into the first convolution's weights where that is the input's only reader; a mean
    does not, because the convolution pads with zeros that stand for the mean.
    """
    contract = card.input
    old = editor.input_name
    scale = (contract.scale / np.asarray(contract.std, np.float64)).astype(np.float64)
    offset = (np.asarray(contract.mean, np.float64) / np.asarray(contract.std, np.float64)).astype(np.float32)
    first = editor.consumers(old)
    weights = editor.constant(first[0].input[1]) if len(first) == 1 and first[0].op_type == "Conv" else None
    batch, _, height, width = editor.input_shape
    pixels = "images"
    renamed = editor.fresh("normalised")
    for node in first:
        node.input[:] = [renamed if name == old else name for name in node.input]
    editor.free(pixels)
    tensor = editor.add("Transpose", [pixels], perm=[0, 3, 1, 2])
    can_fold = weights is not None and len(editor.consumers(first[0].input[1])) == 1 and not offset.any()
    if can_fold and weights is not None:
        folded = weights.astype(np.float64) * scale.reshape(1, 3, 1, 1)
        folded = folded[:, ::-1] if contract.colour == "bgr" else folded
        editor.replace_constant(first[0].input[1], folded.astype(np.float32))
        editor.add("Cast", [tensor], output=renamed, to=FLOAT)
    else:
        if contract.colour == "bgr":
            tensor = editor.add("Gather", [tensor, editor.add_constant(np.array([2, 1, 0]), "bgr")], axis=1)
        tensor = editor.add("Cast", [tensor], to=FLOAT)
        factor = editor.add_constant(scale.astype(np.float32).reshape(1, 3, 1, 1), "scale")
        tensor = editor.add("Mul", [tensor, factor])
        editor.add("Sub", [tensor, editor.add_constant(offset.reshape(1, 3, 1, 1), "mean")], output=renamed)
    value = next(v for v in editor.graph.input if v.name == old)
    value.CopyFrom(editor.onnx.helper.make_tensor_value_info(pixels, UINT8, [batch, height, width, 3]))


def _find_yolov8(editor: OnnxEditor, card: Card) -> _Head:
    """Finds boxes, class scores and extras of a `yolov8` head; cuts before the last concatenation where it can."""
    name = editor.graph.output[0].name
    classes = len(card.class_names)
    shape = _output_shape(editor, name)
    extras = shape[1] - 4 - classes
    if extras < 0 or shape[0] != 1:
        raise UnsupportedError(
            "the output does not fit the head", where=name, expected=f"(1, 4 + {classes} or more, anchors)", got=shape
        )
    anchors = shape[2]
    parts = _concat_parts(editor, name, axis=1)
    sizes = [editor.shape(part) for part in parts]
    wanted = [(1, side, anchors) for side in (4, classes, extras) if side]
    if sizes == wanted:
        boxes, scores, *rest = parts
        levels, is_logit = _class_levels(editor, scores, classes)
        return _Head(boxes, levels, is_logit, None, rest[0] if rest else None, extras, anchors)
    boxes = _rows(editor, name, 0, 4)
    scores = _rows(editor, name, 4, 4 + classes)
    rest_name = _rows(editor, name, 4 + classes, 4 + classes + extras) if extras else None
    return _Head(boxes, (scores,), False, None, rest_name, extras, anchors)


def _class_levels(editor: OnnxEditor, scores: str, classes: int) -> tuple[tuple[str, ...], bool]:
    """Returns the class tensors before the sigmoid and before the levels are joined, as far as they are recognised."""
    node = editor.producer(scores)
    if node is None or node.op_type != "Sigmoid":
        return (scores,), False
    levels = _concat_parts(editor, node.input[0], axis=2)
    if not levels or any((editor.shape(level) or (0, 0))[1] != classes for level in levels):
        return (node.input[0],), True
    return tuple(levels), True


def _find_yolox(editor: OnnxEditor, card: Card) -> _Head:
    """Decodes a `yolox` head on its grid."""
    name = editor.graph.output[0].name
    classes = len(card.class_names)
    shape = _output_shape(editor, name)
    _, _, height, width = editor.input_shape
    grid, strides = _yolox_grid(height, width)
    anchors = strides.shape[2]
    if shape != (1, anchors, 5 + classes):
        raise UnsupportedError(
            "the output does not fit the head", where=name, expected=(1, anchors, 5 + classes), got=shape
        )
    last = editor.producer(name)
    is_turned = last is not None and last.op_type == "Transpose"
    flat = last.input[0] if last is not None and is_turned else editor.add("Transpose", [name], perm=[0, 2, 1])
    centre = editor.add("Add", [_rows(editor, flat, 0, 2), editor.add_constant(grid, "grid")])
    size = editor.add("Exp", [_rows(editor, flat, 2, 4)])
    both = editor.add("Concat", [centre, size], axis=1)
    boxes = editor.add("Mul", [both, editor.add_constant(strides, "strides")])
    objectness = _rows(editor, flat, 4, 5)
    scores = _rows(editor, flat, 5, 5 + classes)
    return _Head(boxes, (scores,), False, objectness, None, 0, anchors)


def _yolox_grid(height: int, width: int) -> tuple[Any, Any]:
    """Returns cells (1, 2, A), x before y, and strides (1, 1, A) in pixels, level by level, row by row."""
    cells, strides = [], []
    for stride in _YOLOX_STRIDES:
        rows, columns = np.meshgrid(np.arange(height // stride), np.arange(width // stride), indexing="ij")
        cells.append(np.stack([columns.ravel(), rows.ravel()]))
        strides.append(np.full(rows.size, stride))
    return (
        np.concatenate(cells, axis=1).astype(np.float32)[None],
        np.concatenate(strides).astype(np.float32)[None, None],
    )


def _best_class(editor: OnnxEditor, head: _Head) -> None:
    """Makes the outputs `boxes, scores, class_ids[, extras][, protos]`."""
    for name in ("boxes", "scores", "class_ids", "extras", "protos"):
        editor.free(name)
    protos = [output.name for output in editor.graph.output[1:]]
    protos_shape = _output_shape(editor, protos[0], sides=4) if protos else ()
    flat = editor.add_constant(np.array([1, head.anchors], np.int64), "flat")
    score, class_id = _best_of_levels(editor, head)
    if head.is_logit:
        score = editor.add("Sigmoid", [score])
    if head.objectness is not None:
        score = editor.add("Mul", [score, editor.add("Reshape", [head.objectness, flat])])
    editor.add("Transpose", [head.boxes], output="boxes", perm=[0, 2, 1])
    editor.rename(score, "scores")
    editor.add("Cast", [class_id], output="class_ids", to=INT32)
    outputs: list[tuple[str, int, tuple[int, ...]]] = [
        ("boxes", FLOAT, (1, head.anchors, 4)),
        ("scores", FLOAT, (1, head.anchors)),
        ("class_ids", INT32, (1, head.anchors)),
    ]
    if head.extras is not None:
        editor.add("Transpose", [head.extras], output="extras", perm=[0, 2, 1])
        outputs.append(("extras", FLOAT, (1, head.anchors, head.extras_count)))
    if protos:
        editor.rename(protos[0], "protos")
        outputs.append(("protos", FLOAT, protos_shape))
    editor.set_outputs(outputs)


def _best_of_levels(editor: OnnxEditor, head: _Head) -> tuple[str, str]:
    """Returns (1, A) best score and (1, A) int64 class, reduced level by level and joined."""
    row = editor.add_constant(np.array([1, -1], np.int64), "row")
    best, chosen = [], []
    for level in head.classes:
        best.append(editor.add("Reshape", [editor.maximum(level, axis=1, keepdims=False), row]))
        chosen.append(editor.add("Reshape", [editor.add("ArgMax", [level], axis=1, keepdims=0), row]))
    if len(best) == 1:
        return best[0], chosen[0]
    return editor.add("Concat", best, axis=1), editor.add("Concat", chosen, axis=1)


def _rows(editor: OnnxEditor, name: str, start: int, stop: int) -> str:
    """Returns rows `start` to `stop` of axis 1."""
    bounds = [editor.add_constant(np.array([value], np.int64), "bound") for value in (start, stop, 1)]
    return editor.add("Slice", [name, *bounds])


def _concat_parts(editor: OnnxEditor, name: str, *, axis: int) -> list[str]:
    """Returns what is joined along an axis of a tensor of three axes; nothing if the tensor is not joined."""
    node = editor.producer(name)
    if node is None or node.op_type != "Concat" or editor.attribute(node, "axis") not in (axis, axis - 3):
        return []
    return list(node.input)


def _output_shape(editor: OnnxEditor, name: str, *, sides: int = 3) -> tuple[int, ...]:
    shape = editor.shape(name)
    if shape is None or len(shape) != sides:
        raise UnsupportedError(
            "an output does not fit the head", where=name, expected=f"{sides} fixed sides", got=shape
        )
    return shape
