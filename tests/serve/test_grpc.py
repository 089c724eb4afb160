# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol over gRPC, asked by Triton's own clients and by Ultralytics' remote model."""

from __future__ import annotations

import asyncio
import json
import queue
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from tests.serve.conftest import Served
from tests.serve.test_open_inference import SHAPE, reference_outputs, tensor
from tritonclient.grpc import service_pb2 as wire
from tritonclient.utils import InferenceServerException

INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture
def client(server: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc) as made:
        yield made


@pytest.fixture
def channel(server: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as made:
        yield made


def raw_input(array: np.ndarray[Any, Any]) -> triton.InferInput:
    made = triton.InferInput("images", list(array.shape), "FP32")
    made.set_data_from_numpy(array)
    return made


def image_input(*images: bytes) -> triton.InferInput:
    made = triton.InferInput("image", [len(images)], "BYTES")
    made.set_data_from_numpy(np.array(images, dtype=np.object_))
    return made


def call(channel: grpc.Channel, method: str, request: Any, answer: Any, **options: Any) -> Any:
    made = channel.unary_unary(
        f"/inference.GRPCInferenceService/{method}",
        request_serializer=lambda one: one if isinstance(one, bytes) else one.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    return made(request, timeout=60, **options)


def numbers_by_type(array: np.ndarray[Any, Any], **fields: Any) -> Any:
    request = wire.ModelInferRequest(model_name="digits", **fields)
    given = request.inputs.add(name="images", datatype="FP32", shape=array.shape)
    given.contents.fp32_contents.extend(array.ravel().tolist())
    return request


def test_the_server_and_its_models_describe_themselves(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert "statistics" in client.get_server_metadata().extensions
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits_image", "1")
    told = client.get_model_metadata("digits", as_json=True)
    assert told["inputs"] == [{"name": "images", "datatype": "FP32", "shape": ["-1", "3", "256", "256"]}]
    assert [one["name"] for one in told["outputs"]] == ["output0"]
    assert told["versions"] == ["1"]
    config = client.get_model_config("digits").config
    assert (config.input[0].name, config.input[0].data_type, list(config.input[0].dims)) == (
        "images",
        11,
        [1, 3, 256, 256],
    )
    assert "'task': 'detect'" in config.parameters["metadata"].string_value
    assert client.get_model_config("digits_image").config.input[0].data_type == 13
    index = {(one.name, one.version, one.state) for one in client.get_model_repository_index().models}
    assert index == {("digits", "1", "READY"), ("digits_image", "1", "READY")}


def test_raw_tensors_come_back_as_the_reference_gives_them(
    client: triton.InferenceServerClient, digits_bundle: Path
) -> None:
    array = tensor()
    answer = client.infer(
        "digits", [raw_input(array)], request_id="mine", outputs=[triton.InferRequestedOutput("output0")]
    )
    assert answer.get_response().id == "mine"
    assert not answer.get_response().outputs[0].HasField("contents")
    np.testing.assert_allclose(answer.as_numpy("output0"), reference_outputs(digits_bundle, array), rtol=0, atol=1e-3)


def test_numbers_by_type_are_answered_by_type(channel: grpc.Channel, digits_bundle: Path) -> None:
    array = tensor(4)
    answer = call(channel, "ModelInfer", numbers_by_type(array), wire.ModelInferResponse)
    assert list(answer.raw_output_contents) == []
    (output,) = answer.outputs
    found = np.array(output.contents.fp32_contents, np.float32).reshape(output.shape)
    np.testing.assert_allclose(found, reference_outputs(digits_bundle, array), rtol=0, atol=1e-3)


def test_images_as_bytes_contents_are_answered_as_bytes_contents(channel: grpc.Channel, jpeg: bytes) -> None:
    request = wire.ModelInferRequest(model_name="digits_image")
    given = request.inputs.add(name="image", datatype="BYTES", shape=[1])
    given.contents.bytes_contents.append(jpeg)
    (output,) = call(channel, "ModelInfer", request, wire.ModelInferResponse).outputs
    assert json.loads(output.contents.bytes_contents[0])["width"] == 320


def test_a_batch_is_taken_apart_and_put_together(client: triton.InferenceServerClient, digits_bundle: Path) -> None:
    # Two are 1.5 MB: more than gRPC's usual limits of a message are put up with by the client alone.
    parts = [tensor(seed) for seed in range(2)]
    answer = client.infer("digits", [raw_input(np.concatenate(parts))]).as_numpy("output0")
    for position, part in enumerate(parts):
        np.testing.assert_allclose(answer[position], reference_outputs(digits_bundle, part)[0], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("parameters", "query"),
    [
        ({"conf": 0.01}, {"conf": 0.01}),
        ({"conf": "0.01", "iou": "0.5", "max_det": 5, "agnostic_nms": True}, {"conf": 0.01, "iou": 0.5, "max_det": 5, "agnostic_nms": "true"}),
        ({"conf": 0.01, "classes": "0, 3,5", "max_det": "7"}, {"conf": 0.01, "classes": "0,3,5", "max_det": 7}),
    ],
    ids=["fraction", "text", "classes"],
)  # fmt: skip
def test_encoded_images_give_the_predictions_of_the_native_protocol(
    client: triton.InferenceServerClient, server: Served, jpeg: bytes, parameters: dict[str, Any], query: dict[str, Any]
) -> None:
    answer = client.infer("digits_image", [image_input(jpeg, jpeg)], parameters=parameters)
    found = [json.loads(text) for text in answer.as_numpy("predictions")]
    native = httpx.post(f"{server.url}/v1/models/digits/predict", content=jpeg, params=query, timeout=60).json()
    assert [one["predictions"] for one in found] == [native["images"][0]["predictions"]] * 2
    assert found[0]["predictions"]


def test_a_request_may_choose_the_variant(client: triton.InferenceServerClient, server: Served, jpeg: bytes) -> None:
    for name in server.models[0]["variants"]:
        answer = client.infer("digits_image", [image_input(jpeg)], parameters={"variant": name})
        assert answer.as_numpy("predictions").size == 1
    with pytest.raises(InferenceServerException, match="this variant is not served"):
        client.infer("digits_image", [image_input(jpeg)], parameters={"variant": "other"})


def test_the_asynchronous_client_is_answered_side_by_side(server: Served, digits_bundle: Path) -> None:
    async def ask() -> list[Any]:
        async with triton_aio.InferenceServerClient(server.grpc) as client:
            assert await client.is_model_ready("digits")
            answers = [client.infer("digits", [raw_input(tensor(seed))]) for seed in range(6)]
            return [one.as_numpy("output0") for one in await asyncio.gather(*answers)]

    for seed, found in enumerate(asyncio.run(ask())):
        np.testing.assert_allclose(found, reference_outputs(digits_bundle, tensor(seed)), rtol=0, atol=1e-3)


def test_a_stream_is_answered_in_order_and_outlives_a_bad_request(
    client: triton.InferenceServerClient, jpeg: bytes
) -> None:
    told: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: told.put((result, error)))
    for number in range(6):
        image = b"no image" if number == 3 else jpeg
        final = number == 5
        client.async_stream_infer(
            "digits_image", [image_input(image)], request_id=str(number), enable_empty_final_response=final
        )
    answers = [told.get(timeout=60) for _ in range(6)]
    client.stop_stream()
    assert [None if one is None else one.get_response().id for one, _ in answers] == ["0", "1", "2", None, "4", "5"]
    assert "image format" in str(answers[3][1])
    last = answers[5][0].get_response()
    assert last.parameters["triton_final_response"].bool_param


@pytest.mark.parametrize(
    ("ask", "code", "told"),
    [
        (lambda client: client.infer("gone", [raw_input(tensor())]), "NOT_FOUND", "no such model"),
        (lambda client: client.infer("digits", [raw_input(tensor())], model_version="7"), "NOT_FOUND", "no such version"),
        (lambda client: client.infer("digits", [raw_input(tensor(shape=(1, 3, 64, 64)))]), "INVALID_ARGUMENT", "another shape"),
        (lambda client: client.infer("digits", [image_input(b"x")]), "INVALID_ARGUMENT", "not an input"),
        (lambda client: client.infer("digits", []), "INVALID_ARGUMENT", "an input is missing"),
        (lambda client: client.infer("digits", [raw_input(tensor())] * 2), "INVALID_ARGUMENT", "given twice"),
        (lambda client: client.infer("digits", [raw_input(tensor())], outputs=[triton.InferRequestedOutput("x")]), "INVALID_ARGUMENT", "no such output"),
        (lambda client: client.infer("digits", [raw_input(tensor())], outputs=[triton.InferRequestedOutput("output0", class_count=3)]), "INVALID_ARGUMENT", "classification"),
        (lambda client: client.infer("digits", [raw_input(tensor())], parameters={"conf": 0.5}), "INVALID_ARGUMENT", "no such parameter"),
        (lambda client: client.infer("digits", [raw_input(tensor())], sequence_id=4), "INVALID_ARGUMENT", "no such parameter"),
        (lambda client: client.infer("digits_image", [image_input(b"no image")]), "INVALID_ARGUMENT", "image format"),
        (lambda client: client.infer("digits_image", [image_input(*[b"x"] * 9)]), "RESOURCE_EXHAUSTED", "more than this server allows"),
        (lambda client: client.infer("digits_image", [image_input(b"x")], parameters={"conf": "high"}), "INVALID_ARGUMENT", "conf"),
        (lambda client: client.infer("digits_image", [image_input(b"x")], parameters={"conf": 2.0}), "INVALID_ARGUMENT", "conf"),
        (lambda client: client.infer("digits_image", [image_input(b"x")], parameters={"max_det": True}), "INVALID_ARGUMENT", "max_det"),
        (lambda client: client.infer("digits_image", [image_input(b"x")], parameters={"classes": "0,,1"}), "INVALID_ARGUMENT", "classes"),
        (lambda client: client.infer("digits_image", [image_input(b"x")], parameters={"classes": "99"}), "INVALID_ARGUMENT", "no such class"),
        (lambda client: client.infer("digits_image", [image_input(b"x")], timeout=-5), "INVALID_ARGUMENT", "deadline"),
        (lambda client: client.infer("digits_image", [image_input(b"x")], timeout=10**12), "INVALID_ARGUMENT", "deadline"),
        (lambda client: client.get_model_metadata("gone"), "NOT_FOUND", "no such model"),
        (lambda client: client.get_model_config("gone"), "NOT_FOUND", "no such model"),
        (lambda client: client.get_inference_statistics("gone"), "NOT_FOUND", "no such model"),
        (lambda client: client.is_model_ready("gone"), "NOT_FOUND", "no such model"),
        (lambda client: client.load_model("other"), "NOT_FOUND", "no such model"),
        (lambda client: client.unload_model("other"), "NOT_FOUND", "no such model"),
        (lambda client: client.load_model("digits", config="{}"), "INVALID_ARGUMENT", "from its bundle alone"),
        (lambda client: client.get_system_shared_memory_status(), "UNIMPLEMENTED", "(?i)method not found"),
    ],
    ids=range(27),
)  # fmt: skip
def test_wrong_requests_are_told_what_is_wrong(
    client: triton.InferenceServerClient, ask: Callable[[triton.InferenceServerClient], object], code: str, told: str
) -> None:
    with pytest.raises(InferenceServerException, match=told) as caught:
        ask(client)
    assert caught.value.status() == f"StatusCode.{code}"
    assert client.is_server_ready()


def wrong_requests() -> Iterator[Any]:
    image = {"name": "image", "datatype": "BYTES", "shape": [1]}
    one = {"name": "images", "datatype": "FP32", "shape": SHAPE}
    yield b"\xff\xff\xff"
    yield wire.ModelInferRequest(model_name="digits", inputs=[one])
    yield wire.ModelInferRequest(model_name="digits", inputs=[one], raw_input_contents=[b"123"])
    yield wire.ModelInferRequest(model_name="digits", inputs=[one], raw_input_contents=[b"", b""])
    yield wire.ModelInferRequest(
        model_name="digits", inputs=[{**one, "shape": [-1, 3, 256, 256]}], raw_input_contents=[b""]
    )
    yield wire.ModelInferRequest(
        model_name="digits", inputs=[{**one, "shape": [2**40, 3, 256, 256]}], raw_input_contents=[b""]
    )
    yield wire.ModelInferRequest(model_name="digits", inputs=[{**one, "datatype": "FP16"}], raw_input_contents=[b""])
    yield wire.ModelInferRequest(model_name="digits", inputs=[{**one, "contents": {"fp32_contents": [1.0]}}])
    yield wire.ModelInferRequest(model_name="digits", inputs=[{**one, "contents": {"fp64_contents": [1.0]}}])
    yield wire.ModelInferRequest(
        model_name="digits", inputs=[{**one, "contents": {"fp32_contents": [1.0]}}], raw_input_contents=[bytes(786432)]
    )
    for blob in (b"\xff\xff\xff\x7fx", b"\x00\x00", b"\x01\x00\x00\x00a" * 2):
        yield wire.ModelInferRequest(model_name="digits_image", inputs=[image], raw_input_contents=[blob])
    shared = wire.ModelInferRequest(model_name="digits_image", inputs=[image])
    shared.inputs[0].parameters["shared_memory_region"].string_param = "mine"
    yield shared
    empty = wire.ModelInferRequest(model_name="digits_image", inputs=[image], raw_input_contents=[b"\x01\x00\x00\x00a"])
    empty.parameters["conf"].SetInParent()
    yield empty


@pytest.mark.parametrize("request_", list(wrong_requests()), ids=range(15))
def test_malformed_requests_are_refused_by_name(channel: grpc.Channel, request_: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "ModelInfer", request_, wire.ModelInferResponse)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
    info = error_info(caught.value)
    assert info.reason in ("usage", "tensor")
    assert info.domain == "shipsight"


def details(error: Any) -> Status:
    found = dict(error.trailing_metadata())
    return Status.FromString(found["grpc-status-details-bin"])


def error_info(error: Any) -> ErrorInfo:
    info = ErrorInfo()
    assert details(error).details[0].Unpack(info)
    return info


def test_an_error_carries_its_code_and_its_fields_for_programs(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "ModelReady", wire.ModelReadyRequest(name="gone"), wire.ModelReadyResponse)
    info = error_info(caught.value)
    assert info.reason == "not-found"
    assert info.metadata["where"] == "gone"
    assert details(caught.value).code == grpc.StatusCode.NOT_FOUND.value[0]


def test_a_message_over_the_limit_is_refused(channel: grpc.Channel) -> None:
    request = wire.ModelInferRequest(model_name="digits", raw_input_contents=[bytes(8 * 2**20 + 1)])
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "ModelInfer", request, wire.ModelInferResponse)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate], ids=["gzip", "deflate"])
def test_a_compressed_message_is_refused_before_it_is_unpacked(
    server: Served, channel: grpc.Channel, compression: grpc.Compression
) -> None:
    bomb = wire.ModelInferRequest(model_name="digits", raw_input_contents=[bytes(64 * 2**20)])
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "ModelInfer", bomb, wire.ModelInferResponse, compression=compression)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "disabled" in caught.value.details()


def test_both_protocols_count_into_one_set_of_statistics(
    client: triton.InferenceServerClient, server: Served, jpeg: bytes
) -> None:
    def counted() -> int:
        rest = httpx.get(f"{server.url}/v2/models/digits_image/stats", timeout=60).json()["model_stats"][0]
        stats = client.get_inference_statistics("digits_image").model_stats[0]
        assert stats.inference_stats.success.count == rest["inference_stats"]["success"]["count"]
        assert stats.inference_count == rest["inference_count"]
        assert stats.inference_stats.compute_infer.ns > 0
        return int(stats.inference_count)

    client.infer("digits_image", [image_input(jpeg)])
    before = counted()
    client.infer("digits_image", [image_input(jpeg, jpeg)])
    assert counted() == before + 2
    assert {one.name for one in client.get_inference_statistics().model_stats} == {"digits", "digits_image"}
    metrics = httpx.get(f"{server.url}/metrics", timeout=60).text
    assert f'shipsight_requests_total{{route="{INFER}",status="OK"}}' in metrics


def test_models_are_unloaded_and_loaded_again_as_both_kinds_of_client_name_them(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes
) -> None:
    server = start(digits_bundle, "--streams", "1", "--grpc-port", "0")
    with triton.InferenceServerClient(server.grpc) as client, grpc.insecure_channel(server.grpc) as channel:
        client.unload_model("digits_image")
        assert {one.state for one in client.get_model_repository_index().models} == {"UNAVAILABLE"}
        with pytest.raises(InferenceServerException, match="no such model"):
            client.infer("digits_image", [image_input(jpeg)])
        # KServe's description has the model's name in the field that is the repository's in Triton's.
        request = wire.RepositoryModelLoadRequest(repository_name="digits_image")
        answer = call(channel, "RepositoryModelLoad", request, wire.ModelReadyRequest)
        assert answer.name == "digits_image"
        assert client.infer("digits_image", [image_input(jpeg)]).as_numpy("predictions").size == 1
        request = wire.RepositoryModelUnloadRequest(repository_name="digits")
        call(channel, "RepositoryModelUnload", request, wire.RepositoryModelUnloadResponse)
        client.load_model("digits")
        assert client.is_server_ready()
    assert server.stop() == 0


@pytest.mark.torch
def test_ultralytics_predicts_over_grpc_as_it_does_on_the_file(server: Served, sample_dir: Path, jpeg: bytes) -> None:
    from ultralytics import YOLO

    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ultralytics' own deprecations
        address = f"grpc://{server.grpc}/digits"
        remote = YOLO(address, task="detect").predict(pixels, imgsz=256, conf=0.01, verbose=False)[0]
        local = YOLO(sample_dir / "digits.onnx", task="detect").predict(pixels, imgsz=256, conf=0.01, verbose=False)[0]
    assert len(remote.boxes) == len(local.boxes) > 0
    np.testing.assert_allclose(remote.boxes.data.numpy(), local.boxes.data.numpy(), rtol=0, atol=0.05)
