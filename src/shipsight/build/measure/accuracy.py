# SPDX-License-Identifier: Apache-2.0
"""Accuracy of predictions against labels, for all five tasks.

What for: one call from predictions to the numbers that the report shows, with the matches that intervals are made of.
Leaves to others: making predictions (`inference`), intervals (`intervals`). Invariants: predictions may come from a
generator and are looked at one image at a time, so masks of a whole data set never stand in memory; the same
predictions give the same numbers, bit by bit. Stable.

Definitions, and why they differ from Ultralytics' by up to 0.005: `docs/accuracy.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure.average_precision import average_precision, confidence_curves, mean_average_precision
from shipsight.build.measure.coco_backend import CocoSummary
from shipsight.build.measure.dataset import Sample
from shipsight.build.measure.matching import AREAS, MAX_DETECTIONS, MatchTable
from shipsight.build.measure.task_matching import TASK_MATCHERS, TaskMatcher
from shipsight.errors import CorruptError, InternalError, UsageError
from shipsight.model import ImagePredictions, Task

__all__ = ["Accuracy", "ClassAccuracy", "ImageScore", "evaluate"]

_BACKEND_TOLERANCE = 2e-3
"""Overlaps that equal a threshold up to rounding may match in one implementation only; more is a bug."""


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy of one class.

    Attributes:
        class_id: of the class.
        class_name: of the class.
        map50_95: average precision over ten IoU thresholds; None for classify and where there are no labels.
        map50: at IoU 0.5, likewise.
        precision: at the recommended confidence and IoU 0.5 (classify: of the best class); None without labels.
        recall: likewise.
        f1: likewise.
        labels: number of labelled objects that count.
        predictions: number of predictions at the recommended confidence.
    """

    class_id: int
    class_name: str
    map50_95: float | None
    map50: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    labels: int
    predictions: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class ImageScore:
    """How one image came out, at the recommended confidence and IoU 0.5 (classify: the best class).

    Attributes:
        index: position of the image.
        source: what the caller called it, or None.
        found: predictions that found a label.
        missed: labels that were not found.
        wrong: predictions that found none.
    """

    index: int
    source: str | None
    found: int
    missed: int
    wrong: int

    @property
    def f1(self) -> float:
        """F1 of the image, 1 where there was nothing to find and nothing was found."""
        total = 2 * self.found + self.missed + self.wrong
        return 2 * self.found / total if total else 1.0


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Accuracy of a model on a set of images.

    Attributes:
        task: of the model.
        image_count: number of images.
        label_count: number of labelled objects that count.
        map50_95: COCO mAP over IoU 0.5 to 0.95; of masks for segment, of keypoints for pose; None for classify and
            where there are no labels.
        map50: at IoU 0.5, likewise.
        map75: at IoU 0.75, likewise.
        by_size: `small`, `medium`, `large` -> mAP50-95, None where there are no such labels; empty for classify.
        by_class: one entry a class.
        top1: share of images whose best class is right, classify only.
        top5: share of images with the right class among the best five, classify only.
        best_confidence: recommended confidence threshold: where mean F1 over classes is best; None for classify.
        best_f1: mean F1 over classes there.
        box: accuracy of the boxes of a segment or pose model, else None.
        sources: names of the images, in order.
        table: matches, for intervals; None for classify and after reading back from a bundle.
        hits: (images,) 1 where the best class is right, else 0; classify only.
        image_scores: one entry an image; empty after reading back from a bundle.
    """

    task: Task
    image_count: int
    label_count: int
    map50_95: float | None
    map50: float | None
    map75: float | None
    by_size: Mapping[str, float | None]
    by_class: tuple[ClassAccuracy, ...]
    top1: float | None = None
    top5: float | None = None
    best_confidence: float | None = None
    best_f1: float | None = None
    box: Accuracy | None = None
    sources: tuple[str | None, ...] = ()
    table: MatchTable | None = None
    hits: NDArray[np.float64] | None = None
    image_scores: tuple[ImageScore, ...] = ()

    @property
    def metric(self) -> str:
        """Name of the headline number: `top1` for classify, else `map50_95`."""
        return "top1" if self.task is Task.CLASSIFY else "map50_95"

    @property
    def value(self) -> float:
        """The headline number.

        Raises:
            UsageError: the images have no labels, so there is none.
        """
        value = self.top1 if self.task is Task.CLASSIFY else self.map50_95
        if value is None:
            raise UsageError("the images have no labels to measure on", where="accuracy")
        return value

    def worst_images(self, count: int) -> tuple[ImageScore, ...]:
        """Returns the images with the lowest F1, those with most mistakes first."""
        ordered = sorted(self.image_scores, key=lambda one: (one.f1, -(one.missed + one.wrong), one.index))
        return tuple(ordered[:count])

    def to_dict(self) -> dict[str, Any]:
        """Returns all numbers as plain values; matches and per-image results are left out."""
        return {
            "task": self.task.value,
            "metric": self.metric,
            "images": self.image_count,
            "labels": self.label_count,
            "map50_95": self.map50_95,
            "map50": self.map50,
            "map75": self.map75,
            "by_size": dict(self.by_size),
            "by_class": [one.to_dict() for one in self.by_class],
            "top1": self.top1,
            "top5": self.top5,
            "best_confidence": self.best_confidence,
            "best_f1": self.best_f1,
            "max_detections": None if self.task is Task.CLASSIFY else MAX_DETECTIONS,
            "box": None if self.box is None else self.box.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Accuracy:
        """Reads what `to_dict` returned.

        Raises:
            CorruptError: a key is unknown or missing, or a value does not fit.
        """
        if not isinstance(data, Mapping) or set(data) != _KEYS:
            got = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
            raise CorruptError("keys of an accuracy do not fit", where="accuracy", expected=sorted(_KEYS), got=got)
        try:
            return cls(
                task=Task(data["task"]),
                image_count=int(data["images"]),
                label_count=int(data["labels"]),
                by_size={str(name): _number(value) for name, value in data["by_size"].items()},
                by_class=tuple(ClassAccuracy(**one) for one in data["by_class"]),
                box=None if data["box"] is None else cls.from_dict(data["box"]),
                map50_95=_number(data["map50_95"]),
                map50=_number(data["map50"]),
                map75=_number(data["map75"]),
                top1=_number(data["top1"]),
                top5=_number(data["top5"]),
                best_confidence=_number(data["best_confidence"]),
                best_f1=_number(data["best_f1"]),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise CorruptError("a value of an accuracy does not fit", where="accuracy", got=error) from error


_NUMBERS = ("map50_95", "map50", "map75", "top1", "top5", "best_confidence", "best_f1")
_KEYS = {"task", "metric", "images", "labels", "by_size", "by_class", "max_detections", "box", *_NUMBERS}


def _number(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"not a number: {value!r}")
    return float(value)


def evaluate(
    predictions: Iterable[ImagePredictions],
    samples: Sequence[Sample],
    *,
    task: Task,
    class_names: Sequence[str],
) -> Accuracy:
    """Measures predictions against labels.

    Args:
        predictions: one entry a sample, in order; a generator does, and spares memory for segment. For mAP they should
            come from a low confidence threshold (0.001) and `max_det` 300.
        samples: what was predicted.
        task: of the model.
        class_names: of the model; position = class id.

    Raises:
        UsageError: the numbers of predictions and samples differ, there are none, or an entry lacks what the task
            predicts.
        DatasetError: a label file does not fit, or a label has a class id beyond `class_names`.
        MissingDependencyError: faster-coco-eval is not installed (detect, segment).
        InternalError: our matches give another mAP than faster-coco-eval.
    """
    if not samples:
        raise UsageError("no images to measure on", where="samples", expected="one or more")
    if task is Task.CLASSIFY:
        return _evaluate_classes(predictions, samples, tuple(class_names))
    matchers = [make(len(class_names)) for make in TASK_MATCHERS[task]]
    sources: list[str | None] = []
    for one, sample in _pair(predictions, samples):
        sources.append(one.source)
        for matcher in matchers:
            matcher.add(one, sample)
    results: list[Accuracy] = []
    for matcher in matchers:
        box = results[-1] if results else None
        results.append(_summarize(matcher, task, tuple(class_names), tuple(sources), box))
    return results[-1]


def _pair(
    predictions: Iterable[ImagePredictions], samples: Sequence[Sample]
) -> Iterable[tuple[ImagePredictions, Sample]]:
    count = 0
    for count, one in enumerate(predictions, start=1):
        if count > len(samples):
            break
        yield one, samples[count - 1]
    if count != len(samples):
        got = "more" if count > len(samples) else count
        raise UsageError(
            "another number of predictions than samples", where="predictions", expected=len(samples), got=got
        )


def _summarize(
    matcher: TaskMatcher,
    task: Task,
    class_names: tuple[str, ...],
    sources: tuple[str | None, ...],
    box: Accuracy | None,
) -> Accuracy:
    """Turns the matches of all images into numbers; `box` is what was measured of the same predictions' boxes."""
    tables = {area: matcher.table(area) for area in AREAS}
    table = tables["all"]
    own = _own_summary(tables)
    backend = matcher.summarize()
    if backend is not None:
        _check_backend(own, backend)
    summary = own if backend is None else backend
    curves = confidence_curves(table)
    best = curves.best()
    precision = average_precision(table)
    counts = table.label_counts.sum(axis=0)
    confident = table.scores >= curves.confidence[best]
    counted = np.bincount(table.class_ids[confident & ~table.ignored[0]], minlength=len(class_names))
    present = bool(counts.sum())
    by_class = tuple(
        ClassAccuracy(
            class_id=i,
            class_name=name,
            map50_95=_optional(precision[i].mean()),
            map50=_optional(precision[i, 0]),
            precision=_optional(curves.precision[i, best]),
            recall=_optional(curves.recall[i, best]),
            f1=_optional(curves.f1[i, best]),
            labels=int(counts[i]),
            predictions=int(counted[i]),
        )
        for i, name in enumerate(class_names)
    )
    return Accuracy(
        task=task,
        image_count=len(sources),
        label_count=int(counts.sum()),
        map50_95=_optional(summary.map50_95),
        map50=_optional(summary.map50),
        map75=_optional(summary.map75),
        by_size={name: _optional(value) for name, value in summary.by_size.items()},
        by_class=by_class,
        best_confidence=float(curves.confidence[best]) if present else None,
        best_f1=float(np.nanmean(curves.f1[:, best])) if present else None,
        box=box,
        sources=sources,
        table=table,
        image_scores=_score_images(table, confident, sources),
    )


def _optional(value: float | np.floating[Any]) -> float | None:
    return None if np.isnan(value) else float(value)


def _own_summary(tables: Mapping[str, MatchTable]) -> CocoSummary:
    """Returns COCO's numbers from our own matches."""

    def by_threshold(area: str) -> NDArray[np.float64]:
        weights = np.ones((1, len(tables[area].label_counts)))
        return np.asarray(mean_average_precision(tables[area], weights)[0])

    values = {area: by_threshold(area) for area in tables}
    return CocoSummary(
        map50_95=float(values["all"].mean()),
        map50=float(values["all"][0]),
        map75=float(values["all"][5]),
        by_size={area: float(value.mean()) for area, value in values.items() if area != "all"},
    )


def _check_backend(own: CocoSummary, backend: CocoSummary) -> None:
    if np.isnan(own.map50_95) and np.isnan(backend.map50_95):
        return
    if not abs(own.map50_95 - backend.map50_95) <= _BACKEND_TOLERANCE:
        raise InternalError(
            "our matches give another mAP than faster-coco-eval",
            where="evaluate",
            expected=f"{backend.map50_95:.6f}",
            got=f"{own.map50_95:.6f}",
        )


def _score_images(
    table: MatchTable, confident: NDArray[np.bool_], sources: tuple[str | None, ...]
) -> tuple[ImageScore, ...]:
    counted = confident & ~table.ignored[0]
    found = np.bincount(table.image[counted & table.matched[0]], minlength=len(sources))
    wrong = np.bincount(table.image[counted & ~table.matched[0]], minlength=len(sources))
    missed = table.label_counts.sum(axis=1) - found
    return tuple(
        ImageScore(i, source, int(found[i]), int(missed[i]), int(wrong[i])) for i, source in enumerate(sources)
    )


def _evaluate_classes(
    predictions: Iterable[ImagePredictions], samples: Sequence[Sample], class_names: tuple[str, ...]
) -> Accuracy:
    best: list[int] = []
    truth: list[int] = []
    among_five: list[bool] = []
    sources: list[str | None] = []
    for one, sample in _pair(predictions, samples):
        if one.probabilities is None or len(one.probabilities) != len(class_names):
            raise UsageError("a prediction lacks the class probabilities", where=one.source, expected=len(class_names))
        order = np.argsort(-one.probabilities, kind="stable")
        label = int(sample.labels.class_ids[0])
        best.append(int(order[0]))
        truth.append(label)
        among_five.append(label in order[:5])
        sources.append(one.source)
    best_ids, truth_ids = np.array(best), np.array(truth)
    hits = (best_ids == truth_ids).astype(np.float64)
    return Accuracy(
        task=Task.CLASSIFY,
        image_count=len(truth),
        label_count=len(truth),
        map50_95=None,
        map50=None,
        map75=None,
        by_size={},
        by_class=tuple(_score_class(i, name, best_ids, truth_ids) for i, name in enumerate(class_names)),
        top1=float(hits.mean()),
        top5=float(np.mean(among_five)),
        sources=tuple(sources),
        hits=hits,
        image_scores=tuple(
            ImageScore(i, source, int(hits[i]), int(1 - hits[i]), int(1 - hits[i])) for i, source in enumerate(sources)
        ),
    )


def _score_class(i: int, name: str, best: NDArray[np.int64], truth: NDArray[np.int64]) -> ClassAccuracy:
    right = int(((best == i) & (truth == i)).sum())
    predicted, labels = int((best == i).sum()), int((truth == i).sum())
    return ClassAccuracy(
        class_id=i,
        class_name=name,
        map50_95=None,
        map50=None,
        precision=(right / predicted if predicted else 1.0) if labels else None,
        recall=right / labels if labels else None,
        f1=2 * right / (predicted + labels) if labels else None,
        labels=labels,
        predictions=predicted,
    )
