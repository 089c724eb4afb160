# SPDX-License-Identifier: Apache-2.0
"""Logs of a real server: what a line holds, and that nobody outside can forge one."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.serve.conftest import Served

from shipsight.serve.logs import LogFormat, LogSettings, _AsJson, _AsText, _Lines, fields
from shipsight.serve.request_notes import request_id

pytestmark = pytest.mark.slow  # servers that start, die and wait

PREDICT = "/v1/models/digits/predict"


class Logged:
    """A server and the lines that it logs."""

    def __init__(self, start: Callable[..., Served], path: Path, *arguments: object) -> None:
        self.path = path
        with path.open("w") as stderr:
            self.server = start(*arguments, "--streams", "1", stderr=stderr)

    def lines(self) -> list[str]:
        return [one for one in self.path.read_text(encoding="utf-8").split("\n") if one]

    def request(self, id_: str) -> dict[str, Any]:
        """Waits for the line of a request; all lines must be JSON."""
        end = time.monotonic() + 30
        while True:
            told = [json.loads(one) for one in self.lines()]
            found = [one for one in told if one["event"] == "request" and one["request"] == id_]
            if found:
                assert len(found) == 1
                return found[0]
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.fixture(scope="module")
def logged(start: Callable[..., Served], digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Logged:
    return Logged(start, tmp_path_factory.mktemp("logs") / "stderr", digits_bundle, "--log-format", "json")


def test_a_request_is_told_in_one_line(logged: Logged, jpeg: bytes) -> None:
    answer = httpx.post(logged.server.url + PREDICT, content=jpeg, headers={"x-request-id": "order-66:a"}, timeout=30)
    assert answer.headers["x-request-id"] == "order-66:a"
    told = logged.request("order-66:a")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told.pop("time"))
    assert 0 < told.pop("ms") < 30_000
    assert told == {
        "level": "info",
        "logger": "shipsight.serve.requests",
        "event": "request",
        "request": "order-66:a",
        "method": "POST",
        "route": "/v1/models/{model}/predict",
        "status": 200,
        "principal": "loopback",
        "bytes_in": len(jpeg),
        "bytes_out": len(answer.content),
        "model": "digits",
        "version": "1",
        "variant": logged.server.models[0]["variants"].popitem()[0],
    }


@pytest.mark.parametrize(
    ("path", "headers", "error"),
    [
        ("/v1/models/no%0aname/predict", {}, "not-found"),
        ("/nowhere", {}, "not-found"),
        ("/v2/models/nobody/infer", {}, "not-found"),
        (PREDICT, {}, "image-format"),
        (PREDICT, {"host": "evil.example"}, "usage"),
    ],
)
def test_an_error_is_told_by_its_code(logged: Logged, path: str, headers: dict[str, str], error: str) -> None:
    answer = httpx.post(logged.server.url + path, content=b"{}", headers=headers, timeout=30)
    told = logged.request(answer.headers["x-request-id"])
    assert told["error"] == error
    assert told["status"] == answer.status_code


FORGED = ("\r\n", "\n", "\x1b[31m", "\x00", "\x85", "\u2028", "\u202e", '"}\n{"event": "request"')


@pytest.mark.parametrize("forged", FORGED, ids=ascii)
def test_what_clients_send_forges_no_line(logged: Logged, forged: str) -> None:
    before = len(logged.lines())
    text = f"a{forged}level=info".encode()
    parts = urlsplit(logged.server.url)
    escaped = "".join(f"%{one:02x}" for one in text)
    # The value stands where HTTP allows it: raw in headers, where it may end the head, and escaped in the path.
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as client:
        client.sendall(
            b"GET /v1/models/" + escaped.encode() + b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            b"x-request-id: " + text + b"\r\nuser-agent: " + text + b"\r\n\r\n"
        )
        client.recv(65536)
    answer = httpx.get(
        f"{logged.server.url}/healthz", headers={"x-request-id": f"after-{abs(hash(forged))}"}, timeout=30
    )
    logged.request(answer.headers["x-request-id"])
    for line in logged.lines()[before:]:
        assert line.isascii()
        assert line.isprintable()
        assert "evil" not in line
        assert {"time", "level", "logger", "event"} <= set(json.loads(line))


def test_a_user_agent_of_a_megabyte_makes_no_long_line(logged: Logged) -> None:
    before = len(logged.lines())
    with contextlib.suppress(httpx.HTTPError):  # refused: as good
        httpx.get(f"{logged.server.url}/healthz", headers={"user-agent": "x" * 2**20}, timeout=30)
    httpx.get(f"{logged.server.url}/healthz", headers={"x-request-id": "after-the-agent"}, timeout=30)
    logged.request("after-the-agent")
    assert all(len(line) < 4000 for line in logged.lines()[before:])


@pytest.mark.parametrize("given_id", ["", "a b", "x" * 65, "a\u2028", "<script>", "../../etc"])
def test_an_id_that_is_not_well_formed_is_replaced(given_id: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", request_id(given_id))
    assert request_id(given_id) != request_id(given_id)


def test_requests_are_not_told_where_the_operator_wants_none(
    start: Callable[..., Served], digits_bundle: Path, tmp_path: Path
) -> None:
    logged = Logged(start, tmp_path / "stderr", digits_bundle, "--no-access-log")
    assert httpx.get(f"{logged.server.url}/healthz", timeout=30).headers["x-request-id"]
    assert logged.server.stop() == 0
    assert not [one for one in logged.lines() if "healthz" in one]


def test_a_reader_that_stopped_reading_holds_nobody_up(digits_bundle: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "shipsight",
        "serve",
        str(digits_bundle),
        "--port",
        "0",
        "--json",
        "--streams",
        "1",
    ]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        with httpx.Client(base_url=url, timeout=30) as client:
            # More than a pipe takes: 64 KiB, a line has 250 bytes.
            for _ in range(1000):
                assert client.get("/healthz").status_code == 200
        server.terminate()
        _, told = server.communicate(timeout=60)
        assert server.returncode == 0
        assert '"event": "request"' in told


def record(message: str, **told: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": message, "levelname": "INFO", "name": "test", **fields(**told)})


@given(st.text(), st.text())
def test_any_text_stays_one_line_that_reads_back(message: str, value: str) -> None:
    line = _AsJson().format(record(message, value=value))
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    assert told["event"] == message or len(message) > 1000
    assert _AsText().format(record(message, value=value)).isprintable()


def test_a_failure_is_told_with_its_trace_in_one_line() -> None:
    try:
        raise ValueError("a\nforged line")
    except ValueError:
        failed = record("failed")
        failed.exc_info = sys.exc_info()
    line = _AsJson().format(failed)
    assert line.isprintable()
    assert "Traceback" in json.loads(line)["exception"]
    indented = _AsText().format(failed).splitlines()[1:]
    assert all(one.startswith("    ") for one in indented)


def test_lines_that_found_no_room_are_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipsight.serve.logs._MOST_LINES", 0)
    written = io.StringIO()
    lines = _Lines(written)
    lines.setFormatter(_AsText())
    lines.handle(record("lost"))
    monkeypatch.undo()
    lines.handle(record("kept"))
    end = time.monotonic() + 10
    while "lines=1" not in written.getvalue():
        assert time.monotonic() < end
        time.sleep(0.01)
    lines.close()
    assert "lost" in written.getvalue()
    assert "INFO lost" not in written.getvalue()


def test_a_format_that_is_none_is_refused(digits_bundle: Path) -> None:
    assert LogSettings.of("text", requests=True).format is LogFormat.TEXT
    command = [sys.executable, "-m", "shipsight", "serve", str(digits_bundle), "--log-format", "xml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "--log-format" in done.stderr
