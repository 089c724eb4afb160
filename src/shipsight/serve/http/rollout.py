# SPDX-License-Identifier: Apache-2.0
"""Rollouts over HTTP. Described in `docs/protocols/native.md`.

GET    /v1/models/{model}/rollout            how requests are divided, and how that goes
PUT    /v1/models/{model}/rollout            {"canary": {"version", "share"} | null, "shadow": ..., "reason"}
POST   /v1/models/{model}/rollout/promote    {"version", "reason"}, all optional
POST   /v1/models/{model}/rollout/rollback   {"reason"}, optional
DELETE /v1/models/{model}/rollout            ends canary and shadow
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shipsight.access import Principal
from shipsight.errors import UsageError
from shipsight.serve.http.answers import json_answer
from shipsight.serve.http.body import read_body
from shipsight.serve.http.handlers import Handler, bind
from shipsight.serve.rollout import Share
from shipsight.serve.service import PredictionService

__all__ = ["rollout_routes"]


def rollout_routes(service: PredictionService) -> list[Route]:
    """Returns the routes."""

    def route(path: str, handler: Handler, method: str) -> Route:
        return Route(f"/v1/models/{{model}}/rollout{path}", bind(service, handler), methods=[method])

    return [
        route("", _report, "GET"),
        route("", _share, "PUT"),
        route("", _end, "DELETE"),
        route("/promote", _promote, "POST"),
        route("/rollback", _roll_back, "POST"),
    ]


async def _report(service: PredictionService, principal: Principal, request: Request) -> Response:
    return json_answer(await asyncio.to_thread(service.rollouts.report, request.path_params["model"]))


async def _share(service: PredictionService, principal: Principal, request: Request) -> Response:
    told = await _read(request, service, {"canary", "shadow", "reason"})
    shares: dict[str, Share | None] = {
        kind: Share.from_dict(told[kind], where=kind) for kind in ("canary", "shadow") if kind in told
    }
    if not shares:
        raise UsageError("nothing to change", where="body", expected="canary, shadow, or both")
    model = request.path_params["model"]
    change = partial(service.rollouts.share, principal, model, shares, reason=told.get("reason"))
    return await _answer(service, model, change)


async def _end(service: PredictionService, principal: Principal, request: Request) -> Response:
    told = await _read(request, service, {"reason"})
    model = request.path_params["model"]
    return await _answer(service, model, partial(service.rollouts.end, principal, model, reason=told.get("reason")))


async def _promote(service: PredictionService, principal: Principal, request: Request) -> Response:
    told = await _read(request, service, {"version", "reason"})
    model, version = request.path_params["model"], told.get("version")
    change = partial(service.rollouts.promote, principal, model, version, reason=told.get("reason"))
    return await _answer(service, model, change)


async def _roll_back(service: PredictionService, principal: Principal, request: Request) -> Response:
    told = await _read(request, service, {"reason"})
    model = request.path_params["model"]
    change = partial(service.rollouts.roll_back, principal, model, reason=told.get("reason"))
    return await _answer(service, model, change)


async def _answer(service: PredictionService, model: str, change: Callable[[], bool]) -> Response:
    """Changes in a thread, since a version may have to be loaded; a client that leaves does not stop that."""
    changed = await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(change)))
    return json_answer({"changed": changed, **await asyncio.to_thread(service.rollouts.report, model)})


async def _read(request: Request, service: PredictionService, allowed: set[str]) -> dict[str, Any]:
    body = await read_body(request, service.limits)
    if not body:
        return {}
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise UsageError("the body is not JSON", where="body") from None
    if not isinstance(told, dict) or not set(told) <= allowed:
        raise UsageError("not a request", where="body", expected=f"a mapping of {', '.join(sorted(allowed))}")
    for key in ("version", "reason"):
        if not isinstance(told.get(key), str | None):
            raise UsageError("not a text", where=key, got=type(told[key]).__name__)
    return told
