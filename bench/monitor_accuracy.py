# SPDX-License-Identifier: Apache-2.0
"""Precision estimated without labels: how often its interval holds what labels show, on held-out images, as they are and shifted.

    python bench/monitor_accuracy.py --bundle bccd.bundle --data bccd/data.yaml --out bench/results/monitor-accuracy.md

The labelled images are predicted once as they are and once under each shift. Every seed draws half of them as the images of the
proof (threshold and chances come from those alone, unshifted) and a window from the other half, each image at most once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from monitor_drift import Pixels, wilson
from numpy.typing import NDArray

import shipsight
from shipsight.build.measure import Sample, load_dataset
from shipsight.build.measure.average_precision import confidence_curves
from shipsight.build.measure.matching import MatchTable
from shipsight.build.measure.task_matching import TASK_MATCHERS
from shipsight.model import Task
from shipsight.monitor.accuracy import estimate
from shipsight.proof import calibrate
from shipsight.vision import decode_image

SHIFTS: dict[str, Callable[[Pixels], Pixels]] = {
    "none": lambda image: image,
    "levels times 0.6": lambda image: (image * np.float32(0.6)).astype(np.uint8),
    "levels times 0.25": lambda image: (image * np.float32(0.25)).astype(np.uint8),
    "blurred, sigma 2 px": lambda image: cv2.GaussianBlur(image, (0, 0), 2.0),
    "blurred, sigma 5 px": lambda image: cv2.GaussianBlur(image, (0, 0), 5.0),
    "noise, deviation 30": lambda image: np.clip(
        image + np.random.default_rng(0).normal(0, 30, image.shape), 0, 255
    ).astype(np.uint8),
    "a quarter of the size": lambda image: cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA),
}


def matches(bundle: str, samples: Sequence[Sample], classes: int, change: Callable[[Pixels], Pixels]) -> MatchTable:
    predictor, matcher = shipsight.load(bundle), TASK_MATCHERS[Task.DETECT][-1](classes)
    for sample in samples:
        image = change(decode_image(sample.image))
        matcher.add(predictor.predict(image, conf=0.001, iou=0.7, max_det=300)[0], sample)
    return matcher.table("all")


def part(table: MatchTable, chosen: NDArray[np.int64]) -> MatchTable:
    """Returns the table of some images, numbered anew."""
    number = np.full(len(table.label_counts), -1)
    number[chosen] = np.arange(len(chosen))
    kept = number[table.image] >= 0
    return MatchTable(
        image=number[table.image[kept]].astype(np.int32),
        class_ids=table.class_ids[kept],
        scores=table.scores[kept],
        matched=table.matched[:, kept],
        ignored=table.ignored[:, kept],
        label_counts=table.label_counts[chosen],
    )


def row(usual: MatchTable, shifted: MatchTable, seeds: int, window: int) -> str:
    """Returns the cells of a shift: precision by labels and estimated, how often the interval holds it, its half width, alarms."""
    truths, values, widths, held, alarms, low_misses = [], [], [], 0, 0, 0
    images = len(usual.label_counts)
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(images)
        proof = part(usual, order[: images // 2])
        curves = confidence_curves(proof)
        conf = float(curves.confidence[curves.best()])
        calibration = calibrate(proof.image, proof.scores, proof.matched[0], images=images // 2, conf=conf)
        chosen = order[images // 2 :][:window]
        here = part(shifted, chosen)
        counted = here.scores >= conf
        scores = [here.scores[counted & (here.image == at)].tolist() for at in range(len(chosen))]
        found = None if calibration is None else estimate(calibration, scores, seed=seed)
        if found is None:
            continue
        truth = float(here.matched[0][counted].mean())
        truths.append(truth)
        values.append(found.value)
        widths.append((found.high - found.low) / 2)
        held += found.low <= truth <= found.high
        low_misses += truth < found.low
        alarms += found.is_alarm
    if not truths:
        return f"- | - | 0 of {seeds} estimated | - | - | - |"
    low, high = wilson(held, len(truths))
    return (
        f"{np.mean(truths):.3f} | {np.mean(values):.3f} | {held} of {len(truths)} ({low:.0%} to {high:.0%}) | {low_misses} | ±{np.mean(widths):.3f} | "
        f"{alarms} of {len(truths)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val", help="comma-separated splits whose images are pooled")
    parser.add_argument("--most", type=int, default=300, help="labelled images")
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data, task=Task.DETECT)
    pooled = [one for split in arguments.split.split(",") for one in dataset.splits[split]]
    samples = pooled[:: max(1, len(pooled) // arguments.most)][: arguments.most]
    classes = len(dataset.class_names)
    window = min(arguments.window, len(samples) - len(samples) // 2)
    lines = [
        f"## {Path(arguments.bundle).stem}: {len(samples)} labelled images ({arguments.split}), {len(samples) // 2} as the proof, windows of {window}, {arguments.seeds} seeds",
        "",
        "| shift | precision by labels | estimated | interval holds it (95 % interval of the share) | labels lower than the interval | half width | alarms |",
        "|---|---|---|---|---|---|---|",
    ]
    usual = matches(arguments.bundle, samples, classes, SHIFTS["none"])
    for name, change in SHIFTS.items():
        shifted = usual if name == "none" else matches(arguments.bundle, samples, classes, change)
        lines.append(f"| {name} | {row(usual, shifted, arguments.seeds, window)}")
        print(lines[-1], flush=True)
    text = "\n".join([*lines, ""])
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
