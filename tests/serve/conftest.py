# SPDX-License-Identifier: Apache-2.0
"""A real server: the command, its supervisor, its serving process, on a bundle built from the sample."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import cv2
import httpx
import pytest
from tests.digits import rewritten
from tests.once import made_once
from tests.serve.browsing import Tab, opened_tab
from tests.serve.people import Browser, Place, close_browsers, started_place
from tests.serve.visitors import as_a_stranger, first_administrator

from shipsight.proof.scenes import make_scene

# What httpx waits for an answer where a test says nothing: five seconds otherwise, too few on a busy machine.
httpx._config.DEFAULT_TIMEOUT_CONFIG.connect = httpx._config.DEFAULT_TIMEOUT_CONFIG.read = 60.0


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    url: str
    models: list[dict[str, Any]]
    grpc: str = ""  # host:port
    sealing: str = ""  # the identity that clients pin

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def events(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        return read_events(self.process.stdout)

    def stop(self) -> int:
        self.ask_to_leave()
        return self.wait()

    def ask_to_leave(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Waits until it has left; returns its status."""
        status = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


def read_events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Reads the lines that `--json` prints."""
    for line in lines:
        yield json.loads(line)


def serving_process(server: Served) -> int:
    """The process that answers, a child of the supervisor."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text(encoding="ascii")
    return int(children.split()[0])


@pytest.fixture(scope="session")
def second_version(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as version 2."""
    folder = made_once(
        tmp_path_factory,
        "second-version",
        lambda folder: rewritten(digits_bundle, folder / "two.bundle", version="2"),
    )
    return folder / "two.bundle"


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Served]]:
    """Starts servers; those still running are stopped at the end."""
    started: list[Served] = []

    def run(*arguments: object, stderr: TextIO | None = None) -> Served:
        command = [sys.executable, "-m", "shipsight", "serve", *map(str, arguments), "--port", "0", "--json"]
        cache = str(tmp_path_factory.mktemp("cache"))
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, "XDG_CACHE_HOME": cache}
        )
        assert process.stdout is not None
        ready = next(read_events(process.stdout))
        assert ready.get("event") == "ready", ready
        grpc = (ready.get("grpc") or "").rpartition("//")[2]
        started.append(Served(process, ready["url"], ready["models"], grpc, ready["sealing"]))
        return started[-1]

    yield run
    # All at once, since each takes a second or two.
    for one in started:
        one.ask_to_leave()
    for one in started:
        one.wait()


@pytest.fixture(scope="session")
def server(start: Callable[..., Served], digits_bundle: Path) -> Served:
    """One server for tests that leave it as it was."""
    limits = ("--body-mb", "8", "--max-images", "3")
    return start(digits_bundle, "--variant", "all", "--streams", "2", "--grpc-port", "0", *limits)


@pytest.fixture(scope="session")
def attacked_server(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """One server for all attacks, which must leave it as it was."""
    from tests.serve.attacked import OPTIONS, Attacked

    log = tmp_path_factory.mktemp("attacked") / "log"
    with log.open("w") as stderr:
        return Attacked(start(digits_bundle, *OPTIONS, stderr=stderr), log, jpeg)


@pytest.fixture
def attacked(attacked_server: Any) -> Iterator[Any]:
    """The server under attack; checked after each."""
    yield attacked_server
    attacked_server.check()


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    """A photograph-like scene, 320 x 240."""
    return cv2.imencode(".jpg", cv2.resize(make_scene(1), (320, 240))[..., ::-1])[1].tobytes()


# ---- the server's pages, in a browser; a module that needs another server or tab has its own


@pytest.fixture(scope="module")
def place(start: Callable[..., Served], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server that keeps identities and serves no model."""
    with started_place(start, tmp_path_factory.mktemp("access")) as place:
        yield place
        close_browsers()


@pytest.fixture(scope="module")
def ada(place: Place) -> Browser:
    """The first administrator."""
    return first_administrator(place)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with opened_tab(tmp_path_factory.mktemp("chromium")) as tab:
        tab.call("Network.enable")
        yield tab


@pytest.fixture
def tab(chromium: Tab) -> Iterator[Tab]:
    """A tab that nobody has signed in with."""
    yield from as_a_stranger(chromium)
