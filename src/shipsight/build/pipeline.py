# SPDX-License-Identifier: Apache-2.0
"""The build, stage by stage: open, prepare, make variants, measure, choose, prove, write.

Each stage takes what the one before returned; what is expensive is stored in a workspace beside the bundle, so that a
killed build goes on where it was. Private to `build`: `shipsight.build.build` is the door.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from shipsight import __version__
from shipsight.build.candidates import (
    float_files,
    float_variants,
    int8_variants,
    reference_variant,
    runs_bf16,
)
from shipsight.build.choose import choose
from shipsight.build.job import Candidate, Job, Measured
from shipsight.build.material import Material, gather_material
from shipsight.build.measure import Accuracy, Interval, compare, outcome
from shipsight.build.measuring import Evaluator, metrics_of, open_variant
from shipsight.build.options import ENGINE_PRECISIONS, BuildOptions
from shipsight.build.progress import Progress
from shipsight.build.proving import Proof, prove
from shipsight.build.quantizing import quantize
from shipsight.build.result import BuildResult, VariantResult
from shipsight.build.schedule import OPENING_COST, Schedule, Stage
from shipsight.build.sources import Sandbox, open_source
from shipsight.build.timing_variants import are_equal, compare_latency, predict_pixels, time_variants
from shipsight.build.workspace import Workspace, digest_of
from shipsight.build.writing import write
from shipsight.errors import ParityError, UnsupportedError, UsageError
from shipsight.model import Card, Precision, Variant, format_size
from shipsight.model.warning import BuildWarning
from shipsight.vision import PredictSettings

__all__ = ["run_build"]

_CHECKED_IMAGES = 8
_TRIM_TOLERANCE = 1.05  # trimmed outputs are 14 times smaller for whoever moves them on: a tie goes to them


def run_build(model: Path, *, out: Path | None, options: BuildOptions, progress: Progress) -> BuildResult:
    """Builds a bundle; see `shipsight.build.build`."""
    progress.step("opening the source, reading the data set", OPENING_COST)
    with open_source(
        model,
        card_file=options.card_file,
        name=options.name,
        version=options.version,
        sandbox=Sandbox.REQUIRED if options.sandboxed else Sandbox.OFF,
    ) as source:
        place = Path(f"{source.card.name}.bundle") if out is None else out
        if place.exists() and not options.force:
            raise UsageError(
                "the bundle exists", where=place, hint="Give --force to replace it, or --out for another place."
            )
        sizes_hw = options.sizes_hw or (source.card.input.size_hw,)
        card = source.card.with_size(sizes_hw[0])
        material = gather_material(card, options)
        workspace = Workspace(place.parent / f".{place.name}.work")
        job = Job(
            source=source,
            card=card,
            sizes_hw=sizes_hw,
            options=options,
            progress=progress,
            workspace=workspace,
            material=material,
            schedule=_plan(options, sizes_hw, material),
            warnings=[*source.warnings, *material.warnings],
        )
        progress.plan(job.schedule.total)
        result = _run(job, place)
    workspace.remove()
    return result


def _run(job: Job, place: Path) -> BuildResult:
    candidates = [one for size_hw in job.sizes_hw for one in _make_candidates(job, size_hw)]
    source_accuracy = _measure_source(job)
    measured = _time([_measure(job, one, source_accuracy) for one in candidates], job)
    results, reason, warnings, unmet = choose([one.result for one in measured], job.options)
    job.warnings.extend(warnings)
    job.warnings.extend(_describe_dropped(results))
    by_name = {one.variant.name: one for one in results}
    measured = [replace(one, result=by_name[one.result.variant.name]) for one in measured]
    kept = [one for one in measured if one.result.kept]
    proof: Proof = prove(job, kept, default=next(one for one in kept if one.result.is_default))
    job.warnings.extend(proof.warnings)
    job.begin(Stage.WRITE, "writing the bundle")
    return write(
        job, place, measured=measured, source_accuracy=source_accuracy, proof=proof, reason=reason, unmet=unmet
    )


def _plan(options: BuildOptions, sizes_hw: Sequence[tuple[int, int]], material: Material) -> Schedule:
    tried = [one for engine in options.engines for one in ENGINE_PRECISIONS[engine] if one in options.precisions]
    if Precision.BF16 in tried and not runs_bf16():
        tried = [one for one in tried if one is not Precision.BF16]
    splits = material.splits
    quantized = 0 if splits is None else tried.count(Precision.INT8)
    return Schedule(
        sizes_hw=sizes_hw,
        engines=len(options.engines),
        floats=len([one for one in tried if one is not Precision.INT8]) + 1,
        quantized=quantized,
        calibration=len(splits.calibration) if splits else 0,
        guard=len(splits.guard) if splits else 0,
        report=len(splits.report) if splits else 0,
        training=len(material.training_files),
    )


def _key(job: Job, *parts: object) -> str:
    """Returns the key of a step: everything that determines its result."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("onnxruntime", "openvino", "nncf", "onnx", "torch", "ultralytics-opencv-headless"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "none"
    return digest_of(__version__, versions, job.card.to_dict(), job.options.seed, *parts)


def _make_candidates(job: Job, size_hw: tuple[int, int]) -> list[Candidate]:
    label = format_size(size_hw)
    job.begin(Stage.EXPORT, f"exporting at {label} px")
    key = _key(job, "reference", size_hw)
    reference_onnx = job.workspace.files(key, lambda: {"model.onnx": job.source.export_onnx(size_hw)})["model.onnx"]
    card = job.card.with_size(size_hw)
    made = []
    if size_hw == job.sizes_hw[0]:
        made.append(Candidate(reference_variant(size_hw), {"model.onnx": reference_onnx}, reference_onnx))
    has_bf16 = "openvino" in job.options.engines and runs_bf16()
    for engine in job.options.engines:
        job.begin(Stage.FORM, f"comparing forms of the graph for {engine} at {label} px", size_hw)
        is_trimmed = _choose_form(job, engine, reference_onnx, card)
        floats = []
        for variant in float_variants(engine, card, job.options, has_bf16=has_bf16, is_trimmed=is_trimmed):
            job.begin(Stage.FLOAT, f"making {variant.name}")
            try:
                files = float_files(variant, reference_onnx, card)
            except UnsupportedError as error:
                # One form of a model that cannot be made costs the others nothing; the report says so.
                job.warnings.append(BuildWarning(f"{variant.precision.value}-not-made", f"{variant.name}: {error}"))
                continue
            floats.append(Candidate(variant, files, reference_onnx))
        made += floats
        if Precision.INT8 in job.options.precisions:
            made += _make_int8(job, engine, reference_onnx, card, has_bf16=has_bf16, is_trimmed=is_trimmed)
    return made


def _choose_form(job: Job, engine: str, reference_onnx: bytes, card: Card) -> bool:
    """Tells whether the trimmed uint8 graph is faster than the raw float one on an engine, predictions being equal."""
    raw_variant = replace(
        reference_variant(card.input.size_hw), engine=engine, name=f"{engine}-raw", is_reference=False
    )
    raw_files: Mapping[str, bytes] = {"model.onnx": reference_onnx}
    if engine == "openvino":
        from shipsight.build.formats import onnx_to_openvino

        raw_variant = replace(raw_variant, files=("model.xml", "model.bin"))
        raw_files = onnx_to_openvino(reference_onnx)
    only = BuildOptions(engines=(engine,), precisions=(Precision.FP32,))
    trimmed = float_variants(engine, card, only, has_bf16=False, is_trimmed=True)[0]
    try:
        trimmed_files = float_files(trimmed, reference_onnx, card)
    except UnsupportedError as error:
        job.warnings.append(
            BuildWarning("trim-not-possible", f"{engine} at {format_size(card.input.size_hw)}: {error}")
        )
        return False
    settings = PredictSettings()
    with (
        open_variant(raw_files, raw_variant, threads=job.options.threads) as raw,
        open_variant(trimmed_files, trimmed, threads=job.options.threads) as trim,
    ):
        equal = all(
            are_equal(
                predict_pixels(raw, card, raw_variant, pixels, settings),
                predict_pixels(trim, card, trimmed, pixels, settings),
            )
            for pixels in job.material.some_pixels(_CHECKED_IMAGES)
        )
    if not equal:
        text = (
            f"{engine} at {format_size(card.input.size_hw)}: the trimmed graph predicts otherwise; the raw one is kept."
        )
        job.warnings.append(BuildWarning("trim-not-equal", text))
        return False
    pixels = job.material.some_pixels(1)[0]
    # A shared machine can favour either by chance: raw must win twice.
    forms = [(raw_variant, raw_files), (trimmed, trimmed_files)]
    for _ in range(2):
        ms = compare_latency(forms, card, pixels, threads=job.options.threads)
        if ms[trimmed.name] <= ms[raw_variant.name] * _TRIM_TOLERANCE:
            return True
    return False


def _make_int8(
    job: Job, engine: str, reference_onnx: bytes, card: Card, *, has_bf16: bool, is_trimmed: bool
) -> list[Candidate]:
    if job.material.splits is None:
        return []
    variants = int8_variants(engine, card, has_bf16=has_bf16, is_trimmed=is_trimmed)
    job.begin(Stage.INT8, f"quantizing {variants[0].name}", card.input.size_hw)
    splits = job.material.splits
    used = [[sample.digest for sample in samples] for samples in (splits.calibration, splits.guard)]
    key = _key(job, "int8", variants[0].to_dict(), reference_onnx, job.options.max_drop, job.options.threads, used)
    record = quantize(job, variants[0], reference_onnx, card, key=key)
    job.warnings.extend(record.warnings)
    if record.files is None:
        return []
    return [Candidate(variant, record.files, reference_onnx, guard=record) for variant in variants]


def _measure_source(job: Job) -> Accuracy | None:
    """Measures the source in its own runtime, on the report images at the first size."""
    if job.material.splits is None:
        return None
    job.begin(Stage.SOURCE, "measuring the source model")
    variant = replace(reference_variant(job.sizes_hw[0]), name="source")
    with job.source.open_reference(job.sizes_hw[0], threads=job.options.threads) as session:
        return Evaluator(job.card, job.material.splits.report, job.material.cache).accuracy(
            session, variant, on_progress=job.progress.part
        )


def _measure(job: Job, candidate: Candidate, source_accuracy: Accuracy | None) -> Measured:
    """Measures accuracy and the precision that truly runs; `_time` adds the speed."""
    variant = candidate.variant
    job.begin(Stage.ACCURACY, f"measuring {variant.name}", variant.size_hw)
    accuracy, multi_label, drop = None, None, None
    with open_variant(candidate.files, variant, threads=job.options.threads) as session:
        precision = session.precision()
        if job.material.splits is not None:
            evaluator = Evaluator(job.card, job.material.splits.report, job.material.cache)
            accuracy = evaluator.accuracy(session, variant, on_progress=job.progress.part)
            if variant.is_reference and evaluator.has_multi_label(variant):
                multi_label = evaluator.accuracy(session, variant, multi_label=True)
    if accuracy is not None and source_accuracy is not None:
        drop = compare(source_accuracy, accuracy, seed=job.options.seed)
    result = VariantResult(
        variant=variant,
        accuracy=None if accuracy is None else metrics_of(accuracy, multi_label),
        drop=None if drop is None else drop.to_dict(),
        outcome=_outcome(variant, drop, job.options.max_drop),
        threshold=None if accuracy is None else accuracy.best_confidence,
        speed={},
        size_mb=sum(map(len, candidate.files.values())) / 1e6,
        int8_layers=(precision.integer_convolutions, precision.convolutions),
        float_type=precision.float_type,
    )
    _check_float(result, job.options.max_drop)
    return Measured(candidate, result, accuracy)


def _time(measured: Sequence[Measured], job: Job) -> list[Measured]:
    """Adds speeds: the variants of one size take turns, so that what else the machine does falls on all alike."""
    image_rgb = job.material.some_pixels(1)[0]
    speeds: dict[str, dict[str, Any]] = {}
    for size_hw in job.sizes_hw:
        job.begin(Stage.SPEED, f"timing at {format_size(size_hw)} px", size_hw)
        forms = [
            (one.candidate.variant, one.candidate.files) for one in measured if one.candidate.variant.size_hw == size_hw
        ]
        parts = [part for variant, files in forms for part in (variant.to_dict(), *files.values())]
        speeds |= job.workspace.value(
            _key(job, "speed", *parts, job.options.threads),
            partial(
                time_variants, forms, job.card, image_rgb, threads=job.options.threads, on_progress=job.progress.part
            ),
        )
    for name, speed in speeds.items():
        if not speed["is_steady"]:
            text = f"{name}: latency did not become steady in 300 runs or 15 s; read its figures with care."
            job.warnings.append(BuildWarning("not-steady", text))
    timed = [replace(one.result, speed=speeds[one.result.variant.name]) for one in measured]
    return [
        replace(one, result=replace(result, float_ratio=_float_ratio(result, timed)))
        for one, result in zip(measured, timed, strict=True)
    ]


def _float_ratio(result: VariantResult, timed: Sequence[VariantResult]) -> float | None:
    """Returns the latency of the fastest float variant of an int8 variant's engine and size over its own."""
    if result.variant.precision is not Precision.INT8:
        return None
    floats = [
        one.latency_ms
        for one in timed
        if (one.variant.engine, one.variant.size_hw) == (result.variant.engine, result.variant.size_hw)
        and one.variant.precision is not Precision.INT8
    ]
    return min(floats) / result.latency_ms if floats else None


def _outcome(variant: Variant, drop: Interval | None, max_drop: float) -> str:
    if variant.is_reference:
        return "reference"
    return "not measured" if drop is None else outcome(drop, max_drop).value


def _check_float(result: VariantResult, max_drop: float) -> None:
    """Refuses to go on where the reference itself is worse than the source: then the export is wrong."""
    if result.variant.is_reference and result.drop is not None and result.drop["low"] > max_drop:
        raise ParityError(
            "the exported float model is less accurate than its source",
            where=result.variant.name,
            expected=f"a drop of at most {max_drop:g}",
            got=f"{result.drop['value']:.4f} [{result.drop['low']:.4f}, {result.drop['high']:.4f}]",
            hint="Run `shipsight build` with --keep-all and another version of the exporter, or report this.",
        )


def _describe_dropped(results: list[VariantResult]) -> list[BuildWarning]:
    found = []
    for one in results:
        if one.variant.precision is not Precision.INT8:
            continue
        fate = "kept, since it meets --min-map" if one.kept else "not shipped"
        if one.float_ratio is not None and one.float_ratio <= 1:
            text = f"{one.variant.name} runs at {one.float_ratio:.2f} times the speed of float here: not shipped."
            found.append(BuildWarning("int8-slower", text))
        elif one.outcome == "failed" and one.drop is not None:
            text = f"{one.variant.name} loses {one.drop['value']:.4f} on the report images: {fate}."
            found.append(BuildWarning("int8-failed", text))
        elif one.outcome == "undecided":
            text = f"{one.variant.name}: these images cannot decide whether its accuracy drop is within the limit."
            found.append(BuildWarning("int8-undecided", text))
    return found
