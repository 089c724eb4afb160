# SPDX-License-Identifier: Apache-2.0
"""`shipsight serve` against the engine alone and against other servers, in one run.

Real JPEGs over keep-alive HTTP, sent by `wrk`: 8 connections for throughput, 1 for latency. In each round every server is
started, warmed up, measured and stopped, so that only one is there at a time; figures are medians over rounds with least and
most, ratios are taken round by round. The engine's own throughput is OpenVINO's `benchmark_app -hint throughput`, the larger
of the bundle's default variant and the published INT8 export, which all peers serve; a lone request is compared with
decode, inference and postprocessing in a loop in one process. Every server's boxes are compared with shipsight's first.

    python bench/serve.py --bundle yolo11n.bundle --published yolo11n_int8_openvino_model --images coco128/images/val2017

Needs `wrk` (Debian: apt-get install wrk); `fastapi-ultralytics` needs fastapi, uvicorn and `shipsight[ultralytics]`. The other
peers get virtual environments of their own from `bench/peers/requirements-*.txt`, kept below `--envs`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from peers.launch import PEERS, Peer, Running, start, versions

import shipsight
from shipsight.proof.environment import cpu_class

CONNECTIONS = 8
OIP_HEAD = 256  # bytes of the JSON before the tensors, filled up with spaces: one header fits all images
WRK = """
local bodies, at = {}, 0
for path in io.lines(os.getenv("BENCH_FILES")) do
  local file = io.open(path, "rb"); local body = file:read("*a"); file:close()
  bodies[#bodies + 1] = body
end
local headers = {["Content-Type"] = os.getenv("BENCH_TYPE")}
if os.getenv("BENCH_HEAD") then headers["Inference-Header-Content-Length"] = os.getenv("BENCH_HEAD") end
if os.getenv("BENCH_KEY") then headers["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY") end
request = function()
  at = at + 1
  return wrk.format("POST", os.getenv("BENCH_PATH"), headers, bodies[at % #bodies + 1])
end
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass
class Contender:
    """A server and what was measured of it, one figure a round."""

    title: str
    path: str
    start: Callable[[], Running]
    bodies: list[Path]
    is_open_inference: bool = False
    key: str | None = None
    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    lone_ms: list[float] = field(default_factory=list)
    processor_ms: list[float] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)
    shared_once_mb: list[float] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)

    def headers(self) -> dict[str, str]:
        if self.is_open_inference:
            return {
                "Content-Type": "application/octet-stream",
                "Inference-Header-Content-Length": str(OIP_HEAD),
            }
        return {"Content-Type": "image/jpeg"}

    def ask(self, running: Running, body: bytes) -> list[dict[str, Any]]:
        """Returns the boxes that a server finds in one image."""
        request = urllib.request.Request(running.url + self.path, data=body, headers=self.headers(), method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            data, head = answer.read(), answer.headers.get("Inference-Header-Content-Length")
        told = json.loads(data[int(head) + 4 :] if head else data)
        found: list[dict[str, Any]] = told["images"][0]["predictions"] if isinstance(told, dict) else told
        return found


def start_shipsight(bundle: Path) -> Running:
    command = [sys.executable, "-m", "shipsight", "serve", str(bundle), "--port", "0", "--json", "--no-access-log"]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"shipsight: ended with exit code {process.wait()} before it was ready")
    return Running(json.loads(line)["url"], process, time.perf_counter() - begin)


def open_inference_body(image: bytes) -> bytes:
    """Returns a request of the Open Inference Protocol with one BYTES element, its JSON `OIP_HEAD` bytes long."""
    tensor = struct.pack("<I", len(image)) + image
    head = {
        "inputs": [
            {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tensor)}}
        ],
        "outputs": [{"name": "predictions", "parameters": {"binary_data": True}}],
    }
    return json.dumps(head).ljust(OIP_HEAD).encode() + tensor


def load(one: Contender, running: Running, script: Path, connections: int, seconds: int) -> tuple[float, float, float]:
    """Returns requests a second, p50 and p99 in milliseconds; a single failed answer ends the run."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script), running.url]
    files = script.with_name("bodies.txt")
    files.write_text("".join(f"{path}\n" for path in one.bodies), encoding="utf-8")
    headers = one.headers()
    environment = {**os.environ, "BENCH_FILES": str(files), "BENCH_PATH": one.path}
    environment["BENCH_TYPE"] = headers["Content-Type"]
    if one.key is not None:
        environment["BENCH_KEY"] = one.key
    if one.is_open_inference:
        environment["BENCH_HEAD"] = headers["Inference-Header-Content-Length"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    requests, duration, p50, p99, errors = map(int, re.search(r"RESULT (.*)", told)[1].split())  # type: ignore[index]
    if errors or not requests:
        raise SystemExit(f"{one.title}: {requests} answers in {seconds} s, {errors} failed\n{told}")
    return requests / duration * 1e6, p50 / 1e3, p99 / 1e3


def require_same_boxes(
    one: Contender, running: Running, bodies: list[bytes], expected: list[list[dict[str, Any]]]
) -> None:
    """Ends the run if a server finds other things: of confident boxes nine in ten must be there, class and place."""
    wanted = missed = 0
    for body, boxes in zip(bodies, expected, strict=True):
        found = one.ask(running, body)
        for box in boxes:
            if box["score"] < 0.5:
                continue
            wanted += 1
            missed += not any(
                other["class_id"] == box["class_id"] and overlap(other["box_xyxy"], box["box_xyxy"]) > 0.8
                for other in found
            )
    if not wanted or missed > wanted / 10:
        raise SystemExit(f"{one.title}: {missed} of {wanted} confident boxes are not among its answers")


def overlap(one: list[float], other: list[float]) -> float:
    a, b = np.array(one), np.array(other)
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


def engine_rate(model: Path, seconds: int) -> float:
    command = [str(Path(sys.executable).with_name("benchmark_app")), "-m", str(model), "-hint", "throughput"]
    command += ["-d", "CPU", "-t", str(seconds), "-infer_precision", "f32"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(re.search(r"Throughput:\s+([\d.]+) FPS", told)[1])  # type: ignore[index]


def loop_ms(bundle: Path, bodies: list[bytes], count: int) -> float:
    """Returns the median of bytes to predictions in a loop in this process, the engine in its latency form."""
    times = []
    with shipsight.load(bundle) as predictor:
        for position in range(count + 20):
            begin = time.perf_counter()
            predictor.predict(bodies[position % len(bodies)]).to_dict()
            times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times[20:])


def measure(one: Contender, running: Running, script: Path, seconds: int) -> None:
    """Adds one round of figures of a server that runs."""
    load(one, running, script, CONNECTIONS, 3)
    rate, p50, p99 = load(one, running, script, CONNECTIONS, seconds)
    resident, shared_once = running.memory_mb()
    one.rates.append(rate)
    one.p50_ms.append(p50)
    one.p99_ms.append(p99)
    one.lone_ms.append(load(one, running, script, 1, max(1, seconds // 2))[1])
    one.resident_mb.append(resident)
    one.shared_once_mb.append(shared_once)
    one.ready_s.append(running.ready_s)


def spread(values: list[float], digits: int = 2) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def render(contenders: list[Contender], engines: dict[str, list[float]], loops: list[float]) -> str:
    best = max(engines, key=lambda name: statistics.median(engines[name]))
    ours = contenders[0]
    lines = [
        "Engine alone (`benchmark_app -hint throughput`): "
        + ", ".join(f"{name} {spread(rates)} images/s" for name, rates in engines.items()),
        "",
        f"Decode, infer and postprocess in a loop: {spread(loops)} ms.",
        "",
        f"| server | images/s, {CONNECTIONS} connections | of the engine | shipsight is faster by | p99 / p50 | "
        "lone request, ms | of the loop | memory, MB: resident (shared pages once) | ready after, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in contenders:
        share = [rate / engine for rate, engine in zip(one.rates, engines[best], strict=True)]
        faster = [mine / rate for mine, rate in zip(ours.rates, one.rates, strict=True)]
        tail = [high / low for high, low in zip(one.p99_ms, one.p50_ms, strict=True)]
        lone = [ms / loop for ms, loop in zip(one.lone_ms, loops, strict=True)]
        memory = f"{statistics.median(one.resident_mb):.0f} ({statistics.median(one.shared_once_mb):.0f})"
        lines.append(
            f"| {one.title} | {spread(one.rates)} | {spread(share)} | {spread(faster)} | {spread(tail)} | "
            f"{spread(one.lone_ms)} | {spread(lone)} | {memory} | {spread(one.ready_s, 1)} |"
        )
    return "\n".join(lines) + "\n"


def read_arguments() -> argparse.Namespace:
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument(
        "--published", type=Path, required=True, help="folder of an INT8 OpenVINO export by Ultralytics"
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--only", help=f"peers, separated by commas; default: all ({', '.join(names)})")
    parser.add_argument("--envs", type=Path, default=Path.home() / ".cache" / "shipsight-bench")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    chosen = names if arguments.only is None else [name for name in arguments.only.split(",") if name]
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"--only: unknown {', '.join(unknown)}; expected {', '.join(names)}")
    arguments.peers = [peer for peer in PEERS if peer.name in chosen]
    return arguments


def prepare(images: Path, folder: Path) -> tuple[list[Path], list[Path]]:
    """Writes 16 images as JPEGs of 640x480, and as requests of the Open Inference Protocol."""
    jpegs, tensors = [], []
    for position, path in enumerate(sorted(images.glob("*.jpg"))[:16]):
        jpegs.append(folder / f"{position}.jpg")
        cv2.imwrite(str(jpegs[-1]), cv2.resize(cv2.imread(str(path)), (640, 480)))
        tensors.append(folder / f"{position}.oip")
        tensors[-1].write_bytes(open_inference_body(jpegs[-1].read_bytes()))
    if not jpegs:
        raise SystemExit(f"{images}: no *.jpg")
    return jpegs, tensors


def contenders_of(
    arguments: argparse.Namespace, folder: Path, jpegs: list[Path], tensors: list[Path]
) -> list[Contender]:
    name = shipsight.model.bundle.open_bundle(arguments.bundle).card.name  # type: ignore[attr-defined]
    found = [Contender("shipsight", f"/v1/models/{name}/predict", lambda: start_shipsight(arguments.bundle), jpegs)]

    def starter(peer: Peer) -> Callable[[], Running]:
        return lambda: start(peer, arguments.published, arguments.envs, folder)

    for peer in arguments.peers:
        bodies = tensors if peer.is_open_inference else jpegs
        found.append(Contender(peer.title, peer.path, starter(peer), bodies, peer.is_open_inference))
    return found


def run(arguments: argparse.Namespace, folder: Path) -> str:
    """Measures all and returns the log."""
    script = folder / "load.lua"
    script.write_text(WRK, encoding="utf-8")
    jpegs, tensors = prepare(arguments.images, folder)
    bodies = [path.read_bytes() for path in jpegs]
    known = "; ".join(f"{peer.name}: {versions(peer, arguments.envs)}" for peer in arguments.peers)
    with shipsight.load(arguments.bundle) as predictor:
        variant = predictor.variant.name
        expected = [predictor.predict(body).to_dict()["images"][0]["predictions"] for body in bodies]
    irs = {
        "the default variant": arguments.bundle / "variants" / variant / "model.xml",
        "the published export": next(arguments.published.glob("*.xml")),
    }
    engines: dict[str, list[float]] = {name: [] for name in irs}
    loops: list[float] = []
    contenders = contenders_of(arguments, folder, jpegs, tensors)
    start_shipsight(arguments.bundle).stop()  # fills the cache of compiled models
    busy = os.getloadavg()[0]
    for round_ in range(arguments.rounds):
        for name, model in irs.items():
            engines[name].append(engine_rate(model, arguments.seconds))
        loops.append(loop_ms(arguments.bundle, bodies, 60))
        for one in contenders:
            print(f"round {round_ + 1}: {one.title}", file=sys.stderr)
            running = one.start()
            try:
                if not round_:
                    require_same_boxes(one, running, [path.read_bytes() for path in one.bodies], expected)
                measure(one, running, script, arguments.seconds)
            finally:
                running.stop()
    return (
        f"{render(contenders, engines, loops)}\n"
        f"{arguments.rounds} rounds of {arguments.seconds} s; load average before the first: {busy:.2f}. "
        f"Machine: {cpu_class()}, {len(os.sched_getaffinity(0))} cores.\n\nVersions: shipsight {shipsight.__version__}; {known}.\n"
    )


def main() -> None:
    arguments = read_arguments()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        text = run(arguments, Path(name))
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
