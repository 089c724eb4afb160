# SPDX-License-Identifier: Apache-2.0
"""False alarms of the monitor, and how soon it finds planted shifts: real images, a real model's answers.

A pool of images is predicted once as it is and once under each shift; every seed then draws its stream from the pool.

    python bench/monitor_drift.py --bundle bccd.bundle --images bccd/images --out bench/results/monitor-drift.md

Images of a pool are drawn with replacement, so that streams may be longer than the pool; without drift, both sides come from the
same pool. `--seeds` streams without drift, a fifth of it for each shift and strength.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import shipsight
from shipsight.model import ImagePredictions
from shipsight.monitor.features import ANSWERS, CLASSES, Observation, columns, observe
from shipsight.monitor.permuting import compare
from shipsight.vision import decode_image

Pixels = NDArray[np.uint8]
REFERENCE, WINDOW, ERROR, LEAST, LEAST_CLASSES = 300, 100, 0.01, 0.2, 0.1
MOST_WINDOWS = 10

SHIFTS: dict[str, tuple[tuple[float, ...], str, Callable[[Pixels, float], Pixels]]] = {
    "darker": ((0.95, 0.85, 0.6), "levels times", lambda image, by: (image * np.float32(by)).astype(np.uint8)),
    "blurred": ((0.6, 1.0, 2.0), "Gaussian, sigma px", lambda image, by: cv2.GaussianBlur(image, (0, 0), by)),
    "noisy": (
        (1.5, 4.0, 10.0),
        "added deviation, levels",
        lambda image, by: np.clip(image + np.random.default_rng(0).normal(0, by, image.shape), 0, 255).astype(np.uint8),
    ),
    "another resolution": (
        (0.9, 0.75, 0.5),
        "width and height times",
        lambda image, by: cv2.resize(image, None, fx=by, fy=by, interpolation=cv2.INTER_AREA),
    ),
}
MIXES = (0.1, 0.2, 0.4)  # share of the images drawn from those that hold most of the rarest class
NEW = (0.05, 0.15, 0.4)  # share of the images in which one object is of a class that never came before


def observations(bundle: str, images: Sequence[Pixels]) -> list[Observation]:
    predictor = shipsight.load(bundle)
    return [observe(image, predictor.predict(image)[0]) for image in images]


def drawn(pool: Sequence[Observation], count: int, draw: np.random.Generator) -> list[Observation]:
    return [pool[at] for at in draw.integers(0, len(pool), count)]


def judge(reference: list[Observation], window: list[Observation], seed: int) -> tuple[float, list[str]]:
    """Returns the least chance of any feature, and the features that alarm."""
    found = compare(columns(reference), columns(window), seed=seed)
    alarms = [
        name
        for name, one in found.items()
        if one.p_family <= ERROR and one.effect >= (LEAST_CLASSES if name == CLASSES else LEAST)
    ]
    return min(one.p_family for one in found.values()), alarms


def wilson(hits: int, trials: int) -> tuple[float, float]:
    share, z = hits / trials, 1.96
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / (1 + z * z / trials)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def false_alarms(pool: Sequence[Observation], seeds: int) -> list[str]:
    least, alarms = [], 0
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        chance, named = judge(drawn(pool, REFERENCE, draw), drawn(pool, WINDOW, draw), seed)
        least.append(chance)
        alarms += bool(named)
    lines = ["| level | windows that pass it without drift | 95 % interval | contains the level |", "|---|---|---|---|"]
    for level in (0.01, 0.05, 0.2):
        hits = sum(one <= level for one in least)
        low, high = wilson(hits, seeds)
        lines.append(
            f"| {level:g} | {hits} of {seeds} | {low:.1%} to {high:.1%} | {'yes' if low <= level <= high else '**no**'} |"
        )
    return [*lines, "", f"Alarms (level {ERROR:g} and large enough): {alarms} of {seeds}.", ""]


def delay(pool: Sequence[Observation], shifted: Callable[[np.random.Generator], list[Observation]], seeds: int) -> str:
    """Returns the cells of a row: seen in the first window, median delay, what was named first."""
    first, delays, named = 0, [], []
    for seed in range(seeds):
        draw = np.random.default_rng(100_000 + seed)
        reference = drawn(pool, REFERENCE, draw)
        for number in range(1, MOST_WINDOWS + 1):
            _, alarms = judge(reference, shifted(draw), seed * MOST_WINDOWS + number)
            if alarms:
                first += number == 1
                delays.append(number * WINDOW)
                named.append(alarms[0])
                break
    told = f"{int(statistics.median(delays))}" if delays else "-"
    most = max(set(named), key=named.count) if named else "-"
    return f"{first / seeds:.0%} | {len(delays) / seeds:.0%} | {told} | {most} |"


def with_new_class(one: Observation) -> Observation:
    return Observation(one.numbers, (*one.counts[:-1], one.counts[-1] + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--most", type=int, default=300, help="images of the pool")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    paths = [one for one in sorted(arguments.images.rglob("*")) if one.suffix.lower() in (".jpg", ".jpeg", ".png")]
    images = [decode_image(one) for one in paths[:: max(1, len(paths) // arguments.most)][: arguments.most]]
    pool = observations(arguments.bundle, images)
    lines = [f"## {Path(arguments.bundle).stem}: {len(images)} images, {arguments.seeds} seeds", ""]
    lines += false_alarms(pool, arguments.seeds)
    lines += [
        f"| shift | strength | alarm in the first {WINDOW} images | within {MOST_WINDOWS * WINDOW} | median images until | most often |",
        "|---|---|---|---|---|---|",
    ]
    few = max(arguments.seeds // 5, 1)
    for name, (strengths, unit, change) in SHIFTS.items():
        for strength in strengths:
            other = observations(arguments.bundle, [change(image, strength) for image in images])
            row = delay(pool, lambda draw, other=other: drawn(other, WINDOW, draw), few)
            lines.append(f"| {name} ({unit}) | {strength:g} | {row}")
            print(lines[-1], flush=True)
    counts = np.array([one.counts for one in pool])
    present = np.flatnonzero(counts.sum(axis=0))
    rare = present[np.argmin(counts.sum(axis=0)[present])]
    most = [pool[at] for at in np.argsort(-counts[:, rare])[: max(len(pool) // 10, 5)]]
    for share in MIXES:

        def mixed(draw: np.random.Generator, share: float = share) -> list[Observation]:
            many = draw.random(WINDOW) < share
            return [drawn(most if one else pool, 1, draw)[0] for one in many]

        lines.append(f"| rarest class (share of images that hold most of it) | {share:g} | {delay(pool, mixed, few)}")
        print(lines[-1], flush=True)
    widened = [Observation(one.numbers, (*one.counts, 0)) for one in pool]
    for share in NEW:

        def new(draw: np.random.Generator, share: float = share) -> list[Observation]:
            return [with_new_class(one) if draw.random() < share else one for one in drawn(widened, WINDOW, draw)]

        lines.append(f"| a class that never came (share of images) | {share:g} | {delay(widened, new, few)}")
        print(lines[-1], flush=True)
    lines += ["", *cost(images, shipsight.load(arguments.bundle).predict(images[0])[0], pool), ""]
    text = "\n".join(lines)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


def cost(images: Sequence[Pixels], answer: ImagePredictions, pool: Sequence[Observation]) -> list[str]:
    """Times what an image costs, and a window."""
    spent = []
    for image in images[:100]:
        begin_s = time.perf_counter()
        observe(image, answer)
        spent.append(time.perf_counter() - begin_s)
    draw = np.random.default_rng(0)
    begin_s = time.perf_counter()
    compare(columns(drawn(pool, REFERENCE, draw)), columns(drawn(pool, WINDOW, draw)))
    window_s = time.perf_counter() - begin_s
    a_second = 2 * statistics.median(spent) + window_s * 2 / WINDOW
    return [
        f"An image that is looked at costs {statistics.median(spent) * 1e3:.1f} ms (median of {len(spent)}, {len(ANSWERS)} numbers of the answer included), a window "
        f"{window_s * 1e3:.0f} ms: at 2 images a second {a_second * 1e3:.0f} ms of one core a second ({a_second / 2:.2%} of two cores)."
    ]


if __name__ == "__main__":
    main()
