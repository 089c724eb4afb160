# SPDX-License-Identifier: Apache-2.0
"""Damaged requests, the same in every run: sent to a real server, and straight to what reads images and tensors."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.serve.attacked import INFER, PREDICT, Attacked, chunked, replies, request
from tests.serve.mutations import mutants
from tests.vision.test_decode import CASES

from shipsight.errors import InputError, LimitError
from shipsight.serve import Limits
from shipsight.serve.http.forms import read_form
from shipsight.serve.http.json_body import read_json
from shipsight.serve.http.tensors import read_request
from shipsight.serve.open_inference import TensorShape

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES = list(CASES.values())
SMALL = CASES["png-palette"]
FORM = (
    b'--b\r\ncontent-disposition: form-data; name="a"; filename="a.png"\r\ncontent-type: image/png\r\n\r\n'
    + SMALL
    + b'\r\n--b\r\ncontent-disposition: form-data; name="a"; filename="b"\r\n\r\n'
    + CASES["jpeg"]
    + b"\r\n--b--\r\n"
)
JSON = json.dumps({"images": [base64.b64encode(SMALL).decode()] * 2}).encode()
ENTRY = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(SMALL) + 4}}
BYTES_HEAD = json.dumps({"inputs": [ENTRY], "parameters": {"conf": 0.1, "max_det": 10}, "id": "a"}).encode()
BYTES = BYTES_HEAD + len(SMALL).to_bytes(4, "little") + SMALL
TENSOR = json.dumps(
    {
        "id": "1",
        "inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 3, 2, 2], "data": [0.5] * 12}],
        "outputs": [{"name": "output0", "parameters": {"binary_data": True}}],
    }
).encode()
BINARY_HEAD = json.dumps(
    {"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 3, 2, 2], "parameters": {"binary_data_size": 48}}]}
).encode()
BINARY = BINARY_HEAD + np.full(12, 0.5, "<f4").tobytes()
LENGTH = "inference-header-content-length"
BODIES: list[tuple[str, dict[str, str], bytes]] = [
    *((PREDICT, {"content-type": "image/png"}, image) for image in IMAGES),
    (PREDICT, {"content-type": "multipart/form-data; boundary=b"}, FORM),
    (PREDICT, {"content-type": "application/json"}, JSON),
    ("/score", {"content-type": "application/json"}, JSON),
    (INFER, {}, TENSOR),
    (INFER, {LENGTH: str(len(BINARY_HEAD))}, BINARY),
    ("/v2/models/digits_image/infer", {LENGTH: str(len(BYTES_HEAD))}, BYTES),
    ("/v2/repository/index", {}, b'{"ready": true}'),
    ("/v2/repository/models/gone/load", {}, b'{"parameters": {}}'),
]


def whole(path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return request("POST", path, *lines, f"content-length: {len(body)}", "connection: close", body=body)


REQUESTS = [
    *(whole(path, headers, body) for path, headers, body in BODIES if len(body) < 3000),
    request(
        "POST", f"{PREDICT}?conf=0.1&classes=1,2&deadline_ms=500", "transfer-encoding: chunked", "connection: close"
    )
    + chunked(SMALL[:100], SMALL[100:]),
    request("POST", PREDICT, f"content-length: {len(SMALL)}", "expect: 100-continue", "connection: close", body=SMALL),
    *(
        request("GET", path, "connection: close")
        for path in ("/", "/readyz", "/v1/models/digits", "/v2/models/digits/config")
    ),
]


def send_damaged(attacked: Attacked, sent: bytes) -> None:
    """What is not whole gets its connection closed; nothing waits for long."""
    raw = b""
    with attacked.connect() as client, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        client.sendall(sent)
        client.settimeout(1)
        while True:
            try:
                chunk = client.recv(65536)
            except TimeoutError:
                client.shutdown(socket.SHUT_WR)
                client.settimeout(60)
                continue
            if not chunk:
                break
            raw += chunk
    attacked.note(replies(raw))


def fuzz_wire(attacked: Attacked, count: int, seed: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for done in pool.map(lambda one: send_damaged(attacked, one), mutants(REQUESTS, count, seed=seed)):
            assert done is None


def fuzz_bodies(attacked: Attacked, count: int, seed: int) -> None:
    each = [(path, headers, list(mutants([body], count // len(BODIES), seed=seed))) for path, headers, body in BODIES]

    def ask(path: str, headers: dict[str, str], bodies: list[bytes]) -> list[httpx.Response]:
        with attacked.served.client as client:
            return [client.post(path, headers=headers, content=body) for body in bodies]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = [one for found in pool.map(lambda given: ask(*given), each) for one in found]
    bad = [answer.text for answer in answers if answer.status_code >= 500 and "retry-after" not in answer.headers]
    assert bad == []
    assert sum(answer.status_code < 500 for answer in answers) > count * 0.8
    attacked.refused += [answer.text for answer in answers if answer.status_code >= 400]


def test_damaged_requests_disturb_nothing(attacked: Attacked) -> None:
    fuzz_wire(attacked, 300, seed=1)


def test_damaged_bodies_disturb_nothing(attacked: Attacked) -> None:
    fuzz_bodies(attacked, 600, seed=2)


@pytest.mark.slow
def test_many_damaged_requests_disturb_nothing(attacked: Attacked) -> None:
    fuzz_wire(attacked, 1500, seed=3)


@pytest.mark.slow
def test_many_damaged_bodies_disturb_nothing(attacked: Attacked) -> None:
    fuzz_bodies(attacked, 4000, seed=4)


DECODE = """
import sys
from shipsight.errors import ImageError
from shipsight.vision import decode_image
from tests.serve.mutations import mutants
from tests.vision.test_decode import CASES

decoded = 0
for data in mutants(list(CASES.values()), int(sys.argv[1]), seed=int(sys.argv[2])):
    try:
        image = decode_image(data, max_pixels=100_000)
    except ImageError:
        continue
    assert image.shape[2] == 3 and 0 < image.size <= 300_000, image.shape
    decoded += 1
print(decoded)
"""


def fuzz_decoder(count: int, seed: int) -> None:
    # A child: a decoder that crashes must fail the test, not end it.
    command = [sys.executable, "-W", "error", "-c", DECODE, str(count), str(seed)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=800)
    assert done.returncode == 0, done.stderr[-2000:]
    # What libpng writes is its own text: nothing of the file may stand in it.
    assert {line.split(": ")[0] for line in done.stderr.splitlines()} <= {"libpng error", "libpng warning"}
    assert done.stderr.isascii()
    assert count * 0.05 < int(done.stdout) < count * 0.95, "some must be decoded, some refused"


def test_decoder_gives_an_image_or_a_named_error_whatever_the_damage() -> None:
    fuzz_decoder(20_000, seed=5)


@pytest.mark.slow
def test_decoder_gives_an_image_or_a_named_error_whatever_much_damage() -> None:
    fuzz_decoder(150_000, seed=6)


def test_readers_of_bodies_give_a_value_or_a_named_error_whatever_the_damage() -> None:
    tensor = (TensorShape("images", "FP32", (-1, 3, 2, 2)),)
    image = (TensorShape("image", "BYTES", (-1,)),)
    limits = Limits(images=3)
    read = 0
    for number, body in enumerate(mutants([TENSOR, BINARY, BYTES, JSON, FORM], 40_000, seed=7)):
        try:
            match number % 5:
                case 0:
                    read_request(body, None, tensor, limits)
                case 1:
                    read_request(body, len(BINARY_HEAD), tensor, limits)
                case 2:
                    read_request(body, len(BYTES_HEAD), image, limits)
                case 3:
                    read_json(body)
                case _:
                    read_form(body, "multipart/form-data; boundary=b", 3)
            read += 1
        except (InputError, LimitError):
            continue
    assert 2_000 < read < 38_000
