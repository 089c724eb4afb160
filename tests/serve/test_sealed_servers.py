# SPDX-License-Identifier: Apache-2.0
"""Sealed requests and several servers, restarts, isolation, keys that end, and models that take nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.access.test_quotas import RedisServer
from tests.serve.conftest import Served, rewritten, serving_process
from tests.serve.sealing import NATIVE, OIP, TYPE, Sealer, path_of
from tests.serve.test_sealed import code_of, grpc_infer, tensor_request
from tests.serve.test_stream import open_stream
from websockets.exceptions import InvalidStatus

from shipsight.protect import PlainRequest, SealedFor, open_answer

pytestmark = pytest.mark.slow  # servers that start

FOR = SealedFor(NATIVE, "digits")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    server = RedisServer(program, tmp_path)
    yield server
    server.stop()


@pytest.fixture
def pair(
    start: Callable[..., Served], digits_bundle: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[Sealer, Sealer]]:
    """Two servers that share a folder of keys, and a Redis where the test asks for one."""
    store = ()
    if request.param == "redis":
        store = ("--limits-store", request.getfixturevalue("redis").url)
    served = [start(digits_bundle, "--sealing-keys", tmp_path / "keys", *store) for _ in range(2)]
    pin = (tmp_path / "keys" / "identity.pin").read_text()
    with served[0].client as one, served[1].client as other:
        yield Sealer(one, pin), Sealer(other, pin)
    for server in served:
        server.stop()


@pytest.mark.parametrize("pair", ["folder", "redis"], indirect=True)
def test_servers_that_share_keys_take_a_request_once(pair: tuple[Sealer, Sealer], jpeg: bytes) -> None:
    one, other = pair
    assert one.keys() == other.keys()
    for first, second in (pair, pair[::-1]):
        body, reply = one.seal(PlainRequest(jpeg), FOR)
        assert open_answer(first.send(body, FOR).content, reply).status == 200
        assert code_of(second.send(body, FOR)) == "sealed-request-refused"
    for _ in range(5):
        body, _ = other.seal(PlainRequest(jpeg), FOR)
        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(lambda number, body=body: pair[number % 2].send(body, FOR), range(8)))
        assert sorted(one.status_code for one in told) == [200] + [400] * 7


@pytest.mark.parametrize("pair", ["folder", "redis"], indirect=True)
def test_request_that_no_model_was_asked_with_is_still_taken_by_either_server(
    pair: tuple[Sealer, Sealer], jpeg: bytes
) -> None:
    asked = SealedFor(NATIVE, "faces")
    body, reply = pair[0].seal(PlainRequest(jpeg), asked)
    for server in (*pair, pair[0]):
        assert open_answer(server.send(body, asked).content, reply).status == 404


@pytest.mark.parametrize("pair", ["redis"], indirect=True)
def test_request_is_refused_rather_than_taken_unseen(
    pair: tuple[Sealer, Sealer], redis: RedisServer, jpeg: bytes
) -> None:
    body, _ = pair[0].seal(PlainRequest(jpeg), FOR)
    redis.process.send_signal(signal.SIGSTOP)
    told = pair[0].send(body, FOR)
    assert (told.status_code, code_of(told)) == (503, "overloaded")
    assert told.headers["retry-after"]
    redis.process.send_signal(signal.SIGCONT)
    assert pair[0].http.post(path_of(FOR), content=jpeg).status_code == 200


def test_keys_in_a_folder_and_what_was_seen_outlive_the_server(
    start: Callable[..., Served], digits_bundle: Path, tmp_path: Path, jpeg: bytes
) -> None:
    server = start(digits_bundle, "--sealing-keys", tmp_path / "keys")
    pin = (tmp_path / "keys" / "identity.pin").read_text()
    with server.client as http:
        sealer = Sealer(http, pin)
        keys = sealer.keys()
        seen, _ = sealer.seal(PlainRequest(jpeg), FOR)
        unseen, reply = sealer.seal(PlainRequest(jpeg), FOR)
        assert sealer.send(seen, FOR).status_code == 200
        os.kill(serving_process(server), signal.SIGKILL)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if http.get("/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.05)
        assert sealer.keys() == keys
        assert code_of(sealer.send(seen, FOR)) == "sealed-request-refused"
        assert open_answer(sealer.send(unseen, FOR).content, reply).status == 200
    server.stop()


def test_keys_in_memory_end_with_the_process_and_the_identity_with_the_server(
    digits_bundle: Path, tmp_path: Path, jpeg: bytes
) -> None:
    command = [sys.executable, "-m", "shipsight", "serve", str(digits_bundle), "--port", "0", "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        server = Served(process, ready["url"], ready["models"])
        with server.client as http:
            sealer = Sealer(http, ready["sealing"])
            before = sealer.keys()
            body, _ = sealer.seal(PlainRequest(jpeg), FOR)
            os.kill(serving_process(server), signal.SIGKILL)
            until = time.monotonic() + 60
            told = None
            while told is None and time.monotonic() < until:
                try:
                    http.get("/readyz").raise_for_status()
                    told = sealer.send(body, FOR)
                except httpx.HTTPError:
                    time.sleep(0.05)
            assert told is not None
            assert code_of(told) == "sealed-request-refused"
            assert sealer.keys() != before  # signed by the same identity: the pin holds
            assert sealer.ask(PlainRequest(jpeg), FOR).status == 200
        process.send_signal(signal.SIGTERM)


def test_isolated_engine_answers_sealed_requests(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes, tmp_path: Path
) -> None:
    server = start(digits_bundle, "--isolate", "--sealing-keys", tmp_path / "keys")
    with server.client as http:
        sealer = Sealer(http, (tmp_path / "keys" / "identity.pin").read_text())
        answer = sealer.ask(PlainRequest(jpeg, query="conf=0.01"), FOR)
        assert json.loads(answer.body) == http.post(f"{path_of(FOR)}?conf=0.01", content=jpeg).json()
    server.stop()


@pytest.fixture(scope="module")
def strict(
    start: Callable[..., Served], digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, Sealer]]:
    """A server whose model `digits` takes sealed requests only; `open` takes both."""
    folder = tmp_path_factory.mktemp("strict")
    second = rewritten(digits_bundle, folder / "open.bundle", name="open")
    options = ("--require-sealed", "digits", "--sealing-keys", folder / "keys", "--grpc-port", "0")
    served = start(digits_bundle, second, *options)
    with served.client as http:
        yield served, Sealer(http, (folder / "keys" / "identity.pin").read_text())
    served.stop()


def test_model_that_takes_sealed_requests_only_refuses_plain_ones_on_every_wire(
    strict: tuple[Served, Sealer], jpeg: bytes
) -> None:
    served, sealer = strict
    tensor = tensor_request(binary=True)
    headers = {"content-type": tensor.content_type, **tensor.headers}
    told = [
        sealer.http.post(path_of(FOR), content=jpeg),
        sealer.http.post(path_of(SealedFor(NATIVE, "digits", "1")), content=jpeg),
        sealer.http.post(path_of(SealedFor(OIP, "digits")), content=tensor.body, headers=headers),
        sealer.http.post("/invocations?model=digits", content=jpeg),
        sealer.http.post("/score?model=digits", content=jpeg),
    ]
    assert {(one.status_code, code_of(one)) for one in told} == {(415, "sealing-required")}
    with pytest.raises(Exception, match="takes sealed requests only"):
        grpc_infer(served, jpeg)
    with pytest.raises(InvalidStatus), open_stream(served) as stream:
        stream.recv(timeout=60)


def test_model_that_takes_sealed_requests_only_answers_them(strict: tuple[Served, Sealer], jpeg: bytes) -> None:
    _, sealer = strict
    assert sealer.ask(PlainRequest(jpeg), FOR).status == 200
    assert sealer.ask(tensor_request(binary=True), SealedFor(OIP, "digits")).status == 200
    assert sealer.http.post("/v1/models/open/predict", content=jpeg).status_code == 200
    # Whoever only says that it is sealed is not believed.
    assert sealer.http.post(path_of(FOR), content=jpeg, headers=TYPE).status_code == 400


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--require-sealed", "digit"], "no such model"),
        (["--sealing-days", "0.01"], "--sealing-days"),
        (["--sealing-days", "400"], "--sealing-days"),
    ],
)
def test_wrong_options_are_refused_at_the_start(digits_bundle: Path, options: list[str], what: str) -> None:
    command = [sys.executable, "-m", "shipsight", "serve", str(digits_bundle), "--port", "0", *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert what in ended.stderr


def test_folder_that_others_may_look_into_is_refused(digits_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    folder.chmod(0o750)
    command = [sys.executable, "-m", "shipsight", "serve", str(digits_bundle), "--port", "0", "--sealing-keys", folder]
    ended = subprocess.run([str(one) for one in command], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 3
    assert f"chmod 700 {folder}" in ended.stderr.replace("\n", "")
