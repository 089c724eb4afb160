# SPDX-License-Identifier: Apache-2.0
"""Traces, received as a collector receives them: OTLP over HTTP, decoded from protobuf."""

from __future__ import annotations

import gzip
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.serve.conftest import Served
from tests.serve.test_stream import ask, open_stream
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from shipsight.errors import UsageError
from shipsight.serve.traces import TraceSettings

pytestmark = pytest.mark.slow  # servers that start, die and wait

PREDICT = "/v1/models/digits/predict"


class Collector:
    """Takes spans."""

    def __init__(self) -> None:
        service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        self._request = service.ExportTraceServiceRequest
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.paths.add(self.path)
                outer.bodies.append(body)
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.end_headers()

            def log_message(self, *told: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def spans(self) -> list[Any]:
        return [
            span
            for body in list(self.bodies)
            for resource in self._request.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def trace(self, request: str) -> list[Any]:
        """Waits for the spans of a request: the one of the request itself first."""
        end = time.monotonic() + 60
        while True:
            spans = self.spans()
            roots = [one for one in spans if attributes(one).get("shipsight.request_id") == request]
            if roots:
                return [roots[0], *(one for one in spans if one.parent_span_id == roots[0].span_id)]
            assert time.monotonic() < end
            time.sleep(0.2)

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture(scope="module")
def traced(start: Callable[..., Served], digits_bundle: Path, collector: Collector) -> Served:
    return start(digits_bundle, "--streams", "1", "--grpc-port", "0", "--otlp-endpoint", collector.url)


def test_a_request_and_its_stages_are_spans_of_the_clients_trace(
    traced: Served, collector: Collector, jpeg: bytes
) -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{parent}-01", "x-request-id": "traced-1"}
    before = time.time_ns()
    files = [("a", ("a.jpg", jpeg)), ("b", ("b.jpg", jpeg))]
    httpx.post(traced.url + PREDICT, files=files, headers=headers, timeout=30).raise_for_status()
    root, *stages = collector.trace("traced-1")
    after = time.time_ns()  # the client has its answer a moment before the server knows that it was sent
    assert root.trace_id.hex() == trace
    assert root.parent_span_id.hex() == parent
    assert root.name == "POST /v1/models/{model}/predict"
    assert root.kind == 2, "SERVER"
    assert before <= root.start_time_unix_nano < root.end_time_unix_nano <= after
    told = attributes(root)
    assert told["http.response.status_code"] == 200
    assert told["shipsight.model"] == "digits"
    for image in (0, 1):
        mine = [one for one in stages if attributes(one)["shipsight.image"] == image]
        assert [one.name for one in mine] == ["queue", "decode", "prepare", "infer", "postprocess"]
        assert all(one.trace_id == root.trace_id for one in mine)
        for one, following in itertools.pairwise(mine):
            assert one.start_time_unix_nano <= one.end_time_unix_nano == following.start_time_unix_nano
        assert mine[0].start_time_unix_nano >= root.start_time_unix_nano
        assert mine[-1].end_time_unix_nano <= root.end_time_unix_nano
    assert collector.paths == {"/v1/traces"}


def test_a_call_of_grpc_and_its_stages_are_spans_of_the_clients_trace(
    traced: Served, collector: Collector, jpeg: bytes
) -> None:
    trace, parent = "1af7651916cd43dd8448eb211c80319c", "a7ad6b7169203331"
    carried = {"traceparent": f"00-{trace}-{parent}-01", "x-request-id": "traced-grpc"}
    image = InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([jpeg], object))
    with InferenceServerClient(traced.grpc) as client:
        client.infer("digits_image", [image], headers=carried)
        with pytest.raises(InferenceServerException):
            client.infer("unknown", [image], headers={**carried, "x-request-id": "traced-grpc-unknown"})
    root, *stages = collector.trace("traced-grpc")
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (trace, parent)
    assert root.name == "inference.GRPCInferenceService/ModelInfer"
    told = attributes(root)
    assert (told["rpc.system"], told["rpc.method"], told["rpc.grpc.status_code"]) == ("grpc", "ModelInfer", 0)
    assert [one.name for one in stages] == ["queue", "decode", "prepare", "infer", "postprocess"]
    refused = collector.trace("traced-grpc-unknown")
    assert len(refused) == 1
    assert attributes(refused[0])["rpc.grpc.status_code"] == 5
    assert attributes(refused[0])["error.type"]
    assert refused[0].status.code == 0, "it is not the server's fault"


def test_each_frame_of_a_stream_is_a_span_of_the_trace_that_the_handshake_named(
    traced: Served, collector: Collector, jpeg: bytes
) -> None:
    trace, parent = "2af7651916cd43dd8448eb211c80319c", "c7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{parent}-01", "x-request-id": "traced-stream"}
    with open_stream(traced, additional_headers=headers) as stream:
        answers = [ask(stream, frame) for frame in (jpeg, b"no image")]
    assert "error" in answers[1]
    collector.trace("traced-stream")
    end = time.monotonic() + 60
    while len(roots := [one for one in collector.spans() if one.trace_id.hex() == trace and one.kind == 2]) < 2:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert [attributes(one)["shipsight.frame"] for one in roots] == [0, 1]
    assert {one.parent_span_id.hex() for one in roots} == {parent}
    assert [attributes(one).get("error.type") for one in roots] == [None, answers[1]["error"]["code"]]
    stages = [one.name for one in collector.spans() if one.parent_span_id == roots[0].span_id]
    assert stages == ["queue", "decode", "prepare", "infer", "postprocess"]
    told = httpx.get(f"{traced.url}/metrics", timeout=30).text
    assert 'shipsight_stream_frames_total{model="digits",result="answered"} 1.0' in told
    assert 'shipsight_stream_frames_total{model="digits",result="failed"} 1.0' in told


def test_spans_hold_nothing_of_an_image_or_a_path(traced: Served, collector: Collector, jpeg: bytes) -> None:
    headers = {"x-request-id": "traced-2", "x-secret": "do-not-tell", "user-agent": "do-not-tell"}
    url = f"{traced.url}/v1/models/do-not-tell/predict?conf=do-not-tell"
    assert httpx.post(url, content=b"do-not-tell", headers=headers, timeout=30).status_code == 400
    root = collector.trace("traced-2")[0]
    assert attributes(root)["error.type"] == "usage"
    assert not [body for body in collector.bodies if b"do-not-tell" in body or jpeg[:20] in body]


@pytest.mark.parametrize(
    "parent",
    ["", "00-zz-zz-01", "x" * 10_000, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"],
    ids=lambda one: ascii(one)[:60],
)
def test_a_malformed_traceparent_begins_a_trace(traced: Served, collector: Collector, parent: str) -> None:
    name = f"malformed-{abs(hash(parent))}"
    httpx.get(f"{traced.url}/v1/me", headers={"traceparent": parent, "x-request-id": name}, timeout=30)
    root = collector.trace(name)[0]
    assert any(root.trace_id)
    assert not root.parent_span_id


def test_a_client_that_samples_nothing_is_not_traced(traced: Served, collector: Collector) -> None:
    trace = "1" * 32
    for flag, name in (("00", "unsampled"), ("01", "sampled")):
        headers = {"traceparent": f"00-{trace}-{'2' * 16}-{flag}", "x-request-id": name}
        httpx.get(f"{traced.url}/v1/me", headers=headers, timeout=30)
    collector.trace("sampled")
    assert not [one for one in collector.spans() if attributes(one).get("shipsight.request_id") == "unsampled"]


def test_a_collector_that_does_not_answer_holds_nobody_up(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes, tmp_path: Path
) -> None:
    with (tmp_path / "stderr").open("w") as stderr:
        server = start(digits_bundle, "--streams", "1", "--otlp-endpoint", "http://127.0.0.1:9", stderr=stderr)
    assert httpx.post(server.url + PREDICT, content=jpeg, timeout=30).status_code == 200
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "http://", "/v1/traces"])
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(UsageError, match="--otlp-endpoint"):
        TraceSettings(endpoint)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
    ],
)
def test_the_path_is_added_where_there_is_none(endpoint: str, url: str) -> None:
    assert TraceSettings(endpoint).url == url


def test_what_is_missing_is_named_with_its_extra(digits_bundle: Path) -> None:
    code = "import sys; sys.modules['opentelemetry.sdk'] = None; from shipsight.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "serve", str(digits_bundle), "--otlp-endpoint", "http://127.0.0.1:9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "shipsight[serve,otel]" in done.stderr


def test_opentelemetry_is_not_even_imported_unless_asked_for() -> None:
    code = (
        "import sys, shipsight.cli.serve, shipsight.serve.process, shipsight.serve.http; "
        "print([one for one in sys.modules if one.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
