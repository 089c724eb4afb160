# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol, asked by KServe's clients and measured by NVIDIA's perf_analyzer, REST and gRPC."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from tests.serve.conftest import Served
from tests.serve.foreign import kserve_python, perf_analyzer
from tests.serve.test_open_inference import reference_outputs, tensor

# The first run fetches the clients.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_kserves_clients_are_answered(server: Served, digits_bundle: Path, jpeg: bytes, tmp_path: Path) -> None:
    image = tmp_path / "image.jpg"
    image.write_bytes(jpeg)
    command = [kserve_python(), Path(__file__).with_name("kserve_client.py"), server.url, server.grpc, image]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    expected = reference_outputs(digits_bundle, tensor(0))
    numbers = [*expected.ravel()[:8], expected.sum(dtype=np.float64)]
    native = httpx.post(
        f"{server.url}/v1/models/digits/predict", content=jpeg, params={"conf": 0.01}, timeout=60
    ).json()
    for way, other in (("rest", False), ("grpc", "NOT_FOUND")):
        one = told[way]
        assert (one["live"], one["ready"], one["model"], one["other"]) == (True, True, True, other), way
        assert one["id"] == "mine"
        np.testing.assert_allclose(one["raw"], numbers, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(one["numbers"], numbers, rtol=1e-4, atol=1e-3)
        assert one["predictions"]["predictions"] == native["images"][0]["predictions"]


@pytest.mark.parametrize("model", ["digits", "digits_image"])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_perf_analyzer_measures_the_server(
    server: Served, jpeg: bytes, tmp_path: Path, protocol: str, model: str
) -> None:
    program, environment = perf_analyzer()
    data = tmp_path / "data.json"
    # It sends such bytes as they stand: the length that BYTES want is the caller's to write.
    element = base64.b64encode(len(jpeg).to_bytes(4, "little") + jpeg).decode()
    data.write_text(json.dumps({"data": [{"image": {"b64": element}}]}))
    address = server.grpc if protocol == "grpc" else urlsplit(server.url).netloc
    command = [program, "-m", model, "-u", address, "-i", protocol, "--concurrency-range", "2"]
    # Whether the figures are steady says something of this machine, not of the protocol.
    command += ["--measurement-mode", "count_windows", "--measurement-request-count", "20", "-s", "999", "-p", "2000"]
    # A batch may have any size, so it asks for one.
    shape = "image:1" if model == "digits_image" else "images:1,3,256,256"
    command += ["--shape", shape, *(["--input-data", data] if model == "digits_image" else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (rate,) = re.findall(r"Concurrency: 2, throughput: ([\d.]+) infer/sec", done.stdout)
    assert float(rate) > 0
    counted = re.search(r"Server: *\n *Inference count: (\d+)", done.stdout)
    assert counted is not None, done.stdout
    assert int(counted[1]) > 0
