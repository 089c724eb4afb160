# SPDX-License-Identifier: Apache-2.0
"""`shipsight serve` against the engine alone and against other servers, in one run.

Real JPEGs over keep-alive HTTP, sent by `wrk`: 8 connections for throughput, 1 for latency, in alternating rounds.
The engine's own throughput is OpenVINO's `benchmark_app -hint throughput`, the larger of the bundle's default variant and
the published INT8 export; a lone request is compared with decode, inference and postprocessing in a loop in one process.

    python bench/serve.py --bundle yolo11n.bundle --published yolo11n_int8_openvino_model --images coco128/images/val2017

Needs `wrk` (Debian: apt-get install wrk) and, for the peers, fastapi, litserve and `shipsight[ultralytics]`.
"""

from __future__ import annotations

import argparse
import base64
import importlib.metadata
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import cv2

import shipsight

PEERS = Path(__file__).with_name("peers")
WRK = """
local bodies, at = {}, 0
for path in io.lines(os.getenv("BENCH_FILES")) do
  local file = io.open(path, "rb"); local body = file:read("*a"); file:close()
  bodies[#bodies + 1] = body
end
request = function()
  at = at + 1
  return wrk.format("POST", os.getenv("BENCH_PATH"), {["Content-Type"] = os.getenv("BENCH_TYPE")}, bodies[at % #bodies + 1])
end
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass
class Server:
    """A server under load."""

    name: str
    path: str
    url: str
    process: subprocess.Popen[str]
    takes_json: bool = False
    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    lone_ms: list[float] = field(default_factory=list)

    def resident_mb(self) -> float:
        """Memory of the process and its children."""
        total = 0.0
        for pid in [self.process.pid, *children(self.process.pid)]:
            text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            total += int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1e3  # type: ignore[index]
        return total


def children(pid: int) -> list[int]:
    found = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    return found + [deeper for one in found for deeper in children(one)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def start_shipsight(bundle: Path) -> tuple[Server, float]:
    command = [sys.executable, "-m", "shipsight", "serve", str(bundle), "--port", "0", "--json"]
    name = shipsight.model.bundle.open_bundle(bundle).card.name  # type: ignore[attr-defined]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    seconds = time.perf_counter() - begin
    return Server("shipsight", f"/v1/models/{name}/predict", ready["url"], process), seconds


def start_peer(name: str, file: str, model: Path) -> Server:
    port = free_port()
    command = [sys.executable, str(PEERS / file), "--model", str(model), "--port", str(port)]
    environment = {**os.environ, "YOLO_CONFIG_DIR": tempfile.mkdtemp(), "YOLO_OFFLINE": "true"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(url + ("/ready" if "fastapi" in file else "/health"), timeout=2)
            return Server(name, "/predict", url, process, takes_json="litserve" in file)
        except OSError:
            if process.poll() is not None:
                raise SystemExit(f"{name} did not start") from None
            time.sleep(0.2)
    raise SystemExit(f"{name} was not ready in two minutes")


def load(server: Server, files: Path, script: Path, connections: int, seconds: int) -> tuple[float, float, float]:
    """Returns requests a second, p50 and p99 in milliseconds; a single failed answer ends the run."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script), server.url]
    environment = {**os.environ, "BENCH_FILES": str(files), "BENCH_PATH": server.path, "BENCH_TYPE": "image/jpeg"}
    if server.takes_json:
        environment |= {"BENCH_FILES": str(files.with_suffix(".json.txt")), "BENCH_TYPE": "application/json"}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    requests, duration, p50, p99, errors = map(int, re.search(r"RESULT (.*)", told)[1].split())  # type: ignore[index]
    if errors:
        raise SystemExit(f"{server.name}: {errors} failed answers\n{told}")
    return requests / duration * 1e6, p50 / 1e3, p99 / 1e3


def engine_rate(model: Path, seconds: int) -> float:
    command = [
        str(Path(sys.executable).with_name("benchmark_app")),
        "-m",
        str(model),
        "-hint",
        "throughput",
        "-d",
        "CPU",
    ]
    command += ["-t", str(seconds), "-infer_precision", "f32"]
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


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def render(servers: list[Server], engines: dict[str, list[float]], loops: list[float], start_s: float) -> str:
    best = max(engines, key=lambda name: statistics.median(engines[name]))
    ours = servers[0]
    lines = [
        "Engine alone (`benchmark_app -hint throughput`): "
        + ", ".join(f"{name} {spread(rates)} images/s" for name, rates in engines.items()),
        "",
        f"Decode, infer and postprocess in a loop: {spread(loops)} ms.",
        "",
        "| server | images/s, 8 connections | of the engine | shipsight is faster by | p99 / p50 | lone request, ms | of the loop | memory, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in servers:
        share = [rate / engine for rate, engine in zip(one.rates, engines[best], strict=True)]
        faster = [mine / rate for mine, rate in zip(ours.rates, one.rates, strict=True)]
        tail = [high / low for high, low in zip(one.p99_ms, one.p50_ms, strict=True)]
        lone = [ms / loop for ms, loop in zip(one.lone_ms, loops, strict=True)]
        lines.append(
            f"| {one.name} | {spread(one.rates)} | {spread(share)} | {spread(faster)} | {spread(tail)} | "
            f"{spread(one.lone_ms)} | {spread(lone)} | {one.resident_mb():.0f} |"
        )
    lines += ["", f"From starting the command to ready, compiled models cached: {start_s:.2f} s.", ""]
    versions = ("shipsight", "openvino", "uvicorn", "fastapi", "litserve", "ultralytics-opencv-headless")
    known = []
    for package in versions:
        try:
            known.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "\n".join([*lines, "Versions: " + ", ".join(known) + "."]) + "\n"


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument(
        "--published", type=Path, required=True, help="folder of an INT8 OpenVINO export by Ultralytics"
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--peer", action="append", choices=["fastapi", "litserve"], default=[])
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script, files = folder / "load.lua", folder / "files.txt"
        script.write_text(WRK, encoding="utf-8")
        paths = []
        for position, path in enumerate(sorted(arguments.images.glob("*.jpg"))[:16]):
            paths.append(folder / f"{position}.jpg")
            cv2.imwrite(str(paths[-1]), cv2.resize(cv2.imread(str(path)), (640, 480)))
        files.write_text("\n".join(map(str, paths)) + "\n", encoding="utf-8")
        bodies = [path.read_bytes() for path in paths]
        texts = [path.with_suffix(".json") for path in paths]
        for text, body in zip(texts, bodies, strict=True):
            text.write_text(json.dumps({"content": base64.b64encode(body).decode()}), encoding="utf-8")
        files.with_suffix(".json.txt").write_text("\n".join(map(str, texts)) + "\n", encoding="utf-8")
        variant = shipsight.load(arguments.bundle).variant.name
        irs = {
            "the default variant": arguments.bundle / "variants" / variant / "model.xml",
            "the published export": next(arguments.published.glob("*.xml")),
        }
        start_shipsight(arguments.bundle)[0].process.send_signal(signal.SIGTERM)  # fills the cache of compiled models
        time.sleep(2)
        server, start_s = start_shipsight(arguments.bundle)
        servers = [server]
        try:
            for peer in arguments.peer:
                servers.append(
                    start_peer(f"{peer} + Ultralytics, published INT8", f"{peer}_ultralytics.py", arguments.published)
                )
            engines: dict[str, list[float]] = {name: [] for name in irs}
            loops: list[float] = []
            for one in servers:
                load(one, files, script, 8, 3)
            for _ in range(arguments.rounds):
                for name, model in irs.items():
                    engines[name].append(engine_rate(model, arguments.seconds))
                loops.append(loop_ms(arguments.bundle, bodies, 60))
                for one in servers:
                    rate, p50, p99 = load(one, files, script, 8, arguments.seconds)
                    one.rates.append(rate)
                    one.p50_ms.append(p50)
                    one.p99_ms.append(p99)
                    one.lone_ms.append(load(one, files, script, 1, arguments.seconds // 2)[1])
            text = render(servers, engines, loops, start_s)
        finally:
            for one in servers:
                one.process.send_signal(signal.SIGTERM)
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
