# SPDX-License-Identifier: Apache-2.0
"""Attacks on HTTP: H1 slow clients, H7 addresses to fetch, H9 leaks, H11 the log, H12 paths."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.requests import Request
from tests.serve.attacked import (
    BODY_S,
    CONNECTIONS,
    HEAD_S,
    INFER,
    PREDICT,
    Attacked,
    many_descriptors,
    replies,
    request,
    wait_until,
)
from tests.serve.conftest import Served

from shipsight.access import LOOPBACK
from shipsight.serve.gate import Caller
from shipsight.serve.http.handlers import bind
from shipsight.serve.http.principals import CALLER

pytestmark = pytest.mark.slow  # servers that start, die and wait

# --- H1: slow clients ------------------------------------------------------------------------------------------------


def drip(client: socket.socket, byte: bytes, every_s: float) -> None:
    """Sends a byte now and then until the server hangs up."""
    with contextlib.suppress(OSError):
        while True:
            client.sendall(byte)
            time.sleep(every_s)


@pytest.mark.parametrize(
    ("begin", "status"),
    [
        (b"POST / HTTP/1.1\r\nhost: localhost\r\nx: ", None),
        (b"\r\n\r\n", None),
        (request("POST", PREDICT, "content-length: 1000"), 413),
        (request("POST", PREDICT, "transfer-encoding: chunked") + b"1000\r\n", 413),
        (request("GET", "/healthz", "content-length: 1000"), 200),
    ],
    ids=["H1-slow-head", "H1-blank-lines", "H1-slow-body", "H1-slow-chunk", "H1-body-of-a-get"],
)
def test_slow_client_is_hung_up_on(attacked: Attacked, begin: bytes, status: int | None) -> None:
    with attacked.connect() as client:
        client.sendall(begin)
        dripping = threading.Thread(target=drip, args=(client, b"\r\n" if begin[:1] == b"\r" else b"a", 0.2))
        dripping.start()
        before = time.monotonic()
        raw = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := client.recv(65536):
                raw += chunk
        took_s = time.monotonic() - before
    dripping.join()
    assert raw.startswith(f"HTTP/1.1 {status}".encode()) if status else raw == b""
    assert min(HEAD_S, BODY_S) * 0.8 < took_s < 30


def test_h1_client_that_says_nothing_is_hung_up_on(attacked: Attacked) -> None:
    with attacked.connect() as client:
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    "begin",
    [b"", b"POST / HTTP/1.1\r\nhost: localhost\r\nx: ", request("POST", PREDICT, "content-length: 1000") + b"slow"],
    ids=["H1-idle", "H1-half-heads", "H1-half-bodies"],
)
def test_a_thousand_connections_shut_nobody_out(attacked: Attacked, begin: bytes) -> None:
    with many_descriptors(2000), contextlib.ExitStack() as opened:
        for _ in range(1000):
            client = opened.enter_context(attacked.connect())
            with contextlib.suppress(OSError):
                client.sendall(begin)
        for _ in range(5):
            before = time.monotonic()
            assert attacked.ask("POST", PREDICT, content=attacked.jpeg).status_code == 200
            assert time.monotonic() - before < 10
        assert attacked.open_descriptors() <= attacked.descriptors + CONNECTIONS + 8


def test_h1_connection_that_kept_the_server_waiting_longest_makes_room(attacked: Attacked) -> None:
    half = request("POST", PREDICT, "content-length: 1000") + b"slow"
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(attacked.connect()) for _ in range(CONNECTIONS)]
        for client in clients:
            client.sendall(half)
        time.sleep(0.5)
        last = opened.enter_context(attacked.connect())
        first = replies(clients[0].recv(65536))[0]
        assert (first.status, first.code) == (503, "overloaded")
        assert int(first.headers["retry-after"]) > 0
        last.sendall(request("GET", "/healthz"))
        assert last.recv(12) == b"HTTP/1.1 200"


def test_h1_connection_is_refused_by_name_where_all_others_are_being_answered(
    start: Callable[..., Served], digits_bundle: Path
) -> None:
    options = ("--streams", "1", "--workers", "1", "--max-images", "100", "--max-connections", "3")
    server = Attacked(start(digits_bundle, *options), Path(), jpeg=small_jpeg())
    large = base64.b64encode(cv2.imencode(".jpg", np.zeros((2400, 3200, 3), np.uint8))[1].tobytes()).decode()
    body = json.dumps({"images": [large] * 100}).encode()
    path = f"{PREDICT}?deadline_ms=120000"
    whole = request("POST", path, "content-type: application/json", f"content-length: {len(body)}", body=body)
    with contextlib.ExitStack() as opened, server.served.client as watching:

        def under_way() -> float:
            load = watching.get("/readyz").json()["load"]["digits/1"]
            return float(load["waiting"] + load["running"])

        assert under_way() == 0
        for _ in range(2):
            opened.enter_context(server.connect()).sendall(whole)
        wait_until(lambda: under_way() > 150, "they are not taken")
        watching.close()
        wait_until(lambda: server.open_descriptors() <= server.descriptors + 2, "the one that watched stays")
        opened.enter_context(server.connect()).sendall(whole)
        time.sleep(1)
        found = replies(opened.enter_context(server.connect()).recv(65536))[0]
        assert (found.status, found.code) == (503, "overloaded")
        assert b"too many connections" in found.body
        assert int(found.headers["retry-after"]) > 0
    server.check()
    assert server.served.stop() == 0


def test_request_is_refused_by_name_where_too_many_are_under_way(
    start: Callable[..., Served], digits_bundle: Path
) -> None:
    options = ("--streams", "1", "--workers", "1", "--max-images", "100", "--max-requests", "1")
    server = Attacked(start(digits_bundle, *options), Path(), jpeg=small_jpeg())
    large = base64.b64encode(cv2.imencode(".jpg", np.zeros((2400, 3200, 3), np.uint8))[1].tobytes()).decode()
    body = json.dumps({"images": [large] * 100}).encode()
    path = f"{PREDICT}?deadline_ms=120000"
    with server.connect() as client, server.served.client as watching:
        client.sendall(
            request("POST", path, "content-type: application/json", f"content-length: {len(body)}", body=body)
        )
        wait_until(lambda: watching.get("/readyz").json()["load"]["digits/1"]["running"], "it is not taken")
        answer = server.ask("POST", PREDICT, content=server.jpeg)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        assert answer.json()["error"]["where"] == "requests"
        assert int(answer.headers["retry-after"]) > 0
        assert watching.get("/healthz").status_code == 200
    wait_until(
        lambda: server.ask("POST", PREDICT, content=server.jpeg).status_code == 200, "its place is not given back"
    )
    server.check()
    assert server.served.stop() == 0


def small_jpeg() -> bytes:
    return cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()


def test_h1_client_that_reads_no_answer_is_hung_up_on(attacked: Attacked) -> None:
    with contextlib.ExitStack() as opened:
        for _ in range(5):
            client = opened.enter_context(attacked.connect(receive_bytes=2048))
            client.sendall(request("GET", "/openapi.json") * 16)
        wait_until(lambda: attacked.open_descriptors() > attacked.descriptors, "none was taken")
        wait_until(
            lambda: attacked.open_descriptors() <= attacked.descriptors + 1,
            "held for a client that reads nothing",
            seconds=90,
        )


# --- H7: addresses to fetch ------------------------------------------------------------------------------------------


def close(client: socket.socket) -> bool:
    client.close()
    return True


@pytest.fixture
def trap() -> Iterator[tuple[int, list[object]]]:
    """A port that nobody must connect to."""
    taken: list[object] = []
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        listener.settimeout(0.05)
        is_over = threading.Event()

        def take() -> None:
            while not is_over.is_set():
                with contextlib.suppress(TimeoutError):
                    taken.append(close(listener.accept()[0]))

        thread = threading.Thread(target=take)
        thread.start()
        yield listener.getsockname()[1], taken
        is_over.set()
        thread.join()


def test_h7_no_address_in_a_request_is_ever_fetched(attacked: Attacked, trap: tuple[int, list[object]]) -> None:
    port, taken = trap
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><image href="{}"/></svg>'
    entity = '<!DOCTYPE a [<!ENTITY b SYSTEM "{}">]><a>&b;</a>'
    addresses = [f"{start}{port}/a.jpg" for start in ("http://127.0.0.1:", "http://[::1]:", "http://localhost:", "//:")]
    addresses += ["file:///etc/passwd", "http://169.254.169.254/latest/meta-data/", f"ftp://127.0.0.1:{port}/a"]
    for address in addresses:
        encoded = base64.b64encode(address.encode()).decode()
        asked: list[tuple[str, dict[str, object]]] = [
            (PREDICT, {"json": {"images": [address]}}),
            (PREDICT, {"json": {"images": [{"url": address}]}}),
            (PREDICT, {"json": {"images": [encoded]}}),
            (PREDICT, {"json": {"url": address}}),
            (PREDICT, {"content": address.encode()}),
            (PREDICT, {"content": svg.format(address).encode(), "headers": {"content-type": "image/svg+xml"}}),
            (PREDICT, {"content": entity.format(address).encode(), "headers": {"content-type": "text/xml"}}),
            (PREDICT, {"files": [("a", ("a.jpg", address.encode()))]}),
            (PREDICT, {"content": b"", "headers": {"content-location": address, "referer": address}}),
            (PREDICT, {"content": b"", "params": {"url": address}}),
            ("/score", {"json": {"images": [address]}}),
            ("/invocations", {"content": address.encode(), "params": {"model": address}}),
            (INFER, {"json": {"inputs": [{"name": address, "datatype": "BYTES", "shape": [1], "data": [address]}]}}),
            ("/v2/models/digits_image/infer", {"json": {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [address]}]}}),
            ("/v2/repository/models/other/load", {"json": {"parameters": {"config": address, "file:1/model": address}}}),
            (f"/v2/repository/models/{address.replace('/', '%2f')}/load", {"json": {}}),
        ]  # fmt: skip
        for path, given in asked:
            assert 400 <= attacked.ask("POST", path, **given).status_code < 500, (path, given)
    forwarded = attacked.ask("POST", PREDICT, content=attacked.jpeg, headers={"x-forwarded-host": addresses[0]})
    assert forwarded.status_code == 403
    assert taken == []
    socket.create_connection(("127.0.0.1", port)).close()
    wait_until(lambda: taken, "the trap sees whoever connects")


def test_h7_a_model_is_loaded_from_its_bundle_alone(attacked: Attacked) -> None:
    path = "/v2/repository/models/digits/load"
    for parameters in ({"config": "{}"}, {"file:1/model.onnx": "AAAA"}, {"x": 1}):
        answer = attacked.ask("POST", path, json={"parameters": parameters})
        assert (answer.status_code, answer.json()["code"]) == (400, "usage")


# --- H9: what errors tell --------------------------------------------------------------------------------------------


def test_h9_errors_say_nothing_of_this_machine(attacked: Attacked) -> None:
    """What every test of these files got refused is searched for paths and addresses; here are the likely ones."""
    damaged = [attacked.jpeg[:-100], b"\x89PNG\r\n\x1a\n" + bytes(100), b"BM" + bytes(100), b"RIFF" + bytes(100)]
    for body in damaged:
        assert 400 <= attacked.ask("POST", PREDICT, content=body).status_code < 500
    for method, path in itertools.product(("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"), (PREDICT, INFER, "/healthz")):
        assert attacked.ask(method, path).status_code == 405
    assert attacked.refused
    attacked.check()
    attacked.refused.append("open /tmp/x failed")
    with pytest.raises(AssertionError):
        attacked.check()


@pytest.mark.parametrize("text", ["x" * 40_000, "\ud800", "\u2028\u202e\x00"], ids=["long", "surrogate", "controls"])
def test_h9_what_a_client_sent_is_said_back_in_short_and_as_json(attacked: Attacked, text: str) -> None:
    bodies = [
        (PREDICT, {text: 1}),
        (INFER, {"inputs": [{"name": text, "datatype": text, "shape": [1]}]}),
        (INFER, {"inputs": [{"name": "images", "datatype": "FP32", "shape": [1] * 30_000}]}),
        ("/v2/models/digits_image/infer", {"inputs": [], "id": text, "parameters": {text: text}, "outputs": [{"name": text}]}),
    ]  # fmt: skip
    for path, body in bodies:
        answer = attacked.ask(
            "POST", path, content=json.dumps(body).encode(), headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400
        assert len(answer.content) < 5000
        json.loads(answer.content)


# --- H11: the log ----------------------------------------------------------------------------------------------------


def test_h11_clients_write_no_line_of_the_log(attacked: Attacked) -> None:
    mark, before = "H11-forged", len(attacked.log.read_text())
    for evil in (f"\r\n{mark}", f"%0d%0a{mark}", f"\x1b[31m{mark}", f"\\n{mark}", f"%u2028{mark}", f"%e2%80%a8{mark}"):
        plain = evil.replace("\r", "%0d").replace("\n", "%0a").replace("\x1b", "%1b")
        attacked.ask("POST", f"/v1/models/{plain}/predict", content=b"x")
        attacked.ask("GET", f"/{plain}", headers={"user-agent": plain, "x-request-id": plain})
        attacked.send(request("GET", f"/{evil}", f"user-agent: {evil}"))
        attacked.ask("POST", PREDICT, files=[("a", (evil, b"x"))])
    attacked.send(request("GET", "/healthz", "user-agent: " + mark * 100_000))
    for sent in (b"\x00" * 100, f"{mark}\r\n\r\n".encode(), request("GET", "/", "connection: upgrade", "upgrade: h2c")):
        attacked.send(sent)
    text = attacked.log.read_text()[before:]
    assert mark not in text
    assert "Traceback" not in text
    assert len(text) < 20_000, "clients fill the log"


def test_h11_path_of_a_request_that_failed_stands_in_the_log_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    import asyncio

    async def fail(service: object, principal: object, request: Request) -> None:
        assert principal is LOOPBACK
        raise ZeroDivisionError

    async def receive() -> dict[str, object]:
        await asyncio.sleep(60)
        return {}

    scope = {
        "type": "http", "method": "GET", "path": "/a\r\nb\x1b[31m\u2028\u202e" + "x" * 1000, "headers": [], "query_string": b"",
        CALLER: Caller(LOOPBACK), "path_params": {},
        "server": ("localhost", 1), "scheme": "http",
    }  # fmt: skip
    with caplog.at_level(logging.ERROR, "shipsight.serve"):
        answer = asyncio.run(bind(None, fail)(Request(scope, receive)))  # type: ignore[arg-type]
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in bytes(answer.body).decode()
    line = caplog.records[0].getMessage()
    assert line.isprintable()
    assert len(line) < 300


# --- H12: paths ------------------------------------------------------------------------------------------------------

NAMES = {
    "parent": "..%2f..%2fetc%2fpasswd",
    "plain-parent": "../../etc/passwd",
    "double-encoded": "%252e%252e%252fx",
    "backslash": "..%5c..%5cx",
    "backslashes": "..\\..\\x",
    "nul": "digits%00",
    "nul-and-suffix": "digits%00.onnx",
    "long": "x" * 30_000,
    "blank": "%20",
    "dot": ".",
    "overlong-utf-8": "%c0%ae%c0%ae",
    "half-surrogate": "%ed%a0%80",
    "broken-escape": "%zz%",
    "case": "DIGITS",
    "full-width": "%ef%bd%84igits",
    "semicolon": "digits;x=1",
    "absolute": "%2fetc%2fpasswd",
    "drive": "c:%5cwindows",
    "tilde": "~root",
    "home": "$HOME",
    "twice": "digits%2fdigits",
    "image-suffixes": "digits_image_image",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=[f"H12-{name}" for name in NAMES])
def test_name_in_a_path_is_a_name_and_nothing_else(attacked: Attacked, name: str) -> None:
    for method, path in (
        ("GET", "/v1/models/{}"),
        ("POST", "/v1/models/{}/predict"),
        ("POST", "/v1/models/digits/versions/{}/predict"),
        ("POST", "/v1/models/digits/predict?variant={}"),
        ("GET", "/v2/models/{}/config"),
        ("GET", "/v2/models/digits/versions/{}/stats"),
        ("POST", "/v2/repository/models/{}/load"),
        ("POST", "/v2/repository/models/{}/unload"),
        ("GET", "/pages/{}"),
    ):
        found = attacked.send(request(method, path.format(name), "content-length: 0"))
        # An empty body is refused before a variant is looked for.
        assert [one.status for one in found] in ([404], [400]), path


@pytest.mark.parametrize(
    "path", ["/v1/models/", "//v1/models", "/v1//models", "/v1/models/digits/", "/./healthz", "//evil.example/"]
)
def test_h12_path_leads_nowhere_else(attacked: Attacked, path: str) -> None:
    found = attacked.send(request("GET", path))
    assert [one.status for one in found] == [404]
    assert "location" not in found[0].headers
