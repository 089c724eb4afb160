# SPDX-License-Identifier: Apache-2.0
"""Starting and stopping servers for `bench/serve.py`: one virtual environment a peer, made when it is first wanted.

An environment's folder is named after its requirements, so that changed pins make a new one. Every peer is a script that
takes `--model FOLDER --port PORT`. Telemetry of all of them is off. A peer that cannot be installed or started is an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
QUIET = {
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "YOLO_OFFLINE": "true",
}
READY_S = 420  # Ray Serve needs two minutes where others keep the processors busy


@dataclass(frozen=True)
class Peer:
    """A server to compare with.

    Attributes:
        name: for `--only`.
        title: in the table.
        script: in this folder.
        ready: path that answers 200 once it serves.
        path: that takes images.
        requirements: file in this folder; None runs it where the bench runs, which has its packages.
        packages: whose versions the log names.
        environment: variables of its own.
        is_open_inference: whether it takes the Open Inference Protocol's binary tensors instead of plain JPEGs.
    """

    name: str
    title: str
    script: str
    ready: str
    path: str = "/predict"
    requirements: str | None = None
    packages: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    is_open_inference: bool = False


PEERS = (
    # Ultralytics needs PyTorch, gigabytes that the bench's own environment has already.
    Peer(
        "fastapi-ultralytics",
        "FastAPI + Ultralytics",
        "fastapi_ultralytics.py",
        "/ready",
        packages=("fastapi", "uvicorn", "ultralytics-opencv-headless", "openvino"),
    ),
    Peer(
        "fastapi",
        "FastAPI + OpenVINO",
        "fastapi_openvino.py",
        "/ready",
        requirements="requirements-fastapi.txt",
        packages=("fastapi", "uvicorn", "openvino"),
    ),
    Peer(
        "litserve",
        "LitServe + OpenVINO",
        "litserve_openvino.py",
        "/health",
        requirements="requirements-litserve.txt",
        packages=("litserve", "openvino"),
    ),
    Peer(
        "ray",
        "Ray Serve + OpenVINO",
        "ray_openvino.py",
        "/predict",
        requirements="requirements-ray.txt",
        packages=("ray", "openvino"),
        environment=(
            ("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1"),
            ("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60"),  # five seconds are few on a busy machine
        ),
    ),
    Peer(
        "bentoml",
        "BentoML + OpenVINO",
        "bentoml_openvino.py",
        "/readyz",
        requirements="requirements-bentoml.txt",
        packages=("bentoml", "openvino"),
    ),
    Peer(
        "triton",
        "Triton, Python backend + OpenVINO",
        "triton_openvino.py",
        "/v2/health/ready",
        path="/v2/models/detector/infer",
        requirements="requirements-triton.txt",
        packages=("nvidia-pytriton", "openvino"),
        is_open_inference=True,
    ),
)


@dataclass
class Running:
    """A server that runs.

    Attributes:
        url: without a path.
        process: the first of its processes.
        ready_s: from its start to its first answer that it is ready.
        seen: every process of it that was ever seen, with its start time, so that no other is taken for it.
    """

    url: str
    process: subprocess.Popen[str]
    ready_s: float
    seen: dict[int, str] = field(default_factory=dict)

    def memory_mb(self) -> tuple[float, float]:
        """Returns memory of all its processes: resident, and with pages that several share counted once (PSS)."""
        resident = shared_once = 0.0
        for pid in self.look():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended since it was listed
                text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
                resident += int(re.search(r"^Rss:\s+(\d+)", text, re.MULTILINE)[1]) / 1e3  # type: ignore[index]
                shared_once += int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) / 1e3  # type: ignore[index]
        return resident, shared_once

    def processor_s(self) -> float:
        """Returns the processor time that all its processes took so far, in seconds."""
        ticks = 0
        for pid in self.look():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended since it was listed
                fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def look(self) -> list[int]:
        """Returns its processes, and remembers them."""
        pids = [self.process.pid, *_children(self.process.pid)]
        self.seen |= {pid: start for pid in pids if (start := _start_time(pid))}
        return pids

    def stop(self) -> None:
        """Ends it politely, then what is left of its processes."""
        self.look()
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        for pid, start in self.seen.items():
            if _start_time(pid) == start:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


def start(peer: Peer, model: Path, envs: Path, scratch: Path) -> Running:
    """Starts a peer and waits until it is ready.

    Args:
        peer: which.
        model: folder of the export that it serves.
        envs: where virtual environments are kept.
        scratch: folder for its logs and whatever it writes.

    Raises:
        SystemExit: it cannot be installed, ends, or is not ready in three minutes.
    """
    port = free_port()
    command = [
        str(python_of(peer, envs)),
        str(HERE / peer.script),
        "--model",
        str(model.resolve()),
        "--port",
        str(port),
    ]
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH" or peer.requirements is None},
        **QUIET,
        **dict(peer.environment),
        "BENCH_SCRATCH": str(scratch),
        "BENTOML_HOME": str(scratch / "bentoml"),
        "YOLO_CONFIG_DIR": str(scratch / "yolo"),
    }
    if peer.requirements is not None:
        environment["PYTHONPATH"] = str(HERE)  # worker processes import `detector`, too
    log = scratch / f"{peer.name}.log"
    begin = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, text=True, env=environment, cwd=scratch
        )
    running = Running(f"http://127.0.0.1:{port}", process, 0.0)
    try:
        _wait(running, peer, begin + READY_S)
    except BaseException as error:
        running.stop()
        tail = log.read_text(encoding="utf-8", errors="replace")[-4000:]
        raise SystemExit(f"{peer.name}: {error}\n{tail}") from error
    running.ready_s = time.perf_counter() - begin
    return running


def _wait(running: Running, peer: Peer, end: float) -> None:
    while time.perf_counter() < end:
        running.look()
        if running.process.poll() is not None:
            raise RuntimeError(f"ended with exit code {running.process.returncode} before it was ready")
        try:
            with urllib.request.urlopen(running.url + peer.ready, timeout=2):
                return
        except OSError:  # not listening yet, or listening and not ready
            time.sleep(0.1)
    raise RuntimeError(f"not ready in {READY_S} s")


def python_of(peer: Peer, envs: Path) -> Path:
    """Returns the interpreter that runs a peer; makes its environment where there is none yet.

    Raises:
        SystemExit: it cannot be made.
    """
    if peer.requirements is None:
        return Path(sys.executable)
    requirements = HERE / peer.requirements
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = envs / f"{peer.name}-{digest}"
    done = folder / "made"  # written last: an environment half made is made again
    if not done.exists():
        print(f"making {folder}", file=sys.stderr)
        python = str(folder / "bin" / "python")
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "-r", str(requirements)],
        ):
            if subprocess.run(command, check=False).returncode:
                raise SystemExit(f"{peer.name}: its environment cannot be made: {' '.join(command)}")
        done.touch()
    return folder / "bin" / "python"


def versions(peer: Peer, envs: Path) -> str:
    """Returns names and versions of a peer's main packages."""
    code = "import importlib.metadata as m, sys; print(', '.join(f'{p} {m.version(p)}' for p in sys.argv[1:]))"
    command = [str(python_of(peer, envs)), "-c", code, *peer.packages]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def free_port() -> int:
    """Returns a TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _children(pid: int) -> Iterator[int]:
    """Yields a process's descendants; those that end meanwhile are left out."""
    try:
        lists = [path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in (int(one) for text in lists for one in text.split()):
        yield child
        yield from _children(child)


def _start_time(pid: int) -> str:
    """Returns when a process began, in the kernel's ticks; nothing if it ended, a corpse included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]
