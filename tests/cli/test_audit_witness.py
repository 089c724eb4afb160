# SPDX-License-Identifier: Apache-2.0
"""`shipsight audit witness`, asked over HTTP by whoever can reach it, and told what it cannot do."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.access.audit.trees import Tree
from tests.access.audit.witness_server import WitnessServer, witness_server

TREE = Tree(50)
LAST = Tree(5, origin="shipsight/last")


@pytest.fixture(scope="module")
def witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WitnessServer]:
    folder = tmp_path_factory.mktemp("witness") / "state"
    with witness_server(folder, TREE.signer.key.text, LAST.signer.key.text) as server:
        yield server


def ask(
    witness: WitnessServer, method: str, path: str, body: bytes | None = None
) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", witness.port, timeout=30)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def test_request_to_sign_is_answered_as_the_protocol_has_it(witness: WitnessServer) -> None:
    assert ask(witness, "GET", "/checkpoint?origin=shipsight%2Fone")[0] == 404
    status, line, _ = ask(witness, "POST", "/add-checkpoint", TREE.request(0, 20))
    assert (status, line[:2]) == (200, "\N{EM DASH} ")
    status, size, headers = ask(witness, "POST", "/add-checkpoint", TREE.request(10, 30))
    assert (status, size, headers["content-type"]) == (409, "20\n", "text/x.tlog.size")
    assert ask(witness, "POST", "/add-checkpoint", TREE.request(20))[0] == 200
    status, text, headers = ask(witness, "GET", "/checkpoint?origin=shipsight%2Fone")
    assert (status, text.split("\n")[1], headers["cache-control"]) == (200, "50", "no-store")
    assert ask(witness, "GET", "/livez")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/add-checkpoint", b"", 400),
        ("POST", "/add-checkpoint", b"old 0\n\nnonsense\n", 404),
        ("POST", "/add-checkpoint", b"\xff" * 1000, 400),
        ("POST", "/add-checkpoint", b"x" * 73 * 1024, 413),
        ("POST", "/add-checkpoint", b"x" * 10_000_000, 413),
        ("POST", "/add-checkpoint", Tree(3).request(0), 403),
        ("POST", "/add-checkpoint", Tree(3, origin="shipsight/two").request(0), 404),
        ("GET", "/add-checkpoint", None, 405),
        ("PUT", "/checkpoint?origin=x", b"", 405),
        ("GET", "/checkpoint", None, 400),
        ("GET", "/checkpoint?origin=" + "x" * 2000, None, 400),
        ("GET", "/checkpoint?origin=..%2F..%2Fwitness.key", None, 404),
        ("GET", "/witness.key", None, 404),
        ("GET", "/", None, 404),
    ],
)
def test_other_request_is_refused(
    witness: WitnessServer, method: str, path: str, body: bytes | None, status: int
) -> None:
    try:
        assert ask(witness, method, path, body)[0] == status
    except (BrokenPipeError, ConnectionResetError):
        assert status == 413  # it hung up on what came after the limit
    assert ask(witness, "GET", "/livez")[0] == 200


def test_body_that_does_not_come_is_not_waited_for_without_end(witness: WitnessServer) -> None:
    with socket.create_connection(("127.0.0.1", witness.port), timeout=30) as slow:
        slow.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nold")
        begin_s = time.monotonic()
        answer = slow.recv(1000)
        assert b" 413 " in answer.split(b"\r\n")[0]
        assert time.monotonic() - begin_s < 20


def test_witness_that_was_killed_knows_what_it_signed(witness: WitnessServer) -> None:
    assert ask(witness, "POST", "/add-checkpoint", LAST.request(0, 4))[0] == 200
    witness.stop(signal.SIGKILL)
    witness.start()
    assert ask(witness, "POST", "/add-checkpoint", LAST.request(0, 3))[:2] == (409, "4\n")
    assert ask(witness, "POST", "/add-checkpoint", LAST.request(4))[0] == 200


def test_witness_leaves_when_it_is_told(tmp_path: Path) -> None:
    with witness_server(tmp_path / "state", TREE.signer.key.text) as server:
        assert server.stop(signal.SIGTERM) == 0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shipsight", "audit", "witness", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_witness_that_others_can_reach_needs_tls(tmp_path: Path) -> None:
    ran = run("--log", TREE.signer.key.text, "--state", str(tmp_path / "w"), "--host", "0.0.0.0", "--port", "0")
    assert ran.returncode == 2
    assert "over TLS alone" in ran.stderr


def test_witness_needs_a_log(tmp_path: Path) -> None:
    assert run("--state", str(tmp_path / "w")).returncode == 2
    ran = run("--state", str(tmp_path / "w"), "--log", "nonsense")
    assert ran.returncode == 2
    assert "not a key" in ran.stderr
    assert not (tmp_path / "w").exists()


def test_folder_of_another_witness_is_refused(witness: WitnessServer) -> None:
    ran = run("--log", TREE.signer.key.text, "--state", str(witness.folder), "--port", "0")
    assert ran.returncode == 3
    assert "another process keeps this folder" in ran.stderr
