# SPDX-License-Identifier: Apache-2.0
"""Servers that cut, stall, drip or are busy: what is asked again, when, and when it is enough."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.client.both import KINDS, opened

from shipsight import AsyncClient
from shipsight.client.exchange import Asked, Heard, Pause, Reached, UnheardError, persist
from shipsight.errors import DeadlineError, NotReadyError, OverloadedError, RateLimitError, ServiceError

FOUND = {
    "model": "m",
    "version": "1",
    "variant": "v",
    "images": [{"source": None, "width": 4, "height": 4, "predictions": []}],
}


def answer(status: int, told: object, *more: str) -> bytes:
    body = json.dumps(told).encode()
    lines = (f"HTTP/1.1 {status} x", "content-type: application/json", f"content-length: {len(body)}", *more)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def refusal(code: str) -> dict[str, object]:
    return {"error": {"code": code, "what": "not now", "where": None, "expected": None, "got": None, "hint": None}}


class Last(bytes):
    """What is said before the connection is closed."""


FINE = answer(200, FOUND)
BUSY = answer(503, refusal("overloaded"), "retry-after: 1")
HALF = Last(FINE[:-10])


class Scripted:
    """A server that does one thing after another: bytes to say, `cut`, `silent` or `drip`; the last one again and again."""

    def __init__(self, *script: bytes | str) -> None:
        self.script = list(script)
        self.requests: list[bytes] = []
        self.left = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.ends = threading.Event()
        self.threads: list[threading.Thread] = []

    def run(self) -> None:
        self.listener.settimeout(0.05)
        while not self.ends.is_set():
            try:
                connection, _ = self.listener.accept()
            except TimeoutError:
                continue
            thread = threading.Thread(target=self.serve, args=(connection,))
            thread.start()
            self.threads.append(thread)

    def serve(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        with connection:
            while (request := read_request(connection)) is not None:
                self.requests.append(request)
                act = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                if act == "cut":
                    return
                if act == "silent":
                    if connection.recv(1) == b"":
                        self.left.set()
                    return
                if act == "drip":
                    self.drip(connection)
                    return
                assert isinstance(act, bytes)
                connection.sendall(act)
                if isinstance(act, Last):
                    return
        self.left.set()

    def drip(self, connection: socket.socket) -> None:
        try:
            for byte in FINE:
                connection.sendall(bytes([byte]))
                if self.ends.wait(0.2):
                    return
        except OSError:
            self.left.set()


def read_request(connection: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            part = connection.recv(65536)
        except (OSError, TimeoutError):
            return None
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    size = next(
        (int(one.split(b":")[1]) for one in head.split(b"\r\n") if one.lower().startswith(b"content-length")), 0
    )
    while len(body) < size:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def scripted(*script: bytes | str) -> Iterator[Scripted]:
    server = Scripted(*script)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.ends.set()
        thread.join()
        server.listener.close()
        for one in server.threads:
            one.join(5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_is_asked_again_where_the_connection_was_cut_before_an_answer(kind: str) -> None:
    with scripted("cut", "cut", FINE) as server, opened(kind, server.url) as client:
        assert client.predict(b"image", model="m").to_dict() == FOUND
        assert len(server.requests) == 3
        assert {one.partition(b"\r\n\r\n")[2] for one in server.requests} == {b"image"}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_asked_again_once_its_answer_has_begun(kind: str) -> None:
    with scripted(HALF) as server, opened(kind, server.url) as client:
        with pytest.raises(ServiceError, match="does not answer"):
            client.predict(b"image", model="m")
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_changes_something_is_not_asked_again_once_it_may_have_arrived(kind: str) -> None:
    with scripted("cut") as server, opened(kind, server.url) as client:
        with pytest.raises(ServiceError, match="does not answer"):
            client.promote("m")
        assert len(server.requests) == 1
    with scripted(BUSY) as server, opened(kind, server.url) as client:
        with pytest.raises(OverloadedError):
            client.roll_back("m")
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_busy_server_is_left_alone_for_as_long_as_it_says(kind: str) -> None:
    with scripted(BUSY, FINE) as server, opened(kind, server.url) as client:
        begin = time.monotonic()
        assert client.predict(b"image", model="m").model == "m"
        assert 1.0 <= time.monotonic() - begin < 5
        assert len(server.requests) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_busy_server_that_says_to_come_back_too_late_is_told_at_once(kind: str) -> None:
    far = answer(503, refusal("not-ready"), "retry-after: 60")
    with scripted(far) as server, opened(kind, server.url, timeout_s=5) as client:
        begin = time.monotonic()
        with pytest.raises(NotReadyError) as told:
            client.predict(b"image", model="m")
        assert told.value.retry_after_s == 60
        assert time.monotonic() - begin < 2
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_quotas_that_are_used_up_and_attempts_that_are_are_told(kind: str) -> None:
    used = answer(429, refusal("rate-limit"), "retry-after: 7")
    with scripted(used) as server, opened(kind, server.url) as client:
        with pytest.raises(RateLimitError) as told:
            client.predict(b"image", model="m")
        assert (told.value.retry_after_s, len(server.requests)) == (7, 1)
    with scripted("cut") as server, opened(kind, server.url, retries=2) as client:
        with pytest.raises(ServiceError, match="does not answer"):
            client.predict(b"image", model="m")
        assert len(server.requests) == 3
    with scripted("cut") as server, opened(kind, server.url, retries=0) as client:
        with pytest.raises(ServiceError, match="does not answer"):
            client.models()
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("manner", ["silent", "drip"])
def test_a_call_ends_with_its_time_however_the_server_stalls(kind: str, manner: str) -> None:
    with scripted(manner) as server, opened(kind, server.url, timeout_s=1.0) as client:
        begin = time.monotonic()
        with pytest.raises(DeadlineError, match="in time"):
            client.predict(b"image", model="m")
        assert 0.9 < time.monotonic() - begin < 3
        assert server.left.wait(5), "the connection is closed"


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_not_there_is_named_in_time(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with (
        opened(kind, url, retries=2) as client,
        pytest.raises(ServiceError, match=f"{url}: the server does not answer"),
    ):
        client.predict(b"image", model="m")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("said", "match"),
    [
        (answer(302, {}, "location: http://127.0.0.1:1/elsewhere"), "status 302"),
        (answer(200, FOUND, "content-encoding: gzip"), "does not answer; got a compressed answer"),
        (Last(b"HTTP/1.1 200 x\r\ncontent-length: 99999999999\r\n\r\n" + b" " * 100), "does not answer"),
        (Last(b"SSH-2.0-OpenSSH_9.2\r\n"), "does not answer"),
        (answer(200, []), "status 200"),
        (answer(500, {"error": "text"}), "status 500"),
    ],
    ids=["redirect", "compressed", "short", "another protocol", "a list", "another error"],
)
def test_what_is_no_answer_of_ours_is_no_prediction(kind: str, said: bytes, match: str) -> None:
    with scripted(said) as server, opened(kind, server.url, timeout_s=2, retries=0) as client:
        with pytest.raises(ServiceError, match=match):
            client.predict(b"image", model="m")
        assert len(server.requests) == 1


def test_a_task_that_is_cancelled_leaves_the_server() -> None:
    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            asking = asyncio.create_task(client.predict(b"image", model="m"))
            while not server.requests:
                await asyncio.sleep(0.01)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    with scripted("silent") as server:
        asyncio.run(ask(server.url))
        assert server.left.wait(5)


def test_nobody_asks_a_proxy_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for kind in KINDS:
        with scripted(FINE) as server, opened(kind, server.url) as client:
            assert client.predict(b"image", model="m").model == "m"


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_is_named_is_asked(kind: str) -> None:
    with scripted(FINE) as proxy, opened(kind, "http://vision.invalid:8000", proxy=proxy.url) as client:
        assert client.predict(b"image", model="m").model == "m"
        assert proxy.requests[0].startswith(b"POST http://vision.invalid:8000/v1/models/m/predict HTTP/1.1\r\n")


@pytest.mark.parametrize("status", [200, 503])
def test_steps_of_an_attempt_come_in_their_order(status: int) -> None:
    """Without a server: what is asked, paused and returned, as a driver sees it."""

    def attempt():
        heard = yield Asked("GET", "/x", time.monotonic() + 9)
        return heard

    steps = persist(attempt, where="here", until=time.monotonic() + 9, retries=1, is_safe=True)
    assert isinstance(next(steps), Asked)
    pause = steps.throw(UnheardError("cut", Reached.SOMEBODY))
    assert isinstance(pause, Pause)
    assert 0.05 <= pause.seconds <= 0.1
    assert isinstance(next(steps), Asked)
    with pytest.raises(StopIteration) as done:
        steps.send(Heard(status, {}, b""))
    assert done.value.value.status == status
