# SPDX-License-Identifier: Apache-2.0
"""What source, suspect and labels say of the same images. All input and output of the examination is here.

The source is the bundle's reference variant, which parity holds to the trained model. Images are those that were given, else the
golden set. Private to the room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure import Accuracy, Labels, Sample, compare, evaluate, load_dataset
from shipsight.build.measure.average_precision import mean_average_precision
from shipsight.build.measure.labels import LabelFormat, read_labels
from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.dataset.evidence import Boxes, DatasetEvidence, Measured, Seen
from shipsight.doctor.suspect import Suspect, SuspectKind, open_suspect
from shipsight.doctor.task_limits import uncompared
from shipsight.errors import DatasetError, ImageError, UsageError
from shipsight.model import Head, ImagePredictions, Task
from shipsight.predictor import Predictor, load
from shipsight.proof import GoldenFiles
from shipsight.vision import PredictSettings, decode_image

__all__ = ["boxes_of", "collect_dataset", "least_score"]

_IOU = 0.7
_MOST = 300
_RESAMPLES = 400


@dataclass(frozen=True)
class _Given:
    """An image, and what is written of it."""

    sample: Sample | None
    pixels: Path | NDArray[np.uint8]


def least_score(task: Task) -> float:
    """Returns the least score that is asked: as for mAP, but higher for masks, which take memory and time."""
    return 0.01 if task is Task.SEGMENT else 0.001


def collect_dataset(case: Case, progress: Progress) -> DatasetEvidence:
    """Collects the evidence of a case.

    Raises:
        ShipsightError: the suspect, all images or a label file cannot be used.
    """
    given, label_names = _given(case)
    floor = least_score(case.card.task)
    reference = next((one.name for one in case.bundle.variants if one.is_reference), None)
    seen: list[Seen] = []
    samples: list[Sample] = []
    unreadable: list[ImageError] = []
    ours: list[ImagePredictions] = []
    theirs: list[ImagePredictions] = []
    with load(case.bundle, variant=reference, threads=case.threads) as source, open_suspect(case) as suspect:
        for number, one in enumerate(given):
            try:
                image = decode_image(one.pixels) if isinstance(one.pixels, Path) else one.pixels
            except ImageError as error:
                # The examination of the data tells of files that are damaged; the others still tell of the model.
                unreadable.append(error)
                continue
            answers = _ask(source, suspect, image, floor)
            seen.append(_see(source, *answers, None if one.sample is None else one.sample.labels))
            if one.sample is not None:
                samples.append(one.sample)
                ours.append(answers[0])
                theirs.append(answers[1])
            progress.part(number + 1, len(given))
        if unreadable and not seen:
            raise unreadable[0]
        measured = None
        if samples:
            measured = _measure(case, source, samples, ours, theirs)
        evidence = _evidence(case, suspect, tuple(seen), label_names, measured, floor)
    return replace(evidence, not_told=_not_told(case, evidence, len(unreadable)))


def _not_told(case: Case, evidence: DatasetEvidence, unreadable: int) -> tuple[str, ...]:
    # With labels, masks and keypoints are part of the accuracy.
    told = () if evidence.measured is not None else uncompared(case.card.task, by_hulls=True)
    if not unreadable:
        return told
    return (*told, f"{unreadable} of {unreadable + len(evidence.seen)} images cannot be read and were left out.")


def _evidence(
    case: Case,
    suspect: Suspect,
    seen: tuple[Seen, ...],
    label_names: tuple[str, ...] | None,
    measured: Measured | None,
    floor: float,
) -> DatasetEvidence:
    recorded, images = _recorded(case)
    names = suspect.card.class_names if suspect.card is not None and suspect.is_described else None
    return DatasetEvidence(
        class_names=case.card.class_names,
        suspect_names=names,
        label_names=label_names,
        seen=seen,
        side=max(case.card.input.size_hw),
        is_same_file=suspect.kind is SuspectKind.VARIANT,
        is_integer=None if suspect.session is None else suspect.session.precision().integer_convolutions > 0,
        is_classifier=case.card.task is Task.CLASSIFY,
        is_upright=case.card.task is not Task.OBB,
        floor=floor,
        most=_MOST,
        iou=_IOU,
        expected_share=_expected_share(case) if suspect.kind is SuspectKind.VARIANT else None,
        reported={key: value for key, value in case.card.training.metrics.items() if key.startswith("metrics/")},
        recorded=recorded,
        recorded_images=images,
        measured=measured,
        digest=case.bundle.digest,
        suspect_digest=suspect.digest,
    )


def _given(case: Case) -> tuple[list[_Given], tuple[str, ...] | None]:
    """Returns the images with their labels where there are any, and the labels' class names."""
    if case.labels is not None:
        return _labelled(case, case.labels)
    if case.looked_at:
        return [_Given(None, path) for path in case.looked_at], None
    golden = GoldenFiles.of(case.bundle)
    return [_Given(None, golden.image(key)) for key in golden.keys()[: case.limit]], None


def _labelled(case: Case, labels: Path) -> tuple[list[_Given], tuple[str, ...] | None]:
    card = case.card
    if labels.suffix in (".yaml", ".yml") or (labels.is_dir() and card.task is Task.CLASSIFY):
        names = card.class_names if card.task is Task.CLASSIFY else None
        dataset = load_dataset(labels, card.task, class_names=names)
        samples = next(dataset.splits[split] for split in ("val", "test", "train") if split in dataset.splits)
        if case.images:
            every = {one.image.resolve(): one for split in dataset.splits.values() for one in split}
            samples = tuple(every[path.resolve()] for path in case.images if path.resolve() in every)
        if not samples:
            raise DatasetError("none of the images stands in the data set", where=labels)
        step = max(len(samples) / case.limit, 1.0)
        chosen = [samples[int(number * step)] for number in range(min(len(samples), case.limit))]
        return [_Given(one, one.image) for one in chosen], dataset.class_names
    if not labels.is_dir():
        raise UsageError("no labels", where="--labels", expected="a folder of .txt files, or a data.yaml", got=labels)
    if not case.looked_at:
        raise UsageError("labels without images", where="--labels", expected="--images, or a data.yaml")
    layout = LabelFormat(card.task, len(card.class_names), card.output.keypoint_shape)
    return [_Given(_sample(path, labels / f"{path.stem}.txt", layout), path) for path in case.looked_at], None


def _sample(image: Path, file: Path, layout: LabelFormat) -> Sample:
    def read() -> Labels:
        return read_labels(file, layout)

    return Sample(image, read)


def _ask(
    source: Predictor, suspect: Suspect, image: NDArray[np.uint8], floor: float
) -> tuple[ImagePredictions, ImagePredictions]:
    ours = source.predict_one(None, image, PredictSettings(conf=floor, iou=_IOU, max_det=_MOST))
    return ours, suspect.predict(image, conf=floor, iou=_IOU, max_det=_MOST)


def _see(source: Predictor, ours: ImagePredictions, theirs: ImagePredictions, labels: Labels | None) -> Seen:
    height, width = source.card.input.size_hw
    sides = ours.width, ours.height
    written = None if labels is None else _labels(labels, sides, ours.probabilities is not None)
    return Seen(min(height / ours.height, width / ours.width), boxes_of(ours), boxes_of(theirs), written)


def boxes_of(answer: ImagePredictions) -> Boxes:
    """Returns what is compared of an image's predictions; a classifier's best class is one box that covers the image."""
    if answer.probabilities is not None:
        best = int(answer.probabilities.argmax())
        score = float(answer.probabilities[best])
        whole = np.array([[0.0, 0.0, answer.width, answer.height]])
        return Boxes(np.array([best]), np.array([score]), whole)
    if answer.corners_xy is not None:
        corners = answer.corners_xy.astype(np.float64)
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    else:
        boxes = np.zeros((0, 4)) if answer.boxes_xyxy is None else answer.boxes_xyxy.astype(np.float64)
    return Boxes(answer.class_ids.astype(np.int64), answer.scores.astype(np.float64), boxes)


def _labels(labels: Labels, sides: tuple[int, int], is_classifier: bool) -> Boxes:
    scale = np.array([*sides, *sides], np.float64)
    centre, size = labels.boxes_cxcywh[:, :2], labels.boxes_cxcywh[:, 2:]
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1) * scale
    if is_classifier:
        boxes = np.array([[0.0, 0.0, *sides]])
    return Boxes(labels.class_ids.astype(np.int64), np.ones(len(labels)), boxes)


def _measure(
    case: Case,
    source: Predictor,
    samples: Sequence[Sample],
    ours: Sequence[ImagePredictions],
    theirs: Sequence[ImagePredictions],
) -> Measured | None:
    """Measures both on the labels; None where they hold no object."""

    def of(predictions: Iterable[ImagePredictions]) -> Accuracy:
        named = _named(predictions, samples)
        return evaluate(named, samples, task=case.card.task, class_names=case.card.class_names)

    first, second = of(ours), of(theirs)
    if (first.top1 if case.card.task is Task.CLASSIFY else first.map50_95) is None:
        return None
    low, high = _interval(first, case.seed)
    return Measured(
        source=first.value,
        suspect=second.value,
        drop=compare(first, second, resamples=_RESAMPLES, seed=case.seed),
        low=low,
        high=high,
        multi_label=_multi_label(case, source, samples, of),
    )


def _named(predictions: Iterable[ImagePredictions], samples: Sequence[Sample]) -> Iterator[ImagePredictions]:
    """Both sides are compared image by image under one name."""
    for one, sample in zip(predictions, samples, strict=True):
        yield replace(one, source=str(sample.image))


def _interval(accuracy: Accuracy, seed: int) -> tuple[float, float]:
    """Returns the 95 % interval of an accuracy over its images (percentile bootstrap)."""
    count = accuracy.image_count
    rng = np.random.default_rng([seed, 1])
    weights = rng.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES).astype(np.float64)
    if accuracy.table is not None:
        values = np.asarray(mean_average_precision(accuracy.table, weights).mean(axis=1))
    else:
        assert accuracy.hits is not None
        values = weights @ accuracy.hits / count
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def _multi_label(case: Case, source: Predictor, samples: Sequence[Sample], of: Any) -> float | None:  # noqa: ANN401 - a function
    """Returns the source's accuracy where an anchor may give several classes, as Ultralytics' `val` has it."""
    is_possible = case.card.output.head in (Head.YOLOV8, Head.YOLOX) and case.card.task is Task.DETECT
    if not is_possible or not any(key.startswith("metrics/mAP50-95") for key in case.card.training.metrics):
        return None
    settings = PredictSettings(conf=least_score(case.card.task), iou=_IOU, max_det=_MOST, multi_label=True)
    answers = [source.predict_one(None, decode_image(one.image), settings) for one in samples]
    value: float = of(answers).value
    return value


def _recorded(case: Case) -> tuple[float | None, int]:
    """Returns the source's accuracy in the proof, and on how many images."""
    try:
        told = case.bundle.read_json("proof/reference.json")
        source = told["source"]
        value = source.get(str(source.get("metric")))
        return (float(value) if value is not None else None), int(source.get("images") or 0)
    except (KeyError, TypeError, AttributeError):
        return None, 0  # a bundle built without labelled images has no accuracy


def _expected_share(case: Case) -> float | None:
    """Returns the share of predictions that the variant matched when it was built."""
    try:
        told = case.bundle.read_json("proof/parity.json")["variants"][case.variant.name]["predictions"]
        return float(told["share"])
    except (KeyError, TypeError):
        return None
