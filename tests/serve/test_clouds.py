# SPDX-License-Identifier: Apache-2.0
"""The contracts of managed clouds, asked as their documentation says they ask."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.serve.conftest import Served

from shipsight.errors import UsageError
from shipsight.serve import VertexRoutes


def native(server: Served, jpeg: bytes) -> object:
    answer = httpx.post(f"{server.url}/v1/models/digits/predict", content=jpeg, params={"conf": 0.01}, timeout=30)
    return answer.json()["images"][0]["predictions"]


def test_sagemaker_pings_and_invokes(server: Served, jpeg: bytes) -> None:
    ping = httpx.get(f"{server.url}/ping")
    assert (ping.status_code, ping.content) == (200, b"")
    headers = {"content-type": "image/jpeg", "x-amzn-sagemaker-custom-attributes": "trace=1"}
    answer = httpx.post(f"{server.url}/invocations?conf=0.01", content=jpeg, headers=headers, timeout=30)
    assert answer.json()["images"][0]["predictions"] == native(server, jpeg)
    body = {"images": [base64.b64encode(jpeg).decode()]}
    answer = httpx.post(f"{server.url}/invocations?conf=0.01&model=digits", json=body, timeout=30)
    assert answer.json()["images"][0]["predictions"] == native(server, jpeg)


def test_azure_scores(server: Served, jpeg: bytes) -> None:
    assert httpx.get(f"{server.url}/readyz").status_code == 200
    answer = httpx.post(f"{server.url}/score?conf=0.01", content=jpeg, timeout=30)
    assert answer.json()["images"][0]["predictions"] == native(server, jpeg)
    assert httpx.post(f"{server.url}/score?model=other", content=jpeg).status_code == 404
    assert httpx.post(f"{server.url}/score?other=1", content=jpeg).status_code == 400


def test_vertex_asks_on_the_routes_it_names(
    start: Callable[..., Served], digits_bundle: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/v1/endpoints/7/deployedModels/8")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/v1/endpoints/7/deployedModels/8:predict")
    server = start(digits_bundle, "--streams", "1")
    assert httpx.get(f"{server.url}/v1/endpoints/7/deployedModels/8").status_code == 200
    where = f"{server.url}/v1/endpoints/7/deployedModels/8:predict"
    text = base64.b64encode(jpeg).decode()
    body = {"instances": [{"b64": text}, text], "parameters": {"conf": 0.01, "max_det": 300}}
    answer = httpx.post(where, json=body, timeout=30).json()
    assert [one["predictions"] for one in answer["predictions"]] == [native(server, jpeg)] * 2
    for wrong in (
        {},
        {"instances": 1},
        {"instances": []},
        {"instances": [{"b64": "?"}]},
        {"instances": [3]},
        {"instances": [text], "parameters": 3},
        {"instances": [text], "parameters": {"conf": "high"}},
        {"instances": [text], "parameters": {"confidence": 0.5}},
        {"instances": [text], "parameters": {"classes": ["a"]}},
        {"instances": [text], "parameters": {"classes": 3}},
    ):
        refused = httpx.post(where, json=wrong, timeout=30)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "usage"), wrong
    assert server.stop() == 0


def test_a_route_that_is_none_is_refused() -> None:
    for wrong in ("health", "/{x}", "/a?b"):
        with pytest.raises(UsageError):
            VertexRoutes(wrong, "/predict")
