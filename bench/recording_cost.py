# SPDX-License-Identifier: Apache-2.0
"""What recording costs: a request that is not picked, one that is, and the thread that keeps it.

    python bench/recording_cost.py --image photo.jpg

`offer` is what a request waits for. The thread's time is processor time of the whole process for a recording, from the queue to the disk,
in batches of 16; its share of a core at a rate of so many recordings a second is that times the rate.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from shipsight.access import LoggedEvents
from shipsight.model import ImagePredictions
from shipsight.monitor.recording import Answered, Policy, Recorder, Store
from shipsight.monitor.recording.policy import ImageForm, Mode, Redaction, SamplingRules
from shipsight.proof.environment import cpu_class
from shipsight.vision import decode_image

NAMES = ("person", "face", "car")


def policy(rate: float, *, classes: tuple[str, ...] = (), image: ImageForm = ImageForm.REENCODED) -> Policy:
    rules = SamplingRules(rate=rate, below_score=0.01, most_day=10**6, image=image)
    return Policy(Mode.SAMPLES, ("to measure",), rules, redaction=Redaction(classes))


def offers_us(store: Store, one: Answered, count: int) -> list[float]:
    """Microseconds of each `offer`."""
    with Recorder(
        store, find=lambda _: lambda *_: one.predictions, events=LoggedEvents(), most=10**6, most_bytes=1 << 40
    ) as recorder:
        taken = []
        for _ in range(count):
            begin = time.perf_counter_ns()
            recorder.offer(one)
            taken.append((time.perf_counter_ns() - begin) / 1000)
    return taken


def keeps_ms(store: Store, one: Answered, count: int) -> tuple[float, float]:
    """Milliseconds of processor and of time for a recording."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    with Recorder(
        store, find=lambda _: lambda *_: one.predictions, events=LoggedEvents(), most=10**6, most_bytes=1 << 40
    ) as recorder:
        for _ in range(count):
            recorder.offer(one)
    return 1000 * (time.process_time() - begin_cpu) / count, 1000 * (time.perf_counter() - begin) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--count", type=int, default=320)
    asked = parser.parse_args()
    data = asked.image.read_bytes()
    height, width = decode_image(data).shape[:2]
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.7, (8, 2)) * (width, height)
    boxes = np.concatenate([corner, corner + 0.2 * np.array([width, height])], axis=1).astype(np.float32)
    found = ImagePredictions(
        None, width, height, NAMES, np.arange(8) % 3, np.linspace(0.9, 0.3, 8, dtype=np.float32), boxes
    )
    one = Answered(data, found, "gate", "1", "v", subject="ada")
    print(f"{asked.image.name}: {width} x {height}, {len(data)} bytes; {cpu_class()}")
    with tempfile.TemporaryDirectory() as folder:
        places = iter(range(100))

        def store(held: Policy) -> Store:
            place = Path(folder) / str(next(places))
            return Store(place, key_file=place.with_suffix(".key"), policy=held)

        for name, held in (("not picked", policy(1e-9)), ("picked", policy(1.0))):
            count = 20_000 if name == "not picked" else asked.count
            taken = sorted(offers_us(store(held), one, count))
            print(
                f"offer, {name}: median {statistics.median(taken):.1f} us, p99 {taken[int(len(taken) * 0.99)]:.1f} us"
            )
        for name, held in (
            ("predictions alone", policy(1.0, image=ImageForm.NONE)),
            ("image as received", policy(1.0, image=ImageForm.RECEIVED)),
            ("image re-encoded", policy(1.0)),
            ("redacted (without the model)", policy(1.0, classes=("face",))),
        ):
            kept = store(replace(held))
            cpu, wall = keeps_ms(kept, one, asked.count)
            size = kept.index.total_bytes() / asked.count
            print(f"kept, {name}: {cpu:.2f} ms of processor, {wall:.2f} ms of time, {size:.0f} bytes a recording")


if __name__ == "__main__":
    main()
