# SPDX-License-Identifier: Apache-2.0
"""Sealed requests at a real server: what comes back, what is refused and how, and what stands outside of the seal."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.serve.attacked import wait_until
from tests.serve.conftest import Served
from tests.serve.sealing import NATIVE, OIP, TYPE, Sealer, now_ms, path_of
from tests.serve.test_stream import open_stream

from shipsight.errors import SealedAnswerError
from shipsight.protect import AHEAD_MS, MEDIA_TYPE, WINDOW_MS, PlainRequest, SealedFor, SealingKey, open_answer

FOR = SealedFor(NATIVE, "digits")


@dataclass
class Sealing:
    """A server, its log, and a client that seals."""

    served: Served
    log: Path
    sealer: Sealer

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def sealing(
    start: Callable[..., Served], digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sealing]:
    folder = tmp_path_factory.mktemp("sealed")
    with (folder / "log").open("w") as log:
        options = ("--sealing-keys", folder / "keys", "--body-mb", "8", "--max-images", "3", "--grpc-port", "0")
        served = start(digits_bundle, *options, "--log-format", "json", stderr=log)
        with served.client as http:
            pin = (folder / "keys" / "identity.pin").read_text()
            yield Sealing(served, folder / "log", Sealer(http, pin))


@pytest.fixture
def sealer(sealing: Sealing) -> Sealer:
    return sealing.sealer


def multipart(*images: bytes) -> PlainRequest:
    built = httpx.Request("POST", "http://a/", files=[("image", ("a.jpg", one, "image/jpeg")) for one in images])
    return PlainRequest(built.read(), built.headers["content-type"])


def json_of(*images: bytes) -> PlainRequest:
    body = json.dumps({"images": [base64.b64encode(one).decode() for one in images]}).encode()
    return PlainRequest(body, "application/json")


@pytest.mark.parametrize("version", ["", "1"])
@pytest.mark.parametrize("how", ["image", "octets", "untyped", "form", "json"])
def test_sealed_image_is_answered_as_a_plain_one(sealer: Sealer, jpeg: bytes, version: str, how: str) -> None:
    request = {
        "image": PlainRequest(jpeg, "image/jpeg"),
        "octets": PlainRequest(jpeg, "application/octet-stream"),
        "untyped": PlainRequest(jpeg),
        "form": multipart(jpeg, jpeg),
        "json": json_of(jpeg, jpeg),
    }[how]
    request = PlainRequest(request.body, request.content_type, query="conf=0.01&max_det=5")
    sealed_for = SealedFor(NATIVE, "digits", version)
    answer = sealer.ask(request, sealed_for)
    kind = {"content-type": request.content_type} if request.content_type else {}
    plain = sealer.http.post(f"{path_of(sealed_for)}?{request.query}", content=request.body, headers=kind)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert json.loads(answer.body) == plain.json()
    assert plain.json()["images"][0]["predictions"]
    assert "infer;dur=" in answer.headers["server-timing"]


def test_drawn_and_coco_answers_come_sealed(sealer: Sealer, jpeg: bytes) -> None:
    for accept in ("image/jpeg", "application/vnd.coco+json"):
        answer = sealer.ask(PlainRequest(jpeg, "image/jpeg", accept, "conf=0.01"), FOR)
        plain = sealer.http.post(f"{path_of(FOR)}?conf=0.01", content=jpeg, headers={"accept": accept})
        assert (answer.content_type, answer.body) == (plain.headers["content-type"], plain.content)


def test_large_image_is_opened_beside_the_event_loop(sealer: Sealer) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (600, 500, 3), np.uint8)
    png = _png(noise)
    assert len(png) > 2**19
    answer = sealer.ask(PlainRequest(png, "image/png", "image/jpeg"), FOR)
    assert (answer.status, answer.content_type) == (200, "image/jpeg")


def _png(pixels: np.ndarray[Any, Any]) -> bytes:
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return _png_of(width, height, zlib.compress(rows))


def _png_of(width: int, height: int, packed: bytes) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def tensor_request(*, binary: bool) -> PlainRequest:
    array = np.random.default_rng(0).random((1, 3, 256, 256), np.float32)
    head: dict[str, Any] = {"name": "images", "datatype": "FP32", "shape": list(array.shape)}
    if not binary:
        head["data"] = array.ravel().tolist()
        return PlainRequest(json.dumps({"inputs": [head]}).encode(), "application/json")
    head["parameters"] = {"binary_data_size": array.nbytes}
    text = json.dumps(
        {"inputs": [head], "outputs": [{"name": "output0", "parameters": {"binary_data": True}}]}
    ).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    return PlainRequest(text + array.tobytes(), "application/octet-stream", headers=headers)


@pytest.mark.parametrize("version", ["", "1"])
@pytest.mark.parametrize("binary", [True, False])
def test_sealed_tensor_is_answered_as_a_plain_one(sealer: Sealer, version: str, *, binary: bool) -> None:
    request, sealed_for = tensor_request(binary=binary), SealedFor(OIP, "digits", version)
    answer = sealer.ask(request, sealed_for)
    headers = {"content-type": request.content_type, **request.headers}
    plain = sealer.http.post(path_of(sealed_for), content=request.body, headers=headers)
    assert (answer.status, answer.body) == (200, plain.content)
    given = plain.headers.get("inference-header-content-length")
    assert answer.headers.get("inference-header-content-length") == given
    assert (given is not None) == binary


# --- what is wrong inside ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_inside", "status", "code"),
    [
        (PlainRequest(b"no image", "image/png"), 415, "image-format"),
        (PlainRequest(b"", "image/png"), 400, "image-unreadable"),
        (PlainRequest(b"x", query="conf=high"), 400, "usage"),
        (PlainRequest(b"x", query="nothing=1"), 400, "usage"),
        (PlainRequest(b"x", query="conf=0.1&conf=0.2"), 400, "usage"),
        (PlainRequest(b"{", "application/json"), 400, "usage"),
        (multipart(b"1", b"2", b"3", b"4"), 413, "limit"),
        (PlainRequest(_png_of(60_000, 60_000, zlib.compress(bytes(10**7), 9)), "image/png"), 413, "image-too-large"),
        (PlainRequest(_png_of(100, 100, zlib.compress(bytes(10**7), 9)), "image/png"), None, None),
        (PlainRequest(b"SSL1" + bytes(80), "image/png"), 415, "sealing-unsupported"),
    ],
    ids=[
        "format",
        "empty",
        "number",
        "option",
        "twice",
        "json",
        "images",
        "bomb",
        "longer than it says",
        "sealed again",
    ],
)
def test_error_inside_is_told_inside(
    sealer: Sealer, request_inside: PlainRequest, status: int | None, code: str | None
) -> None:
    answer = sealer.ask(request_inside, FOR)
    told = json.loads(answer.body)
    if status is None:  # decoders differ in whether they mind
        assert answer.status in (200, 400)
        return
    assert answer.status == status, told
    if code != "image-unreadable":
        assert told["error"]["code"] == code


def test_error_inside_is_that_of_the_protocol(sealer: Sealer) -> None:
    answer = sealer.ask(PlainRequest(b"{}", "application/json"), SealedFor(OIP, "digits"))
    assert answer.status == 400
    assert isinstance(json.loads(answer.body)["error"], str)


def test_unknown_model_is_told_inside(sealer: Sealer, jpeg: bytes) -> None:
    assert sealer.ask(PlainRequest(jpeg), SealedFor(NATIVE, "faces")).status == 404
    assert sealer.ask(PlainRequest(jpeg), SealedFor(NATIVE, "digits", "9")).status == 404
    assert sealer.ask(PlainRequest(b"{}"), SealedFor(OIP, "faces")).status == 404


# --- what is refused, always in the same words ------------------------------------------------------------------------


def one_refusal(*told: httpx.Response) -> None:
    """Checks that all are the one refusal, byte by byte."""
    assert {one.status_code for one in told} == {400}
    assert json.loads(told[0].content)["error"]["code"] == "sealed-request-refused"
    assert len({one.content for one in told}) == 1
    heads = [{name: value for name, value in one.headers.items() if name != "x-request-id"} for one in told]
    assert all(one == heads[0] for one in heads)


def test_all_refusals_are_the_same_bytes(sealer: Sealer, jpeg: bytes) -> None:
    request = PlainRequest(jpeg, "image/jpeg")
    sound, reply = sealer.seal(request, FOR)
    assert open_answer(sealer.send(sound, FOR).content, reply).status == 200
    other = SealingKey.make(not_after_ms=now_ms() + WINDOW_MS).public

    def changed(at: int) -> bytes:
        body, _ = sealer.seal(request, FOR)
        return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :] if at < len(body) else body

    wrong = {
        "replayed": (sound, FOR),
        "magic": (changed(0), FOR),
        "key id": (changed(5), FOR),
        "encapsulated key": (changed(20), FOR),
        "ciphertext": (changed(500), FOR),
        "tag": (changed(len(sound) - 1), FOR),
        "truncated": (sealer.seal(request, FOR)[0][:-1], FOR),
        "truncated to its head": (sound[:12], FOR),
        "empty": (b"", FOR),
        "longer": (sealer.seal(request, FOR)[0] + b"\0", FOR),
        "old": (sealer.seal(request, FOR, at_ms=now_ms() - WINDOW_MS - 5000)[0], FOR),
        "of the future": (sealer.seal(request, FOR, at_ms=now_ms() + AHEAD_MS + 5000)[0], FOR),
        "another server's key": (sealer.seal(request, FOR, key=other)[0], FOR),
        "another version": (sealer.seal(request, FOR)[0], SealedFor(NATIVE, "digits", "1")),
        "no version": (sealer.seal(request, SealedFor(NATIVE, "digits", "1"))[0], FOR),
        "another model": (sealer.seal(request, SealedFor(NATIVE, "faces"))[0], FOR),
        "another protocol": (sealer.seal(request, SealedFor(OIP, "digits"))[0], FOR),
    }
    told = {name: sealer.send(*one) for name, one in wrong.items()}
    assert {name for name, one in told.items() if one.status_code != 400} == set()
    one_refusal(*told.values())


def test_of_one_request_that_comes_many_times_at_once_one_is_answered(sealer: Sealer, jpeg: bytes) -> None:
    for _ in range(5):
        body, reply = sealer.seal(PlainRequest(jpeg), FOR)
        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(lambda _, body=body: sealer.send(body, FOR), range(8)))
        answered = [one for one in told if one.status_code == 200]
        assert len(answered) == 1
        assert open_answer(answered[0].content, reply).status == 200
        one_refusal(*(one for one in told if one.status_code != 200))


def test_refusal_is_recorded_without_its_cause(sealing: Sealing, jpeg: bytes) -> None:
    def refusals() -> list[dict[str, Any]]:
        return [one for one in sealing.logged() if one.get("why") == "sealed-request-refused"]

    before = len(refusals())
    body, _ = sealing.sealer.seal(PlainRequest(jpeg), FOR)
    sealing.sealer.send(body[:-1], FOR)
    sealing.sealer.send(body, FOR)
    sealing.sealer.send(body, FOR)
    until = time.monotonic() + 20  # the log is written beside the requests
    while len(refusals()) < before + 2 and time.monotonic() < until:
        time.sleep(0.02)
    told = refusals()[before:]
    assert len(told) == 2
    assert len({json.dumps({**one, "time": ""}, sort_keys=True) for one in told}) == 1
    assert told[0]["subject"] == "model:digits"


def test_options_outside_are_refused(sealer: Sealer, jpeg: bytes) -> None:
    body, _ = sealer.seal(PlainRequest(jpeg), FOR)
    told = sealer.send(body, FOR, params={"conf": "0.9"})
    assert (told.status_code, told.json()["error"]["where"]) == (400, "query")


def test_what_stands_outside_does_not_count(sealer: Sealer, jpeg: bytes) -> None:
    request = PlainRequest(jpeg, "image/jpeg", query="conf=0.01")
    outside = {"accept": "image/jpeg", "inference-header-content-length": "3", "x-routing-key": "k" * 300}
    answer = sealer.ask(request, FOR, headers=outside)
    assert (answer.status, answer.content_type) == (200, "application/json")
    # Inside it does: a key this long is refused.
    request = PlainRequest(jpeg, "image/jpeg", headers={"X-Routing-Key": "k" * 300})
    assert sealer.ask(request, FOR).status == 400


def test_body_above_the_limit_and_a_compressed_one_are_refused_as_plain_ones_are(sealer: Sealer, jpeg: bytes) -> None:
    body, _ = sealer.seal(PlainRequest(bytes(9 * 2**20)), FOR)
    assert sealer.send(body, FOR).status_code == 413
    body, _ = sealer.seal(PlainRequest(jpeg), FOR)
    told = sealer.send(zlib.compress(body), FOR, headers={"content-encoding": "deflate"})
    assert (told.status_code, told.json()["error"]["where"]) == (400, "Content-Encoding")


def test_answer_opens_for_nobody_else(sealer: Sealer, jpeg: bytes) -> None:
    body, _ = sealer.seal(PlainRequest(jpeg), FOR)
    told = sealer.send(body, FOR)
    _, other = sealer.seal(PlainRequest(jpeg), FOR)
    with pytest.raises(SealedAnswerError):
        open_answer(told.content, other)


# --- where nothing is opened ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/invocations", "/score", "/v2/repository/index", "/v2/repository/models/digits/load"]
)
def test_routes_that_take_nothing_sealed_say_so(sealer: Sealer, jpeg: bytes, path: str) -> None:
    body, _ = sealer.seal(PlainRequest(jpeg), FOR)
    told = sealer.http.post(path, content=body, headers=TYPE)
    assert (told.status_code, code_of(told)) == (415, "sealing-unsupported")


@pytest.mark.parametrize("path", [path_of(FOR), "/invocations"])
def test_sealed_body_that_is_not_called_so_is_named(sealer: Sealer, jpeg: bytes, path: str) -> None:
    body, _ = sealer.seal(PlainRequest(jpeg), FOR)
    told = sealer.http.post(path, content=body)
    assert (told.status_code, code_of(told)) == (415, "sealing-unsupported")


def test_stream_and_grpc_say_that_they_take_nothing_sealed(sealing: Sealing, jpeg: bytes) -> None:
    body, _ = sealing.sealer.seal(PlainRequest(jpeg), FOR)
    with open_stream(sealing.served) as stream:
        stream.send(body)
        assert json.loads(stream.recv(timeout=60))["error"]["code"] == "sealing-unsupported"
    with pytest.raises(Exception, match="a sealed request where a plain one is taken"):
        grpc_infer(sealing.served, body)


def grpc_infer(served: Served, image: bytes) -> Any:
    import tritonclient.grpc as triton

    given = triton.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([image], dtype=np.object_))
    with triton.InferenceServerClient(served.grpc) as client:
        return client.infer("digits_image", [given])


def code_of(told: httpx.Response) -> str:
    body = told.json()
    return str(body.get("code") or body["error"]["code"])


# --- what stands outside ----------------------------------------------------------------------------------------------


def test_outside_an_answer_tells_nothing_of_what_was_seen(sealing: Sealing, jpeg: bytes) -> None:
    sealer = sealing.sealer
    plain = sealer.http.post(f"{path_of(FOR)}?conf=0.01", content=jpeg).json()
    assert plain["images"][0]["predictions"]
    heads, sizes = [], []
    for query in ("conf=0.01", "conf=0.99", "conf=wrong"):
        body, reply = sealer.seal(PlainRequest(jpeg, query=query), FOR)
        told = sealer.send(body, FOR)
        assert open_answer(told.content, reply).status in (200, 400)
        heads.append({name: one for name, one in told.headers.items() if name != "x-request-id"})
        sizes.append(len(told.content))
        assert not re.search(rb"digit|score|box_xyxy|conf", told.content + body)
    # Many predictions, none, or an error: all the same outside, length and status included.
    assert heads[1] == heads[2]
    assert "server-timing" not in heads[0]
    assert {(size - 52) % 4096 for size in sizes} == {0}


def test_log_and_metrics_count_the_answer_inside(sealing: Sealing, jpeg: bytes) -> None:
    sealer = sealing.sealer
    route = "/v1/models/{model}/predict"

    def bad() -> float:
        found = re.search(
            rf'shipsight_requests_total{{route="{re.escape(route)}",status="415"}} (\S+)',
            sealer.http.get("/metrics").text,
        )
        return 0.0 if found is None else float(found[1])

    def lines() -> list[dict[str, Any]]:
        return [one for one in sealing.logged() if one.get("request") == "counted"]

    before = bad()
    assert (
        sealer.ask(PlainRequest(b"no image", query="conf=0.1234321"), FOR, headers={"x-request-id": "counted"}).status
        == 415
    )
    # A request is counted and told once its answer has left.
    wait_until(lambda: bad() == before + 1, "it is not counted")
    wait_until(
        lambda: any(one.get("sealed") == 415 and one["error"] == "image-format" for one in lines()), "it is not told"
    )
    assert {one["status"] for one in lines() if one.get("sealed") == 415} == {200}
    assert "0.1234321" not in sealing.log.read_text()


def test_keys_are_told_to_anybody_and_described(sealer: Sealer) -> None:
    told = sealer.http.get("/v1/sealing-keys")
    assert told.headers["cache-control"] == "no-store"
    assert len(told.json()["keys"]) == 1
    paths = sealer.http.get("/openapi.json").json()["paths"]
    assert "/v1/sealing-keys" in paths
    for path, takes in (("/v1/models/{model}/predict", True), ("/v2/models/{model}/infer", True), ("/score", False)):
        assert (MEDIA_TYPE in paths[path]["post"]["requestBody"]["content"]) is takes
    metrics = sealer.http.get("/metrics").text
    left_s = float(re.search(r"(?m)^shipsight_sealing_key_seconds (\S+)", metrics)[1])  # type: ignore[index]
    assert 6 * 86400 < left_s <= 7 * 86400


def test_client_that_leaves_before_its_body_is_there_is_no_error(sealing: Sealing, jpeg: bytes) -> None:
    body, _ = sealing.sealer.seal(PlainRequest(jpeg), FOR)

    def half() -> Iterator[bytes]:
        yield body[: len(body) // 2]
        raise RuntimeError("left")

    with contextlib.suppress(RuntimeError), sealing.served.client as http:
        http.post(path_of(FOR), content=half(), headers={**TYPE, "content-length": str(len(body))})
    # What came by half can still come whole.
    assert sealing.sealer.send(body, FOR).status_code == 200
    assert not [one for one in sealing.logged() if one["level"] == "error"]


def test_metrics_and_statistics_do_not_tell_how_many_images_were_sealed(sealer: Sealer, jpeg: bytes) -> None:
    """Who stands in between may read both, and could else compare them before and after."""

    def counted() -> tuple[float, ...]:
        text = sealer.http.get("/metrics").text
        names = ("shipsight_images_total", "shipsight_stage_seconds_count")
        found = [re.findall(rf'(?m)^{name}{{[^}}]*model="digits"[^}}]*}} (\S+)', text) for name in names]
        stats = [
            sealer.http.get(f"/v2/models/{name}/stats").json()["model_stats"][0] for name in ("digits", "digits_image")
        ]
        return (
            *(float(one) for name in found for one in name),
            *(float(one[what]) for one in stats for what in ("inference_count", "execution_count")),
        )

    def growth(request: PlainRequest, sealed_for: SealedFor) -> list[float]:
        before = counted()
        assert sealer.ask(request, sealed_for).status == 200
        return [after - one for one, after in zip(before, counted(), strict=True)]

    def image_tensor(*images: bytes) -> PlainRequest:
        data = b"".join(struct.pack("<I", len(one)) + one for one in images)
        named: dict[str, Any] = {"name": "image", "datatype": "BYTES", "shape": [len(images)]}
        named["parameters"] = {"binary_data_size": len(data)}
        head = json.dumps({"inputs": [named]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        return PlainRequest(head + data, "application/octet-stream", headers=headers)

    sealer.ask(multipart(jpeg), FOR)  # names of metrics stand there once there is something to count
    assert growth(multipart(jpeg), FOR) == growth(multipart(jpeg, jpeg, jpeg), FOR)
    asked = SealedFor(OIP, "digits_image")
    one = growth(image_tensor(jpeg), asked)
    assert one == growth(image_tensor(jpeg, jpeg, jpeg), asked)
    assert one[-2:] == [1.0, 1.0]
