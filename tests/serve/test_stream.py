# SPDX-License-Identifier: Apache-2.0
"""Video over a WebSocket: a real server, asked by the `websockets` client."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest
from tests.serve.conftest import Served
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from shipsight.proof.scenes import make_scene

PREDICT = "/v1/models/digits/predict"


def open_stream(server: Served, query: str = "", *, model: str = "digits", **more: Any) -> ClientConnection:
    address = server.url.replace("http://", "ws://")
    return connect(f"{address}/v1/models/{model}/stream?{query}", max_size=None, open_timeout=60, **more)


def ask(stream: ClientConnection, frame: bytes) -> dict[str, Any]:
    stream.send(frame)
    told = json.loads(stream.recv(timeout=60))
    assert isinstance(told, dict)
    return told


def close_of(stream: ClientConnection) -> tuple[int, str]:
    """Reads what is left and returns how the server closed."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            stream.recv(timeout=60)
    close = stream.protocol.close_rcvd
    assert close is not None
    return close.code, close.reason


def test_each_frame_is_answered_as_a_request_is(server: Served, jpeg: bytes) -> None:
    png = cv2.imencode(".png", make_scene(2)[..., ::-1])[1].tobytes()
    with open_stream(server, "conf=0.01&max_det=5") as stream, server.client as client:
        for index, frame in enumerate((jpeg, png, jpeg)):
            told = ask(stream, frame)
            expected = client.post(PREDICT, content=frame, params={"conf": 0.01, "max_det": 5}).json()
            assert told == {"frame": index, "dropped": 0, **expected}
        assert told["images"][0]["predictions"]


def test_of_frames_that_come_too_fast_the_newest_is_answered_and_the_others_are_counted(
    server: Served, jpeg: bytes
) -> None:
    count = 60
    with open_stream(server) as stream:
        for _ in range(count):
            stream.send(jpeg)
        answered = []
        while not answered or answered[-1]["frame"] != count - 1:
            answered.append(json.loads(stream.recv(timeout=60)))
    indices = [one["frame"] for one in answered]
    assert indices == sorted(indices)
    assert answered[-1]["dropped"] == count - len(answered) > 0


def test_objects_keep_their_number_from_frame_to_frame(server: Served, sample_frame: bytes) -> None:
    with open_stream(server, "track=true") as stream:
        first = ask(stream, sample_frame)["images"][0]["predictions"]
        second = ask(stream, sample_frame)["images"][0]["predictions"]
    assert first
    assert [one["track_id"] for one in second] == [one["track_id"] for one in first]
    assert len({one["track_id"] for one in first}) == len(first)
    with open_stream(server) as stream:
        assert all("track_id" not in one for one in ask(stream, sample_frame)["images"][0]["predictions"])


@pytest.fixture(scope="session")
def sample_frame(digit_scenes: Callable[[int, int], tuple[Any, Any]]) -> bytes:
    """Digits that the sample is sure of."""
    return cv2.imencode(".png", digit_scenes(3, 256)[0][..., ::-1])[1].tobytes()


def test_a_bad_frame_is_answered_with_its_error_and_the_stream_goes_on(server: Served, jpeg: bytes) -> None:
    with open_stream(server) as stream:
        told = ask(stream, b"no image")
        assert (told["frame"], told["error"]["code"]) == (0, "image-format")
        assert ask(stream, b"")["error"]["code"] == "image-unreadable"
        assert ask(stream, jpeg[:200])["error"]["code"] == "image-unreadable"
        assert "images" in ask(stream, jpeg)


def test_nothing_but_bad_frames_ends_the_stream(server: Served) -> None:
    with open_stream(server) as stream:
        for _ in range(16):
            assert "error" in ask(stream, b"no image")
        assert close_of(stream) == (1008, "16 frames in a row could not be used")


def test_text_and_what_is_too_large_end_the_stream(server: Served, jpeg: bytes) -> None:
    with open_stream(server) as stream:
        stream.send("a frame?")
        assert close_of(stream) == (1003, "frames are binary messages")
    with contextlib.suppress(ConnectionClosed), open_stream(server) as stream:
        stream.send(b"x" * (2**23 + 1))
        stream.recv(timeout=60)
        pytest.fail("the frame was taken")
    # Whoever is still sending when the server hangs up may not get to read why.
    close = stream.protocol.close_rcvd
    assert close is None or close.code == 1009
    with server.client as client:
        assert client.post(PREDICT, content=jpeg).status_code == 200


@pytest.mark.parametrize(
    ("query", "model", "headers", "status", "code"),
    [
        ("", "other", {}, 404, "not-found"),
        ("variant=gone", "digits", {}, 404, "not-found"),
        ("conf=2", "digits", {}, 400, "usage"),
        ("classes=99", "digits", {}, 400, "usage"),
        ("track=perhaps", "digits", {}, 400, "usage"),
        ("tracks=true", "digits", {}, 400, "usage"),
        ("max_det=2000", "digits", {}, 413, "limit"),
        ("", "digits", {"origin": "https://evil.example"}, 403, "usage"),
        ("", "digits", {"host": "evil.example"}, 403, "usage"),
    ],
    ids=str,
)
def test_a_stream_that_cannot_begin_is_answered_with_a_named_error(
    server: Served, query: str, model: str, headers: dict[str, str], status: int, code: str
) -> None:
    more: dict[str, Any] = {"additional_headers": headers}
    if "origin" in headers:
        more = {"origin": headers["origin"]}
    if "host" in headers:
        # The client writes `Host` from the address: the address names the evil host, the socket is ours.
        port = server.url.rpartition(":")[2]
        more = {"sock": socket.create_connection(("127.0.0.1", int(port)))}
        address = f"ws://evil.example:{port}/v1/models/{model}/stream"
    else:
        address = f"{server.url.replace('http', 'ws')}/v1/models/{model}/stream?{query}"
    with pytest.raises(InvalidStatus) as caught, connect(address, open_timeout=60, **more):
        pass
    assert caught.value.response.status_code == status
    assert json.loads(caught.value.response.body or b"{}")["error"]["code"] == code


def test_a_plain_request_is_told_to_upgrade(server: Served) -> None:
    answer = httpx.get(f"{server.url}/v1/models/digits/stream", timeout=60)
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")


def test_streams_are_limited_in_number_and_silence(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes
) -> None:
    server = start(digits_bundle, "--streams", "1", "--max-streams", "2", "--stream-seconds", "3")
    with open_stream(server) as silent, open_stream(server) as busy:
        with pytest.raises(InvalidStatus) as caught, open_stream(server):
            pass
        assert caught.value.response.status_code == 503
        assert caught.value.response.headers["retry-after"] == "1"
        end = time.monotonic() + 5
        while time.monotonic() < end:
            assert "images" in ask(busy, jpeg)
            time.sleep(0.1)
        assert close_of(silent) == (1008, "no frame for 3 s")
    with open_stream(server) as stream:
        assert "images" in ask(stream, jpeg)
    assert 'route="/v1/models/{model}/stream",status="101"' in httpx.get(f"{server.url}/metrics", timeout=60).text
    assert server.stop() == 0


def test_a_server_that_leaves_answers_the_frame_it_is_at_and_says_so(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes
) -> None:
    server = start(digits_bundle, "--streams", "1")
    with open_stream(server) as idle, open_stream(server) as busy:
        assert "images" in ask(idle, jpeg)
        stopping = threading.Event()

        def feed() -> None:
            try:
                while not stopping.is_set():
                    busy.send(jpeg)
                    time.sleep(0.005)
            except ConnectionClosed:
                pass

        feeder = threading.Thread(target=feed)
        feeder.start()
        assert "images" in json.loads(busy.recv(timeout=60))
        server.process.send_signal(signal.SIGTERM)
        assert close_of(idle) == (1001, "the server is leaving")
        assert close_of(busy) == (1001, "the server is leaving")
        stopping.set()
        feeder.join()
    assert server.stop() == 0


def test_a_client_that_vanishes_leaves_nothing_behind(server: Served, jpeg: bytes) -> None:
    for _ in range(3):
        with contextlib.suppress(ConnectionClosed), open_stream(server) as stream:
            stream.send(jpeg)
            stream.send(jpeg)
            stream.socket.shutdown(socket.SHUT_RDWR)
    with server.client as client:
        end = time.monotonic() + 30
        while client.get("/readyz").json()["load"]["digits/1"]["waiting"]:
            assert time.monotonic() < end
        assert client.post(PREDICT, content=jpeg).status_code == 200
