# SPDX-License-Identifier: Apache-2.0
"""`shipsight optimize prune`: channels go, the rest is trained again, and a control that lost none is trained the same way.

Decisions look at training images alone: some train, some are held out. What is published is measured on the validation split, once,
when all is over. Leaves to others: which channels (`planning`, `_pruning`), the trainings (`runs`), measuring (`measuring`). Stable.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipsight.build.material import gather_material
from shipsight.build.measure import Accuracy, Alternation, Dataset, Interval, Sample, compare, pooled_interval
from shipsight.build.options import BuildOptions
from shipsight.build.progress import Progress
from shipsight.build.sources import Sandbox, open_source
from shipsight.errors import DatasetError, UsageError
from shipsight.model import Card, format_size
from shipsight.training.data import link_data
from shipsight.training.measuring import Measured, compare_speed, measure_accuracy, open_measured
from shipsight.training.options import PruneOptions, TrainOptions
from shipsight.training.page import render_pruning
from shipsight.training.runs import Run, run_job

__all__ = ["PruneResult", "prune"]

# What steps take beside each other, for the estimate of the time left.
_OPENING, _MEASURING, _EPOCH, _TIMING = 5.0, 60.0, 20.0, 20.0
_TRIALS = 6  # networks that are made and timed for a latency


@dataclass(frozen=True, eq=False)
class PruneResult:
    """What pruning gave.

    Attributes:
        checkpoint: of the first seed, of stock classes alone.
        units: of the last step: name, channels before it and kept, sensitivity.
        share: of the multiply-adds that is left.
        source: accuracy of the model that was given.
        pruned: accuracies by seed.
        controls: accuracies of the controls, by seed; empty without.
        difference: pruned minus control over all seeds, None without controls.
        speed: of source and pruned in turns.
        images: how many the accuracies are measured on.
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
        }


@dataclass(frozen=True, eq=False)
class _Work:
    """What all runs of a command share."""

    model: Path
    out: Path
    folder: Path
    card: Card
    dataset: Dataset
    report: tuple[Sample, ...]
    data: Path
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
    if out.exists() and not force:
        raise UsageError("the checkpoint exists", where=out, hint="Give --force to replace it, or another --out.")
    work = _prepare(model, out, training, options, progress)
    share = options.share if options.share is not None else _share_for(work)
    pruned, controls = {}, {}
    left = share
    first: Run | None = None
    pruning: Run | None = None
    for seed in training.seeds:
        run, shrunk, left = _pruned(work, seed, share)
        first, pruning = first or run, pruning or shrunk
        pruned[seed] = _measure(work, run.network)
        if training.has_control:
            controls[seed] = _measure(work, _control(work, seed).network)
    assert first is not None  # there is a seed
    assert pruning is not None
    progress.step("measuring speed", _TIMING)
    source = _open(work, model)
    speed = compare_speed({"source": source, "pruned": _open(work, first.network)}, threads=training.threads)
    accuracy = measure_accuracy(source, work.report, threads=training.threads)
    pairs = [(pruned[seed], controls[seed]) for seed in controls]
    result = PruneResult(
        checkpoint=out,
        units=tuple(pruning.result["units"]),
        share=left,
        source=accuracy,
        pruned=pruned,
        controls=controls,
        difference=pooled_interval(pairs) if len(pairs) > 1 else compare(*pairs[0]) if pairs else None,
        speed=speed,
        images=len(work.report),
    )
    page = render_pruning(result.to_dict(), _facts(work, left), name=work.card.name, measured=pruning.result["images"])
    _write(out.with_suffix(".html"), page.encode())
    _write(out, first.network.read_bytes())
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
    tried = _TRIALS * _MEASURING if options.share is None else 0.0
    return _OPENING + tried + len(training.seeds) * (options.steps * _MEASURING + trained) + _TIMING


def _prepare(model: Path, out: Path, training: TrainOptions, options: PruneOptions, progress: Progress) -> _Work:
    progress.plan(_cost(training, options))
    progress.step("opening the model, reading the data set", _OPENING)
    sandbox = Sandbox.REQUIRED if training.sandboxed else Sandbox.OFF
    with open_source(model, sandbox=sandbox) as source:
        card = source.card if training.size_hw is None else source.card.with_size(training.size_hw)
    material = gather_material(card, BuildOptions(data=training.data, seed=training.seed))
    assert material.dataset is not None  # there is `data`
    assert material.splits is not None
    splits, dataset = material.splits, material.dataset
    held = {sample.image for sample in splits.guard}
    trained = [sample for sample in dataset.splits.get("train", ()) if sample.image not in held]
    seen = {sample.image for sample in splits.report}
    trained = [sample for sample in trained if sample.image not in seen]
    if not trained:
        raise DatasetError("no images to train on", where=dataset.origin, expected="a split `train`")
    folder = out.parent / f".{out.name}.work"
    data = link_data(folder / "data", dataset, card, {"train": trained, "val": splits.guard or trained[:8]})
    return _Work(model, out, folder, card, dataset, splits.report, data, training, options, progress)


def _pruned(work: _Work, seed: int, share: float) -> tuple[Run, Run, float]:
    """Prunes and trains for one seed, step by step; returns the last training, the first pruning and the share that is left."""
    steps, given, left = work.options.steps, work.model, 1.0
    first: Run | None = None
    run: Run | None = None
    for step, epochs in enumerate(work.phases()):
        # Each step takes the same part of what is there.
        wanted = share ** ((step + 1) / steps) / left
        shrunk = _shrink(work, given, wanted, seed, work.folder / f"seed-{seed}" / f"prune-{step}")
        whole, rest = shrunk.result["multiply_adds"]
        left *= rest / whole
        first = first or shrunk
        run = _train(work, shrunk.network, seed, epochs, work.folder / f"seed-{seed}" / f"train-{step}", "pruned")
        given = run.network
    assert run is not None  # there is a step
    assert first is not None
    return run, first, left


def _control(work: _Work, seed: int) -> Run:
    """Trains the model as it is, the same way."""
    given, run = work.model, None
    for step, epochs in enumerate(work.phases()):
        folder = work.folder / f"seed-{seed}" / f"control-{step}"
        run = _train(work, given, seed, epochs, folder, "control")
        given = run.network
    assert run is not None  # there is a step
    return run


def _shrink(work: _Work, given: Path, share: float, seed: int, folder: Path) -> Run:
    work.progress.step(f"pruning to {share:.0%} of the multiply-adds: what each layer matters", _MEASURING)
    job = {
        "kind": "prune",
        "task": work.card.task.value,
        "sandbox": work.sandbox.value,
        "threads": work.threads,
        "size_hw": list(work.card.input.size_hw),
        "multiple": work.options.multiple,
        "share": share,
        "images": work.options.images,
        "arguments": work.training.arguments(work.data, work.card.input.size_hw, 1, seed),
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


def _share_for(work: _Work) -> float:
    """Returns the share of multiply-adds that is as fast as asked for: networks of several shares are made and timed.

    Raises:
        UsageError: no network is so fast.
    """
    wanted_ms = work.options.latency_ms
    assert wanted_ms is not None  # the caller looked
    low, high = 0.15, 1.0
    best: float | None = None
    for trial in range(_TRIALS):
        share = (low + high) / 2
        run = _shrink(work, work.model, share, work.training.seeds[0], work.folder / f"trial-{trial}")
        both = {"source": _open(work, work.model), "pruned": _open(work, run.network)}
        took_ms = compare_speed(both, threads=work.training.threads).medians_ms["pruned"]
        work.progress.note(f"{share:.1%} of the multiply-adds take {took_ms:.2f} ms")
        if took_ms <= wanted_ms:
            best, low = share, share
        else:
            high = share
    if best is None:
        raise UsageError(
            "no network of these layers is so fast here",
            where="--target-latency-ms",
            got=wanted_ms,
            hint="Give a smaller image size, a smaller model, or quantize what is left.",
        )
    return best


def _open(work: _Work, checkpoint: Path) -> Measured:
    return open_measured(checkpoint, work.card.input.size_hw, sandbox=work.sandbox)


def _measure(work: _Work, checkpoint: Path) -> Accuracy:
    return measure_accuracy(_open(work, checkpoint), work.report, threads=work.training.threads)
