# SPDX-License-Identifier: Apache-2.0
"""What a process for the engine (`serve --isolate`), and one for steps, cost: throughput, latency and memory.

The same server with and without the option, in alternating rounds on one machine; real JPEGs over keep-alive HTTP, sent
by `wrk`, 8 connections for throughput and 1 for latency. The steps do nothing, so that what is left is the way there.

    python bench/isolation.py --bundle yolo11n.bundle --images coco128/images/val2017

Needs `wrk` (Debian: apt-get install wrk).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from peers.launch import Running

import shipsight
from serve import WRK, Contender, load, spread
from shipsight.serve.steps import StepPool

STEPS = """
from shipsight.steps import after, before

@before
def same_image(image_rgb):
    return image_rgb

@after
def same_predictions(image_rgb, predictions):
    return predictions
"""


def start(name: str, bundle: Path, bodies: list[Path], *arguments: str) -> tuple[Contender, Running]:
    begin = time.perf_counter()
    command = [sys.executable, "-m", "shipsight", "serve", str(bundle), "--port", "0", "--json", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    running = Running(ready["url"], process, time.perf_counter() - begin)
    return Contender(name, f"/v1/models/{ready['models'][0]['name']}/predict", lambda: running, bodies), running


def family(pid: int) -> list[int]:
    """The process and all that its threads started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            found += family(int(child))
    return found


def cpu_s(server: Running) -> float:
    """Processor time that the server's processes have had."""
    total = 0
    for pid in family(server.process.pid):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def own_mb(server: Running) -> float:
    """Memory of the server's processes, what they share counted once."""
    total = 0.0
    for pid in family(server.process.pid):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) / 1e3
    return total


def way_ms(steps: Path) -> list[float]:
    """Returns how long it takes to send an image of 640 x 640 to a worker and back, nothing being done with it there."""
    image = np.zeros((640, 640, 3), np.uint8)
    pool = StepPool(steps, workers=1)
    pool.open()
    times = []
    for _ in range(2000):
        begin = time.perf_counter()
        pool.before(image)
        times.append((time.perf_counter() - begin) * 1e3)
    pool.close()
    return sorted(times[100:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script, steps = folder / "load.lua", folder / "steps.py"
        script.write_text(WRK, encoding="utf-8")
        steps.write_text(STEPS, encoding="utf-8")
        paths = []
        for position, path in enumerate(sorted(arguments.images.glob("*.jpg"))[:16]):
            paths.append(folder / f"{position}.jpg")
            cv2.imwrite(str(paths[-1]), cv2.resize(cv2.imread(str(path)), (640, 480)))
        way = way_ms(steps)
        print(f"There and back, 1.2 MB each way: best {way[0]:.2f} ms, median {way[len(way) // 2]:.2f} ms.\n")
        servers = [start("one process", arguments.bundle, paths)]
        try:
            servers.append(start("--isolate", arguments.bundle, paths, "--isolate"))
            servers.append(start("--steps", arguments.bundle, paths, "--steps", str(steps)))
            for one, running in servers:
                load(one, running, script, 8, 2)
            cpu_ms: dict[str, list[float]] = {one.title: [] for one, _ in servers}
            for _ in range(arguments.rounds):
                for one, running in servers:
                    begin = cpu_s(running)
                    rate, p50, p99 = load(one, running, script, 8, arguments.seconds)
                    cpu_ms[one.title].append((cpu_s(running) - begin) * 1e3 / (rate * arguments.seconds))
                    one.rates.append(rate)
                    one.p50_ms.append(p50)
                    one.p99_ms.append(p99)
                    one.lone_ms.append(load(one, running, script, 1, arguments.seconds // 2)[1])
            print(
                "| server | images/s, 8 connections | of one process | processor ms an image | p50 ms | p99 ms | lone request, ms | memory, MB |"
            )
            print("|---|---|---|---|---|---|---|---|")
            for one, running in servers:
                share = [rate / plain for rate, plain in zip(one.rates, servers[0][0].rates, strict=True)]
                print(
                    f"| {one.title} | {spread(one.rates)} | {spread(share)} | {spread(cpu_ms[one.title])} | {spread(one.p50_ms)} | {spread(one.p99_ms)} | "
                    f"{spread(one.lone_ms)} | {own_mb(running):.0f} |"
                )
        finally:
            for _, running in servers:
                running.process.send_signal(signal.SIGTERM)
            time.sleep(1)
    print(f"shipsight {shipsight.__version__}")


if __name__ == "__main__":
    main()
