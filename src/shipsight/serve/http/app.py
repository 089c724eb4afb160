# SPDX-License-Identifier: Apache-2.0
"""The app: health, metrics, the protocols' routes."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shipsight.access import Action
from shipsight.errors import NotFoundError, UsageError
from shipsight.serve.gate import Behind
from shipsight.serve.http.access_api import access_routes
from shipsight.serve.http.answers import error_answer, json_answer
from shipsight.serve.http.audit import audit_routes
from shipsight.serve.http.body import HeldBodies
from shipsight.serve.http.clouds import cloud_routes
from shipsight.serve.http.description import DescribedRoute, answer, describe, operation
from shipsight.serve.http.drift import drift_routes
from shipsight.serve.http.files import file_routes
from shipsight.serve.http.guard import LoopbackGuard
from shipsight.serve.http.native import native_routes
from shipsight.serve.http.open_inference import open_inference_routes
from shipsight.serve.http.pages import page_routes
from shipsight.serve.http.principals import principal_of
from shipsight.serve.http.proxies import TrustedProxies
from shipsight.serve.http.recordings import recording_routes
from shipsight.serve.http.request_log import RequestLog
from shipsight.serve.http.rollout import rollout_routes
from shipsight.serve.http.safe_headers import SafeHeaders
from shipsight.serve.http.sealed import sealing_routes
from shipsight.serve.http.stream import Streams, stream_routes
from shipsight.serve.metrics import Metrics
from shipsight.serve.models import ModelState
from shipsight.serve.monitors import Monitors
from shipsight.serve.needs import HEALTH, KNOWN, Needs
from shipsight.serve.open_inference import OpenInference
from shipsight.serve.options import VertexRoutes
from shipsight.serve.proxy_rules import ProxyRules
from shipsight.serve.recordings import Recordings
from shipsight.serve.request_notes import current_note
from shipsight.serve.sealing import Sealing
from shipsight.serve.service import PredictionService
from shipsight.serve.traces import Traces

__all__ = ["build_app"]

_JSON = "application/json"
_STATUS = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
_STATES = {
    "type": "object",
    "properties": {
        "status": {"type": "string"},
        "models": {"type": "object", "additionalProperties": {"enum": [state.value for state in ModelState]}},
        "hopeless": {"type": "array", "items": {"type": "string"}},
        "load": {"type": "object"},
        "audit": {"enum": ["ok", "degraded"]},
        "behind": {"enum": [one.value for one in Behind]},
    },
    "required": ["status"],
}
_LIVE = operation("Tells whether the process answers", tag="health", answers={200: answer("it does", {_JSON: _STATUS})})
_READY = operation(
    "Tells whether all models answer",
    tag="health",
    answers={200: answer("they do", {_JSON: _STATES}), 503: answer("not all do", {_JSON: _STATES})},
)
_METRICS = operation("What Prometheus reads", tag="health", answers={200: answer("counters", {"text/plain": {}})})
_OPENAPI = operation(
    "This description", tag="health", answers={200: answer("OpenAPI 3.1", {_JSON: {"type": "object"}})}
)


def build_app(
    service: PredictionService,
    metrics: Metrics,
    *,
    streams: Streams,
    open_inference: OpenInference,
    vertex: VertexRoutes | None = None,
    logs_requests: bool = True,
    traces: Traces | None = None,
    proxy: ProxyRules | None = None,
    sealing: Sealing | None = None,
    recordings: Recordings | None = None,
    monitors: Monitors | None = None,
) -> ASGIApp:
    """Returns the app.

    Args:
        service: answers.
        metrics: counts.
        streams: of video.
        open_inference: that protocol, which gRPC speaks, too.
        vertex: routes that Vertex AI named, None outside of it.
        logs_requests: whether each request is told in the log.
        traces: where spans go, None for nowhere.
        proxy: how the operator's own is known, None where there is none.
        sealing: opens sealed requests; None where none are taken.
        recordings: that are being made; None where there are none.
        monitors: that look for drift, None where nobody does.
    """

    async def openapi(request: Request) -> Response:
        return described

    routes = [
        *page_routes(),
        *_health_routes(service, metrics),
        DescribedRoute("/openapi.json", openapi, method="GET", described=_OPENAPI, needs=KNOWN),
        *native_routes(service),
        *file_routes(service),
        *rollout_routes(service),
        *access_routes(service),
        *audit_routes(service),
        *recording_routes(service, recordings),
        *drift_routes(service, monitors),
        *stream_routes(streams),
        *open_inference_routes(open_inference),
        *cloud_routes(service, vertex),
        *([] if sealing is None else sealing_routes(sealing)),
    ]
    described = json_answer(describe(routes))
    app = Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_allowed})
    # Else a path with a slash too many is answered with another place instead of an error.
    app.router.redirect_slashes = False
    app.state.gate, app.state.sealing = service.gate, sealing
    answering: ASGIApp = _Counted(HeldBodies(app, service.limits.bodies_bytes), metrics)
    rules = service.gate.rules
    if rules.is_local and rules.behind is None:
        answering = LoopbackGuard(answering)
    answering = TrustedProxies(RequestLog(answering, is_told=logs_requests, traces=traces), proxy)
    return SafeHeaders(answering, is_tls_in_front=rules.behind is not None and service.gate.origin.startswith("https:"))


def _health_routes(service: PredictionService, metrics: Metrics) -> list[Route]:
    """Returns the routes by which a server is watched."""

    async def live(request: Request) -> Response:
        return json_answer({"status": "alive"})

    async def ready(request: Request) -> Response:
        principal, behind = principal_of(request.scope), service.gate.rules.behind
        is_ready = service.is_ready()
        told: dict[str, object] = {"status": "ready" if is_ready else "not ready"}
        if behind is not None:
            told["behind"] = behind.value
        if principal.rights.allows_somewhere(Action.MODELS_READ) and not principal.must_enrol:
            seen = [one for one in service.models.all() if principal.may(Action.MODELS_READ, one.name)]
            keys = {f"{one.name}/{one.version}" for one in seen}
            names = {one.name for one in seen}
            told["models"] = {f"{one.name}/{one.version}": one.state.value for one in seen}
            told["hopeless"] = [name for name in service.hopeless() if name in names]
            audit_state = service.gate.audit_state
            if audit_state is not None:
                # Predictions go on: it is no reason to send requests elsewhere, but one to look.
                told["audit"] = "degraded" if audit_state().is_degraded else "ok"
            told["load"] = {key: load for key, load in service.loads().items() if key in keys}
        return json_answer(told, 200 if is_ready else 503)

    async def measured(request: Request) -> Response:
        # Not on the event loop: an engine that is asked for the first time takes a while.
        told = await asyncio.to_thread(metrics.render)
        return Response(told, media_type="text/plain; version=0.0.4")

    return [
        DescribedRoute("/healthz", live, method="GET", described=_LIVE, needs=HEALTH),
        DescribedRoute("/readyz", ready, method="GET", described=_READY, needs=HEALTH),
        DescribedRoute("/metrics", measured, method="GET", described=_METRICS, needs=Needs(Action.METRICS_READ)),
    ]


async def _not_found(request: Request, error: Exception) -> Response:
    return error_answer(NotFoundError("no such page", where=request.scope["path"][:200]))


async def _not_allowed(request: Request, error: Exception) -> Response:
    answer = error_answer(
        UsageError("this page takes another method", where=request.scope["path"][:200], got=request.method)
    )
    answer.status_code = 405
    answer.headers.update(getattr(error, "headers", None) or {})
    return answer


class _Counted:
    """Counts requests by route, not by path: paths come from clients and are without end."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            route = scope.get("route")
            # Outside, every sealed answer is a 200.
            note = current_note()
            inside, error = (None, None) if note is None else (note.sealed_status, note.error)
            self._metrics.request_done(getattr(route, "path", "unknown"), inside or status, error)
