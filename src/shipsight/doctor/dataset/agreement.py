# SPDX-License-Identifier: Apache-2.0
"""What explains the differences between two descriptions of the same images: a transformation of boxes, of classes, of scores.

One cause is looked for after the other, and what was found is undone before the next is looked for: so that swapped classes are not
taken for lost ones, nor shifted boxes for other weights. Pure. Private to the room.

The limits stand between what healthy variants gave and what faults gave. Healthy: FP16 and INT8 variants of yolo11n (640 px) and a model
of blood cells (320 px), each on 16 to 64 images; what each limit was set from stands beside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.dataset.evidence import Boxes, DatasetEvidence
from shipsight.doctor.dataset.pairing import CONFIDENT, Pairs, agreement, pair_all
from shipsight.doctor.dataset.transforms import BoxMap, ScoreMap, fit_boxes, fit_scores, pair_far

__all__ = ["Explained", "Moves", "confusion", "explain", "find_moves", "tail"]

_LEAST_OF_CLASS = 4
"""Fewer objects of a class say nothing of it."""

_SURE = 1e-4
"""Most chance, over all classes together, that healthy confusion alone looks like this."""

_HEALTHY_CONFUSION = 0.1
"""Share of objects whose class healthy variants changed: up to 0.025 (INT8, 80 classes, 16 images)."""

_HEALTHY_LOSS = 0.12
"""Share of objects that a healthy variant may lose: chosen, not measured."""


@dataclass(frozen=True)
class Moves:
    """Classes that became others.

    Attributes:
        table: class of the first description -> of the second.
        objects: number of objects that moved so.
        chance: that healthy confusion alone looks like this.
    """

    table: Mapping[int, int]
    objects: int
    chance: float


@dataclass(frozen=True)
class Lost:
    """A class that is not found any more.

    Attributes:
        class_id: of the source.
        count: number of its confident objects.
        lost: of them.
        others: share of the other classes' objects that is lost.
        became: class that most of the lost became, None for none.
    """

    class_id: int
    count: int
    lost: int
    others: float
    became: int | None


@dataclass(frozen=True, eq=False)
class Explained:
    """What was found, in the order in which it was undone; agreements are those of `pairing.agreement`.

    Attributes:
        before: agreement of source and suspect as they are.
        boxes: transformation of the boxes, None where there is none.
        after_boxes: agreement once it was undone.
        moves: classes that became others.
        after_moves: agreement once that was undone.
        lost: classes that are lost.
        after_lost: agreement of the other classes.
        scores: transformation of the scores.
        after_scores: agreement once it was undone.
        confident: number of the source's confident objects.
        share: of confident objects matched after all, at overlap 0.8 and scores within 0.1.
        share_error: standard error of that share, over images.
        images: number of images.
    """

    before: float
    boxes: BoxMap | None
    after_boxes: float
    moves: Moves | None
    after_moves: float
    lost: tuple[Lost, ...]
    after_lost: float
    scores: ScoreMap | None
    after_scores: float
    confident: int
    share: float
    share_error: float
    images: int


def explain(evidence: DatasetEvidence) -> Explained:
    """Returns what explains the differences between the source and the suspect."""
    source, suspect = [one.source for one in evidence.seen], [one.suspect for one in evidence.seen]
    ratios = [one.ratio for one in evidence.seen]
    before = agreement(source, suspect)
    boxes = None if evidence.is_classifier else _find_boxes(source, suspect, ratios, evidence.side)
    if boxes is not None:
        suspect = [boxes.undo(one, ratio) for one, ratio in zip(suspect, ratios, strict=True)]
    after_boxes = before if boxes is None else agreement(source, suspect)
    moves = find_moves(pair_all(source, suspect), len(evidence.class_names))
    if moves is not None:
        back = {new: old for old, new in moves.table.items()}
        suspect = [_renamed(one, back) for one in suspect]
    after_moves = after_boxes if moves is None else agreement(source, suspect)
    lost = _find_lost(source, suspect)
    gone = np.array([one.class_id for one in lost], np.int64)
    source = [one.pick(~np.isin(one.class_ids, gone)) for one in source]
    suspect = [one.pick(~np.isin(one.class_ids, gone)) for one in suspect]
    after_lost = agreement(source, suspect) if lost else after_moves
    scores = fit_scores(pair_all(source, suspect, conf=0.1), is_classifier=evidence.is_classifier)
    if scores is not None:
        suspect = [Boxes(one.class_ids, scores.undo(one.scores), one.boxes_xyxy) for one in suspect]
    after_scores = after_lost if scores is None else agreement(source, suspect)
    share, error = _matched_share(source, suspect)
    return Explained(
        before=before,
        boxes=boxes,
        after_boxes=after_boxes,
        moves=moves,
        after_moves=after_moves,
        scores=scores,
        after_scores=after_scores,
        lost=lost,
        after_lost=after_lost,
        confident=sum(int((one.source.scores >= CONFIDENT).sum()) for one in evidence.seen),
        share=share,
        share_error=error,
        images=len(source),
    )


def confusion(pairs: Pairs) -> dict[int, Counter[int]]:
    """Returns for each class of the first what its pairs are in the second."""
    table: dict[int, Counter[int]] = {}
    for old, new in pairs.classes.tolist():
        table.setdefault(old, Counter())[new] += 1
    return table


def tail(hits: int, count: int, rate: float) -> float:
    """Returns the chance of that many hits or more out of a number, each with a rate (binomial)."""
    if hits <= 0:
        return 1.0
    logs = [
        math.lgamma(count + 1)
        - math.lgamma(k + 1)
        - math.lgamma(count - k + 1)
        + k * math.log(rate)
        + (count - k) * math.log1p(-rate)
        for k in range(hits, count + 1)
    ]
    return min(1.0, math.fsum(math.exp(one) for one in logs))


def find_moves(pairs: Pairs, class_count: int) -> Moves | None:
    """Returns the classes that became others, each another one, where that is beyond chance.

    A class moved where at least 70 % of its objects became one other class. Two classes that became the same are no order of
    classes: one of them is lost.

    Args:
        pairs: whatever their classes.
        class_count: number of classes.
    """
    table = confusion(pairs)
    moved: dict[int, int] = {}
    counts: dict[int, tuple[int, int]] = {}
    for old, seen in table.items():
        new, hits = seen.most_common(1)[0]
        total = sum(seen.values())
        if new != old and hits >= 0.7 * total:
            moved[old] = new
            counts[old] = hits, total
    # A target that stays what it is shows that its class was taken, not swapped.
    kept = {old for old, seen in table.items() if seen[old] >= 0.3 * sum(seen.values())}
    targets = Counter(moved.values())
    moved = {old: new for old, new in moved.items() if new not in kept and targets[new] == 1}
    if not moved:
        return None
    hits, total = (sum(counts[old][part] for old in moved) for part in (0, 1))
    # Each class could have become any other one; a table of many classes offers many chances to be wrong.
    chance = min(1.0, tail(hits, total, _HEALTHY_CONFUSION) * len(table))
    if chance > _SURE or hits < _LEAST_OF_CLASS:
        return None
    # What was seen once or twice may be noise: it is kept only where it says the same as the rest, a constant step or a swap.
    steps = Counter(dict.fromkeys(range(class_count), 0))
    for old, new in moved.items():
        steps[(new - old) % class_count] += counts[old][1]
    step, _ = steps.most_common(1)[0]
    sure = {
        old: new
        for old, new in moved.items()
        if counts[old][1] >= _LEAST_OF_CLASS or (new - old) % class_count == step or moved.get(new) == old
    }
    return Moves(sure, sum(counts[old][0] for old in sure), chance) if sure else None


def _find_boxes(source: Sequence[Boxes], suspect: Sequence[Boxes], ratios: Sequence[float], side: int) -> BoxMap | None:
    """Returns the transformation of boxes; pairs are found by overlap, and by scores where boxes lie too far off for that."""
    before = agreement(source, suspect)
    found = fit_boxes(pair_all(source, suspect, least_iou=0.3), ratios, side)
    if before > 0.6:
        return found
    best, best_value = None, before
    for one in (found, fit_boxes(pair_far(source, suspect, ratios, side), ratios, side)):
        if one is None:
            continue
        value = agreement(source, [one.undo(boxes, ratio) for boxes, ratio in zip(suspect, ratios, strict=True)])
        if value > best_value + 0.05:
            best, best_value = one, value
    return best


def _renamed(boxes: Boxes, back: Mapping[int, int]) -> Boxes:
    renamed = np.array([back.get(int(one), int(one)) for one in boxes.class_ids], np.int64)
    return Boxes(renamed, boxes.scores, boxes.boxes_xyxy)


def _find_lost(source: Sequence[Boxes], suspect: Sequence[Boxes]) -> tuple[Lost, ...]:
    """Returns the classes whose objects are not found any more, while the others' are."""
    pairs = pair_all(source, suspect, conf=0.3)
    kept = (pairs.classes[:, 0] == pairs.classes[:, 1]) & (pairs.scores[:, 1] >= 0.5 * pairs.scores[:, 0])
    offered = Counter(int(one) for boxes in source for one in boxes.class_ids[boxes.scores >= 0.3])
    found = Counter(pairs.classes[kept, 0].tolist())
    missed = {one: offered[one] - found[one] for one in offered}
    result = []
    for one, count in offered.items():
        rest = sum(offered.values()) - count
        others = (sum(missed.values()) - missed[one]) / rest if rest else 0.0
        chance = tail(missed[one], count, min(max(1.5 * others, _HEALTHY_LOSS), 0.95)) * len(offered)
        if count >= _LEAST_OF_CLASS and missed[one] >= 0.5 * count and chance <= 10 * _SURE and others < 0.35:
            table = confusion(pairs).get(one, Counter())
            became = next((new for new, hits in table.most_common(2) if new != one and hits >= 0.5 * missed[one]), None)
            result.append(Lost(one, count, missed[one], others, became))
    if len(result) > max(1, len(offered) // 2):
        return ()  # not a class, but the model
    return tuple(sorted(result, key=lambda one: (-one.lost, one.class_id)))


def _matched_share(source: Sequence[Boxes], suspect: Sequence[Boxes]) -> tuple[float, float]:
    """Returns the share of confident objects of both sides that match closely, and its standard error over images."""
    matched, counted = [], []
    for one, other in zip(source, suspect, strict=True):
        pairs = pair_all([one], [other], conf=0.15, least_iou=0.8)
        sides: NDArray[np.bool_] = pairs.scores >= CONFIDENT
        close = (pairs.classes[:, 0] == pairs.classes[:, 1]) & (np.abs(np.diff(pairs.scores, axis=1)[:, 0]) <= 0.1)
        matched.append(int(sides[close].sum()))
        counted.append(int((one.scores >= CONFIDENT).sum() + (other.scores >= CONFIDENT).sum()))
    hits, total = np.array(matched, np.float64), np.array(counted, np.float64)
    if not total.sum():
        return 1.0, 0.0
    share = float(hits.sum() / total.sum())
    # Standard error of a ratio of sums (linearised), images being the units.
    spread = float(np.sqrt(((hits - share * total) ** 2).sum()) / total.sum())
    return share, spread
