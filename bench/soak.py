# SPDX-License-Identifier: Apache-2.0
"""`shipsight serve` under lasting load: 80 % of what it can do, one request in five bad; then the books are checked.

Arrivals are open-loop (they do not wait for answers). The run fails if an answer to a good request is anything but 200
(or 503 with `Retry-After`, and that in less than one of a hundred), if a bad request is answered with a 5xx, if resident
memory grows by more than the limit after the first sixth of the time, if descriptors are left open, or if the predictions
at the end are not those of the start.

    python bench/soak.py --bundle yolo11n.bundle --minutes 30 --out bench/results/soak.md
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import struct
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import httpx

from shipsight.model.bundle import open_bundle
from shipsight.proof.scenes import make_scene

BAD_SHARE = 0.2


@dataclass
class Books:
    """What happened."""

    good: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    latency_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    memory_mb: list[tuple[float, float]] = field(default_factory=list)


def jpeg(subject: int) -> bytes:
    written, data = cv2.imencode(".jpg", cv2.resize(make_scene(subject), (640, 480))[..., ::-1])
    assert written
    return data.tobytes()


def huge_png() -> bytes:
    """A PNG whose header promises 4 gigapixels."""
    return (
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", 65500, 65500) + b"\x08\x02\x00\x00\x00" + b"\0" * 64
    )


def bad_requests(model: str, image: bytes) -> dict[str, dict[str, object]]:
    predict = f"/v1/models/{model}/predict"
    return {
        "garbage": {"url": predict, "content": random.randbytes(2000)},
        "truncated": {"url": predict, "content": image[: len(image) // 3]},
        "huge": {"url": predict, "content": huge_png()},
        "empty": {"url": predict, "content": b""},
        "option": {"url": predict + "?conf=high", "content": image},
        "model": {"url": "/v1/models/other/predict", "content": image},
        "page": {"url": "/v1/" + "x" * 500, "content": image},
        "json": {"url": predict, "content": b"{", "headers": {"content-type": "application/json"}},
        "form": {"url": predict, "content": b"--a", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        "tensor": {"url": f"/v2/models/{model}_image/infer", "content": b'{"inputs": [{"name": "image"}]}'},
        "host": {"url": predict, "content": image, "headers": {"host": "elsewhere.example"}},
    }


async def leave_early(url: str, image: bytes) -> None:
    """Sends half a request and hangs up."""
    address = httpx.URL(url)
    _, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(
        f"POST {address.path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(image)}\r\n\r\n".encode()
        + image[: len(image) // 2]
    )
    await writer.drain()
    writer.close()


async def lie_about_length(url: str, image: bytes) -> int:
    """Announces a terabyte; returns the status of the answer, which comes before the body."""
    address = httpx.URL(url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(f"POST {address.path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {2**40}\r\n\r\n".encode() + image)
    line = await asyncio.wait_for(reader.readline(), 60)
    writer.close()
    return int(line.split()[1])


async def ask(client: httpx.AsyncClient, model: str, images: list[bytes], books: Books) -> None:
    image = random.choice(images)
    if random.random() < BAD_SHARE:
        kinds = bad_requests(model, image)
        kind = random.choice([*kinds, "leaving", "length"])
        where = str(client.base_url).rstrip("/") + f"/v1/models/{model}/predict"
        if kind == "leaving":
            await leave_early(where, image)
            books.bad["left"] += 1
            return
        if kind == "length":
            status = await lie_about_length(where, image)
            books.bad[f"length {status}"] += 1
            if status != 413:
                books.wrong.append(f"length: {status}")
            return
        try:
            answer = await client.post(**kinds[kind])  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            books.wrong.append(f"{kind}: {error!r}")
            return
        books.bad[f"{kind} {answer.status_code}"] += 1
        if not 400 <= answer.status_code < 500:
            books.wrong.append(f"{kind}: {answer.status_code} {answer.text[:200]}")
        return
    begin = time.perf_counter()
    try:
        answer = await client.post(f"/v1/models/{model}/predict", content=image)
    except httpx.HTTPError as error:
        books.wrong.append(f"good: {error!r}")
        return
    books.good[str(answer.status_code)] += 1
    if answer.status_code == 200:
        books.latency_s.append(time.perf_counter() - begin)
    elif answer.status_code != 503 or "retry-after" not in answer.headers:
        books.wrong.append(f"good: {answer.status_code} {answer.text[:200]}")


async def highest_rate(client: httpx.AsyncClient, model: str, images: list[bytes], seconds: float) -> float:
    end, count = time.perf_counter() + seconds, 0

    async def keep_asking() -> None:
        nonlocal count
        while time.perf_counter() < end:
            (await client.post(f"/v1/models/{model}/predict", content=random.choice(images))).raise_for_status()
            count += 1

    await asyncio.gather(*(keep_asking() for _ in range(8)))
    return count / seconds


async def load(
    url: str, model: str, images: list[bytes], pid: int, seconds: float, share: float, books: Books
) -> float:
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        await highest_rate(client, model, images, 3)
        rate = await highest_rate(client, model, images, min(10.0, seconds / 6))
        # Bad requests cost next to nothing: good ones alone make the load.
        arrivals = rate * share / (1 - BAD_SHARE)
        begin, waiting, sampled = time.perf_counter(), set(), 0.0
        while (now := time.perf_counter() - begin) < seconds:
            task = asyncio.create_task(ask(client, model, images, books))
            waiting.add(task)
            task.add_done_callback(partial(_settle, waiting, books))
            if now - sampled > 2:
                sampled = now
                books.memory_mb.append((now, resident_mb(pid)))
            await asyncio.sleep(random.expovariate(arrivals))
        await asyncio.gather(*waiting)
    return rate


def _settle(waiting: set[asyncio.Task[None]], books: Books, task: asyncio.Task[None]) -> None:
    waiting.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        books.wrong.append(f"the client failed: {error!r}")


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def predictions(url: str, model: str, images: list[bytes]) -> list[object]:
    with httpx.Client(base_url=url, timeout=60) as client:
        return [client.post(f"/v1/models/{model}/predict", content=one).json()["images"] for one in images]


def judge(books: Books, seconds: float, most_growth: float) -> tuple[float, list[str]]:
    """Returns the growth of memory and what is wrong."""
    wrong = [f"{text} ({count} times)" for text, count in Counter(books.wrong).most_common(10)]
    refused = books.good["503"] / max(sum(books.good.values()), 1)
    if refused > 0.01:
        wrong.append(f"{refused:.1%} of the good requests were refused")
    settled = [mb for at, mb in books.memory_mb if seconds / 6 < at < seconds / 3]
    last = [mb for at, mb in books.memory_mb if at > seconds * 5 / 6]
    growth = statistics.median(last) / statistics.median(settled) - 1
    if growth > most_growth:
        wrong.append(f"memory grew by {growth:.1%}, {most_growth:.0%} is allowed")
    return growth, wrong


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--load", type=float, default=0.8, help="share of the highest rate")
    parser.add_argument("--most-growth", type=float, default=0.02)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    seconds = arguments.minutes * 60
    random.seed(0)
    images = [jpeg(subject) for subject in range(8)]
    model = open_bundle(arguments.bundle).card.name
    command = [sys.executable, "-m", "shipsight", "serve", str(arguments.bundle)]
    command += ["--port", "0", "--json", "--no-access-log"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = json.loads(process.stdout.readline())["url"]
        pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()[0])
        books = Books()
        before, open_before = predictions(url, model, images), descriptors(pid)
        rate = asyncio.run(load(url, model, images, pid, seconds, arguments.load, books))
        time.sleep(2)
        growth, wrong = judge(books, seconds, arguments.most_growth)
        if predictions(url, model, images) != before:
            wrong.append("predictions differ from those of the start")
        open_after = descriptors(pid)
        if open_after > open_before + 2:
            wrong.append(f"{open_after - open_before} descriptors were left open")
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
    if status:
        wrong.append(f"the server ended with {status}")
    quantiles = statistics.quantiles(books.latency_s, n=100)
    lines = [
        f"{arguments.minutes:g} minutes at {arguments.load:.0%} of {rate:.1f} images/s, one request in five bad.",
        "",
        f"- good requests: {dict(books.good)}; latency p50 {quantiles[49] * 1e3:.0f} ms, p99 {quantiles[98] * 1e3:.0f} ms",
        f"- bad requests: {dict(sorted(books.bad.items()))}",
        f"- memory: {books.memory_mb[0][1]:.0f} MB at first, {books.memory_mb[-1][1]:.0f} MB at last, growth {growth:+.2%}",
        f"- descriptors: {open_before} before, {open_after} after",
        f"- verdict: {'; '.join(wrong) or 'passed'}",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
