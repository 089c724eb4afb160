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
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shipsight.access import Action, Principal
from shipsight.errors import UsageError
from shipsight.serve.http.admission import admit_again, route_of
from shipsight.serve.http.answers import json_answer
from shipsight.serve.http.body import read_body
from shipsight.serve.http.description import DescribedRoute, Operation, answer, operation
from shipsight.serve.http.handlers import Handler, bind
from shipsight.serve.http.json_body import read_json
from shipsight.serve.needs import Needs
from shipsight.serve.rollout import Share
from shipsight.serve.service import PredictionService

__all__ = ["rollout_routes"]

_MOST_WITHOUT_PROMOTION = 0.5
"""A canary with that share and more decides which version answers, as promoting does."""

_TEXT = {"type": "string"}
_TEXT_OR_NONE = {"type": ["string", "null"]}
_SHARE = {
    "type": ["object", "null"],
    "properties": {"version": _TEXT, "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1}},
    "required": ["version", "share"],
    "additionalProperties": False,
}
_REPORT = {
    "type": "object",
    "properties": {
        "model": _TEXT,
        "current": {"type": ["string", "null"]},
        "previous": {"type": ["string", "null"]},
        "canary": _SHARE,
        "shadow": _SHARE,
        "changed": {"type": "boolean"},
    },
    "required": ["model", "current", "previous", "canary", "shadow"],
}


def _described(summary: str, body: dict[str, Any] | None = None, *, needs_body: bool = False) -> Operation:
    schema = {"type": "object", "properties": body, "additionalProperties": False}
    return operation(
        summary,
        tag="rollout",
        answers={200: answer("how requests are divided, and how that goes", {"application/json": _REPORT})},
        body=None if body is None else {"application/json": schema},
        needs_body=needs_body,
        errors=(404,) if body is None else (404, 413, 422, 504),
    )


def rollout_routes(service: PredictionService) -> list[Route]:
    """Returns the routes."""

    def route(path: str, handler: Handler, method: str, described: Operation, action: Action) -> Route:
        path, needs = f"/v1/models/{{model}}/rollout{path}", Needs(action, "model")
        return DescribedRoute(path, bind(service, handler), method=method, described=described, needs=needs)

    reason = {"reason": _TEXT_OR_NONE}
    shares = _described("Gives versions a share", {"canary": _SHARE, "shadow": _SHARE, **reason}, needs_body=True)
    promotes, rolls_back = (
        _described("Promotes a version", {"version": _TEXT_OR_NONE, **reason}),
        _described("Brings the version before back", reason),
    )
    return [
        route("", _report, "GET", _described("Tells how requests are divided"), Action.ROLLOUT_READ),
        route("", _share, "PUT", shares, Action.ROLLOUT_SHARE),
        route("", _end, "DELETE", _described("Ends canary and shadow", reason), Action.ROLLOUT_SHARE),
        route("/promote", _promote, "POST", promotes, Action.ROLLOUT_PROMOTE),
        route("/rollback", _roll_back, "POST", rolls_back, Action.ROLLOUT_PROMOTE),
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
    caller = await admit_again(request.scope)
    canary = shares.get("canary")
    if canary is not None and canary.share >= _MOST_WITHOUT_PROMOTION:
        await service.gate.allow(caller, Action.ROLLOUT_PROMOTE, model, route=route_of(request.scope))
    change = partial(service.rollouts.share, caller.principal, model, shares, reason=told.get("reason"))
    return await _answer(service, model, change)


async def _end(service: PredictionService, principal: Principal, request: Request) -> Response:
    told = await _read(request, service, {"reason"})
    model, principal = request.path_params["model"], (await admit_again(request.scope)).principal
    return await _answer(service, model, partial(service.rollouts.end, principal, model, reason=told.get("reason")))


async def _promote(service: PredictionService, principal: Principal, request: Request) -> Response:
    told = await _read(request, service, {"version", "reason"})
    model, version = request.path_params["model"], told.get("version")
    principal = (await admit_again(request.scope)).principal
    change = partial(service.rollouts.promote, principal, model, version, reason=told.get("reason"))
    return await _answer(service, model, change)


async def _roll_back(service: PredictionService, principal: Principal, request: Request) -> Response:
    told = await _read(request, service, {"reason"})
    model, principal = request.path_params["model"], (await admit_again(request.scope)).principal
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
    told = read_json(body)
    if not isinstance(told, dict) or not set(told) <= allowed:
        raise UsageError("not a request", where="body", expected=f"a mapping of {', '.join(sorted(allowed))}")
    for key in ("version", "reason"):
        if not isinstance(told.get(key), str | None):
            raise UsageError("not a text", where=key, got=type(told[key]).__name__)
    return told
