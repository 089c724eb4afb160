# SPDX-License-Identifier: Apache-2.0
"""Evidence of what another program predicted: how it was written, what preprocessing explains it. All input is here. Private to the room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.dataset.evidence import Boxes
from shipsight.doctor.dataset.pairing import agreement, overlaps
from shipsight.doctor.dataset.thresholds import Baked
from shipsight.doctor.preprocessing.agreeing import (
    BOX_FORMS,
    learn_classes,
    map_classes,
    read_boxes,
    share_agreeing,
    suppress_again,
    undo_scores,
)
from shipsight.doctor.preprocessing.answers import Answerer
from shipsight.doctor.preprocessing.chain import expected_chain, render
from shipsight.doctor.preprocessing.collecting import open_photo
from shipsight.doctor.preprocessing.evidence import Difference, PreprocessingEvidence, Residual
from shipsight.doctor.preprocessing.guessing import DEADLINE_S, Guess, Guesser, Subject
from shipsight.doctor.preprocessing.reading_predictions import Told, read_predictions
from shipsight.doctor.preprocessing.telling import differing_steps
from shipsight.doctor.task_limits import uncompared

__all__ = ["collect_predictions"]

_MOST = 16
_FEW = 6
_FLOOR = 0.25
_EXPLAINED = 0.35
"""Share of the answers that may disagree without a reason: INT8 variants of the same model gave up to 0.25."""
_LEAST_MISSING = 5


def collect_predictions(case: Case, path: Path, progress: Progress) -> PreprocessingEvidence:
    """Collects the evidence of predictions.

    Raises:
        CorruptError: the file holds no predictions.
        UsageError: they are of none of the images.
        ImageError: an image cannot be read.
    """
    told = read_predictions(path, case.images)
    written = _written(told)
    places = _informative(case, told, written.boxes)
    subjects = [Subject(open_photo(case.images[at]), written.boxes[at]) for at in places]
    progress.part(1, 4)
    with Answerer(case) as answerer:
        expected = expected_chain(answerer.card.input)
        guesser = Guesser(answerer, subjects, expected, written.floor, told.is_coco)
        _choose_reading(guesser, told)
        best = _guess(guesser)
        progress.part(3, 4)
        differences = _differences(case, guesser, best, written)
        plain = share_agreeing(guesser.parts(Guess(expected), len(subjects)))
        whole = share_agreeing(guesser.parts(best, len(subjects)))
        baked = _baked(guesser, best, written)
    progress.part(4, 4)
    is_explained = 1 - whole <= _EXPLAINED or baked is not None
    return PreprocessingEvidence(
        is_tensor=False,
        images=len(subjects),
        differences=differences,
        residual=Residual(1 - plain, 1 - whole, is_explained=is_explained),
        not_told=(*_notes(subjects, guesser, best), *uncompared(case.card.task)),
        baked=baked,
    )


@dataclass(frozen=True, eq=False)
class _Written:
    """Predictions, with what was plainly done to them undone.

    Attributes:
        boxes: position of the image -> boxes.
        scores: what was done to scores, in words.
        copies: boxes that overlap a better one of their class, in all.
        count: boxes in all, as written.
        floor: least score that counts.
        least: least score that is told; None where nothing is told.
    """

    boxes: dict[int, Boxes]
    scores: str
    copies: int
    count: int
    floor: float
    least: float | None


def _written(told: Told) -> _Written:
    undone, scores = undo_scores(list(told.images.values()))
    kept = [suppress_again(one, 0.8) for one in undone]
    count = sum(len(one) for one in undone)
    # Thousands of boxes below any threshold that is shown say nothing of suppression.
    shown = [one.pick(one.scores >= _FLOOR) for one in undone]
    copies = sum(len(one) - len(suppress_again(one, 0.8)) for one in shown)
    is_many = copies >= max(10, 0.3 * sum(len(one) for one in shown))
    boxes = dict(zip(told.images, kept if is_many else undone, strict=True))
    least = min((float(one.scores.min()) for one in undone if len(one)), default=None)
    return _Written(boxes, scores, copies if is_many else 0, count, max(_FLOOR, min(least or 0.0, 0.9)), least)


def _informative(case: Case, told: Told, boxes: dict[int, Boxes]) -> list[int]:
    """Returns the images that tell most: with some objects, not square, that ask to be turned."""
    from shipsight.vision.image_header import read_header

    def worth(at: int) -> float:
        header = read_header(case.images[at].read_bytes(), str(case.images[at]))
        long, short = max(header.width, header.height), min(header.width, header.height)
        shape = min(long / max(short, 1) - 1, 1.0)
        return min(int((boxes[at].scores >= _FLOOR).sum()), 6) / 6 + shape + (header.orientation != 1)

    del told
    some = sorted(boxes)[: case.limit]
    return sorted(some, key=lambda at: -worth(at))[:_MOST]


def _choose_reading(guesser: Guesser, told: Told) -> None:
    """Takes the class ids as the data set may mean them: counted from 0, from 1, or with COCO's gaps."""
    if len(told.readings) == 1:
        return
    few = min(_FEW, len(guesser.subjects))
    values = []
    for reading in told.readings:
        guesser.classes = dict(reading)
        values.append(share_agreeing(guesser.parts(Guess(guesser.expected), few)))
    guesser.classes = dict(told.readings[int(np.argmax(values))])


def _guess(guesser: Guesser) -> Guess:
    """Searches with classes; where little agrees, without them, learns what they were called, and searches again."""
    few = min(_FEW, len(guesser.subjects))
    best = guesser.guess(few)
    value = share_agreeing(guesser.parts(best, len(guesser.subjects)))
    if value > 0.75:
        return best
    guesser.has_classes = False
    blind = guesser.guess(few)
    guesser.has_classes = True
    ours, theirs = _both(guesser, blind)
    table = learn_classes(ours, theirs)
    if not table:
        return best
    before = guesser.classes
    guesser.classes = (
        {**before, **{raw: table.get(now, now) for raw, now in before.items()}, **table} if before else table
    )
    again = share_agreeing(guesser.parts(blind, len(guesser.subjects)))
    if again < value + 0.15:
        guesser.classes = before
        return best
    return blind


def _both(guesser: Guesser, guess: Guess) -> tuple[list[Boxes], list[Boxes]]:
    answers = guesser.answers(guess.chain, len(guesser.subjects))
    ours = [one.pick(one.scores >= guesser.floor) for one, _ in answers]
    theirs = [
        read_boxes(map_classes(one.theirs, guesser.classes), guess.form, geometry)
        for one, (_, geometry) in zip(guesser.subjects, answers, strict=True)
    ]
    return ours, theirs


def _differences(case: Case, guesser: Guesser, best: Guess, written: _Written) -> tuple[Difference, ...]:
    count = len(guesser.subjects)
    whole = guesser.parts(best, count)
    rivals = {step: guesser.parts(one, count) for step, one in guesser.without(best)}
    right = [one.pick(one.scores >= _FLOOR) for one, _ in guesser.answers(guesser.expected, count)]
    found = []
    pad = best.chain.pad if best.chain.pad != guesser.expected.pad else None
    for step in differing_steps(best.chain, guesser.expected, best.scaling, pad, case.card.input):
        rival = rivals[step.step]
        wrong = right if step.alone is None else [one for one, _ in guesser.answers(step.alone, count)]
        sure, left = guesser.certainty(whole, rival), 1 - share_agreeing(rival)
        found.append(Difference(step.rule, step.words, sure, 1 - agreement(right, wrong), left, step.figures))
    _, theirs = _both(guesser, best)
    if "form" in rivals:
        rule = "boxes-not-mapped-back" if best.form == "corners in the model's pixels" else "box-format-wrong"
        raw = [one.theirs for one in guesser.subjects]
        left = 1 - share_agreeing(rivals["form"])
        lost = 1 - agreement([*theirs], [map_classes(one, guesser.classes) for one in raw])
        words = f"Boxes are written as {best.form}"
        found.append(Difference(rule, words, guesser.certainty(whole, rivals["form"]), lost, left))
    moved = {one: other for one, other in guesser.classes.items() if one != other}
    if moved and not guesser.is_coco:
        kept, guesser.classes = guesser.classes, {}
        plain = guesser.parts(best, count)
        guesser.classes = kept
        shown = list(moved.items())[:3]
        words = "; ".join(f"class {other} is called {one}" for one, other in shown) + f" ({len(moved)} classes in all)"
        left = 1 - share_agreeing(plain)
        found.append(Difference("class-order-wrong", words, guesser.certainty(whole, plain), left, left))
    left = 1 - share_agreeing(whole)
    if written.scores:
        words = f"Scores {written.scores}"
        found.append(Difference("scores-wrong", words, 1.0, 1.0, left))
    if written.copies:
        share = written.copies / max(written.count, 1)
        words = f"{written.copies} of {written.count} boxes overlap a better one of their class by more than 0.8"
        found.append(Difference("no-suppression", words, 1.0, share, left))
    return tuple(found)


def _baked(guesser: Guesser, best: Guess, written: _Written) -> Baked | None:
    """Returns thresholds above what is usual: scores that are never told, boxes that are suppressed and should not be."""
    answers = guesser.answers(best.chain, len(guesser.subjects))
    right = [one.pick(one.scores >= _FLOOR) for one, _ in answers]
    _, theirs = _both(guesser, best)
    conf = None
    missing = 0
    least = written.least
    if least is not None and least > _FLOOR * 1.2:
        missing = sum(int((one.scores < 0.95 * least).sum()) for one in right)
        conf = float(np.floor(least * 100) / 100) if missing >= _LEAST_MISSING else None
    cut = [one.pick(one.scores >= (least if conf is not None and least is not None else _FLOOR)) for one in right]
    highest = max((_nearest(one) for one in theirs), default=0.0)
    wrong = sum(int((_near(one) > highest + 0.05).sum()) for one in cut)
    iou = round(max(highest, 0.0), 2) if wrong >= _LEAST_MISSING and not written.copies and highest < 0.6 else None
    if conf is None and iou is None:
        return None
    value = agreement(right, [suppress_again(one, iou) if iou is not None else one for one in cut])
    return Baked(
        conf, None, iou, (missing if conf is not None else 0) + (wrong if iou is not None else 0), len(right), value
    )


def _near(boxes: Boxes) -> np.ndarray:
    table = overlaps(boxes.boxes_xyxy, boxes.boxes_xyxy)
    same = np.triu(boxes.class_ids[:, None] == boxes.class_ids[None], 1)
    return np.asarray(table[same])


def _nearest(boxes: Boxes) -> float:
    return float(_near(boxes).max(initial=0.0))


def _notes(subjects: Sequence[Subject], guesser: Guesser, best: Guess) -> tuple[str, ...]:
    notes = []
    asked = guesser.expected
    if asked.fit == "letterbox":
        whole = all(render(one.photo, asked).window[2:] == asked.size_hw for one in subjects)
        if whole:
            notes.append(
                "All images have the shape of the input: stretching, cropping and padding cannot be told from predictions of them."
            )
    if not any(len(one.theirs) for one in subjects):
        notes.append("Nothing is predicted for any of the images: several faults do that, and the commonest is told.")
    if best.form == BOX_FORMS[0] and len(subjects) < 4:
        notes.append(f"{len(subjects)} images are few: give 16 to tell faults with weak effects.")
    if guesser.was_cut:
        notes.append(
            f"The search ended after {DEADLINE_S:.0f} s: steps that are wrong together may be missed. Give fewer images, or a faster machine."
        )
    return tuple(notes)
