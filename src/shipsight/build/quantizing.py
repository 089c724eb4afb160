# SPDX-License-Identifier: Apache-2.0
"""The INT8 stage: ways to quantize for an engine, measured on the guard images by the guard.

Leaves to others: quantizing (`build.optimize`), the last word (`choose`, on the report images). Invariant: the guard
never looks at a report image. Private to `build`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from shipsight.build.candidates import float_files, reference_variant
from shipsight.build.formats import trim_onnx
from shipsight.build.job import GuardRecord, Job
from shipsight.build.measure import Accuracy, PreparedImages, Sample, compare
from shipsight.build.measuring import Evaluator, open_variant
from shipsight.build.optimize import (
    Attempt,
    GuardEnd,
    GuardMeasurement,
    GuardResult,
    GuardSettings,
    GuardStep,
    Int8Target,
    LayerGroup,
    detect_target,
    map_layers,
    onnxruntime_attempts,
    openvino_attempts,
    rank_by_sensitivity,
    run_guard,
)
from shipsight.build.timing_variants import compare_latency
from shipsight.model import Card, Precision, TensorLayout, Variant
from shipsight.model.warning import BuildWarning

__all__ = ["quantize"]

Files = dict[str, bytes]
Pixels = NDArray[np.uint8]
_SENSITIVITY_IMAGES = 8
_RECORD = "record.json"


def quantize(job: Job, variant: Variant, reference_onnx: bytes, card: Card, *, key: str) -> GuardRecord:
    """Returns what `_quantize` found, from the workspace where it stands there under `key`."""

    def make() -> Files:
        record = _quantize(job, variant, reference_onnx, card)
        told = {
            "has_files": record.files is not None,
            "steps": list(record.steps),
            "warnings": [one.to_dict() for one in record.warnings],
        }
        return {**(record.files or {}), _RECORD: json.dumps(told).encode()}

    files = job.workspace.files(key, make)
    told = json.loads(files.pop(_RECORD))
    return GuardRecord(
        files=files if told["has_files"] else None,
        steps=tuple(told["steps"]),
        warnings=tuple(BuildWarning(**one) for one in told["warnings"]),
    )


def _quantize(job: Job, variant: Variant, reference_onnx: bytes, card: Card) -> GuardRecord:
    """Finds the int8 form of a variant that keeps the most in integers while its drop on the guard images fits.

    Args:
        job: gives the images, the limits and the workspace.
        variant: int8 variant to make files for.
        reference_onnx: the float ONNX of the variant's size.
        card: of the model, at the variant's size.
    """
    splits = job.material.splits
    if splits is None or not splits.guard or not splits.calibration:
        warning = BuildWarning("int8-no-data", f"{variant.name}: no calibration and guard images, so no int8.")
        return GuardRecord(files=None, steps=(), warnings=(warning,))
    graph = trim_onnx(reference_onnx, card) if variant.layout is TensorLayout.UINT8_NHWC else reference_onnx
    calibration = job.material.calibration_pixels(card)
    layers = map_layers(graph)
    guard = _Guard(job, variant, reference_onnx, card, splits.guard)

    def rank(groups: Sequence[LayerGroup]) -> list[LayerGroup]:
        few = calibration[:_SENSITIVITY_IMAGES]
        return [one.group for one in rank_by_sensitivity(graph, few, card=card, layers=layers, groups=groups)]

    def tell(step: GuardStep) -> None:
        job.progress.note(f"{variant.name}: {step.describe()}")

    result = run_guard(
        _attempts(job, variant.engine, graph, calibration, card),
        guard.measure,
        layers=layers,
        rank=rank,
        settings=GuardSettings(max_drop=job.options.max_drop, float_latency_ms=guard.float_latency_ms),
        on_step=tell,
    )
    return GuardRecord(
        files=result.files,
        steps=tuple(_describe(step, variant, guard.float_accuracy) for step in result.steps),
        warnings=_warn(result, variant),
    )


def _attempts(
    job: Job, engine: str, graph: bytes, calibration: Sequence[Pixels], card: Card
) -> Sequence[Attempt[Files]]:
    if engine == "openvino":
        return openvino_attempts(graph, calibration, card=card, seed=job.options.seed)

    def named(attempt: Attempt[bytes]) -> Attempt[Files]:
        return Attempt(attempt.name, lambda floating: {"model.onnx": attempt.quantize(floating)}, attempt.spared)

    return [named(attempt) for attempt in onnxruntime_attempts(graph, calibration, card=card)]


class _Guard:
    """Measures int8 files on the guard images against the float reference."""

    def __init__(
        self, job: Job, variant: Variant, reference_onnx: bytes, card: Card, samples: Sequence[Sample]
    ) -> None:
        self._job = job
        self._variant = variant
        self._card = card
        self._evaluator = Evaluator(card, samples, PreparedImages())
        self._float = (_float_twin(variant), dict(float_files(_float_twin(variant), reference_onnx, card)))
        reference = reference_variant(card.input.size_hw)
        with open_variant({"model.onnx": reference_onnx}, reference, threads=job.options.threads) as session:
            self.float_accuracy: Accuracy = self._evaluator.accuracy(session, reference)
        self.float_latency_ms = self._compare([self._float])[self._float[0].name]

    def measure(self, files: Files) -> GuardMeasurement:
        threads = self._job.options.threads
        with open_variant(files, self._variant, threads=threads) as session:
            accuracy = self._evaluator.accuracy(session, self._variant, on_progress=self._job.progress.part)
            precision = session.precision()
        ms = self._compare([self._float, (self._variant, files)])
        return GuardMeasurement(
            drop=compare(self.float_accuracy, accuracy, seed=self._job.options.seed),
            # The machine drifts between measurements: the ratio of this run, at the float form's first speed.
            latency_ms=self.float_latency_ms * ms[self._variant.name] / ms[self._float[0].name],
            integer_convolutions=precision.integer_convolutions,
            convolutions=precision.convolutions,
        )

    def _compare(self, forms: Sequence[tuple[Variant, Files]]) -> dict[str, float]:
        pixels = self._job.material.some_pixels(1)[0]
        return compare_latency(forms, self._card, pixels, threads=self._job.options.threads)


def _float_twin(variant: Variant) -> Variant:
    return replace(variant, name="float", precision=Precision.FP32, rest=Precision.FP32)


def _describe(step: GuardStep, variant: Variant, float_accuracy: Accuracy) -> dict[str, object]:
    measured = step.measurement
    return {
        "variant": variant.name,
        "step": step.number,
        "attempt": step.attempt,
        "returned": list(step.returned),
        "accuracy": float_accuracy.value - measured.drop.value,
        "drop": measured.drop.to_dict(),
        "integer_convolutions": measured.integer_convolutions,
        "convolutions": measured.convolutions,
        "latency_ms": measured.latency_ms,
        "outcome": step.outcome.value,
    }


_ENDS = {
    GuardEnd.TOO_INACCURATE: ("int8-failed", "every int8 form loses more accuracy than the limit; none is shipped"),
    GuardEnd.TOO_SLOW: (
        "int8-slower",
        "no int8 form that is accurate enough is faster than float here; none is shipped",
    ),
    GuardEnd.UNDECIDED: (
        "int8-guard-undecided",
        "the guard images cannot decide whether int8 loses more than the limit",
    ),
}


def _warn(result: GuardResult[Files], variant: Variant) -> tuple[BuildWarning, ...]:
    found = []
    if result.end in _ENDS:
        code, text = _ENDS[result.end]
        last = result.step or min(result.steps, key=lambda step: step.measurement.drop.value)
        found.append(BuildWarning(code, f"{variant.name}: {text} ({last.describe()})."))
    # Where clamping happens it is part of what was measured; elsewhere nothing was measured of it.
    if result.step is not None and detect_target() is Int8Target.X86_VNNI:
        found.append(BuildWarning("int8-target", f"{variant.name}: {Int8Target.X86_VNNI.note}."))
    return tuple(found)
