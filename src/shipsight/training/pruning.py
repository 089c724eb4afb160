# SPDX-License-Identifier: Apache-2.0
"""`shipsight optimize prune`: channels go, the rest is trained again, and a control that lost none is trained the same way.

Decisions look at training images alone, and all of them train. What is published is measured on the validation split, once, when all
is over. Leaves to others: which channels (`planning`, `_pruning`), the trainings (`runs`), measuring (`measuring`). Stable.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipsight.build.material import gather_material
from shipsight.build.measure import Accuracy, Alternation, Dataset, Interval, Sample, pooled_interval
from shipsight.build.options import BuildOptions
from shipsight.build.progress import Progress
from shipsight.build.sources import Sandbox
from shipsight.errors import DatasetError, UsageError
from shipsight.model import Card, format_size
from shipsight.model.warning import BuildWarning
from shipsight.training.data import link_data
from shipsight.training.measuring import Measured, compare_speed, measure_accuracy, open_measured
from shipsight.training.options import PruneOptions, TrainOptions
from shipsight.training.page import render_pruning
from shipsight.training.runs import Run, run_job

__all__ = ["PruneResult", "prune"]

# What steps take beside each other, for the estimate of the time left.
_OPENING, _MEASURING, _PRUNING, _EPOCH, _TIMING = 5.0, 60.0, 10.0, 20.0, 20.0
_TRIALS = 6  # networks that are made and timed for a latency
_LEAST_IMAGES = 8  # what Ultralytics is given to validate on, which it is told not to do: no epoch is chosen
_OF_QUANTIZATION = {"few-calibration-images", "few-guard-images", "no-calibration-images"}
_LEAST_TRIED = 0.2  # of the multiply-adds: about what is left where every layer keeps its least


@dataclass(frozen=True, eq=False)
class PruneResult:
    """What pruning gave.

    Attributes:
        checkpoint: of the first seed, of stock classes alone.
        units: of the first step: name, channels before it and kept, sensitivity.
        share: of the multiply-adds that is left.
        source: accuracy of the model that was given.
        pruned: accuracies by seed.
        controls: accuracies of the controls, by seed; empty without.
        difference: pruned minus control over all seeds, None without controls.
        speed: of source and pruned in turns.
        images: how many the accuracies are measured on.
        warnings: what the user should know of the model and the data.
    """

    checkpoint: Path
    units: tuple[Mapping[str, Any], ...]
    share: float
    source: Accuracy
    pruned: Mapping[int, Accuracy]
    controls: Mapping[int, Accuracy]
    difference: Interval | None
    speed: Alternation
    images: int
    warnings: tuple[BuildWarning, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        values = {seed: one.value for seed, one in self.pruned.items()}
        return {
            "checkpoint": str(self.checkpoint),
            "share": self.share,
            "metric": self.source.metric,
            "images_measured": self.images,
            "source": self.source.value,
            "pruned": values,
            "controls": {seed: one.value for seed, one in self.controls.items()},
            "spread": statistics.stdev(values.values()) if len(values) > 1 else None,
            "difference": None if self.difference is None else self.difference.to_dict(),
            "latency_ms": self.speed.medians_ms,
            "speedup": self.speed.speedup("pruned"),
            "units": [dict(one) for one in self.units],
            "warnings": [one.to_dict() for one in self.warnings],
        }


@dataclass(frozen=True, eq=False)
class _Work:
    """What all runs of a command share."""

    model: Path
    source: Measured
    out: Path
    folder: Path
    card: Card
    dataset: Dataset
    report: tuple[Sample, ...]
    data: Path
    warnings: tuple[BuildWarning, ...]
    training: TrainOptions
    options: PruneOptions
    progress: Progress

    @property
    def sandbox(self) -> Sandbox:
        return Sandbox.REQUIRED if self.training.sandboxed else Sandbox.OFF

    @property
    def threads(self) -> int:
        return self.training.threads or len(os.sched_getaffinity(0))

    def phases(self) -> list[int]:
        """Returns the epochs after each step: the last has half of them and more, since nothing is taken any more."""
        steps, epochs = self.options.steps, self.training.epochs
        early = [max(epochs // (2 * steps), 1)] * (steps - 1)
        return [*early, epochs - sum(early)]


def prune(
    model: Path, *, out: Path, training: TrainOptions, options: PruneOptions, progress: Progress, force: bool = False
) -> PruneResult:
    """Prunes a model of Ultralytics and trains what is left.

    Args:
        model: checkpoint.
        out: checkpoint to write; beside it a page with the same name and `.html`, and a folder that keeps what is done.
        training: how is trained.
        options: how much goes.
        progress: is told.
        force: whether a checkpoint that exists is replaced.

    Raises:
        UsageError: `out` exists, or no network is as small or fast as that.
        DatasetError: there are no training images.
        TrainingError: a training ended without a result; given again, the command goes on.
        ArtefactError, LimitError, SandboxError, MissingDependencyError: of the model, as `build`.
    """
    page = out.with_suffix(".html")
    for place in (out, page):
        if place.exists() and not force:
            raise UsageError("the file exists", where=place, hint="Give --force to replace it, or another --out.")
    work = _prepare(model, out, training, options, progress)
    begun, share = _begin(work)
    runs: dict[int, Run] = {}
    controls: dict[int, Accuracy] = {}
    for seed in training.seeds:
        runs[seed], left = _pruned(work, begun, seed, share)
        if training.has_control:
            controls[seed] = _measure(work, _open(work, _control(work, seed).network))
    opened = {seed: _open(work, run.network) for seed, run in runs.items()}
    pruned = {seed: _measure(work, one) for seed, one in opened.items()}
    first = training.seeds[0]
    progress.step("measuring speed", _TIMING)
    pairs = [(pruned[seed], controls[seed]) for seed in controls]
    result = PruneResult(
        checkpoint=out,
        units=tuple(begun.result["units"]),
        share=left,
        source=_measure(work, work.source),
        pruned=pruned,
        controls=controls,
        difference=pooled_interval(pairs) if pairs else None,
        speed=compare_speed({"source": work.source, "pruned": opened[first]}, threads=training.threads),
        images=len(work.report),
        warnings=work.warnings,
    )
    told = render_pruning(result.to_dict(), _facts(work, left), name=work.card.name, measured=begun.result["images"])
    _write(page, told.encode())
    _write(out, runs[first].network.read_bytes())
    return result


def _write(place: Path, data: bytes) -> None:
    half = place.with_name(place.name + ".half")
    half.write_bytes(data)
    half.replace(place)


def _facts(work: _Work, left: float) -> dict[str, str]:
    training, options = work.training, work.options
    target = f"{options.latency_ms:g} ms" if options.share is None else f"{options.share:.0%} of the multiply-adds"
    return {
        "model": work.model.name,
        "data": str(work.dataset.origin),
        "target": target,
        "reached": f"{left:.1%} of the multiply-adds, in {options.steps} step{'s' * (options.steps != 1)}",
        "numbers of channels": f"multiples of {options.multiple}",
        "size": format_size(work.card.input.size_hw),
        "epochs": str(training.epochs),
        "batch": str(training.batch),
        "learning rate": f"{training.lr:g}, AdamW, cosine",
        "seeds": ", ".join(map(str, training.seeds)),
        "threads": str(work.threads),
    }


def _cost(training: TrainOptions, options: PruneOptions) -> float:
    """Returns what all steps take together."""
    trained = _EPOCH * training.epochs * (2 if training.has_control else 1)
    tried = _TRIALS * _PRUNING if options.share is None else 0.0
    each = (options.steps - 1) * _MEASURING + trained
    return _OPENING + _MEASURING + tried + len(training.seeds) * each + _TIMING


def _prepare(model: Path, out: Path, training: TrainOptions, options: PruneOptions, progress: Progress) -> _Work:
    progress.plan(_cost(training, options))
    progress.step("opening the model, reading the data set", _OPENING)
    sandbox = Sandbox.REQUIRED if training.sandboxed else Sandbox.OFF
    source = open_measured(model, training.size_hw, sandbox=sandbox)
    card = source.card
    material = gather_material(card, BuildOptions(data=training.data, seed=training.seed))
    assert material.dataset is not None  # there is `data`
    assert material.splits is not None
    report, dataset = material.splits.report, material.dataset
    # By content: the same image under another name would be trained on and reported on.
    reported = {sample.digest for sample in report}
    trained = [sample for sample in dataset.splits.get("train", ()) if sample.digest not in reported]
    if not trained:
        raise DatasetError("no images to train on", where=dataset.origin, expected="a split `train`")
    folder = out.parent / f".{out.name}.work"
    data = link_data(folder / "data", dataset, card, {"train": trained, "val": trained[:_LEAST_IMAGES]})
    told = (*source.warnings, *(one for one in material.warnings if one.code not in _OF_QUANTIZATION))
    return _Work(model, source, out, folder, card, dataset, report, data, told, training, options, progress)


def _begin(work: _Work) -> tuple[Run, float]:
    """Prunes the model as it was given: the first step of every seed.

    Returns:
        The run, and the share of multiply-adds that shall be left after all steps.

    Raises:
        UsageError: no network is as small or fast as that.
    """
    share, known = work.options.share, None
    if share is None:
        share, known = _share_for(work)
    return _shrink(work, work.model, share ** (1 / work.options.steps), work.folder / "prune-0", known), share


def _pruned(work: _Work, begun: Run, seed: int, share: float) -> tuple[Run, float]:
    """Trains what the first step left, and goes on step by step; returns the last training and the share that is left."""
    steps, folder = work.options.steps, work.folder / f"seed-{seed}"
    shrunk, left = begun, _left(begun)
    first, *later = work.phases()
    run = _train(work, shrunk.network, seed, first, folder / "train-0", "pruned")
    for step, epochs in enumerate(later, 1):
        # Each step takes the same part of what is there.
        shrunk = _shrink(work, run.network, share ** ((step + 1) / steps) / left, folder / f"prune-{step}", None)
        left *= _left(shrunk)
        run = _train(work, shrunk.network, seed, epochs, folder / f"train-{step}", "pruned")
    return run, left


def _left(shrunk: Run) -> float:
    before, after = shrunk.result["multiply_adds"]
    return float(after / before)


def _control(work: _Work, seed: int) -> Run:
    """Trains the model as it is, the same way."""
    given, run = work.model, None
    for step, epochs in enumerate(work.phases()):
        folder = work.folder / f"seed-{seed}" / f"control-{step}"
        run = _train(work, given, seed, epochs, folder, "control")
        given = run.network
    assert run is not None  # there is a step
    return run


def _shrink(work: _Work, given: Path, share: float, folder: Path, sensitivities: list[float] | None) -> Run:
    """Prunes a network; where its groups were measured before, they are not measured again."""
    cost = _MEASURING if sensitivities is None else _PRUNING
    work.progress.step(f"pruning to {share:.0%} of the multiply-adds", cost)
    job = {
        "kind": "prune",
        "task": work.card.task.value,
        "sandbox": work.sandbox.value,
        "threads": work.threads,
        "size_hw": list(work.card.input.size_hw),
        "multiple": work.options.multiple,
        "share": share,
        "sensitivities": sensitivities,
        "images": work.options.images,
        "arguments": work.training.arguments(work.data, work.card.input.size_hw, 1, work.training.seed),
    }
    return run_job(folder, job, given, lambda line: _tell(work.progress, line))


def _train(work: _Work, given: Path, seed: int, epochs: int, folder: Path, what: str) -> Run:
    work.progress.step(f"training the {what} network, seed {seed}", _EPOCH * epochs)
    job = {
        "kind": "train",
        "task": work.card.task.value,
        "sandbox": work.sandbox.value,
        "threads": work.threads,
        "arguments": work.training.arguments(work.data, work.card.input.size_hw, epochs, seed),
    }
    return run_job(folder, job, given, lambda line: _tell(work.progress, line))


def _tell(progress: Progress, line: Mapping[str, Any]) -> None:
    if "epoch" in line:
        progress.part(line["epoch"], line["epochs"])
    elif "unit" in line:
        progress.part(line["unit"], line["units"])


def _share_for(work: _Work) -> tuple[float, list[float]]:
    """Returns the share of multiply-adds that is as fast as asked for, and the sensitivities that were measured on the way.

    Networks of several shares are made and timed.

    Raises:
        UsageError: no network is so fast.
    """
    wanted_ms = work.options.latency_ms
    assert wanted_ms is not None  # the caller looked
    low, high = _LEAST_TRIED, 1.0
    best: float | None = None
    known: list[float] | None = None
    for trial in range(_TRIALS):
        share = (low + high) / 2
        try:
            run = _shrink(work, work.model, share, work.folder / f"trial-{trial}", known)
        except UsageError:
            low = share  # no network is so small
            continue
        known = [one["sensitivity"] for one in run.result["units"]]
        both = {"source": work.source, "pruned": _open(work, run.network)}
        took_ms = compare_speed(both, threads=work.training.threads).medians_ms["pruned"]
        work.progress.note(f"{share:.1%} of the multiply-adds take {took_ms:.2f} ms")
        low, high, best = (share, high, share) if took_ms <= wanted_ms else (low, share, best)
    if best is None or known is None:
        raise UsageError(
            "no network of these layers is so fast here",
            where="--target-latency-ms",
            got=wanted_ms,
            hint="Give a smaller image size, a smaller model, or quantize what is left.",
        )
    return best, known


def _open(work: _Work, checkpoint: Path) -> Measured:
    return open_measured(checkpoint, work.card.input.size_hw, sandbox=work.sandbox)


def _measure(work: _Work, one: Measured) -> Accuracy:
    return measure_accuracy(one, work.report, threads=work.training.threads)
