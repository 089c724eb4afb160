# SPDX-License-Identifier: Apache-2.0
"""`shipsight optimize`: what makes a model smaller and faster by changing its weights, measured against a control."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shipsight.cli.output import TerminalProgress, make_table, number, print_json, screen, warn
from shipsight.errors import UsageError

__all__ = ["optimize_app"]

optimize_app = typer.Typer(
    help="Make a model smaller and faster by training, measured against a control.", no_args_is_help=True
)


@optimize_app.callback()
def _group() -> None:
    """Keeps the verb's name where there is one verb."""


@optimize_app.command("prune")
def prune_command(
    model: Annotated[Path, typer.Argument(help="Trained model: an Ultralytics .pt file.")],
    data: Annotated[Path, typer.Option(help="data.yaml of the data set, or a folder of classes.")],
    out: Annotated[
        Path | None, typer.Option(help="Checkpoint to write; default: the model's name with -pruned.pt.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing checkpoint and its page.")] = False,
    target_flops: Annotated[
        float | None, typer.Option(help="Share of the multiply-adds that is left; default 0.55.")
    ] = None,
    target_latency_ms: Annotated[
        float | None, typer.Option(help="Median of one inference that is wanted, OpenVINO in float32 on this machine.")
    ] = None,
    imgsz: Annotated[str | None, typer.Option(help="Input size: 640 or 384x640; default: as trained.")] = None,
    multiple: Annotated[int, typer.Option(help="Of which numbers of channels are one.")] = 16,
    steps: Annotated[int, typer.Option(help="In how many steps channels go, each with its part of the epochs.")] = 1,
    images: Annotated[int, typer.Option(help="Training images that sensitivity is measured on.")] = 64,
    epochs: Annotated[int, typer.Option(help="Epochs in all.")] = 30,
    batch: Annotated[int, typer.Option(help="Images a step of the training.")] = 16,
    lr: Annotated[float, typer.Option(help="Learning rate that the training begins with.")] = 0.001,
    seeds: Annotated[str, typer.Option(help="Seeds of the trainings, comma-separated: a pair of runs for each.")] = "0",
    no_control: Annotated[bool, typer.Option("--no-control", help="Train no control, and claim nothing.")] = False,
    threads: Annotated[int | None, typer.Option(help="Threads; default: one per core.")] = None,
    device: Annotated[str, typer.Option(help="That is trained on: cpu, or 0 for the first GPU.")] = "cpu",
    unsandboxed: Annotated[
        bool, typer.Option("--unsandboxed", help="Open the model even where no sandbox works.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Take channels out of a model and train what is left, beside a control that lost none."""
    from shipsight.model import parse_size
    from shipsight.training import PruneOptions, TrainOptions, prune

    if target_flops is not None and target_latency_ms is not None:
        raise UsageError("one target is enough", where="--target-flops, --target-latency-ms")
    share = None if target_latency_ms is not None else 0.55 if target_flops is None else target_flops
    training = TrainOptions(
        data=data,
        size_hw=None if imgsz is None else parse_size(imgsz),
        epochs=epochs,
        batch=batch,
        lr=lr,
        seeds=_seeds(seeds),
        has_control=not no_control,
        threads=threads,
        device=device,
        sandboxed=not unsandboxed,
    )
    options = PruneOptions(share=share, latency_ms=target_latency_ms, multiple=multiple, steps=steps, images=images)
    place = model.with_name(f"{model.stem}-pruned.pt").name if out is None else out
    with TerminalProgress(quiet=as_json) as progress:
        result = prune(model, out=Path(place), training=training, options=options, progress=progress, force=force)
    told = result.to_dict()
    for one in result.warnings:
        warn(one.code, one.text)
    if as_json:
        print_json(told)
    else:
        _print(told)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError("not seeds", where="--seeds", expected="0,1,2", got=text[:60]) from None


def _print(told: dict[str, Any]) -> None:
    console = screen()
    metric = {"top1": "top-1"}.get(told["metric"], "mAP50-95")
    rows = [["source", "-", number(told["source"], 4), number(told["latency_ms"]["source"], 2), "1.00"]]
    timed = [number(told["latency_ms"]["pruned"], 2), number(told["speedup"], 2)]
    for seed, value in told["pruned"].items():
        rows.append(["pruned", str(seed), number(value, 4), *timed])
        timed = ["-", "-"]  # the first is timed, and written
    rows += [["control", str(seed), number(value, 4), "-", "-"] for seed, value in told["controls"].items()]
    console.print(make_table(["network", "seed", metric, "ms", "times as fast"], rows))
    narrow = sorted(told["units"], key=lambda one: one["kept"] / one["channels"])
    console.print(f"\n{told['share']:.0%} of the multiply-adds are left; most channels went from:")
    for one in narrow[:5]:
        console.print(f"  {one['name']}: {one['kept']} of {one['channels']}", markup=False)
    difference = told["difference"]
    if difference is None:
        console.print("\nNo control was trained: what pruning costs is not known.")
    else:
        low, high = difference["low"], difference["high"]
        console.print(
            f"\npruned minus control, {told['images_measured']} images, {len(told['controls'])} seed(s): "
            f"{difference['value']:+.4f} [{low:+.4f}, {high:+.4f}]",
            markup=False,
        )
    page = Path(told["checkpoint"]).with_suffix(".html")
    console.print(f"\nwritten: {told['checkpoint']}, {page}", markup=False)
    console.print(f"next:    shipsight build {told['checkpoint']} --data ...", markup=False)
