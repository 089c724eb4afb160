# SPDX-License-Identifier: Apache-2.0
"""Thresholds that are part of a suspect, whatever it is asked for: read from what it never says. Pure. Private to the room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shipsight.doctor.dataset.evidence import Boxes, DatasetEvidence
from shipsight.doctor.dataset.pairing import agreement, overlaps

__all__ = ["Baked", "find_baked"]

_LEAST_MISSING = 15
"""Predictions that the source has, and the suspect would have, below or beyond a threshold: fewer may be chance."""


@dataclass(frozen=True)
class Baked:
    """Thresholds that a suspect holds to.

    Attributes:
        conf: least score, None where it is what was asked.
        max_det: most predictions an image, likewise.
        iou: overlap above which boxes are suppressed, likewise; 1 where nothing is suppressed.
        missing: number of the source's predictions that the suspect does not give for it.
        images: number of images.
        agreement: of the source cut so with the source as it is, over all scores that were asked for.
    """

    conf: float | None
    max_det: int | None
    iou: float | None
    missing: int
    images: int
    agreement: float


def find_baked(evidence: DatasetEvidence) -> Baked | None:
    """Returns the thresholds that a suspect holds to though others were asked; None where it does as asked."""
    if evidence.is_classifier:
        return None
    source, suspect = [one.source for one in evidence.seen], [one.suspect for one in evidence.seen]
    conf, below = _find_conf(source, suspect, evidence.floor)
    cut = [one.pick(one.scores >= (conf or 0.0)) for one in source]
    most, beyond = _find_most(cut, suspect, evidence.most)
    iou, near = _find_iou(cut, suspect, evidence.iou) if evidence.is_upright else (None, 0)
    if conf is None and most is None and iou is None:
        return None
    if most is not None:
        cut = [Boxes(one.class_ids[:most], one.scores[:most], one.boxes_xyxy[:most]) for one in cut]
    # A higher overlap adds boxes rather than cutting any: its cost is the suspect's own.
    against = suspect if iou is not None and iou > evidence.iou else cut
    value = agreement(source, against, conf=max(evidence.floor, 0.01))
    return Baked(conf, most, iou, below + beyond + near, len(source), value)


def _find_conf(source: Sequence[Boxes], suspect: Sequence[Boxes], floor: float) -> tuple[float | None, int]:
    theirs = np.concatenate([one.scores for one in suspect]) if suspect else np.zeros(0)
    if not len(theirs):
        return None, 0
    least = float(theirs.min())
    ours = np.concatenate([one.scores for one in source])
    missing = int(((ours >= 2 * floor) & (ours < 0.9 * least)).sum())
    # Scores thin out to nothing in a healthy model, they do not end: near the end there must be many.
    near = int(((theirs >= least) & (theirs < 1.3 * least)).sum())
    if least <= 4 * floor or missing < _LEAST_MISSING or near < 2:
        return None, 0
    return round(least - 0.5e-2, 2) if least >= 0.05 else round(least, 3), missing


def _find_most(source: Sequence[Boxes], suspect: Sequence[Boxes], asked: int) -> tuple[int | None, int]:
    counts = np.array([len(one) for one in suspect])
    most = int(counts.max(initial=0))
    ours = np.array([len(one) for one in source])
    full = ours >= 1.3 * most + 2
    if not 0 < most < asked or full.sum() < 2 or not (counts[full] == most).all() or (ours - most)[full].sum() < 6:
        return None, 0
    return most, int((ours - most)[full].sum())


def _find_iou(source: Sequence[Boxes], suspect: Sequence[Boxes], asked: float) -> tuple[float | None, int]:
    ours, theirs = _near(source), _near(suspect)
    if (ours > asked + 0.02).sum() >= 3:
        return None, 0  # a head that suppresses nothing: there is no threshold to compare
    over = int((theirs > asked + 0.03).sum())
    if over >= _LEAST_MISSING:
        highest = float(theirs.max())
        return (1.0 if highest > 0.97 else round(highest, 2)), over
    highest = float(np.sort(theirs)[-2]) if len(theirs) > 2 else 0.0
    under = int((ours > highest + 0.02).sum())
    if len(theirs) > 2 and highest < asked - 0.05 and under >= _LEAST_MISSING:
        return round(highest, 2), under
    return None, 0


def _near(boxes: Sequence[Boxes]) -> np.ndarray:
    """Returns the overlaps above 0.2 between boxes of one class of one image."""
    found = []
    for one in boxes:
        table = overlaps(one.boxes_xyxy, one.boxes_xyxy)
        same = np.triu(one.class_ids[:, None] == one.class_ids[None, :], 1)
        found.append(table[same & (table > 0.2)])
    return np.concatenate(found) if found else np.zeros(0)
