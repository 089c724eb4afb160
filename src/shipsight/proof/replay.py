# SPDX-License-Identifier: Apache-2.0
"""Replay: does this machine run the thing that was measured?

A variant is compared with its own recorded outputs, never with the source (that is `parity`). Two halves. First each
golden image is prepared here and compared with the recorded tensor: at most one level off, on any processor; that needs
no engine, and may be done while one opens (`check_preparation`). Then the engine is fed the recorded tensor. On the class of processor, the runtime and the precision it was recorded on,
every table of outputs must lie within the recorded tolerance; elsewhere kernels differ, and the stated share of
confident predictions must match. Leaves to others: opening sessions. Stable; numbers in `docs/formats/bundle.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.engines import EngineSession
from shipsight.errors import ReplayMismatchError, TensorError
from shipsight.model import Card, Precision, Variant
from shipsight.proof.answers import Answer, answer_one, ask
from shipsight.proof.environment import cpu_class, runtime_key
from shipsight.proof.golden import GoldenFiles, GoldenSet, VariantRecording
from shipsight.proof.matching import MatchReport, match
from shipsight.proof.recording import Deviation, Recording, compare_tables, record_tables
from shipsight.proof.subject import Subject
from shipsight.vision import Geometry, prepare

__all__ = ["Preparation", "ReplayReport", "check_preparation", "record", "record_variant", "replay"]

Progress = Callable[[int, int], None]

# Least tolerance (p99, max, moment) in float32: pixels for boxes and extras, log odds for scores. Noise between
# runtimes was measured at 4e-4 px and 5e-6 in score; the floors leave room for another processor of the same class.
_FLOORS = {
    "boxes": Deviation(0.05, 1.0, 0.02),
    "scores": Deviation(0.02, 0.5, 0.02),
    "extras": Deviation(0.05, 1.0, 0.02),
    "protos": Deviation(0.005, 0.1, 0.005),
    "probabilities": Deviation(0.02, 0.5, 0.02),
}
_FACTORS = {"f32": 1.0, "f16": 4.0, "bf16": 10.0}
_INTEGER_FACTOR = 10.0
_OBSERVED_FACTOR = 4.0


@dataclass(frozen=True)
class Preparation:
    """How this machine prepares the golden images, within what is allowed.

    Attributes:
        levels: most levels by which a value was off.
        off_share: share of values that were off at all.
        geometries: input key -> where the image lies in what was prepared.
        tensors: input key -> the recorded prepared image, (h, w, 3) uint8 RGB: it takes as long to decode as to infer on.
    """

    levels: int
    off_share: float
    geometries: Mapping[str, Geometry]
    tensors: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class ReplayReport:
    """What a replay found; it exists only where the replay passed.

    Attributes:
        variant: name of the variant.
        inputs: number of golden inputs replayed.
        levels: most levels by which a prepared pixel was off.
        off_share: share of prepared values that were off at all.
        criterion: `outputs` on the same class of processor, runtime and precision, else `predictions`.
        difference: what differs from the recording machine, empty where nothing does.
        deviations: table name -> how far off; empty where the criterion is `predictions`.
        tolerance: table name -> how far off was allowed.
        predictions: how the predictions match.
    """

    variant: str
    inputs: int
    levels: int
    off_share: float
    criterion: str
    difference: tuple[str, ...]
    deviations: Mapping[str, Deviation]
    tolerance: Mapping[str, Deviation]
    predictions: MatchReport

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain values."""
        return {
            "variant": self.variant,
            "inputs": self.inputs,
            "prepared": {"most_levels": self.levels, "off_share": round(self.off_share, 8)},
            "criterion": self.criterion,
            "difference": list(self.difference),
            "deviations": {name: one.to_dict() for name, one in self.deviations.items()},
            "tolerance": {name: one.to_dict() for name, one in self.tolerance.items()},
            "predictions": self.predictions.to_dict(),
        }


def record(answers: Sequence[Answer]) -> dict[str, Recording]:
    """Keeps of answers what a bundle holds, by input key."""
    return {one.key: Recording(record_tables(one.tables), one.found) for one in answers}


def record_variant(
    open_session: Callable[[int | None], EngineSession],
    variant: Variant,
    card: Card,
    golden: GoldenSet,
    *,
    threads: Sequence[int | None] = (None, 1, 2),
    progress: Progress | None = None,
) -> tuple[VariantRecording, tuple[Answer, ...]]:
    """Records a variant and how far its repetitions with other numbers of threads are off.

    Args:
        open_session: opens the variant with a number of threads (None: the engine's choice); closed here.
        variant: what is opened.
        card: of the model.
        golden: the inputs.
        threads: the first is what is recorded, every one is repeated on at least a third of the inputs.
        progress: called with inputs done and inputs in all.

    Returns:
        The recording, and all that the first run answered (for `parity`).
    """
    steps = [len(golden.inputs)] + [len(golden.inputs[::3])] * len(threads)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, sum(steps))

    with open_session(threads[0]) as session:
        subject = Subject.of(session, variant, card)
        answers = ask(subject, golden, on_each=advance)
        precision = session.precision()
        recordings = record(answers)
        observed = _repeat(subject, golden, recordings, advance)
    for count in threads[1:]:
        with open_session(count) as session:
            again = _repeat(Subject.of(session, variant, card), golden, recordings, advance)
            observed = {name: one.joined(again[name]) for name, one in observed.items()}
    is_integer = precision.integer_convolutions > 0
    factor = _INTEGER_FACTOR if is_integer else _FACTORS.get(precision.float_type, 1.0)
    if variant.precision is Precision.FP16:
        factor = max(factor, _FACTORS["f16"])
    tolerance = {name: _tolerance(_FLOORS[name], one, factor) for name, one in observed.items()}
    described = VariantRecording(
        recordings=recordings,
        tolerance=tolerance,
        cpu_class=cpu_class(),
        runtime=runtime_key(variant.engine),
        float_type=precision.float_type,
        is_integer=is_integer,
        threads=tuple(count or 0 for count in threads),
    )
    return described, answers


def _repeat(
    subject: Subject, golden: GoldenSet, recordings: Mapping[str, Recording], advance: Callable[[], None]
) -> dict[str, Deviation]:
    observed: dict[str, Deviation] = {}
    for one in golden.inputs[::3]:
        prepared, _ = prepare(one.image_rgb, subject.card.input)
        tables = subject.views(subject.infer(prepared))
        for name, deviation in compare_tables(recordings[one.key].tables, tables).items():
            observed[name] = deviation.joined(observed.get(name, deviation))
        advance()
    return observed


def _tolerance(floor: Deviation, observed: Deviation, factor: float) -> Deviation:
    return Deviation(
        p99=max(floor.p99 * factor, observed.p99 * _OBSERVED_FACTOR),
        most=max(floor.most * factor, observed.most * _OBSERVED_FACTOR),
        moment=max(floor.moment * factor, observed.moment * _OBSERVED_FACTOR),
    )


def check_preparation(variant: Variant, card: Card, golden: GoldenFiles, *, kind: str | None = None) -> Preparation:
    """Prepares the golden images here and compares them with the recorded tensors.

    Args:
        variant: gives the input size.
        card: of the model, as the bundle says.
        golden: the bundle's golden set.
        kind: `images` or `synthetic` for that half alone; None for all that is there.

    Raises:
        ReplayMismatchError: a value is off by more than is allowed, or there is no input.
        TamperedError, CorruptError: the golden set is not what the manifest promises.
    """
    contract = card.with_size(variant.size_hw).input
    levels, off, total = 0, 0, 0
    geometries: dict[str, Geometry] = {}
    tensors: dict[str, NDArray[np.uint8]] = {}
    for key in _keys(golden, variant, kind):
        tensor = tensors[key] = golden.tensor(key, variant.size_hw)
        prepared, geometries[key] = prepare(golden.image(key), contract)
        if np.array_equal(prepared, tensor):  # as nearly always, and ten times as fast
            total += tensor.size
            continue
        gap = np.abs(prepared.astype(np.int16) - tensor.astype(np.int16))
        levels, off, total = max(levels, int(gap.max())), off + int(np.count_nonzero(gap)), total + gap.size
        if levels > golden.most_levels:
            raise ReplayMismatchError(
                "images are prepared otherwise than where the model was built",
                where=f"{variant.name} {key}",
                expected=f"at most {golden.most_levels} level off",
                got=f"{levels} levels, {np.count_nonzero(gap) / gap.size:.2%} of the values differ",
            )
    return Preparation(levels, off / total, geometries, tensors)


def _keys(golden: GoldenFiles, variant: Variant, kind: str | None) -> tuple[str, ...]:
    keys = golden.keys(kind)
    if not keys:
        raise ReplayMismatchError("the golden set holds nothing to replay", where=variant.name, got=kind)
    return keys


def replay(
    session: EngineSession,
    variant: Variant,
    card: Card,
    golden: GoldenFiles,
    *,
    kind: str | None = None,
    prepared: Preparation | None = None,
    every: int = 1,
    workers: int = 1,
    progress: Progress | None = None,
) -> ReplayReport:
    """Replays a variant on this machine.

    Args:
        session: the variant, opened here.
        variant: which it is.
        card: of the model, as the bundle says.
        golden: the bundle's golden set.
        kind: `images` or `synthetic` for that half alone; None for all that is there.
        prepared: what `check_preparation` found for the variant and kind; None looks first.
        every: 1 for every input, 3 for every third: enough for a second session of a variant that was replayed whole.
        workers: inputs that are answered side by side; more than 1 for a session that serves several requests.
        progress: called with inputs done and inputs in all.

    Returns:
        The numbers, of a replay that passed.

    Raises:
        ReplayMismatchError: a half failed; the message names the input or table, what was allowed and what was found.
        TamperedError, CorruptError: the golden set is not what the manifest promises.
    """
    subject = Subject.of(session, variant, card)
    recorded = golden.variant(variant.name)
    preparation = prepared or check_preparation(variant, card, golden, kind=kind)
    keys = _keys(golden, variant, kind)[::every]
    difference = _difference(session, variant, recorded)
    ours: list[Answer] = []
    deviations: dict[str, Deviation] = {}

    def answer(key: str) -> Answer:
        tensor, geometry = preparation.tensors[key], preparation.geometries[key]
        return answer_one(subject, key, tensor, geometry, conf=golden.criteria.low_conf)

    with ThreadPoolExecutor(workers) as pool:
        for number, one in enumerate(pool.map(answer, keys) if workers > 1 else map(answer, keys), start=1):
            ours.append(one)
            for name, deviation in _compare(recorded.recordings[one.key], one, variant.name).items():
                deviations[name] = deviation.joined(deviations.get(name, deviation))
            if progress is not None:
                progress(number, len(keys))
    theirs = [recorded.recordings[key].found for key in keys]
    report = ReplayReport(
        variant=variant.name,
        inputs=len(keys),
        levels=preparation.levels,
        off_share=preparation.off_share,
        criterion="predictions" if difference else "outputs",
        difference=difference,
        deviations=deviations,
        tolerance=recorded.tolerance,
        predictions=match(theirs, [one.found for one in ours], golden.criteria),
    )
    _judge(report, golden)
    return replace(report, deviations={}, tolerance={}) if difference else report


def _difference(session: EngineSession, variant: Variant, recorded: VariantRecording) -> tuple[str, ...]:
    """Returns what differs from where the variant was recorded, as far as kernels depend on it."""
    precision = session.precision()
    pairs = (
        ("processor", recorded.cpu_class, cpu_class()),
        ("runtime", recorded.runtime, runtime_key(variant.engine)),
        ("float type", recorded.float_type, precision.float_type),
        ("integers", str(recorded.is_integer), str(precision.integer_convolutions > 0)),
    )
    return tuple(f"{name}: {then} there, {now} here" for name, then, now in pairs if then != now)


def _compare(recorded: Recording, answer: Answer, name: str) -> dict[str, Deviation]:
    try:
        return compare_tables(recorded.tables, answer.tables)
    except TensorError as error:
        raise ReplayMismatchError("the model gives outputs of another shape", where=name, got=error) from error


def _judge(report: ReplayReport, golden: GoldenFiles) -> None:
    if report.criterion == "outputs":
        for name, one in report.deviations.items():
            tolerance = report.tolerance.get(name)
            if tolerance is None or not one.within(tolerance):
                raise ReplayMismatchError(
                    "outputs differ from those recorded on the same class of processor, runtime and precision",
                    where=f"{report.variant} {name}",
                    expected=f"at most {None if tolerance is None else tolerance.to_dict()}",
                    got=one.to_dict(),
                    hint="This is not the model that was measured, or it is not run as it was",
                )
    elif report.predictions.share < golden.least_share:
        raise ReplayMismatchError(
            f"predictions differ from those recorded ({'; '.join(report.difference)})",
            where=report.variant,
            expected=f"at least {golden.least_share:.0%} of confident predictions matched",
            got=f"{report.predictions.share:.1%} of {report.predictions.confident}",
            hint="This is not the model that was measured, or this machine runs it otherwise",
        )
