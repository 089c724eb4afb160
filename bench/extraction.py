# SPDX-License-Identifier: Apache-2.0
"""Whom the watch for copied models suspects: simulated attacks and normal traffic, with a real model's answers.

Each run is one principal. Attacks ask until they are suspected, or give up; normal traffic is asked to its end, and every
suspicion is a false alarm. Frames of cameras are made from photographs: sensor noise, something that moves, light that
changes, JPEG. Gradients for the augmentation of Papernot et al. come from the attacked model itself, which is more than an
attacker has.

    python bench/extraction.py --bundle yolo11n.bundle --checkpoint yolo11n.pt --data DATA

DATA holds coco128/images and bccd/images. Without --checkpoint (needs the extra ultralytics) those attacks are left out.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import cv2
import numpy as np

import shipsight
from shipsight.access import Event, Principal, PrincipalKind
from shipsight.access.extraction import Extraction, Sign, look_at, sample_of, seen_in

CONF = 0.25
Image = np.ndarray


class Dropped:
    def record(self, event: Event) -> None:
        pass


@dataclass
class Asker:
    """One principal: asks the model, is watched, and remembers when it was suspected first."""

    model: object
    every_s: float
    asked: int = 0
    first: dict[Sign, int] = field(default_factory=dict)
    time_s: float = 0.0
    answers: dict[int, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watch = Extraction(Dropped(), now=lambda: datetime.now(UTC), clock=lambda: self.time_s)
        self.principal = Principal(PrincipalKind.KEY, "key", id="1")

    def __call__(self, image: Image, conf: float = CONF) -> object:
        look = look_at(sample_of(image))
        one = self.answers.get((look.digest, conf))
        if one is None:
            one = self.model.predict(image, conf=conf).images[0]
            self.answers[look.digest, conf] = one
        seen = seen_in(one.class_ids, one.scores, conf=conf, probabilities=one.probabilities)
        self.asked += 1
        self.time_s += self.every_s
        sign = self.watch.observe(self.principal, "model", look, seen)
        if sign is not None:
            self.first.setdefault(sign, self.asked)
        return one


def jpeg(image: Image, quality: int) -> Image:
    return cv2.imdecode(cv2.imencode(".jpg", image, [1, quality])[1], 1)


def clipped(values: Image) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


class Scenarios:
    def __init__(self, coco: list[Image], cells: list[Image], gradient: Callable[[Image], Image] | None) -> None:
        self.coco, self.cells, self.gradient = coco, cells, gradient

    # Attacks: they ask until they are suspected.

    def noise(self, ask: Asker, rng: np.random.Generator, cells: int = 0, most: int = 200) -> None:
        for _ in range(most):
            small = rng.integers(0, 256, (cells or 480, cells or 640, 3), dtype=np.uint8)
            ask(cv2.resize(small, (640, 480), interpolation=cv2.INTER_CUBIC) if cells else small)
            if ask.first:
                return

    def jacobian(self, ask: Asker, rng: np.random.Generator, levels: float = 25.5, seeds: int = 32) -> None:
        """Each round asks about what was asked in the round before, with the gradient's sign added.

        Papernot et al. add it to all that was asked in any round, with a new surrogate's gradient; of one model that would repeat.
        """
        known = [self.coco[place] for place in rng.choice(len(self.coco), seeds, replace=False)]
        for image in known:
            ask(image)
        for _ in range(4):
            for place, image in enumerate(known):
                known[place] = clipped(image.astype(np.float32) + levels * self.gradient(image))
                ask(known[place])
                if ask.first:
                    return

    def random_signs(self, ask: Asker, rng: np.random.Generator, levels: float = 8.0, seeds: int = 32) -> None:
        known = [self.coco[place] for place in rng.choice(len(self.coco), seeds, replace=False)]
        for image in known:
            ask(image)
        for number in range(200):
            image = known[number % seeds]
            ask(clipped(image.astype(np.float32) + levels * rng.choice([-1.0, 1.0], image.shape)))
            if ask.first:
                return

    def border(self, ask: Asker, rng: np.random.Generator, levels: float = 4.0, cells: int = 0) -> None:
        """Halves the way between a photograph with and one without an answer, then tries directions at the border."""
        while True:
            one = self.coco[rng.integers(len(self.coco))]
            if len(ask(one).scores) == 1:
                break
        size = one.shape[1], one.shape[0]
        other = cv2.GaussianBlur(cv2.resize(self.cells[rng.integers(len(self.cells))], size), (0, 0), 9)
        start, end = one.astype(np.float32), other.astype(np.float32)
        while ask.asked < 300 and not ask.first:
            low, high = 0.0, 1.0
            for _ in range(9):
                middle = (low + high) / 2
                found = len(ask(clipped(start + middle * (end - start))).scores) > 0
                low, high = (middle, high) if found else (low, middle)
            here = start + high * (end - start)
            direction = np.zeros_like(start)
            for _ in range(60):
                step = rng.standard_normal((cells or size[1], cells or size[0], 3), dtype=np.float32)
                step = cv2.resize(step, size, interpolation=cv2.INTER_CUBIC) if cells else step
                step *= levels / step.std()
                direction += step if len(ask(clipped(here + step)).scores) == 0 else -step
                if ask.first:
                    return
            end = here + 4 * levels * direction / max(float(direction.std()), 1e-6)

    def photographs(self, ask: Asker, rng: np.random.Generator, most: int = 400) -> None:
        """Crops of data that has little to do with the model's, each once."""
        pool = self.cells + self.coco
        for _ in range(most):
            ask(crop_of(pool[rng.integers(len(pool))], rng))
            if ask.first:
                return

    # Normal traffic.

    def camera(self, ask: Asker, rng: np.random.Generator, frames: int = 200, **how: float) -> None:
        for frame in camera(self.coco, rng, frames, **how):
            ask(frame)

    def cameras(self, ask: Asker, rng: np.random.Generator, number: int = 16, frames: int = 20) -> None:
        """Many cameras with one key, in turn."""
        for shown in zip(*(camera(self.coco, rng, frames, moves=1) for _ in range(number)), strict=True):
            for frame in shown:
                ask(frame)

    def hanging(self, ask: Asker, rng: np.random.Generator, **how: float) -> None:
        """A camera on a scene whose best answer hangs at the threshold."""
        while True:
            image = self.coco[rng.integers(len(self.coco))]
            scores = ask.model.predict(image, conf=0.1).images[0].scores
            if len(scores) and CONF - 0.04 < scores.max() < CONF + 0.1:
                break
            crop = crop_of(image, rng)
            scores = ask.model.predict(crop, conf=0.1).images[0].scores
            if len(scores) and CONF - 0.04 < scores.max() < CONF + 0.1:
                image = crop
                break
        for frame in camera([image], rng, 200, **how):
            ask(frame)

    def moving(self, ask: Asker, rng: np.random.Generator) -> None:
        """A camera that pans."""
        for _ in range(4):
            image = cv2.resize(self.coco[rng.integers(len(self.coco))], (960, 720))
            place, step = rng.uniform(0, 100, 2), rng.uniform(-3, 3, 2)
            for _ in range(60):
                place = np.clip(place + step + rng.normal(0, 0.7, 2), 0, (319, 239))
                x, y = place.astype(int)
                ask(jpeg(clipped(image[y : y + 480, x : x + 640] + 3.0 * standard_noise(rng)), 85))

    def batch(self, ask: Asker, rng: np.random.Generator) -> None:
        """A data set, each image once."""
        for place in rng.permutation(len(self.coco)):
            ask(self.coco[place])

    def batch_cells(self, ask: Asker, rng: np.random.Generator) -> None:
        for place in rng.permutation(len(self.cells)):
            ask(self.cells[place])

    def load(self, ask: Asker, rng: np.random.Generator) -> None:
        """Sixteen images over and over."""
        images = [self.coco[place] for place in rng.choice(len(self.coco), 16, replace=False)]
        for number in range(5000):
            ask(images[number % 16])

    def tuning(self, ask: Asker, rng: np.random.Generator) -> None:
        """Somebody who tries thresholds, sizes, JPEG qualities and exposures on the same images."""
        images = [self.coco[place] for place in rng.choice(len(self.coco), 24, replace=False)]
        for conf in (0.1, 0.25, 0.5):
            for image in images:
                ask(image, conf)
        for quality in (30, 60, 80, 95):
            for image in images:
                ask(jpeg(image, quality))
        for scale in (0.5, 0.75, 1.5):
            for image in images:
                ask(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        for gain in (0.6, 0.8, 1.25, 1.6):
            for image in images:
                ask(clipped(image * gain))
        for sigma in (0.8, 1.5, 3.0):
            for image in images:
                ask(cv2.GaussianBlur(image, (0, 0), sigma))

    def noise_tests(self, ask: Asker, rng: np.random.Generator) -> None:
        """Somebody who tests how the model bears noise: by its images, the attack."""
        images = [self.coco[place] for place in rng.choice(len(self.coco), 24, replace=False)]
        for sigma in (0, 4, 8, 12, 16, 24, 32):
            for image in images:
                ask(clipped(image + rng.normal(0, sigma, image.shape)))


def crop_of(image: Image, rng: np.random.Generator) -> Image:
    height, width = image.shape[:2]
    share = rng.uniform(0.3, 0.9)
    h, w = int(height * share), int(width * share)
    y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
    return np.ascontiguousarray(image[y : y + h, x : x + w][:, :: rng.choice([1, -1])])


def camera(
    pool: list[Image],
    rng: np.random.Generator,
    frames: int,
    *,
    sensor: float = 3.0,
    sensor_at_end: float | None = None,
    light: float = 1.0,
    light_at_end: float | None = None,
    moves: float = 0,
) -> Iterator[Image]:
    """Frames of one scene: something may move in it, noise and light may change."""
    image = cv2.resize(pool[rng.integers(len(pool))], (640, 480)).astype(np.float32)
    thing = cv2.resize(pool[rng.integers(len(pool))], (90, 120)).astype(np.float32)
    place = rng.uniform((0, 0), (550, 360))
    for number in range(frames):
        part = number / frames
        frame = image.copy()
        if moves and number % 100 < 60:
            place = np.clip(place + rng.normal(0, 12, 2), 0, (550, 360))
            x, y = place.astype(int)
            frame[y : y + 120, x : x + 90] = thing
        noise = sensor + part * ((sensor if sensor_at_end is None else sensor_at_end) - sensor)
        bright = light + part * ((light if light_at_end is None else light_at_end) - light)
        yield jpeg(clipped(frame * bright + noise * standard_noise(rng)), 85)


@cache
def _bank() -> Image:
    return np.random.default_rng(7).standard_normal((12, 480, 640, 3), dtype=np.float32)


def standard_noise(rng: np.random.Generator) -> Image:
    """Normal noise of 480 x 640: one of twelve, shifted, since making it anew takes longer than an inference."""
    shifted = np.roll(_bank()[rng.integers(12)], tuple(rng.integers(480, size=2)), axis=(0, 1))
    return shifted if rng.integers(2) else -shifted


def gradient_of(checkpoint: Path) -> Callable[[Image], Image]:
    """Returns what gives the sign of the gradient of the best scores."""
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(1)
    model = YOLO(str(checkpoint)).model.float().eval()

    def gradient(image: Image) -> Image:
        small = cv2.resize(image, (320, 320)).astype(np.float32) / 255
        given = torch.from_numpy(small.transpose(2, 0, 1)[None].copy()).requires_grad_()
        scores = model(given)[0][0, 4:].amax(0)
        scores.topk(20).values.sum().backward()
        sign = np.sign(given.grad[0].numpy().transpose(1, 2, 0))
        return cv2.resize(sign, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_NEAREST)

    return gradient


ATTACKS: list[tuple[str, str, dict[str, float]]] = [
    ("noise, each pixel", "noise", {}),
    ("noise of 64 x 64 cells", "noise", {"cells": 64}),
    ("noise of 16 x 16 cells", "noise", {"cells": 16}),
    ("noise of 8 x 8 cells", "noise", {"cells": 8}),
    ("Jacobian augmentation, 25.5 levels", "jacobian", {"levels": 25.5}),
    ("Jacobian augmentation, 8 levels", "jacobian", {"levels": 8.0}),
    ("Jacobian augmentation, 3 levels", "jacobian", {"levels": 3.0}),
    ("random signs, 16 levels", "random_signs", {"levels": 16.0}),
    ("random signs, 8 levels", "random_signs", {"levels": 8.0}),
    ("border walk, pixel noise of 8 levels", "border", {"levels": 8.0}),
    ("border walk, pixel noise of 2 levels", "border", {"levels": 2.0}),
    ("border walk, smooth noise of 4 levels", "border", {"levels": 4.0, "cells": 16}),
    ("crops of other photographs", "photographs", {}),
]
NORMAL: list[tuple[str, str, float, dict[str, float]]] = [
    ("still camera", "camera", 1.0, {}),
    ("still camera, something moves", "camera", 1.0, {"moves": 1}),
    ("camera at night", "camera", 1.0, {"sensor": 12.0, "light": 0.3}),
    ("camera into dusk, two hours", "camera", 15.0, {"sensor": 2.0, "sensor_at_end": 10.0, "light_at_end": 0.35}),
    ("camera, answers hang at the threshold", "hanging", 1.0, {}),
    ("the same, something moves", "hanging", 1.0, {"moves": 1}),
    ("16 cameras with one key", "cameras", 0.1, {}),
    ("camera that pans", "moving", 0.1, {}),
    ("batch over COCO images", "batch", 0.1, {}),
    ("batch over blood cells", "batch_cells", 0.1, {}),
    ("load test with 16 images", "load", 0.02, {}),
    ("tuning thresholds, sizes, exposures", "tuning", 0.5, {}),
    ("testing how it bears noise", "noise_tests", 0.5, {}),
]


def run_all(model: object, scenarios: Scenarios, runs: int, only: str) -> None:
    print("| attack | runs | suspected | by which sign | images until then, median (most) |")
    print("|---|---|---|---|---|")
    for title, name, how in ATTACKS:
        if (name == "jacobian" and scenarios.gradient is None) or not any(one in title for one in only.split("|")):
            continue
        # A gradient takes as long as twenty answers.
        askers = [Asker(model, 0.05) for _ in range(1 if name == "jacobian" else runs)]
        for seed, ask in enumerate(askers):
            getattr(scenarios, name)(ask, np.random.default_rng(seed), **how)
        firsts = sorted(min(ask.first.values()) for ask in askers if ask.first)
        signs = Counter(str(sign) for ask in askers for sign in ask.first)
        when = f"{firsts[len(firsts) // 2]} ({firsts[-1]})" if firsts else f"never in {askers[0].asked}"
        told = ", ".join(f"{sign} {count}" for sign, count in signs.items()) or "none"
        print(f"| {title} | {len(askers)} | {len(firsts)} | {told} | {when} |", flush=True)
    print("\n| normal traffic | runs | images in all | false alarms | by which sign |")
    print("|---|---|---|---|---|")
    for title, name, every_s, how in NORMAL:
        if not any(one in title for one in only.split("|")):
            continue
        askers = [Asker(model, every_s) for _ in range(runs)]
        for seed, ask in enumerate(askers):
            getattr(scenarios, name)(ask, np.random.default_rng(100 + seed), **how)
        alarms = defaultdict(list)
        for ask in askers:
            for sign, number in ask.first.items():
                alarms[sign].append(number)
        told = ", ".join(f"{sign} {len(numbers)} (first at {min(numbers)})" for sign, numbers in alarms.items())
        count = sum(bool(ask.first) for ask in askers)
        print(f"| {title} | {runs} | {sum(ask.asked for ask in askers)} | {count} | {told or 'none'} |", flush=True)


def timing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    looks, observes = [], []
    watch = Extraction(Dropped(), now=lambda: datetime.now(UTC))
    principal = Principal(PrincipalKind.KEY, "key", id="1")
    rng = np.random.default_rng(0)
    seen = seen_in(np.array([1]), np.array([0.5]), conf=CONF)
    for _ in range(2000):
        begin = time.perf_counter()
        samples = sample_of(image)
        looks.append(time.perf_counter() - begin)
        image = np.roll(image, int(rng.integers(1, 500)))
        begin = time.perf_counter()
        watch.observe(principal, "m", look_at(samples), seen)
        observes.append(time.perf_counter() - begin)
    for name, times in (("sample an image of 640 x 480", looks), ("look at it and observe it", observes)):
        ordered = sorted(times)
        print(f"{name}: best {ordered[0] * 1e6:.0f} us, median {ordered[1000] * 1e6:.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--only", default="", help="scenarios whose titles hold one of these, separated by |")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    pools = [
        [cv2.imread(str(path)) for path in sorted(arguments.data.glob(f"{name}/images/*/*.jpg"))]
        for name in ("coco128", "bccd")
    ]
    gradient = None if arguments.checkpoint is None else gradient_of(arguments.checkpoint)
    begin = time.perf_counter()
    timing()
    run_all(shipsight.load(arguments.bundle, threads=1), Scenarios(*pools, gradient), arguments.runs, arguments.only)
    print(f"\nshipsight {shipsight.__version__}, {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
