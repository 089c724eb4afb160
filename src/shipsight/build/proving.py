# SPDX-License-Identifier: Apache-2.0
"""The proof of a build: golden set, recordings for replay, parity with the source, statistics, environment, pictures.

Leaves to others: what each of these is (`proof`). Invariants: the source answers in its own runtime; a float32 variant
that misses its parity gate ends the build, a variant of another precision that misses it is a warning, since its accuracy
on labelled images has the last word. Private to `build`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.candidates import reference_variant
from shipsight.build.job import Job, Measured
from shipsight.build.measure import Labels
from shipsight.build.measuring import open_variant
from shipsight.build.report import WorstImage
from shipsight.build.schedule import Stage
from shipsight.build.worst import draw_worst_images
from shipsight.engines import EngineOptions, EngineSession, get_engine
from shipsight.model import Precision, Task
from shipsight.model.manifest import GoldenInfo
from shipsight.model.warning import BuildWarning
from shipsight.proof import (
    Answer,
    GoldenSet,
    Subject,
    VariantRecording,
    ask,
    choose_golden,
    compare_answers,
    compare_layers,
    describe_environment,
    golden_files,
    record,
    record_variant,
)
from shipsight.proof.recording import Recording
from shipsight.proof.statistics import TrainingImage, collect_statistics
from shipsight.vision import decode_image, prepare

__all__ = ["Proof", "prove"]

_LAYER_INPUTS = 4
Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Proof:
    """What a bundle proves itself with.

    Attributes:
        files: the golden set by path in the bundle.
        golden: what the set holds.
        parity: content of `proof/parity.json`.
        training_stats: content of `proof/training-stats.json`.
        environment: content of `proof/environment.json`.
        worst_images: for the report.
        warnings: what the user should know.
    """

    files: Mapping[str, bytes]
    golden: GoldenInfo
    parity: Mapping[str, Any]
    training_stats: Mapping[str, Any]
    environment: Mapping[str, Any]
    worst_images: Sequence[WorstImage]
    warnings: Sequence[BuildWarning]


def prove(job: Job, kept: Sequence[Measured], *, default: Measured) -> Proof:
    """Makes the proof of the variants that are kept.

    Raises:
        ParityError: a float32 variant differs from the source by more than its gate allows.
    """
    job.begin(Stage.GOLDEN, "choosing the golden set")
    golden, warnings = _choose_golden(job, kept)
    found = list(warnings)
    answered: dict[Size, tuple[Answer, ...]] = {}
    worst: tuple[WorstImage, ...] = ()
    for size_hw in dict.fromkeys(one.result.variant.size_hw for one in kept):
        variant = replace(reference_variant(size_hw), name="source")
        with job.source.open_reference(size_hw, threads=job.options.threads) as session:
            answered[size_hw] = ask(Subject.of(session, variant, job.card), golden)
            if size_hw == default.result.variant.size_hw:
                worst = draw_worst_images(job, default, session, variant)
    recordings: dict[str, VariantRecording] = {}
    parity: dict[str, Any] = {}
    for one in kept:
        name = one.result.variant.name
        job.begin(Stage.RECORD, f"recording and comparing {name}", one.result.variant.size_hw)
        recordings[name], answers = _record(job, one, golden)
        report = compare_answers(
            answered[one.result.variant.size_hw],
            answers,
            precision=one.result.variant.precision,
            criteria=golden.criteria,
        )
        if one.result.variant.precision is Precision.FP32:
            report.require(name)
        elif not report.passed:
            found.append(
                BuildWarning("parity-gate", f"{name} misses its parity gate on the golden set: {report.gate}.")
            )
        parity[name] = report.to_dict(_compare_layers(job, one, golden))
    job.begin(Stage.STATISTICS, "describing the training images")
    source: dict[Size, Mapping[str, Recording]] = {size: record(answers) for size, answers in answered.items()}
    contracts = [job.card.with_size(size).input for size in answered]
    return Proof(
        files=golden_files(golden, contracts, source=source, variants=recordings),
        golden=golden.info,
        parity={"variants": parity},
        training_stats=_describe_training(job, kept),
        environment=_describe_environment(kept),
        worst_images=worst,
        warnings=found,
    )


def _choose_golden(job: Job, kept: Sequence[Measured]) -> tuple[GoldenSet, tuple[BuildWarning, ...]]:
    reference = next(one for one in kept if one.result.variant.is_reference)

    def reader(path: Path) -> Callable[[], NDArray[np.uint8]]:
        return lambda: decode_image(path)

    with open_variant(reference.candidate.files, reference.result.variant, threads=job.options.threads) as session:
        return choose_golden(
            Subject.of(session, reference.result.variant, job.card),
            kind=job.options.golden.value,
            images=[reader(path) for path in job.material.files],
            seed=job.options.seed,
            progress=job.progress.part,
        )


def _record(job: Job, one: Measured, golden: GoldenSet) -> tuple[VariantRecording, tuple[Answer, ...]]:
    variant = one.result.variant

    def open_session(threads: int | None) -> EngineSession:
        options = EngineOptions(threads=job.options.threads if threads is None else threads)
        return get_engine(variant.engine).open(one.candidate.files, variant, options)

    return record_variant(open_session, variant, job.card, golden, progress=job.progress.part)


def _compare_layers(job: Job, one: Measured, golden: GoldenSet) -> Sequence[Mapping[str, Any]]:
    if one.result.variant.is_reference:
        return ()
    contract = job.card.with_size(one.result.variant.size_hw).input
    prepared = [prepare(entry.image_rgb, contract)[0] for entry in golden.inputs[:_LAYER_INPUTS]]
    candidate = one.candidate
    return compare_layers(candidate.reference_onnx, candidate.files, one.result.variant, job.card, prepared)


def _describe_training(job: Job, kept: Sequence[Measured]) -> Mapping[str, Any]:
    """Returns the statistics of the training images, empty where there are none."""
    material = job.material
    if not material.training_files:
        return {}
    train = () if material.dataset is None else material.dataset.splits.get("train", ())
    labels = {sample.image: sample.labels for sample in train}
    reference = next(one for one in kept if one.result.variant.is_reference)
    return collect_statistics(
        [_training_image(path, labels.get(path), job.card.task) for path in material.training_files],
        job.card,
        reference_onnx=reference.candidate.reference_onnx,
        seed=job.options.seed,
    )


def _training_image(path: Path, labels: Labels | None, task: Task) -> TrainingImage:
    if labels is None:
        return TrainingImage(path)
    sizes_wh = None if task is Task.CLASSIFY else labels.boxes_cxcywh[:, 2:]
    return TrainingImage(path, [int(class_id) for class_id in labels.class_ids], sizes_wh)


def _describe_environment(kept: Sequence[Measured]) -> Mapping[str, Any]:
    ran = {
        one.result.variant.name: {
            "float_type": one.result.float_type,
            "integer_convolutions": one.result.int8_layers[0],
            "convolutions": one.result.int8_layers[1],
        }
        for one in kept
    }
    return describe_environment({"precision_run": ran})
