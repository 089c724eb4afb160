# SPDX-License-Identifier: Apache-2.0
"""gRPC's port through deaths and restarts, its health service, its limits, its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton
from google.rpc.error_details_pb2 import RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.serve.conftest import Served
from tests.serve.test_grpc import details, error_info, image_input
from tests.serve.test_lifecycle import serving_process
from tritonclient.grpc import service_pb2 as wire
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.slow  # servers that start, die and wait

SERVING, NOT_SERVING, UNKNOWN = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
)
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@contextmanager
def health_of(server: Served) -> Iterator[health_pb2_grpc.HealthStub]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield health_pb2_grpc.HealthStub(channel)


def check(health: health_pb2_grpc.HealthStub, name: str) -> int:
    return int(health.Check(health_pb2.HealthCheckRequest(service=name), timeout=60).status)


def load_of(server: Served) -> dict[str, float]:
    with server.client as client:
        found: dict[str, float] = client.get("/readyz").json()["load"]["digits/1"]
        return found


def many_images(jpeg: bytes, count: int) -> Any:
    """A request that takes seconds."""
    request = wire.ModelInferRequest(model_name="digits_image")
    request.inputs.add(name="image", datatype="BYTES", shape=[count])
    request.raw_input_contents.append(b"".join(len(jpeg).to_bytes(4, "little") + jpeg for _ in range(count)))
    return request


def infer_of(channel: grpc.Channel) -> Any:
    return channel.unary_unary(
        METHOD,
        request_serializer=wire.ModelInferRequest.SerializeToString,
        response_deserializer=wire.ModelInferResponse.FromString,
    )


def test_health_is_told_for_the_server_and_for_each_name(server: Served) -> None:
    with health_of(server) as health:
        for name in ("", "inference.GRPCInferenceService", "digits", "digits_image"):
            assert check(health, name) == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            check(health, "gone")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        listed = health.List(health_pb2.HealthListRequest(), timeout=60).statuses
        assert {name: one.status for name, one in listed.items()} == dict.fromkeys(
            ("", "inference.GRPCInferenceService", "digits", "digits_image"), SERVING
        )


def test_a_watched_model_is_told_when_it_goes_and_when_it_comes(
    start: Callable[..., Served], digits_bundle: Path
) -> None:
    server = start(digits_bundle, "--streams", "1", "--grpc-port", "0", "--drain", "60")
    with health_of(server) as health, server.client as client:
        watched = health.Watch(health_pb2.HealthCheckRequest(service="digits"), timeout=120)
        other = health.Watch(health_pb2.HealthCheckRequest(service="gone"), timeout=120)
        assert next(watched).status == SERVING
        assert next(other).status == UNKNOWN
        client.post("/v2/repository/models/digits/unload").raise_for_status()
        assert next(watched).status == NOT_SERVING
        assert check(health, "") == NOT_SERVING
        client.post("/v2/repository/models/digits/load").raise_for_status()
        assert next(watched).status == SERVING
        # A watcher does not hold up a server that leaves; it is told, and its stream ends.
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 50, "for calls in flight a minute would be waited"
        assert [one.status for one in watched] == [NOT_SERVING]
        other.cancel()


def size_when_back(client: triton.InferenceServerClient, jpeg: bytes) -> int:
    """Asks until there is an answer; all that may come before is UNAVAILABLE."""
    end = time.monotonic() + 60
    while True:
        try:
            return int(client.infer("digits_image", [image_input(jpeg)]).as_numpy("predictions").size)
        except InferenceServerException as error:
            if error.status() != "StatusCode.UNAVAILABLE" or time.monotonic() > end:
                raise
            time.sleep(0.1)


def test_the_port_stays_when_the_serving_process_is_replaced(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes
) -> None:
    server = start(digits_bundle, "--streams", "1", "--grpc-port", "0")
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.infer("digits_image", [image_input(jpeg)]).as_numpy("predictions").size == 1
        os.kill(serving_process(server), signal.SIGKILL)
        events = server.events()
        assert next(events)["event"] == "restart"
        # While nobody listens the number belongs to the supervisor: nobody else gets it.
        host, port = server.grpc.split(":")
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind((host, int(port)))
        ready = next(events)
        assert ready["grpc"] == f"grpc://{server.grpc}"
        assert size_when_back(client, jpeg) == 1
    assert server.stop() == 0


def test_sigterm_lets_calls_in_flight_end_and_ends_idle_streams(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes
) -> None:
    server = start(
        digits_bundle, "--streams", "1", "--workers", "1", "--grpc-port", "0", "--max-images", "500", "--drain", "60"
    )
    with grpc.insecure_channel(server.grpc) as channel:
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=wire.ModelInferRequest.SerializeToString,
            response_deserializer=wire.ModelStreamInferResponse.FromString,
        )
        stay = threading.Event()

        def requests() -> Iterator[Any]:
            yield many_images(jpeg, 1)
            stay.wait(120)

        told = stream(requests(), timeout=120)
        assert len(next(told).infer_response.outputs) == 1
        flying = infer_of(channel).future(many_images(jpeg, 100), timeout=120)
        while load_of(server)["waiting"] < 50:
            time.sleep(0.001)
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 50, "an idle stream would hold the server for its minute"
        assert len(flying.result().outputs) == 1
        with pytest.raises(grpc.RpcError) as caught:
            next(told)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        stay.set()


@pytest.mark.parametrize("way", ["cancel", "deadline"])
def test_a_call_that_is_given_up_takes_its_images_out_of_the_queue(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes, way: str
) -> None:
    server = start(digits_bundle, "--streams", "1", "--workers", "1", "--grpc-port", "0", "--max-images", "500")
    with grpc.insecure_channel(server.grpc) as channel:
        call = infer_of(channel).future(many_images(jpeg, 500), timeout=120 if way == "cancel" else 2.5)
        while (before := load_of(server))["waiting"] < 300:
            assert not call.done()
            time.sleep(0.001)
        if way == "cancel":
            call.cancel()
        else:
            with pytest.raises(grpc.RpcError) as caught:
                call.result()
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        left = time.monotonic()
        # On a busy machine all takes longer, and so does what would have been waited for.
        most_s = max(1.5, before["wait_s"] / 2)
        while load_of(server)["waiting"]:
            time.sleep(0.01)
            assert time.monotonic() - left < most_s, "what was left of five hundred images takes longer than that"
    assert server.stop() == 0


def test_a_call_that_would_come_too_late_is_refused_with_the_time_to_ask_again(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes
) -> None:
    server = start(digits_bundle, "--streams", "1", "--workers", "1", "--grpc-port", "0", "--max-images", "900")
    with grpc.insecure_channel(server.grpc) as channel:
        infer_of(channel)(many_images(jpeg, 1), timeout=60)
        flood = infer_of(channel).future(many_images(jpeg, 900), timeout=120)
        while load_of(server)["waiting"] < 500:
            assert not flood.done()
            time.sleep(0.001)
        # The parameter is Triton's, in microseconds; so are the words of its clients.
        request = many_images(jpeg, 1)
        request.parameters["timeout"].int64_param = 50_000
        with pytest.raises(grpc.RpcError) as caught:
            infer_of(channel)(request, timeout=60)
        flood.cancel()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert error_info(caught.value).reason == "overloaded"
    retry = RetryInfo()
    assert details(caught.value).details[1].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() >= 1
    assert server.stop() == 0


def test_a_message_that_comes_too_slowly_is_refused(start: Callable[..., Served], digits_bundle: Path) -> None:
    server = start(digits_bundle, "--streams", "1", "--grpc-port", "0", "--body-seconds", "1")
    with grpc.insecure_channel(server.grpc) as channel:
        stay = threading.Event()

        def nothing() -> Iterator[Any]:
            stay.wait(60)
            return
            yield

        # On the wire a call whose request does not come is one that streams requests.
        slow = channel.stream_unary(
            METHOD,
            request_serializer=wire.ModelInferRequest.SerializeToString,
            response_deserializer=wire.ModelInferResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as caught:
            slow(nothing(), timeout=60)
        stay.set()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "too slowly" in caught.value.details()
    assert server.stop() == 0


def test_a_connection_that_says_nothing_is_hung_up_on(start: Callable[..., Served], digits_bundle: Path) -> None:
    server = start(digits_bundle, "--streams", "1", "--grpc-port", "0", "--head-seconds", "1")
    host, port = server.grpc.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as silent:
        begin = time.monotonic()
        while silent.recv(4096):
            continue
        assert 0.5 < time.monotonic() - begin < 20
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--grpc-port", "70000"], "no such port"), (["--port", "9001", "--grpc-port", "9001"], "a port each")],
    ids=["range", "same"],
)
def test_wrong_use_is_told_before_anything_is_opened(digits_bundle: Path, arguments: list[str], told: str) -> None:
    done = serve_once(digits_bundle, *arguments)
    assert done.returncode == 2
    assert told in done.stderr


def serve_once(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shipsight", "serve", str(bundle), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_port_that_is_taken_is_named(server: Served, digits_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        # Another server's port as well: sockets that may share a port would both get it.
        for port in (str(taken.getsockname()[1]), server.grpc.split(":")[1]):
            done = serve_once(digits_bundle, "--port", "0", "--grpc-port", port)
            assert done.returncode == 2
            assert "cannot be opened" in done.stderr
            assert "--grpc-port" in done.stderr


def test_grpc_is_not_loaded_where_it_is_not_asked_for(start: Callable[..., Served], digits_bundle: Path) -> None:
    server = start(digits_bundle, "--streams", "1")
    assert server.grpc == ""
    maps = Path(f"/proc/{serving_process(server)}/maps").read_text(encoding="utf-8")
    assert "onnxruntime" in maps
    assert "cygrpc" not in maps
    assert server.stop() == 0
