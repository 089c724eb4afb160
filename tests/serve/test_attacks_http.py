# SPDX-License-Identifier: Apache-2.0
"""Attacks on HTTP: H1 slow clients, H2 bodies, H3 forms, H7 addresses to fetch, H9 leaks, H11 the log, H12 paths."""

from __future__ import annotations

import base64
import contextlib
import gzip
import itertools
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from starlette.requests import Request
from tests.serve.attacked import (
    BODY_BYTES,
    BODY_S,
    CONNECTIONS,
    HEAD_S,
    INFER,
    PREDICT,
    Attacked,
    chunked,
    many_descriptors,
    replies,
    request,
    wait_until,
)
from tests.serve.conftest import Served

from shipsight.access import LOOPBACK
from shipsight.errors import LimitError, UsageError
from shipsight.serve import Limits, allow_descriptors
from shipsight.serve.http.forms import read_form
from shipsight.serve.http.handlers import bind
from shipsight.serve.http.json_body import read_json

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


# --- H2: bodies and their lengths ------------------------------------------------------------------------------------

SMUGGLED = request("GET", "/v1/smuggled")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(request("POST", PREDICT, f"content-length: {length}"), status, id=f"H2-length-{length}")
        for length, status in [
            ("99999999999", 413),
            (str(2**63), 413),
            (str(2**64), 400),
            ("9" * 5000, 400),
            ("-1", 400),
            ("+5", 400),
            ("0x10", 400),
            ("1e3", 400),
            ("5 5", 400),
            ("5, 5", 400),
            ("\xb2", 400),
            ("1_0", 400),
        ]
    ]
    + [
        pytest.param(request("POST", PREDICT, *headers) + rest, 400, id=f"H2-{name}")
        for name, headers, rest in [
            ("two-lengths", ("content-length: 1", "content-length: 2"), b"a" + SMUGGLED),
            ("length-twice", ("content-length: 1", "content-length: 1"), b"a" + SMUGGLED),
            ("length-and-chunks", ("content-length: 5", "transfer-encoding: chunked"), b"0\r\n\r\n" + SMUGGLED),
            ("chunks-and-length", ("transfer-encoding: chunked", "content-length: 5"), b"0\r\n\r\n" + SMUGGLED),
            ("identity", ("transfer-encoding: identity",), SMUGGLED),
            ("identity-and-length", ("transfer-encoding: identity", "content-length: 1"), b"a" + SMUGGLED),
            ("gzip-chunked", ("transfer-encoding: gzip, chunked",), b"0\r\n\r\n" + SMUGGLED),
            ("chunked-twice", ("transfer-encoding: chunked, chunked",), b"0\r\n\r\n" + SMUGGLED),
            ("two-codings", ("transfer-encoding: chunked", "transfer-encoding: identity"), b"0\r\n\r\n" + SMUGGLED),
            ("xchunked", ("transfer-encoding: xchunked",), b"0\r\n\r\n" + SMUGGLED),
            ("blank-before-colon", ("transfer-encoding : chunked",), b"0\r\n\r\n" + SMUGGLED),
            ("folded", ("x: 1", " transfer-encoding: chunked"), b"0\r\n\r\n" + SMUGGLED),
            ("nul-in-header", ("x: a\0b",), SMUGGLED),
            ("bare-return", ("x: a\rcontent-length: 1",), SMUGGLED),
            ("nameless-header", (": 1",), SMUGGLED),
            ("chunk-size-negative", ("transfer-encoding: chunked",), b"-1\r\na\r\n0\r\n\r\n" + SMUGGLED),
            ("chunk-size-prefixed", ("transfer-encoding: chunked",), b"0x1\r\na\r\n0\r\n\r\n" + SMUGGLED),
            ("chunk-size-overflow", ("transfer-encoding: chunked",), b"f" * 17 + b"\r\na\r\n0\r\n\r\n" + SMUGGLED),
            ("chunk-size-blank", ("transfer-encoding: chunked",), b"\r\na\r\n0\r\n\r\n" + SMUGGLED),
            ("chunk-longer", ("transfer-encoding: chunked",), b"1\r\nab\r\n0\r\n\r\n" + SMUGGLED),
            ("gzip-bomb", ("content-encoding: gzip", "content-length: 4"), b"\x1f\x8b\x08\x00"),
        ]
    ]
    + [
        pytest.param(SMUGGLED.replace(b"host: localhost\r\n", b""), 400, id="H2-no-host"),
        pytest.param(request("GET", "/healthz", "host: localhost"), 400, id="H2-two-hosts"),
        pytest.param(b"GET /healthz\r\n\r\n", 400, id="H2-version-missing"),
        pytest.param(b"GET /healthz HTTP/3.0\r\nhost: localhost\r\n\r\n", 400, id="H2-version-3"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="H2-preface-of-http-2"),
        pytest.param(b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="H2-chunks-in-1.0"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, id="H2-tls-on-the-plain-port"),
        pytest.param(b"FROB / HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, id="H2-method-unknown"),
        pytest.param(request("GET", "/\xff"), 400, id="H2-path-not-ascii"),
        pytest.param(request("GET", "/" + "x" * 2**17), 431, id="H2-path-long"),
        pytest.param(request("GET", "/healthz", "x: " + "x" * 2**17), 431, id="H2-header-long"),
        pytest.param(request("GET", "/healthz", *["x: 1"] * 200), 431, id="H2-headers-many"),
    ],
)
def test_request_that_can_be_read_in_two_ways_is_refused_and_its_connection_closed(
    attacked: Attacked, sent: bytes, status: int
) -> None:
    found = attacked.send(sent)
    assert [one.status for one in found] == [status]
    assert found[0].code in ("usage", "limit")
    assert found[0].headers.get("connection") == "close" or status == 413 or b"gzip" in sent


def endless(begin: bytes, again: bytes) -> Iterator[bytes]:
    """More than any limit; ends, so that a server without one fails the test and not the machine."""
    yield begin
    block = again * (65536 // len(again) + 1)
    for _ in range(64 * 2**20 // len(block)):
        yield block


CHUNKED = request("POST", PREDICT, "transfer-encoding: chunked")


@pytest.mark.parametrize(
    ("begin", "again", "status"),
    [
        (request("POST", PREDICT)[:-2] + b"x: ", b"x", 431),
        (request("POST", PREDICT)[:-2], b"x: 1\r\n", 431),
        (b"POST /", b"x", 431),
        (b"P", b"P", 400),
        (CHUNKED, b"1\r\nx\r\n", 413),
        (CHUNKED, b"1;" + b"x" * 100 + b"\r\nx\r\n", 413),
        (CHUNKED + b"1;", b"x", 413),
        (CHUNKED + b"1\r\nx\r\n0\r\n", b"x: 1\r\n", 413),
        (CHUNKED + b"1\r\nx\r\n0\r\nx:", b"x", 413),
        (CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n", 413),
    ],
    ids=[
        *("H2-endless-header", "H2-endless-headers", "H2-endless-path", "H2-endless-method", "H2-tiny-chunks"),
        *("H2-chunk-extensions", "H2-endless-extension", "H2-endless-trailers", "H2-endless-trailer"),
        "H2-endless-body-in-chunks",
    ],
)
def test_what_does_not_end_is_cut_off(attacked: Attacked, begin: bytes, again: bytes, status: int) -> None:
    before = time.monotonic()
    with attacked.connect() as client:
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in endless(begin, again):
                client.sendall(piece)
                sent += len(piece)
        # The answer may be lost where the connection is reset while we still send.
        with contextlib.suppress(ConnectionResetError):
            raw = client.recv(65536)
            assert raw == b"" or raw.startswith(f"HTTP/1.1 {status}".encode()), raw
    assert sent < 64 * 2**20, "nobody stopped it"
    assert time.monotonic() - before < 30


def test_h2_trailers_say_nothing(attacked: Attacked) -> None:
    trailers = b"content-encoding: gzip\r\nhost: evil.example\r\ncontent-type: application/json\r\n"
    body = chunked(attacked.jpeg)[:-2] + trailers + b"\r\n"
    found = attacked.send(CHUNKED + body)
    assert [one.status for one in found] == [200]


def test_h2_chunks_of_a_kilobyte_are_as_good_as_a_length(attacked: Attacked) -> None:
    pieces = [attacked.jpeg[place : place + 1024] for place in range(0, len(attacked.jpeg), 1024)]
    assert [one.status for one in attacked.send(CHUNKED + chunked(*pieces))] == [200]


def test_h2_compressed_bodies_are_not_inflated(attacked: Attacked) -> None:
    bomb = gzip.compress(bytes(64 * 2**20))
    for headers, status in (({"content-encoding": "gzip"}, 400), ({}, 415)):
        for path in (PREDICT, "/score", INFER):
            answer = attacked.ask("POST", path, content=bomb, headers=headers)
            assert answer.status_code == (400 if path == INFER else status)


def test_h2_requests_far_ahead_of_their_answers_are_cut_off(attacked: Attacked) -> None:
    found = attacked.send(request("POST", PREDICT, "content-length: 0") * 5000)
    assert len(found) < 5000
    assert {one.status for one in found} <= {400, 413}


def test_h2_bodies_of_all_requests_together_have_a_limit(attacked: Attacked) -> None:
    # Sixteen bodies of the largest size are held; each of these is held back just before its end.
    size = BODY_BYTES - 1
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(attacked.connect()) for _ in range(20)]

        def push(client: socket.socket) -> None:
            with contextlib.suppress(OSError):
                client.sendall(request("POST", PREDICT, f"content-length: {size}") + bytes(size - 1))

        threads = [threading.Thread(target=push, args=(one,)) for one in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statuses = []
        for client in clients:
            with contextlib.suppress(ConnectionResetError):
                statuses.append(client.recv(12).decode().split()[-1])
    assert "503" in statuses, statuses
    assert set(statuses) <= {"503", "413"}, statuses


# --- H3: forms -------------------------------------------------------------------------------------------------------

PART = b'content-disposition: form-data; name="a"; filename="a.jpg"\r\n\r\n'


def form(*parts: bytes, boundary: bytes = b"b", end: bytes = b"--\r\n") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + b"--" + boundary + end


def ask_with_form(attacked: Attacked, body: bytes, kind: str = "multipart/form-data; boundary=b") -> httpx.Response:
    before = time.monotonic()
    answer = attacked.ask("POST", PREDICT, content=body, headers={"content-type": kind})
    assert time.monotonic() - before < 10
    return answer


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(*[b""] * 1_000_000), 400),
        (form(*[PART + b"x"] * 100_000), 413),
        (b"--b\r\n" + b"x: 1\r\n" * 1_000_000, 400),
        (form(b"x: 1\r\n" * 1_000_000 + PART + b"x"), 413),
        (form(b"x: " + b"x" * 7_000_000 + b"\r\n" + PART + b"x"), 413),
        (form(*[b"x: 1\r\n" * 20 + PART]), 413),
        (b"\r\n--bx" * 1_000_000, 400),
        (b"--b\r\n" + PART + b"\r\n--bx" * 1_000_000, 400),
        (b"-" * 8_000_000, 400),
        (b"\r\n" * 4_000_000, 400),
        (form(PART + b"x")[:-4], 400),
        (form(PART + b"x", end=b"  \r\n"), 400),
        (form(), 400),
        (b"", 400),
        (form(b'content-disposition: form-data; name="a"\r\n\r\nx'), 400),
        (form(b"x: 1\r\n\r\nx"), 400),
        (form(b'content-disposition: attachment; name="a"; filename="a"\r\n\r\nx'), 400),
    ],
    ids=[
        *("H3-a-million-parts", "H3-parts", "H3-endless-part-head", "H3-a-million-headers-of-a-part", "H3-long-header"),
        *("H3-headers-of-a-part", "H3-boundary-lookalikes", "H3-lookalikes-in-a-part", "H3-hyphens", "H3-blank-lines"),
        *("H3-no-end", "H3-padding-without-a-part", "H3-no-part", "H3-empty", "H3-field", "H3-no-disposition"),
        "H3-attachment",
    ],
)
def test_form_is_refused_by_name_and_at_once(attacked: Attacked, body: bytes, status: int) -> None:
    answer = ask_with_form(attacked, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, "limit" if status == 413 else "usage")


def test_h3_what_stands_before_and_behind_a_form_is_ignored_at_once(attacked: Attacked) -> None:
    one = form(PART + attacked.jpeg)
    for junk in (b"x" * 7_000_000, b"\r\n" * 3_000_000, b"-" * 7_000_000, b"\r\n--" * 1_500_000):
        assert ask_with_form(attacked, one + junk).status_code == 200
        assert ask_with_form(attacked, junk + b"\r\n" + one).status_code == 200


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=" + "b" * 71,
        "multipart/form-data; boundary=" + "b" * 50_000,
        "multipart/form-data; " + ';"' * 30_000,
        "multipart/form-data; boundary=\xff\xfe",
    ],
    ids=["none", "blank", "empty", "71", "huge", "quotes", "not-ascii"],
)
def test_h3_boundary_that_is_none_is_refused(attacked: Attacked, kind: str) -> None:
    headers = {"content-type": kind.encode("latin-1")}
    answer = attacked.ask("POST", PREDICT, content=form(PART + attacked.jpeg), headers=headers)
    assert answer.status_code in (400, 413)


@pytest.mark.parametrize("charset", ["undefined", "idna", "punycode", "unicode_escape", "utf-7", "zlib", "rot13", "x"])
def test_h3_charset_of_a_form_is_not_obeyed(attacked: Attacked, charset: str) -> None:
    part = PART.replace(b"a.jpg", rb"\ud800 xn--\xff.jpg")
    answer = ask_with_form(attacked, form(part + attacked.jpeg), f"multipart/form-data; boundary=b; charset={charset}")
    assert answer.status_code == 200
    assert answer.json()["images"][0]["source"] == r"\ud800 xn--\xff.jpg"


def test_h3_form_is_read_in_order_and_byte_for_byte() -> None:
    first, second = bytes(range(256)) * 3, b"\r\n--\r\n-b--b\r\n --b"
    body = b"before\r\n" + form(PART + first, PART.replace(b"a.jpg", "ü.jpg".encode()) + second, PART) + b"behind"
    images = read_form(body, 'multipart/form-data; boundary="b"', 3)
    assert [(one.data, one.source) for one in images] == [(first, "a.jpg"), (second, "ü.jpg"), (b"", "a.jpg")]
    with pytest.raises(LimitError, match="parts"):
        read_form(body, "multipart/form-data; boundary=b", 2)


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
    assert attacked.ask("POST", PREDICT, content=attacked.jpeg, headers={"x-forwarded-host": addresses[0]}).is_success
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


# --- pieces ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"[" * 100_000, UsageError),
        (b"[" * 33 + b"]" * 33, UsageError),
        (b'{"a":' * 33 + b"1" + b"}" * 33, UsageError),
        (b"[" + b"[]," * 200_001 + b"1]", LimitError),
        (b"NaN", UsageError),
        (b"[-Infinity]", UsageError),
        (b"9" * 5000, UsageError),
        (b'"\xff"', UsageError),
        (b"", UsageError),
        (b"1 2", UsageError),
    ],
    ids=["deep", "33-lists", "33-objects", "many", "nan", "infinity", "digits", "no-utf-8", "empty", "two"],
)
def test_json_is_refused_when_it_is_too_much_or_none(body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_json(body)


def test_json_is_read_when_it_is_within_limits() -> None:
    assert read_json(b"[" * 32 + b"]" * 32)
    assert read_json(b'{"a": ' + b"[" + b"[1]," * 100_000 + b"[2]]}")["a"][-1] == [2]
    assert read_json(b"9223372036854775808000") == 9223372036854775808000


def test_more_connections_than_files_is_refused_before_anything_is_opened() -> None:
    with pytest.raises(UsageError, match="ulimit"):
        allow_descriptors(2**40)
    with pytest.raises(UsageError, match="headers"):
        Limits(headers=0)
