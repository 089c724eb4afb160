# SPDX-License-Identifier: Apache-2.0
"""What it costs to ask who is there: one server open, one where each request shows an API key, in alternating rounds.

Real JPEGs over keep-alive HTTP, sent by `wrk`, 8 connections for throughput and 1 for latency; then requests that need no
model (`GET /v1/models`), where what the gate takes is not hidden behind an inference. Both servers stand at the same time, one idle
while the other is asked.

    python bench/access.py --bundle yolo11n.bundle --images coco128/images/val2017 --out bench/results/access.md

Needs `wrk` (Debian: apt-get install wrk).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
from peers.launch import Running

import shipsight
from serve import WRK, Contender, load, spread
from shipsight.proof.environment import cpu_class

SMALL = """
local key = os.getenv("BENCH_KEY")
local headers = key and {["Authorization"] = "Bearer " .. key} or {}
request = function() return wrk.format("GET", "/v1/models", headers) end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d\\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def shipsight_json(*arguments: str, environment: dict[str, str]) -> dict[str, str]:
    """What a command prints with `--json`."""
    command = [sys.executable, "-m", "shipsight", *arguments, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    told: dict[str, str] = json.loads(done.stdout)
    return told


def start(
    title: str, bundle: Path, bodies: list[Path], environment: dict[str, str], key: str | None, *options: str
) -> tuple[Contender, Running]:
    begin = time.perf_counter()
    command = [sys.executable, "-m", "shipsight", "serve", str(bundle), "--port", "0", "--json", "--no-access-log"]
    command += options
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        told = json.loads(line)
        if told.get("event") == "ready":
            break
    else:
        raise SystemExit(f"{title}: ended with exit code {process.wait()}")
    running = Running(told["url"], process, time.perf_counter() - begin)
    path = f"/v1/models/{told['models'][0]['name']}/predict"
    return Contender(title, path, lambda: running, bodies, key=key), running


def small_rate(one: Contender, running: Running, script: Path, seconds: int) -> float:
    """Requests a second that need no model."""
    environment = {**os.environ, **({} if one.key is None else {"BENCH_KEY": one.key})}
    command = ["wrk", "-t1", "-c8", f"-d{seconds}s", "-s", str(script), running.url]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    requests, duration, errors = map(int, told.split("RESULT")[1].split())
    if errors:
        raise SystemExit(f"{one.title}: {errors} failed")
    return requests / duration * 1e6


def measure(
    servers: list[tuple[Contender, Running]], folder: Path, *, rounds: int, seconds: int
) -> dict[str, list[float]]:
    """Fills in what the contenders measured; returns their rates of requests that need no model."""
    script, small = folder / "load.lua", folder / "small.lua"
    script.write_text(WRK, encoding="utf-8")
    small.write_text(SMALL, encoding="utf-8")
    rates: dict[str, list[float]] = {one.title: [] for one, _ in servers}
    for one, running in servers:
        load(one, running, script, 8, 3)
    for turn in range(rounds):
        # Each goes first in turn, so that what else this machine does falls on both.
        for one, running in servers if turn % 2 else servers[::-1]:
            begin_s = running.processor_s()
            rate, p50, p99 = load(one, running, script, 8, seconds)
            one.processor_ms.append((running.processor_s() - begin_s) / (rate * seconds) * 1e3)
            one.rates.append(rate)
            one.p50_ms.append(p50)
            one.p99_ms.append(p99)
            one.lone_ms.append(load(one, running, script, 1, max(1, seconds // 2))[1])
            rates[one.title].append(small_rate(one, running, small, max(1, seconds // 4)))
    return rates


def pooled(rates: list[float], others: list[float]) -> str:
    """The ratio of all rounds together, with its 95 % interval over rounds drawn anew: what single rounds on a shared machine hide."""
    pairs = list(zip(rates, others, strict=True))
    draw = random.Random(0)

    def ratio(some: list[tuple[float, float]]) -> float:
        return sum(one for one, _ in some) / sum(other for _, other in some)

    drawn = sorted(ratio(draw.choices(pairs, k=len(pairs))) for _ in range(2000))
    return f"{ratio(pairs):.3f} [{drawn[50]:.3f}, {drawn[1949]:.3f}]"


def table(contenders: list[Contender], rates: dict[str, list[float]], of: str = "of the open one") -> list[str]:
    first = contenders[0]
    lines = [
        f"| server | images/s, 8 connections | {of} | of all rounds together | processor time of an image, ms | p50 ms | p99 ms | "
        f"lone request, ms | `GET /v1/models` a second | {of} |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in contenders:
        share = [rate / other for rate, other in zip(one.rates, first.rates, strict=True)]
        small_share = [rate / other for rate, other in zip(rates[one.title], rates[first.title], strict=True)]
        lines.append(
            f"| {one.title} | {spread(one.rates)} | {spread(share, 3)} | {pooled(one.rates, first.rates)} | {spread(one.processor_ms)} | "
            f"{spread(one.p50_ms)} | {spread(one.p99_ms)} | "
            f"{spread(one.lone_ms)} | {spread(rates[one.title], 0)} | {spread(small_share, 3)} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    begin_load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bodies = []
        for position, path in enumerate(sorted(arguments.images.glob("*.jpg"))[:16]):
            bodies.append(folder / f"{position}.jpg")
            cv2.imwrite(str(bodies[-1]), cv2.resize(cv2.imread(str(path)), (640, 480)))
        plain = {**os.environ, "XDG_STATE_HOME": str(folder / "nobody")}
        asked = {**os.environ, "SHIPSIGHT_DATABASE": str(folder / "access.db")}
        plain.pop("SHIPSIGHT_DATABASE", None)
        secret = shipsight_json("key", "add", "bench", "--grant", "predictor", environment=asked)["secret"]
        servers = [
            start("open", arguments.bundle, bodies, plain, None),
            start("API key", arguments.bundle, bodies, asked, secret),
        ]
        try:
            rates = measure(servers, folder, rounds=arguments.rounds, seconds=arguments.seconds)
        finally:
            for _, running in servers:
                running.stop()
    lines = [
        *table([one for one, _ in servers], rates),
        "",
        f"{arguments.rounds} rounds of {arguments.seconds} s; load average before the first: {begin_load:.2f}. Machine: {cpu_class()}, "
        f"{os.cpu_count()} cores. shipsight {shipsight.__version__}.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
