# SPDX-License-Identifier: Apache-2.0
"""Every answer tells browsers to take it for what it is, to run nothing of it and to keep no copy. ASVS 3.2.1, 3.4, 14.3.2."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tests.serve.conftest import Served
from tests.serve.gated import gated

from shipsight.serve.gate import Behind, GateRules
from shipsight.serve.http.safe_headers import SafeHeaders


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/pages/page.js", 200),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/v2", 200),
        ("GET", "/nowhere", 404),
        ("DELETE", "/healthz", 405),
        ("POST", "/v1/models/digits/predict", 400),
        ("GET", "/v1/models/digits/stream", 426),
    ],
)
def test_answer_carries_the_headers_that_browsers_obey(server: Served, method: str, path: str, status: int) -> None:
    with server.client as client:
        answer = client.request(method, path)
    assert answer.status_code == status
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] in ("no-store", "no-cache")
    assert "strict-transport-security" not in answer.headers, "a promise that plain HTTP cannot keep"
    assert "access-control-allow-origin" not in answer.headers


def test_answer_over_tls_asks_for_tls_from_then_on_and_leaves_policies_that_are_set() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("page", headers={"content-security-policy": "default-src 'self'"})(scope, receive, send)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(SafeHeaders(page))
        async with httpx.AsyncClient(transport=transport, base_url="https://models.example") as client:
            return await client.get("/")

    answer = asyncio.run(ask())
    assert answer.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
    assert answer.headers["content-security-policy"] == "default-src 'self'"


@pytest.mark.parametrize(
    ("behind", "public_url", "is_told"),
    [(Behind.PROXY, "https://vision.example", True), (Behind.PROXY, "http://vision.example", False),
     (Behind.PROXY, None, False), (None, "https://vision.example", False)],
    ids=["https", "http", "unknown", "nobody-in-front"],
)  # fmt: skip
def test_answer_behind_a_proxy_that_ends_tls_asks_for_tls_from_then_on(
    tmp_path: Path, behind: Behind | None, public_url: str | None, *, is_told: bool
) -> None:
    """ASVS 3.4.1."""
    rules = GateRules(is_local=False, behind=behind)
    with gated(tmp_path, rules=rules, origin="http://10.0.0.7:8000", public_url=public_url) as app:
        for path in ("/", "/healthz", "/v1/me", "/nowhere"):
            headers = asyncio.run(app.ask("GET", path)).headers
            assert ("strict-transport-security" in headers) == is_told, path
