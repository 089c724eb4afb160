# SPDX-License-Identifier: Apache-2.0
"""How far two programs' answers agree, and the forms that boxes, scores and classes may be written in. Pure. Private to the room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.dataset.evidence import Boxes
from shipsight.doctor.dataset.pairing import overlaps, pair_all
from shipsight.vision import Geometry

__all__ = [
    "BOX_FORMS",
    "compare_boxes",
    "learn_classes",
    "map_classes",
    "read_boxes",
    "share_agreeing",
    "suppress_again",
    "undo_scores",
]

FloatArray = NDArray[np.float64]

BOX_FORMS = (
    "corners",
    "width and height for the far corner",
    "centre and size",
    "corners between 0 and 1",
    "corner and size between 0 and 1",
    "centre and size between 0 and 1",
    "corners in the model's pixels",
    "corner and size in the model's pixels",
    "centre and size in the model's pixels",
    "corners of the model's input, between 0 and 1",
    "centre and size of the model's input, between 0 and 1",
    "far corner for width and height",
)
"""In which boxes may be written; the first is what is read, the last occurs only where width and height are read."""

_STEADY = 0.3
"""Weight of one certain object in each comparison, so that images in which nothing is found agree rather than divide by nothing."""


def read_boxes(boxes: Boxes, form: str, geometry: Geometry) -> Boxes:
    """Returns boxes as corners in pixels of the image, had they been written in a form.

    Args:
        boxes: as written.
        form: one of `BOX_FORMS`.
        geometry: where the chain had put the image.
    """
    raw = boxes.boxes_xyxy
    height, width = geometry.original_hw
    if "model's input" in form:
        raw = raw * np.tile([geometry.input_hw[1], geometry.input_hw[0]], 2)
    elif "between 0 and 1" in form:
        raw = raw * np.array([width, height, width, height])
    if form.startswith(("width", "corner and")):
        raw = np.concatenate([raw[:, :2], raw[:, :2] + raw[:, 2:]], axis=1)
    elif form.startswith("centre"):
        raw = np.concatenate([raw[:, :2] - raw[:, 2:] / 2, raw[:, :2] + raw[:, 2:] / 2], axis=1)
    elif form.startswith("far"):
        raw = np.concatenate([raw[:, :2], raw[:, 2:] - raw[:, :2]], axis=1)
    if "model's" in form:
        raw = geometry.boxes_to_original(raw.astype(np.float32)).astype(np.float64)
    return Boxes(boxes.class_ids, boxes.scores, raw)


def undo_scores(boxes: Sequence[Boxes]) -> tuple[list[Boxes], str]:
    """Returns boxes with scores as they leave a model, and what was done to them in words; empty for nothing.

    Tells a second sigmoid by scores that all lie where one puts what lies between 0 and 1: from 0.5 to 0.731.
    """
    scores = np.concatenate([one.scores for one in boxes]) if boxes else np.zeros(0)
    if len(scores) >= 10 and scores.min() >= 0.5 and scores.max() <= 0.7312:
        return [_scored(one, np.log(one.scores / (1 - one.scores))) for one in boxes], "went through the sigmoid twice"
    if len(scores) and scores.min() >= 0 and scores.max() > 1 and scores.max() <= 100:
        return [_scored(one, one.scores / 100) for one in boxes], "were written in percent"
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        return [_scored(one, 1 / (1 + np.exp(-one.scores))) for one in boxes], "did not go through the sigmoid"
    return list(boxes), ""


def _scored(boxes: Boxes, scores: FloatArray) -> Boxes:
    return Boxes(boxes.class_ids, np.clip(scores, 0.0, 1.0), boxes.boxes_xyxy)


def suppress_again(boxes: Boxes, iou: float = 0.7) -> Boxes:
    """Returns those of at most 1000 boxes that no better one of their class overlaps by more."""
    order = np.argsort(-boxes.scores, kind="stable")[:1000]
    table = overlaps(boxes.boxes_xyxy[order], boxes.boxes_xyxy[order])
    near = (table > iou) & (boxes.class_ids[order][:, None] == boxes.class_ids[order][None])
    kept = np.ones(len(order), np.bool_)
    for at in range(len(order)):
        if kept[at]:
            kept[at + 1 :] &= ~near[at, at + 1 :]
    chosen = np.zeros(len(boxes), np.bool_)
    chosen[order[kept]] = True
    return boxes.pick(chosen)


def compare_boxes(ours: Boxes, theirs: Boxes, *, floor: float, has_classes: bool = True) -> FloatArray:
    """Compares the answers of one image.

    Args:
        ours: answers of a chain.
        theirs: given.
        floor: least score that either would tell: what lies just above counts little, for it may lie just below on the other side.
        has_classes: whether classes have to agree.

    Returns:
        (2,): weight that agrees, and weight in all.
    """
    ours, theirs = ours.pick(ours.scores >= floor), theirs.pick(theirs.scores >= floor)
    weights = [one.scores - floor + 0.05 for one in (ours, theirs)]
    whole = float(weights[0].sum() + weights[1].sum())
    if not len(ours) or not len(theirs):
        return np.array([_STEADY, whole + _STEADY])
    table = overlaps(ours.boxes_xyxy, theirs.boxes_xyxy)
    near = np.clip(1 - np.abs(ours.scores[:, None] - theirs.scores[None]) / 0.3, 0.0, 1.0)
    worth = np.clip((table - 0.4) / 0.6, 0.0, 1.0) * (0.2 + 0.8 * near)
    if has_classes:
        worth = np.where(ours.class_ids[:, None] == theirs.class_ids[None], worth, 0.0)
    agreed = 0.0
    for _ in range(min(worth.shape)):
        i, j = divmod(int(worth.argmax()), worth.shape[1])
        if worth[i, j] <= 0:
            break
        agreed += float(worth[i, j] * (weights[0][i] + weights[1][j]))
        worth[i, :] = 0
        worth[:, j] = 0
    return np.array([agreed + _STEADY, whole + _STEADY])


def share_agreeing(parts: FloatArray) -> float:
    """Returns the share that agrees, 0 to 1, over images: (N, 2) of `compare_boxes`."""
    return float(parts[:, 0].sum() / parts[:, 1].sum())


def learn_classes(ours: Sequence[Boxes], theirs: Sequence[Boxes]) -> dict[int, int]:
    """Returns class as written -> class as it should be, where objects in the same places are called otherwise consistently; else {}."""
    pairs = pair_all(ours, theirs, conf=0.3, least_iou=0.6)
    if len(pairs) < 8:
        return {}
    table: dict[int, int] = {}
    agreeing = 0
    for class_id in np.unique(pairs.classes[:, 1]).tolist():
        right, counts = np.unique(pairs.classes[pairs.classes[:, 1] == class_id, 0], return_counts=True)
        table[class_id] = int(right[counts.argmax()])
        agreeing += int(counts.max())
    moved = sum(one != other for one, other in table.items())
    if not moved or agreeing < 0.75 * len(pairs) or len(set(table.values())) < 0.7 * len(table):
        return {}
    return table


def map_classes(boxes: Boxes, table: Mapping[int, int]) -> Boxes:
    """Returns boxes with other class ids; those that the table does not have stay."""
    if not table:
        return boxes
    ids = np.array([table.get(one, one) for one in boxes.class_ids.tolist()], dtype=np.int64)
    return Boxes(ids, boxes.scores, boxes.boxes_xyxy)
