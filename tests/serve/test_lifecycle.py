# SPDX-License-Identifier: Apache-2.0
"""Starting, dying and leaving: the command, its supervisor and its serving process."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from tests.serve.conftest import Served, serving_process

from shipsight.spawning import ServingProcess

PREDICT = "/v1/models/digits/predict"


def test_a_serving_process_that_is_killed_is_replaced_and_clients_only_wait(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes
) -> None:
    server = start(digits_bundle, "--streams", "1")
    first = serving_process(server)
    os.kill(first, signal.SIGKILL)
    begin = time.monotonic()
    answer = httpx.get(f"{server.url}/healthz", timeout=30)
    assert answer.status_code == 200, "the socket stayed open: the connection waited for the next process"
    assert time.monotonic() - begin < 15
    events = server.events()
    assert next(events)["event"] == "restart"
    assert next(events)["event"] == "ready"
    assert serving_process(server) != first
    assert httpx.post(server.url + PREDICT, content=jpeg, timeout=30).status_code == 200
    assert server.stop() == 0


def test_sigterm_lets_requests_in_flight_end(start: Callable[..., Served], digits_bundle: Path, jpeg: bytes) -> None:
    server = start(digits_bundle, "--streams", "1", "--workers", "1", "--max-images", "32", "--drain", "60")
    body = {"images": [base64.b64encode(jpeg).decode()] * 32}
    statuses: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            statuses.append(client.post(f"{PREDICT}?deadline_ms=60000", json=body).status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    with server.client as client:
        # Each request brings thirty-two images: with more than 96 all four have come in whole.
        while sum(client.get("/readyz").json()["load"]["digits/1"][one] for one in ("running", "waiting")) <= 96:
            assert not statuses, "one was answered before all had come"
            time.sleep(0.001)
    assert server.stop() == 0
    for thread in threads:
        thread.join()
    assert statuses == [200] * 4


def test_a_client_that_leaves_takes_its_images_out_of_the_queue(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes
) -> None:
    server = start(digits_bundle, "--streams", "1", "--workers", "1", "--max-images", "500")
    body = json.dumps({"images": [base64.b64encode(jpeg).decode()] * 500}).encode()
    address = urlsplit(server.url)
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"

    def load() -> dict[str, float]:
        with server.client as client:
            told: dict[str, float] = client.get("/readyz").json()["load"]["digits/1"]
            return told

    with socket.create_connection((address.hostname, address.port), timeout=20) as client:
        client.sendall(head.encode() + body)
        while (before := load())["waiting"] < 300:
            time.sleep(0.001)
    left = time.monotonic()
    # On a busy machine all takes longer, and so does what would have been waited for.
    most_s = max(1.5, before["wait_s"] / 2)
    while load()["waiting"]:
        time.sleep(0.01)
        assert time.monotonic() - left < most_s, "five hundred images take longer than that"
    assert server.stop() == 0


def test_a_slow_head_and_a_slow_body_are_hung_up_on(
    start: Callable[..., Served], digits_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(digits_bundle, "--streams", "1", "--head-seconds", "1", "--body-seconds", "1")
    address = urlsplit(server.url)
    for sent, expected in (
        (b"POST / HTTP/1.1\r\nhost: localhost\r\n", b""),
        (f"POST {PREDICT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nslow".encode(), b"HTTP/1.1 413"),
    ):
        with socket.create_connection((address.hostname, address.port), timeout=20) as client:
            client.sendall(sent)
            begin = time.monotonic()
            assert client.recv(12) == expected
            assert 0.5 < time.monotonic() - begin < 10
    assert server.stop() == 0


def test_a_bundle_that_does_not_replay_is_not_served(digits_bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.bundle"
    shutil.copytree(digits_bundle, broken)
    (broken / "variants").joinpath(next((broken / "variants").iterdir()).name, "model.onnx").write_bytes(
        b"other weights"
    )
    command = [sys.executable, "-m", "shipsight", "serve", str(broken), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "tampered-hash" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["--host", "0.0.0.0"], 2, "needs TLS and an administrator"),
        (["--host", "shop.example"], 2, "not an address"),
        (["--port", "70000"], 2, "no such port"),
        (["--workers", "0"], 2, "too few"),
    ],
    ids=str,
)
def test_wrong_use_is_told_before_anything_is_opened(
    digits_bundle: Path, arguments: list[str], status: int, told: str
) -> None:
    command = [sys.executable, "-m", "shipsight", "serve", str(digits_bundle), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status
    assert told in done.stderr


def _marked(mark: str) -> list[str]:
    """Commands of processes with a mark in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # it has ended, or is somebody else's
    return found


def test_wrong_use_leaves_no_process_behind(digits_bundle: Path) -> None:
    mark = f"SHIPSIGHT_TEST_MARK_{os.urandom(8).hex()}"
    command = [sys.executable, "-m", "shipsight", "serve", str(digits_bundle), "--tls-cert", "/nowhere"]
    done = subprocess.run(command, env={**os.environ, mark: "1"}, capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert _marked(mark) == []


def test_a_serving_process_that_is_handed_nothing_ends() -> None:
    waiting = ServingProcess()
    waiting._channel.close()
    assert waiting.process.wait(30) == 0
    with os.fdopen(waiting.reports, "rb") as reports:
        assert reports.read() == b""


def test_a_port_that_is_taken_is_named(digits_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "shipsight", "serve", str(digits_bundle), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "cannot be opened" in done.stderr


def test_the_supervisor_imports_no_engine() -> None:
    code = (
        "import sys, shipsight.serve, shipsight.cli.serve; "
        "print(sorted({'onnxruntime', 'openvino', 'cv2', 'uvicorn', 'starlette'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.alone
def test_memory_comes_back_over_fifty_cycles(start: Callable[..., Served], digits_bundle: Path) -> None:
    server = start(digits_bundle, "--streams", "2")
    statm = Path(f"/proc/{serving_process(server)}/statm")

    def resident_mb() -> float:
        return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

    def cycles(times: int) -> list[float]:
        held = []
        for _ in range(times):
            for verb in ("unload", "load"):
                client.post(f"/v2/repository/models/digits/{verb}").raise_for_status()
            held.append(resident_mb())
        return held

    with server.client as client:
        cycles(5)
        held = cycles(50)
    # What the allocator keeps for a while differs from cycle to cycle by as much as a model.
    growth = statistics.median(held[-15:]) - statistics.median(held[:15])
    assert growth < 20, "a cycle holds 25 MB of weights and buffers; fifty would hold a gigabyte"
    assert server.stop() == 0
