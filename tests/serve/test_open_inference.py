# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol over REST, asked by Triton's own client and by Ultralytics' remote model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tests.serve.conftest import Served
from tritonclient.utils import InferenceServerException

import shipsight
from shipsight.model.bundle import open_bundle

SHAPE = (1, 3, 256, 256)


@pytest.fixture
def client(server: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(urlsplit(server.url).netloc) as made:
        yield made


def tensor(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random(shape, np.float32)


def raw_input(array: np.ndarray[Any, Any], *, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput("images", list(array.shape), "FP32")
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def image_input(*images: bytes) -> triton.InferInput:
    made = triton.InferInput("image", [len(images)], "BYTES")
    made.set_data_from_numpy(np.array(images, dtype=np.object_))
    return made


def reference_outputs(bundle: Path, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    name = next(one.name for one in open_bundle(bundle).variants if one.is_reference)
    with shipsight.load(bundle, variant=name) as predictor:
        return predictor.session.infer(array)["output0"]


def test_the_server_and_its_models_describe_themselves(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    told = client.get_model_metadata("digits")
    assert told["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 256, 256]}]
    assert [one["name"] for one in told["outputs"]] == ["output0"]
    config = client.get_model_config("digits")
    assert config["input"] == [{"name": "images", "data_type": "TYPE_FP32", "dims": [1, 3, 256, 256]}]
    assert "'task': 'detect'" in config["parameters"]["metadata"]["string_value"]
    assert client.get_model_metadata("digits_image")["inputs"][0]["datatype"] == "BYTES"
    index = {(one["name"], one["state"]) for one in client.get_model_repository_index()}
    assert index == {("digits", "READY"), ("digits_image", "READY")}


@pytest.mark.parametrize("sent_as_bytes", [True, False], ids=["binary", "json"])
@pytest.mark.parametrize("had_as_bytes", [True, False], ids=["binary", "json"])
def test_raw_tensors_come_back_as_the_reference_gives_them(
    client: triton.InferenceServerClient, digits_bundle: Path, *, sent_as_bytes: bool, had_as_bytes: bool
) -> None:
    array = tensor()
    answer = client.infer(
        "digits",
        [raw_input(array, binary=sent_as_bytes)],
        outputs=[triton.InferRequestedOutput("output0", binary_data=had_as_bytes)],
        request_id="mine",
    )
    assert answer.get_response()["id"] == "mine"
    np.testing.assert_allclose(answer.as_numpy("output0"), reference_outputs(digits_bundle, array), rtol=0, atol=1e-3)


def test_a_batch_is_taken_apart_and_put_together(client: triton.InferenceServerClient, digits_bundle: Path) -> None:
    parts = [tensor(seed) for seed in range(3)]
    answer = client.infer("digits", [raw_input(np.concatenate(parts))]).as_numpy("output0")
    for position, part in enumerate(parts):
        np.testing.assert_allclose(answer[position], reference_outputs(digits_bundle, part)[0], rtol=0, atol=1e-3)


def test_encoded_images_give_predictions(client: triton.InferenceServerClient, server: Served, jpeg: bytes) -> None:
    answer = client.infer("digits_image", [image_input(jpeg, jpeg)], parameters={"conf": 0.01})
    found = [json.loads(text) for text in answer.as_numpy("predictions")]
    native = httpx.post(f"{server.url}/v1/models/digits/predict", content=jpeg, params={"conf": 0.01}).json()
    assert [one["predictions"] for one in found] == [native["images"][0]["predictions"]] * 2
    assert found[0]["predictions"]


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda client: client.infer("gone", [raw_input(tensor())]), "no such model"),
        (lambda client: client.infer("digits", [raw_input(tensor())], model_version="7"), "no such version"),
        (lambda client: client.infer("digits", [raw_input(tensor(shape=(1, 3, 64, 64)))]), "another shape"),
        (lambda client: client.infer("digits", [raw_input(tensor(shape=(9, 3, 256, 256))[:, :, :1, :1])]), "another shape"),
        (lambda client: client.infer("digits", [image_input(b"x")]), "not an input"),
        (lambda client: client.infer("digits", []), "an input is missing"),
        (lambda client: client.infer("digits", [raw_input(tensor())] * 2), "given twice"),
        (
            lambda client: client.infer("digits", [raw_input(tensor())], outputs=[triton.InferRequestedOutput("x")]),
            "no such output",
        ),
        (lambda client: client.infer("digits_image", [image_input(b"no image")]), "image format"),
        (lambda client: client.infer("digits_image", [image_input(*[b"x"] * 9)]), "more than this server allows"),
        (lambda client: client.infer("digits_image", [image_input(b"x")], parameters={"conf": "high"}), "conf"),
        (lambda client: client.infer("digits_image", [image_input(b"x")], parameters={"other": 1}), "no such parameter"),
        (lambda client: client.get_model_metadata("gone"), "no such model"),
    ],
)  # fmt: skip
def test_wrong_requests_are_told_what_is_wrong(
    client: triton.InferenceServerClient, ask: Callable[[triton.InferenceServerClient], object], told: str
) -> None:
    with pytest.raises(InferenceServerException, match=told):
        ask(client)
    assert client.is_server_ready()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"[]", {}),
        (b"{}", {}),
        (b'{"inputs": 3}', {}),
        (b'{"inputs": [3]}', {}),
        (b'{"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 3, 256, 256], "data": [1]}]}', {}),
        (b'{"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 3, 256, 256], "data": "x"}]}', {}),
        (b'{"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 3, 256, true]}]}', {}),
        (b'{"inputs": [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 256, 256]}]}', {}),
        (b'{"inputs": [{"name": "images", "datatype": "FP32", "shape": 9}]}', {}),
        (b'{"inputs": [{"name": "images", "datatype": 4, "shape": [1, 3, 256, 256]}]}', {}),
        (
            b'{"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 3, 256, 256],'
            b'"parameters": {"binary_data_size": 99999999999}}]}',
            {},
        ),
        (
            b'{"inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 3, 256, 256],'
            b'"parameters": {"binary_data_size": -4}}]}',
            {},
        ),
        (b"{}", {"inference-header-content-length": "3"}),
        (b"{}", {"inference-header-content-length": "0"}),
        (b"{}", {"inference-header-content-length": "-1"}),
        (b"{}", {"inference-header-content-length": "\xb2"}),
        (b"{}", {"content-encoding": "gzip"}),
        (b"[" * 50_000, {}),
    ],
    ids=range(19),
)
def test_malformed_requests_are_refused_by_name(server: Served, body: bytes, headers: dict[str, str]) -> None:
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = httpx.post(f"{server.url}/v2/models/digits/infer", content=body, headers=sent, timeout=30)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error", "code"}


def test_byte_strings_that_lie_about_their_length_are_refused(server: Served) -> None:
    for blob, size in ((b"\xff\xff\xff\x7fx", 5), (b"\x00\x00", 2), (b"\x01\x00\x00\x00a" * 2, 10)):
        head = {
            "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}]
        }
        text = json.dumps(head).encode()
        answer = httpx.post(
            f"{server.url}/v2/models/digits_image/infer",
            content=text + blob,
            headers={"inference-header-content-length": str(len(text))},
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "tensor")


def test_models_are_unloaded_and_loaded_again(start: Callable[..., Served], digits_bundle: Path, jpeg: bytes) -> None:
    server = start(digits_bundle, "--streams", "1")
    with triton.InferenceServerClient(urlsplit(server.url).netloc) as client:
        assert client.infer("digits_image", [image_input(jpeg)]).as_numpy("predictions").size == 1
        client.unload_model("digits_image")
        assert {one["state"] for one in client.get_model_repository_index()} == {"UNAVAILABLE"}
        with pytest.raises(InferenceServerException, match="no such model"):
            client.infer("digits_image", [image_input(jpeg)])
        client.load_model("digits_image")
        assert client.infer("digits_image", [image_input(jpeg)]).as_numpy("predictions").size == 1
        counted = client.get_inference_statistics("digits_image")["model_stats"][0]
        assert counted["inference_stats"]["success"]["count"] == 2
        assert counted["inference_stats"]["compute_infer"]["ns"] > 0
        with pytest.raises(InferenceServerException, match="no such model"):
            client.load_model("other")
    assert server.stop() == 0


@pytest.mark.torch
def test_ultralytics_predicts_through_the_server_as_it_does_on_the_file(
    server: Served, sample_dir: Path, jpeg: bytes
) -> None:
    from ultralytics import YOLO

    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ultralytics' own deprecations
        remote = YOLO(f"{server.url}/digits", task="detect").predict(pixels, imgsz=256, conf=0.01, verbose=False)[0]
        local = YOLO(sample_dir / "digits.onnx", task="detect").predict(pixels, imgsz=256, conf=0.01, verbose=False)[0]
    assert remote.names == local.names
    assert len(remote.boxes) == len(local.boxes) > 0
    np.testing.assert_allclose(remote.boxes.data.numpy(), local.boxes.data.numpy(), rtol=0, atol=0.05)
