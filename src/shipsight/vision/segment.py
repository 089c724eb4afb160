# SPDX-License-Identifier: Apache-2.0
"""The task `segment`: boxes with masks at the original image's size.

Leaves to others: suppression by boxes (`detect.keep_best`). Rules: masks equal Ultralytics' `retina_masks=True` (its
default gives masks at the size of the letterboxed input): logits = coefficients x prototypes, enlarged bilinearly in
two steps (to whole pixels of padding, then from the padding-free part to the original), positive within the box. A
prediction whose mask is empty is dropped, as Ultralytics does. Both steps are linear and separable, so each mask is two
small matrix products over the rows and columns of its box alone. Stable.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import LimitError
from shipsight.model import Card, ImagePredictions, OutputForm
from shipsight.vision.detect import check_finite, keep_best
from shipsight.vision.geometry import Geometry
from shipsight.vision.heads import decode_candidates
from shipsight.vision.settings import PredictSettings

__all__ = ["MASK_LIMIT_BYTES", "segment"]

MASK_LIMIT_BYTES = 4 << 30
"""Most memory that the masks of one image may take: one byte a pixel and prediction."""

FloatArray = NDArray[np.float32]


def segment(
    outputs: Mapping[str, NDArray[Any]],
    *,
    card: Card,
    form: OutputForm,
    geometry: Geometry,
    settings: PredictSettings,
    source: str | None,
) -> ImagePredictions:
    """Makes boxes with masks; arguments, result and errors as in `postprocess`."""
    kept = keep_best(decode_candidates(outputs, card=card, form=form, settings=settings), settings)
    boxes = check_finite("boxes", geometry.boxes_to_original(kept.boxes_xyxy))
    assert kept.protos is not None  # decode_candidates refuses a segment model's outputs without them
    masks = _make_masks(kept.extras, kept.protos, boxes, geometry)
    found = ImagePredictions(
        source=source,
        width=geometry.original_hw[1],
        height=geometry.original_hw[0],
        class_names=card.class_names,
        class_ids=kept.class_ids,
        scores=kept.scores,
        boxes_xyxy=boxes,
        masks=masks,
    )
    filled = masks.any(axis=(1, 2))
    return found if filled.all() else found.select(np.flatnonzero(filled))


def _make_masks(
    coefficients: FloatArray, protos: FloatArray, boxes_xyxy: FloatArray, geometry: Geometry
) -> NDArray[np.bool_]:
    """Returns (N, height, width) bool; coefficients (N, C), protos (C, h, w), boxes in original pixels."""
    height, width = geometry.original_hw
    if (needed := len(boxes_xyxy) * height * width) > MASK_LIMIT_BYTES:
        raise LimitError(
            "masks would take too much memory",
            where="masks",
            expected=f"at most {MASK_LIMIT_BYTES} bytes",
            got=needed,
            hint="Lower max_det or raise conf.",
        )
    masks = np.zeros((len(boxes_xyxy), height, width), dtype=np.bool_)
    down, across = _enlargement(protos.shape[1], protos.shape[2], geometry)
    for mask, weights, (x0, y0, x1, y1) in zip(masks, coefficients, boxes_xyxy.tolist(), strict=True):
        rows, columns = slice(math.ceil(y0), math.ceil(y1)), slice(math.ceil(x0), math.ceil(x1))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        row_weights, proto_rows = _trim(down[rows])
        column_weights, proto_columns = _trim(across[columns])
        logits = np.tensordot(weights, protos[:, proto_rows, proto_columns], axes=1)
        mask[rows, columns] = row_weights @ logits @ column_weights.T > 0
    return masks


@functools.lru_cache(maxsize=4)
def _enlargement(proto_height: int, proto_width: int, geometry: Geometry) -> tuple[FloatArray, FloatArray]:
    """Returns the two interpolations as one matrix an axis: (height, proto rows) and (width, proto columns)."""
    proto_hw = (proto_height, proto_width)
    stride = geometry.input_hw[0] // proto_height
    content = geometry.content_hw
    pad = (geometry.input_hw[0] - content[0]) | (geometry.input_hw[1] - content[1])
    factor = stride // math.gcd(stride, pad | pad // 2)
    matrices = []
    for axis, before in enumerate((geometry.pad_top, geometry.pad_left)):
        start = round(before * factor / stride)
        length = max(round(content[axis] * factor / stride), 1)
        enlarged = _bilinear(proto_hw[axis], proto_hw[axis] * factor)
        matrices.append(_bilinear(length, geometry.original_hw[axis]) @ enlarged[start : start + length])
    return matrices[0], matrices[1]


def _bilinear(old: int, new: int) -> FloatArray:
    """Returns (new, old): bilinear interpolation between pixel centres, edges repeated, no antialiasing."""
    centres = np.maximum((np.arange(new) + 0.5) * (old / new) - 0.5, 0)
    first = np.minimum(centres.astype(np.int64), old - 1)
    second = np.minimum(first + 1, old - 1)
    share = (centres - first).astype(np.float32)
    matrix = np.zeros((new, old), dtype=np.float32)
    matrix[np.arange(new), first] += 1 - share
    matrix[np.arange(new), second] += share
    return matrix


def _trim(weights: FloatArray) -> tuple[FloatArray, slice]:
    """Returns the columns of a banded matrix that are not all zero, and which they are."""
    used = np.flatnonzero(weights.any(axis=0))
    part = slice(int(used[0]), int(used[-1]) + 1)
    return weights[:, part], part
