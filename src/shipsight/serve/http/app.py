# SPDX-License-Identifier: Apache-2.0
"""The app: health, metrics, the protocols' routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shipsight.errors import NotFoundError, UsageError
from shipsight.serve.http.answers import error_answer, json_answer
from shipsight.serve.http.clouds import cloud_routes
from shipsight.serve.http.guard import LoopbackGuard
from shipsight.serve.http.native import native_routes
from shipsight.serve.http.open_inference import open_inference_routes
from shipsight.serve.http.request_log import RequestLog
from shipsight.serve.http.rollout import rollout_routes
from shipsight.serve.metrics import Metrics
from shipsight.serve.options import VertexRoutes
from shipsight.serve.service import PredictionService
from shipsight.serve.traces import Traces

__all__ = ["build_app"]

_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def build_app(
    service: PredictionService,
    metrics: Metrics,
    *,
    vertex: VertexRoutes | None = None,
    logs_requests: bool = True,
    traces: Traces | None = None,
) -> ASGIApp:
    """Returns the app.

    Args:
        service: answers.
        metrics: counts.
        vertex: routes that Vertex AI named, None outside of it.
        logs_requests: whether each request is told in the log.
        traces: where spans go, None for nowhere.
    """

    async def live(request: Request) -> Response:
        return json_answer({"status": "alive"})

    async def ready(request: Request) -> Response:
        states = {f"{one.name}/{one.version}": one.state.value for one in service.models.all()}
        is_ready = service.is_ready()
        told = {
            "status": "ready" if is_ready else "not ready",
            "models": states,
            "hopeless": service.hopeless(),
            "load": service.loads(),
        }
        return json_answer(told, 200 if is_ready else 503)

    async def measured(request: Request) -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4")

    def page(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
        content = (files("shipsight.serve") / "pages" / name).read_bytes()

        async def give(request: Request) -> Response:
            return Response(content, media_type=kind, headers=_PAGE_HEADERS)

        return give

    routes = [
        Route("/", page("index.html", "text/html")),
        Route("/pages/page.css", page("page.css", "text/css")),
        Route("/pages/icon.svg", page("icon.svg", "image/svg+xml")),
        Route("/pages/page.js", page("page.js", "text/javascript")),
        Route("/healthz", live),
        Route("/readyz", ready),
        Route("/metrics", measured),
        *native_routes(service),
        *rollout_routes(service),
        *open_inference_routes(service),
        *cloud_routes(service, vertex),
    ]
    app = Starlette(routes=routes, exception_handlers={404: _not_found, 405: _not_allowed})
    return RequestLog(LoopbackGuard(_Counted(app, metrics)), is_told=logs_requests, traces=traces)


async def _not_found(request: Request, error: Exception) -> Response:
    return error_answer(NotFoundError("no such page", where=request.url.path[:200]))


async def _not_allowed(request: Request, error: Exception) -> Response:
    answer = error_answer(
        UsageError("this page takes another method", where=request.url.path[:200], got=request.method)
    )
    answer.status_code = 405
    answer.headers.update(getattr(error, "headers", None) or {})
    return answer


class _Counted:
    """Counts requests by route, not by path: paths come from clients and are without end."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            route = scope.get("route")
            self._metrics.request_done(getattr(route, "path", "unknown"), status)
