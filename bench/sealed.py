# SPDX-License-Identifier: Apache-2.0
"""What sealing costs for one request, a photograph of 150 kB if nothing else is said: client and server, without a network or a model.

Client: seal the image, open the answer. Server: open the request, take its id, seal an answer of 25 boxes. All in one run and one
thread, each stage a few hundred times; the server's half goes through the code that a server runs.

    python bench/sealed.py --out bench/results/sealed.md
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import cryptography

import shipsight
from shipsight.access.events import LoggedEvents
from shipsight.proof.environment import cpu_class
from shipsight.protect import (
    PlainAnswer,
    PlainRequest,
    SealedFor,
    SealedProtocol,
    open_answer,
    open_key_list,
    seal_answer,
    seal_request,
)
from shipsight.serve.sealing import open_sealing
from shipsight.serve.sealing_options import SealingOptions

IMAGE_BYTES, LIMIT_MS = 150_000, 1.0
FOR = SealedFor(SealedProtocol.NATIVE, "yolo11n")
BOX = {"class_id": 0, "class_name": "person", "score": 0.91, "box_xyxy": [101.25, 202.5, 303.75, 404.0]}


async def measure(rounds: int, image_bytes: int) -> dict[str, list[float]]:
    """Milliseconds by stage."""
    sealing = open_sealing(SealingOptions(), events=LoggedEvents(), now=lambda: datetime.now(UTC), store=None)
    key = open_key_list(sealing.keys.listing(), sealing.keys.identity.pin, now_ms=sealing.keys.now_ms())[0]
    told = {"model": "yolo11n", "version": "1", "variant": "v", "images": [{"source": None, "predictions": [BOX] * 25}]}
    answer = PlainAnswer(200, json.dumps(told).encode(), "application/json", {"server-timing": "infer;dur=9.00"})
    names = ("client seals", "server opens", "server takes the id", "server seals", "client opens")
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        request = PlainRequest(os.urandom(image_bytes), "image/jpeg", query="conf=0.3")
        marks = [time.perf_counter()]
        body, reply = seal_request(request, key=key, sealed_for=FOR, now_ms=sealing.keys.now_ms())
        marks.append(time.perf_counter())
        opened = sealing.open(body, FOR)
        marks.append(time.perf_counter())
        await sealing.take(opened)
        marks.append(time.perf_counter())
        sealed = seal_answer(answer, opened)
        marks.append(time.perf_counter())
        assert open_answer(sealed, reply) == answer
        marks.append(time.perf_counter())
        for name, begin, end in zip(names, marks, marks[1:], strict=False):
            times[name].append((end - begin) * 1e3)
    times["server in all"] = [sum(one) for one in zip(*(times[name] for name in names[1:4]), strict=True)]
    times["client in all"] = [sum(one) for one in zip(times[names[0]], times[names[4]], strict=True)]
    return times


def report(times: dict[str, list[float]], rounds: int, image_bytes: int) -> str:
    lines = [
        "# What sealing costs",
        "",
        f"`python bench/sealed.py --rounds {rounds} --bytes {image_bytes}`, {datetime.now(UTC):%F}, shipsight {shipsight.__version__},",
        f"cryptography {cryptography.__version__}, {cpu_class()}, one thread, {rounds} rounds in one run;",
        f"an image of {image_bytes} bytes, an answer of 25 boxes. Milliseconds.",
        "",
        "| stage | median | 95 % | least |",
        "|---|---|---|---|",
    ]
    for name, found in times.items():
        ordered = sorted(found)
        late = ordered[int(len(ordered) * 0.95)]
        lines.append(f"| {name} | {statistics.median(found):.3f} | {late:.3f} | {ordered[0]:.3f} |")
    if image_bytes != IMAGE_BYTES:
        return "\n".join(lines) + "\n"
    worst = max(statistics.median(times[name]) for name in ("server in all", "client in all"))
    lines += [
        "",
        f"Wanted: below {LIMIT_MS:g} ms on either side, at the median. {'Met' if worst < LIMIT_MS else 'NOT met'}.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--bytes", type=int, default=IMAGE_BYTES)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    asyncio.run(measure(20, given.bytes))
    text = report(asyncio.run(measure(given.rounds, given.bytes)), given.rounds, given.bytes)
    print(text)
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
