# SPDX-License-Identifier: Apache-2.0
"""Heads: from what leaves an engine to candidates above the score threshold.

Leaves to others: suppression (`suppression`), the task's own arrays and the original image's pixels (one file a task).
Rules: a score must be strictly above `conf`; candidates keep the order of their anchors (then of classes), on which
ties in suppression depend; at most 30,000 candidates, the best-scored. The layouts are described in
`docs/formats/heads.md`. Stable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import TensorError, UsageError
from shipsight.model import Card, Head, OutputForm, Task
from shipsight.vision.settings import PredictSettings

__all__ = ["Candidates", "decode_candidates"]

FloatArray = NDArray[np.float32]
Outputs = Mapping[str, NDArray[Any]]

_MOST_CANDIDATES = 30_000
_YOLOX_STRIDES = (8, 16, 32)


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a head proposes for one image, in input pixels.

    Attributes:
        boxes: (N, 4) float32 centre x, y, width, height; x0, y0, x1, y1 where `is_final` (but for rotated boxes).
        scores: (N,) float32 in [0, 1].
        class_ids: (N,) int64.
        extras: (N, E) float32: mask coefficients, keypoint values or the angle; E may be 0.
        protos: (channels, h, w) float32 mask prototypes, segment only.
        is_final: whether the model itself has suppressed.
    """

    boxes: FloatArray
    scores: FloatArray
    class_ids: NDArray[np.int64]
    extras: FloatArray
    protos: FloatArray | None
    is_final: bool = False

    @property
    def boxes_xyxy(self) -> FloatArray:
        """(N, 4) float32 x0, y0, x1, y1 in input pixels."""
        if self.is_final:
            return self.boxes
        half = self.boxes[:, 2:] / np.float32(2)
        return np.concatenate((self.boxes[:, :2] - half, self.boxes[:, :2] + half), axis=1)

    def select(self, index: NDArray[Any]) -> Candidates:
        """Returns the candidates that an index or boolean mask over N picks."""
        return replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            class_ids=self.class_ids[index],
            extras=self.extras[index],
        )


def decode_candidates(outputs: Outputs, *, card: Card, form: OutputForm, settings: PredictSettings) -> Candidates:
    """Reads an engine's outputs of one image.

    Args:
        outputs: output name -> array, batch 1.
        card: of the model.
        form: of the variant that gave the outputs.
        settings: `conf`, `classes` and `multi_label` are applied here.

    Returns:
        The candidates, in the order of their anchors.

    Raises:
        TensorError: the outputs do not have the shapes that card and form promise.
        UsageError: `multi_label` is asked of a form or head that gives one class a box.
    """
    if settings.multi_label and (form is OutputForm.BEST_CLASS or card.output.head is Head.END2END):
        raise UsageError(
            "several classes a box need a head's raw outputs",
            where="multi_label",
            got=f"{card.output.head}, {form}",
            hint="Use the reference variant.",
        )
    if card.output.head not in _RAW_DECODERS:
        raise TensorError(
            "this head proposes no boxes",
            where="output.head",
            expected=list(map(str, _RAW_DECODERS)),
            got=card.output.head,
        )
    if form is OutputForm.BEST_CLASS:
        found = _decode_best_class(outputs, card, settings)
    else:
        found = _RAW_DECODERS[card.output.head](outputs, card, settings)
    if settings.classes is not None:
        found = found.select(np.isin(found.class_ids, settings.classes))
    if len(found.scores) > _MOST_CANDIDATES:
        found = found.select(np.argsort(-found.scores, kind="stable")[:_MOST_CANDIDATES])
    return found


def _decode_best_class(outputs: Outputs, card: Card, settings: PredictSettings) -> Candidates:
    names = ["boxes", "scores", "class_ids"]
    if missing := [name for name in names if name not in outputs]:
        raise TensorError("outputs are missing", where=", ".join(missing), expected=names, got=sorted(outputs))
    boxes, scores, class_ids = (outputs[name] for name in names)
    anchors = scores.shape[-1]
    for name, array, shape in (
        ("boxes", boxes, (1, anchors, 4)),
        ("scores", scores, (1, anchors)),
        ("class_ids", class_ids, (1, anchors)),
    ):
        if array.shape != shape:
            raise TensorError("output has another shape", where=name, expected=shape, got=array.shape)
    extras = outputs.get("extras")
    if (expected := _extras_count(card)) and (extras is None or extras.shape != (1, anchors, expected)):
        got = None if extras is None else extras.shape
        raise TensorError("output has another shape", where="extras", expected=(1, anchors, expected), got=got)
    keep = np.flatnonzero(scores[0] > settings.conf)
    return Candidates(
        boxes=boxes[0][keep].astype(np.float32, copy=False),
        scores=scores[0][keep].astype(np.float32, copy=False),
        class_ids=class_ids[0][keep].astype(np.int64),
        extras=_no_extras(len(keep)) if extras is None else extras[0][keep].astype(np.float32, copy=False),
        protos=_protos(outputs, card),
    )


def _decode_yolov8(outputs: Outputs, card: Card, settings: PredictSettings) -> Candidates:
    output = _main_output(outputs)
    classes, extras = len(card.class_names), _extras_count(card)
    if output.shape[0] != 4 + classes + extras:
        expected = f"(1, 4 + {classes} + {extras}, anchors)"
        raise TensorError("raw output has another shape", where="output0", expected=expected, got=(1, *output.shape))
    class_scores = output[4 : 4 + classes]
    anchors, class_ids, scores = _choose(class_scores, settings)
    return Candidates(
        boxes=np.ascontiguousarray(output[:4, anchors].T),
        scores=scores,
        class_ids=class_ids,
        extras=np.ascontiguousarray(output[4 + classes :, anchors].T),
        protos=_protos(outputs, card),
    )


def _decode_yolox(outputs: Outputs, card: Card, settings: PredictSettings) -> Candidates:
    output = _main_output(outputs)
    grid_xy, strides = _yolox_grid(card.input.size_hw)
    if output.shape != (len(grid_xy), 5 + len(card.class_names)):
        expected = (1, len(grid_xy), 5 + len(card.class_names))
        raise TensorError("raw output has another shape", where="output0", expected=expected, got=(1, *output.shape))
    class_scores = output[:, 5:].T * output[:, 4]
    anchors, class_ids, scores = _choose(class_scores, settings)
    picked = output[anchors]
    centres = (picked[:, :2] + grid_xy[anchors]) * strides[anchors]
    sizes = np.exp(picked[:, 2:4]) * strides[anchors]
    boxes = np.concatenate((centres, sizes), axis=1)
    return Candidates(boxes=boxes, scores=scores, class_ids=class_ids, extras=_no_extras(len(anchors)), protos=None)


def _decode_end2end(outputs: Outputs, card: Card, settings: PredictSettings) -> Candidates:
    output = _main_output(outputs)
    extras = _extras_count(card)
    if output.shape[1] != 6 + extras:
        expected = f"(1, detections, 6 + {extras})"
        raise TensorError("raw output has another shape", where="output0", expected=expected, got=(1, *output.shape))
    rows = output[output[:, 4] > settings.conf]
    return Candidates(
        boxes=rows[:, :4],
        scores=rows[:, 4],
        class_ids=rows[:, 5].astype(np.int64),
        extras=rows[:, 6:],
        protos=_protos(outputs, card),
        is_final=True,
    )


_RAW_DECODERS: Mapping[Head, Callable[[Outputs, Card, PredictSettings], Candidates]] = {
    Head.YOLOV8: _decode_yolov8,
    Head.YOLOX: _decode_yolox,
    Head.END2END: _decode_end2end,
}


def _choose(
    class_scores: FloatArray, settings: PredictSettings
) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """Returns anchors, class ids and scores above `conf` from (classes, anchors) scores."""
    anchors = np.flatnonzero(class_scores.max(axis=0) > settings.conf)
    near = class_scores[:, anchors]
    if settings.multi_label and len(class_scores) > 1:
        rows, class_ids = np.nonzero(np.greater(near.T, settings.conf))
        return anchors[rows], class_ids, near[class_ids, rows]
    class_ids = near.argmax(axis=0)
    return anchors, class_ids, near[class_ids, np.arange(len(anchors))]


def _main_output(outputs: Outputs) -> FloatArray:
    """Returns the one three-dimensional output of one image as float32, without its batch axis."""
    found = [array for array in outputs.values() if array.ndim == 3]
    if len(found) != 1 or found[0].shape[0] != 1:
        shapes = {name: array.shape for name, array in outputs.items()}
        raise TensorError("no raw output of one image", where="outputs", expected="one (1, ., .)", got=shapes)
    return np.asarray(found[0][0], dtype=np.float32)


def _protos(outputs: Outputs, card: Card) -> FloatArray | None:
    if card.task is not Task.SEGMENT:
        return None
    found = [array for array in outputs.values() if array.ndim == 4]
    if len(found) != 1 or found[0].shape[:2] != (1, card.output.mask_channels):
        shapes = {name: array.shape for name, array in outputs.items()}
        expected = f"one (1, {card.output.mask_channels}, ., .)"
        raise TensorError("no mask prototypes of one image", where="outputs", expected=expected, got=shapes)
    return np.asarray(found[0][0], dtype=np.float32)


def _extras_count(card: Card) -> int:
    if card.task is Task.SEGMENT:
        return card.output.mask_channels
    if card.task is Task.POSE:
        points, values = card.output.keypoint_shape or (0, 0)
        return points * values
    return 1 if card.task is Task.OBB else 0


def _no_extras(count: int) -> FloatArray:
    return np.zeros((count, 0), dtype=np.float32)


@functools.lru_cache(maxsize=16)
def _yolox_grid(size_hw: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Returns each anchor's cell x, y (A, 2) and its stride (A, 1)."""
    cells, strides = [], []
    for stride in _YOLOX_STRIDES:
        rows, columns = size_hw[0] // stride, size_hw[1] // stride
        y, x = np.mgrid[:rows, :columns]
        cells.append(np.stack((x, y), axis=-1).reshape(-1, 2))
        strides.append(np.full((rows * columns, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)
