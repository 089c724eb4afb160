# SPDX-License-Identifier: Apache-2.0
"""Pruning against a matched control, and against a plain network of half the width: accuracy by seed, speed at two sizes.

The three are trained on the same images for the same epochs with the same seeds. Where the network of half the width, which nobody pruned,
loses less than 2 points against the control, the benchmark says nothing (the task is too easy), and ends with 1. Speed is
OpenVINO in float32, pruned and source in turns.

    python bench/prune.py --model models/bccd-yolo11n.pt --data data/bccd/data.yaml --imgsz 320 --seeds 0,1,2 --out bench/results/prune-bccd.md

Needs `shipsight[ultralytics]`. Goes on where it was when it was killed (`--work`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from shipsight.build.measure import Interval, pooled_interval
from shipsight.build.progress import Silent
from shipsight.build.sources import Sandbox
from shipsight.training import PruneOptions, PruneResult, TrainOptions, prune
from shipsight.training.measuring import compare_speed, open_measured

VOID_BELOW = 0.02


class Told(Silent):
    """Prints steps."""

    def step(self, text: str, cost: float = 1.0) -> None:
        print(datetime.now(UTC).strftime("%H:%M:%S"), text, flush=True)


def half_width(model: Path, place: Path, size: int) -> Path:
    """Writes a network like the model's, of half the width and untrained."""
    if place.exists():
        return place
    program = """
import sys, torch
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel, yaml_model_load
given = YOLO(sys.argv[1]).model
description = yaml_model_load(sys.argv[3])
description["scales"] = {"n": [0.50, 0.125, 1024]}
description["scale"] = "n"
torch.manual_seed(0)
network = DetectionModel(description, nc=len(given.names), verbose=False)
network.names = given.names
network.args = {"task": "detect", "imgsz": int(sys.argv[4])}
torch.save({"epoch": -1, "model": network, "train_args": network.args}, sys.argv[2])
"""
    place.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", program, str(model), str(place), "yolo11n.yaml", str(size)]
    subprocess.run(command, check=True, capture_output=True)
    return place


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.55)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--speed-at", default="320,640")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def trained(
    arguments: argparse.Namespace, model: Path, out: str, options: PruneOptions, *, has_control: bool
) -> PruneResult:
    training = TrainOptions(
        data=arguments.data,
        size_hw=(arguments.imgsz, arguments.imgsz),
        epochs=arguments.epochs,
        lr=arguments.lr,
        seeds=tuple(map(int, arguments.seeds.split(","))),
        has_control=has_control,
    )
    return prune(model, out=arguments.work / out, training=training, options=options, progress=Told(), force=True)


def speeds(source: Path, pruned: Path, sizes: list[int]) -> list[str]:
    """Returns a table of source and pruned in turns, a row a size."""
    rows = ["| image size | source, ms | pruned, ms | times as fast |", "|---|---|---|---|"]
    for size in sizes:
        both = {
            name: open_measured(path, (size, size), sandbox=Sandbox.REQUIRED)
            for name, path in (("source", source), ("pruned", pruned))
        }
        speed = compare_speed(both, threads=None)
        medians = speed.medians_ms
        rows.append(f"| {size} | {medians['source']:.2f} | {medians['pruned']:.2f} | {speed.speedup('pruned'):.2f} |")
    return rows


def render(arguments: argparse.Namespace, result: PruneResult, half: PruneResult, lost: Interval) -> str:
    told = result.to_dict()
    minus_control = {"value": -lost.value, "low": -lost.high, "high": -lost.low}
    lines = [
        f"# {arguments.model.stem} pruned to {told['share']:.1%} of its multiply-adds",
        "",
        f"{arguments.epochs} epochs at {arguments.imgsz} px in {arguments.steps} step(s), seeds {arguments.seeds}, {result.images} validation images "
        f"that no decision looked at; {platform.machine()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at the end.",
        "",
        f"Pruned minus control, {told['metric']}: **{interval(told['difference'])}**. Half width minus control: {interval(minus_control)}. "
        f"As it was given: {told['source']:.4f}.",
        "",
        "| seed | pruned | control | half width |",
        "|---|---|---|---|",
        *(
            f"| {seed} | {one.value:.4f} | {result.controls[seed].value:.4f} | {half.pruned[seed].value:.4f} |"
            for seed, one in result.pruned.items()
        ),
        "",
        *speeds(arguments.model, result.checkpoint, [int(size) for size in arguments.speed_at.split(",")]),
        "",
        "```json",
        json.dumps({one["name"]: [one["kept"], one["channels"]] for one in told["units"]}),
        "```",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    arguments = read_arguments()
    arguments.work.mkdir(parents=True, exist_ok=True)
    options = PruneOptions(share=arguments.share, steps=arguments.steps)
    result = trained(arguments, arguments.model, "pruned.pt", options, has_control=True)
    narrow = half_width(arguments.model, arguments.work / "half-width.pt", arguments.imgsz)
    # A share of nearly one leaves a network as it is: the same trainings, and nothing taken.
    nothing = PruneOptions(share=0.9999, steps=arguments.steps, multiple=1, images=16)
    half = trained(arguments, narrow, "half-trained.pt", nothing, has_control=False)
    lost = pooled_interval([(result.controls[seed], one) for seed, one in half.pruned.items()])
    text = render(arguments, result, half, lost)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    if lost.value < VOID_BELOW:
        raise SystemExit(f"void: half the width loses only {lost.value:.4f}")


def interval(one: dict[str, float]) -> str:
    return f"{one['value']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"


if __name__ == "__main__":
    main()
