# SPDX-License-Identifier: Apache-2.0
"""A serving process that hangs, and what a service manager hears."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.serve.conftest import Served, read_events
from tests.serve.test_lifecycle import PREDICT, serving_process

from shipsight.errors import UsageError
from shipsight.serve import ServeOptions, ServiceManager
from shipsight.serve.signs import Reporter, Reports

pytestmark = pytest.mark.slow  # servers that start, die and wait

UNIT = Path(__file__).resolve().parents[2] / "docs" / "deploy" / "shipsight.service"


def test_a_serving_process_that_hangs_is_killed_and_replaced(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes, tmp_path: Path
) -> None:
    told = tmp_path / "stderr"
    with told.open("w") as stderr:
        server = start(digits_bundle, "--streams", "1", "--hang-seconds", "3", stderr=stderr)
    first = serving_process(server)
    os.kill(first, signal.SIGSTOP)
    begin = time.monotonic()
    events = server.events()
    assert next(events) == {"event": "restart", "status": -signal.SIGKILL, "pause_s": 0.1}
    assert time.monotonic() - begin >= 2
    assert next(events)["event"] == "ready"
    assert serving_process(server) != first
    assert httpx.post(server.url + PREDICT, content=jpeg, timeout=30).status_code == 200
    assert server.stop() == 0
    assert "no sign of life" in told.read_text()


def test_a_pause_of_the_whole_server_is_no_hang(start: Callable[..., Served], digits_bundle: Path) -> None:
    server = start(digits_bundle, "--streams", "1", "--hang-seconds", "3")
    serving = serving_process(server)
    both = (server.process.pid, serving)
    for one in both:
        os.kill(one, signal.SIGSTOP)
    time.sleep(6)
    for one in both:
        os.kill(one, signal.SIGCONT)
    time.sleep(2)
    assert serving_process(server) == serving
    assert httpx.get(f"{server.url}/healthz", timeout=30).status_code == 200
    assert server.stop() == 0


def test_a_serving_process_that_hangs_while_it_leaves_is_killed(
    start: Callable[..., Served], digits_bundle: Path
) -> None:
    server = start(digits_bundle, "--streams", "1", "--hang-seconds", "3")
    os.kill(serving_process(server), signal.SIGSTOP)
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 30


class Manager:
    """Hears what a service tells."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.address = address

    def hear(self, wanted: str, seconds: float = 60) -> list[str]:
        """Returns the lines up to the datagram that holds the wanted one."""
        heard: list[str] = []
        end = time.monotonic() + seconds
        while wanted not in heard:
            self.socket.settimeout(max(end - time.monotonic(), 0.01))
            heard += self.socket.recv(4096).decode().splitlines()
        return heard

    def is_silent(self, seconds: float) -> bool:
        self.socket.settimeout(seconds)
        try:
            return not self.socket.recv(4096)
        except TimeoutError:
            return True


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else f"@shipsight-test-{os.getpid()}")
    yield manager
    manager.socket.close()


def test_a_service_manager_hears_of_readiness_life_and_leaving(
    digits_bundle: Path, manager: Manager, tmp_path: Path
) -> None:
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "20000000",
    }
    command = [sys.executable, "-m", "shipsight", "serve", str(digits_bundle), "--port", "0", "--json"]
    command += ["--streams", "1", "--hang-seconds", "60"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert server.stdout is not None
    ready = next(read_events(server.stdout))
    try:
        before = manager.hear("READY=1")
        assert "WATCHDOG=1" not in before, "no life is told of before it answers"
        assert "STATUS=serving digits 1" in before
        manager.hear("WATCHDOG=1")
        served = Served(server, ready["url"], ready["models"])
        os.kill(serving_process(served), signal.SIGSTOP)
        while not manager.is_silent(4):
            continue
        os.kill(serving_process(served), signal.SIGCONT)
        manager.hear("WATCHDOG=1")
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        server.stdout.close()
    manager.hear("STOPPING=1")


@pytest.mark.parametrize("address", ["relative", "@", "/"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="NOTIFY_SOCKET"):
        ServiceManager(address)


def test_a_manager_that_is_gone_costs_nothing(tmp_path: Path) -> None:
    begin = time.monotonic()
    for _ in range(100):
        ServiceManager(str(tmp_path / "nobody"), wants_life=True).alive()
    assert time.monotonic() - begin < 5, "nothing is waited for, nothing raised"


def test_a_full_pipe_leaves_signs_of_life_out_and_never_waits() -> None:
    reading, writing = os.pipe()
    reporter = Reporter(writing)
    for _ in range(100_000):
        reporter.alive()
    reports = Reports(reading)
    told = [reports.next(1) for _ in range(1000)]
    assert told == [{"alive": True}] * 1000
    reporter.tell({"ready": ["x" * 3000]})
    while (last := reports.next(5)) == {"alive": True}:
        continue
    assert last == {"ready": ["x" * 3000]}
    with pytest.raises(TimeoutError):
        reports.next(0.05)
    os.close(writing)
    assert reports.next(1) is None
    reports.close()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_the_unit_file_is_hardened() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_unit_file_waits_longer_than_the_server_itself() -> None:
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    assert "Type=notify" in lines
    watchdog_s = next(int(one.partition("=")[2]) for one in lines if one.startswith("WatchdogSec="))
    leaving_s = next(int(one.partition("=")[2]) for one in lines if one.startswith("TimeoutStopSec="))
    assert watchdog_s > ServeOptions((Path("b"),)).hang_s
    assert leaving_s > ServeOptions((Path("b"),)).drain_s + 15
