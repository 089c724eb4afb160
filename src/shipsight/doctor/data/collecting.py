# SPDX-License-Identifier: Apache-2.0
"""Collects the evidence of the data: reads, measures, looks with the model, explains, prices. Private.

In the order in which one mistake hides another: files, copies, borders, mistakes that can be undone, then distributions. What was found
is undone before the next is looked at, so that each is told once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure import Labels, load_dataset
from shipsight.build.measure.labels import LabelFormat, read_labels
from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.data.borders import Border, add_border, crop_border, find_border
from shipsight.doctor.data.content import Objects, Strangeness, compare_mix, compare_sizes, how_strange
from shipsight.doctor.data.correcting import (
    MISTAKES,
    QUARTER,
    QUARTERS,
    SWAP_GAIN,
    Correction,
    choose,
    try_corrections,
)
from shipsight.doctor.data.costing import Cost, Golden, pick, price
from shipsight.doctor.data.deviations import Deviation, deviate, ks_distance, ks_p_value
from shipsight.doctor.data.evidence import DataEvidence, Scores
from shipsight.doctor.data.explaining import Effect, Explanation, candidates, explain, measure_effect
from shipsight.doctor.data.eye import Eye, Look
from shipsight.doctor.data.pictures import show
from shipsight.doctor.data.reading import ReadImage, find_copies, read_files
from shipsight.doctor.data.shifts import KINDS, Moved, cast_kind
from shipsight.doctor.data.training import Training
from shipsight.errors import CorruptError
from shipsight.model import Task
from shipsight.proof import GoldenFiles
from shipsight.proof.image_measures import measure_image

__all__ = ["collect", "read_training"]

Image = NDArray[np.uint8]
_PLACE = "proof/training-stats.json"
_GOLDEN_IMAGES = 8
_EFFECT_IMAGES = 4
_PAIRS = 10
_SWAP_PAIRS = 32
_LEAST_CAST = 0.08
"""Spread of the three colours' changes, as logarithms, from which a change of light is one of colour."""
_DOUBT = 0.2
_STRANGE = 0.1


def read_training(case: Case) -> Training | None:
    """Reads the training statistics of a bundle; None where it was built without data.

    Raises:
        CorruptError: they are not what the format describes.
    """
    recorded = case.bundle.read_json(_PLACE) if _PLACE in case.bundle.names else None
    if not recorded:
        return None
    try:
        return Training.of(recorded)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError("training statistics do not fit", where=_PLACE, got=error) from error


@dataclass(frozen=True, eq=False)
class _Bench:
    """What all steps use."""

    case: Case
    training: Training
    eye: Eye
    golden: Golden
    tick: Callable[[], None]


def collect(case: Case, training: Training, progress: Progress) -> DataEvidence:
    """Collects the evidence.

    Raises:
        CorruptError: a file of the bundle's proof does not fit.
        DatasetError: the labels cannot be read.
    """
    paths = case.looked_at
    done, total = 0, 3 * len(paths) + 60

    def tick() -> None:
        nonlocal done
        done = min(done + 1, total)
        progress.part(done, total)

    files = read_files(paths, tick)
    copies = find_copies(files.images)
    images = [files.images[at] for at in copies.kept]
    read = DataEvidence(
        looked_at=files.looked_at,
        refused=files.refused,
        turned_by_file=sum(one.is_turned for one in files.images),
        copies=copies,
        distinct=len(images),
        training_images=training.images,
    )
    if not read.is_enough:
        return read
    recorded = case.bundle.read_json(_PLACE).get("embedding") or {}
    eye = Eye(case, recorded.get("tensor"))
    try:
        bench = _Bench(case, training, eye, _read_golden(case, eye, tick), tick)
        return _examine(bench, images, read)
    finally:
        eye.close()


def _examine(bench: _Bench, images: Sequence[ReadImage], read: DataEvidence) -> DataEvidence:
    as_given = [one.image_rgb for one in images]
    border = find_border(as_given)
    if border is not None and find_border(bench.golden.images) is not None:
        border = None  # training had them too
    pixels = as_given if border is None else [crop_border(one) for one in as_given]
    values = _measure(images, pixels, bench.tick)
    looks = [_ticked(bench.eye.look(image), bench.tick) for image in pixels]
    deviations = deviate(values, bench.training.measures)
    corrections, correction = _correct(bench, pixels, looks, deviations)
    if correction is not None:
        pixels = [MISTAKES[correction.mistake].undo(image) for image in pixels]
        values = _measure(images, pixels, bench.tick)
        looks = [_ticked(bench.eye.look(image), bench.tick) for image in pixels]
        deviations = deviate(values, bench.training.measures)
    explanation = _explain(bench, pixels, deviations)
    costs, moves = _price_all(bench, border, correction, explanation)
    objects, is_labelled = _objects(bench.case, [one.at for one in images], looks, bench.golden.conf)
    evidence = replace(
        read,
        border=border,
        corrections=corrections,
        correction=correction,
        deviations=deviations,
        explanation=explanation,
        costs=costs,
        scores=_score(looks, bench.training),
        mix=compare_mix(objects, bench.case.card.class_names, bench.training.classes),
        sizes=compare_sizes(objects, bench.training.measures.get("object_size")),
        is_labelled=is_labelled,
        by_class=_by_class(bench.case),
        strangeness=_strange(looks, bench.training, moves),
    )
    return show(evidence, as_given, bench.golden.images, values, bench.training)


def _ticked(look: Look, tick: Callable[[], None]) -> Look:
    tick()
    return look


def _read_golden(case: Case, eye: Eye, tick: Callable[[], None]) -> Golden:
    """Takes the user's golden images; drawn scenes only where the bundle has none of them."""
    files = GoldenFiles.of(case.bundle)
    for kind in ("images", "synthetic"):
        images = [files.image(key) for key in files.keys(kind)[:_GOLDEN_IMAGES]]
        golden = pick(
            images, [_ticked(eye.look(one), tick) for one in images], files.criteria.conf, are_real=kind == "images"
        )
        if golden.images:
            return golden
    return Golden((), (), files.criteria.conf, are_real=False)


def _measure(images: Sequence[ReadImage], pixels: Sequence[Image], tick: Callable[[], None]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for one, image in zip(images, pixels, strict=True):
        for name, value in measure_image(image).items():
            values.setdefault(name, []).append(value)
        if one.quality is not None:
            values.setdefault("jpeg_quality", []).append(one.quality)
        tick()
    return values


def _score(looks: Sequence[Look], training: Training) -> Scores | None:
    recorded = training.measures.get("best_score")
    if recorded is None:
        return None
    here = np.array([look.best_score for look in looks])
    p_value = ks_p_value(ks_distance(here, recorded), len(here), recorded.count)
    return Scores(float(here.mean()), recorded.mean, p_value)


def _strange(
    looks: Sequence[Look], training: Training, explained: NDArray[np.float64] | None = None
) -> Strangeness | None:
    vectors = [look.vector for look in looks if look.vector is not None]
    if training.embedding is None or len(vectors) < 2:
        return None
    return how_strange(np.array(vectors), training.embedding, explained)


def _correct(
    bench: _Bench, pixels: Sequence[Image], looks: Sequence[Look], deviations: Sequence[Deviation]
) -> tuple[tuple[Correction, ...], Correction | None]:
    """Tries what can be undone where the model is unsure; returns what was tried, and what made it surer."""
    if not _calls_for_correction(_score(looks, bench.training), _strange(looks, bench.training)):
        return (), None
    step = max(1, len(pixels) // _PAIRS)
    tried = try_corrections(pixels[::step][:_PAIRS], bench.eye, bench.tick)
    chosen = choose(tried)
    if chosen is None and _may_be_swapped(deviations, bench.training):
        # Many models hardly look at colour: more pairs show a smaller gain.
        more = try_corrections(pixels[:_SWAP_PAIRS], bench.eye, bench.tick, names=("swapped",))
        tried, chosen = (*tried, *more), choose(more, SWAP_GAIN)
    return tried, chosen


def _may_be_swapped(deviations: Sequence[Deviation], training: Training) -> bool:
    """Tells whether red and blue moved against each other, each to about where the other was in training."""
    found = {one.measure: one for one in deviations}
    if not {"red", "blue"} <= set(found):
        return False
    red, blue = found["red"], found["blue"]
    apart = np.log(training.measures["red"].median + 2) - np.log(training.measures["blue"].median + 2)
    moved, error = blue.shift - red.shift, float(np.hypot(red.error, blue.error))
    # An exchange moves blue by the distance of the two, and red by as much back.
    return bool(abs(moved) > 2 * error and abs(moved - 2 * apart) < max(2 * error, abs(apart)))


def _calls_for_correction(scores: Scores | None, strangeness: Strangeness | None) -> bool:
    """Tells whether the model is unsure: seventy looks are not spent where nothing can be won by a correction."""
    if scores is None:
        return True
    return (scores.lost > 0.02 and scores.p_value < _DOUBT) or (
        strangeness is not None and strangeness.middle > _STRANGE
    )


def _may_lie(bench: _Bench, pixels: Sequence[Image]) -> bool:
    """Tells whether the images may lie on a side: turned back, one way at least, the model is not clearly less sure of them."""
    step = max(1, len(pixels) // _PAIRS)
    tried = try_corrections(pixels[::step][:_PAIRS], bench.eye, bench.tick, names=QUARTERS)
    return not all(one.is_refuted for one in tried)


def _explain(bench: _Bench, pixels: Sequence[Image], deviations: Sequence[Deviation]) -> Explanation:
    kinds = list(KINDS)
    if any(one.measure == "aspect" and one.is_clear for one in deviations) and _may_lie(bench, pixels):
        kinds.append(QUARTER)
    colours = np.array([one.shift for one in deviations if one.measure in ("red", "green", "blue")])
    if len(colours) == 3 and np.ptp(colours) >= _LEAST_CAST:
        kinds.append(cast_kind(colours))
    found = candidates(deviations, kinds)
    if not found or not bench.golden.images:
        return Explanation((), 0.0, 0.0)
    measures = [one.measure for one in deviations]
    recorded = bench.training.measures.get("jpeg_quality")
    effects: list[Effect] = [
        measure_effect(
            kind,
            strengths,
            bench.golden.images[:_EFFECT_IMAGES],
            measures,
            jpeg_quality=None if recorded is None else recorded.median,
            tick=bench.tick,
        )
        for kind, strengths in found
    ]
    return explain(deviations, effects)


def _price_all(
    bench: _Bench, border: Border | None, correction: Correction | None, explanation: Explanation
) -> tuple[dict[str, Cost], NDArray[np.float64] | None]:
    """Prices every cause by itself; returns the costs by rule, and the move of the features that all together account for."""
    changes: dict[str, Callable[[Image], Moved]] = {}
    if border is not None:
        changes["borders-added"] = partial(add_border, border=border)
    if correction is not None:
        mistake = MISTAKES[correction.mistake]
        changes[mistake.rule] = mistake.do
    undone = set(changes)  # the looks that are compared were taken without these
    for cause in explanation.causes:
        changes[cause.rule] = partial(cause.kind.apply, strength=cause.strength)
    costs: dict[str, Cost] = {}
    moves: list[NDArray[np.float64]] = []
    for rule, change in changes.items():
        cost, move = price(bench.golden, change, bench.eye)
        bench.tick()
        if cost is not None:
            costs[rule] = cost
        if move is not None and rule not in undone:
            moves.append(move)
    return costs, np.sum(moves, axis=0) if moves else None


def _objects(case: Case, places: Sequence[int], looks: Sequence[Look], conf: float) -> tuple[list[Objects], bool]:
    """Returns the objects of each image: of its labels where the case has them, else of the model's predictions."""
    if case.labels is None or case.card.task is Task.CLASSIFY:
        return [_predicted(look, conf) for look in looks], False
    read = _label_reader(case, case.labels)
    return [_labelled(read(case.looked_at[at])) for at in places], True


def _label_reader(case: Case, labels: Path) -> Callable[[Path], Labels]:
    if labels.is_file():
        dataset = load_dataset(labels, case.card.task, class_names=case.card.class_names)
        samples = {sample.image.name: sample for split in dataset.splits.values() for sample in split}
        none = Labels(np.zeros(0, dtype=np.int64), np.zeros((0, 4)))
        return lambda image: samples[image.name].labels if image.name in samples else none
    layout = LabelFormat(case.card.task, len(case.card.class_names), _keypoints(case))
    return lambda image: read_labels(labels / f"{image.stem}.txt", layout)


def _keypoints(case: Case) -> tuple[int, int] | None:
    shape = getattr(case.card.output, "keypoint_shape", None)
    return None if shape is None else (int(shape[0]), int(shape[1]))


def _labelled(labels: Labels) -> Objects:
    sizes = np.sqrt(np.clip(labels.boxes_cxcywh[:, 2] * labels.boxes_cxcywh[:, 3], 0, None))
    return Objects(labels.class_ids, sizes)


def _predicted(look: Look, conf: float) -> Objects:
    found = look.predictions
    if found.probabilities is not None:
        return Objects(np.array([int(found.probabilities.argmax())]), np.zeros(0))
    kept = found.scores >= conf
    if found.corners_xy is not None:
        spans = np.ptp(found.corners_xy[kept], axis=1)
    elif found.boxes_xyxy is not None:
        spans = found.boxes_xyxy[kept][:, 2:] - found.boxes_xyxy[kept][:, :2]
    else:
        spans = np.zeros((int(kept.sum()), 2))
    areas = np.clip(spans.astype(np.float64).prod(axis=1), 0, None) / (found.width * found.height)
    return Objects(found.class_ids[kept], np.sqrt(areas))


def _by_class(case: Case) -> dict[str, float]:
    """Returns F1 of the source model by class, as far as it was measured at the build."""
    place = "proof/reference.json"
    recorded = case.bundle.read_json(place) if place in case.bundle.names else {}
    source = recorded.get("source") or {}
    found = source.get("by_class") or {}
    return {name: float(one["f1"]) for name, one in found.items() if one.get("f1") is not None}
