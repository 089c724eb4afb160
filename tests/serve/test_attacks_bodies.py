# SPDX-License-Identifier: Apache-2.0
"""Attacks on HTTP with bodies: H2 lengths, chunks and smuggling, H3 forms."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from tests.serve.attacked import (
    BODY_BYTES,
    INFER,
    PREDICT,
    Attacked,
    chunked,
    request,
)

from shipsight.errors import LimitError, UsageError
from shipsight.serve import Limits, allow_descriptors
from shipsight.serve.http.forms import read_form
from shipsight.serve.http.json_body import read_json

pytestmark = pytest.mark.slow  # servers that start, die and wait

# --- H2: bodies and their lengths ------------------------------------------------------------------------------------

SMUGGLED = request("GET", "/v1/smuggled")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(request("POST", PREDICT, f"content-length: {length}"), status, id=f"H2-length-{length[:24]}")
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
