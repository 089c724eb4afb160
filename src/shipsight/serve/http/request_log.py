# SPDX-License-Identifier: Apache-2.0
"""The outermost layer of the app: each request has an id, and is told to the log and to traces once it is answered. Private."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shipsight.serve.logs import fields
from shipsight.serve.request_notes import RequestNote, begin_note, end_note, request_id
from shipsight.serve.traces import CARRIED, Traces

__all__ = ["RequestLog"]

_CARRIED = tuple(name.encode("ascii") for name in CARRIED)
_log = logging.getLogger("shipsight.serve.requests")


class RequestLog:
    """Answers with `X-Request-Id`, and tells of requests by route: paths and headers come from clients and are not told.

    Args:
        app: answers.
        is_told: whether requests are logged.
        traces: where spans go, None for nowhere.
    """

    def __init__(self, app: ASGIApp, *, is_told: bool, traces: Traces | None = None) -> None:
        self._app, self._is_told, self._traces = app, is_told, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin_s = time.monotonic()
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), None)
        note = RequestNote(request_id(None if given is None else given.decode("latin-1")))
        header = (b"x-request-id", note.id.encode("ascii"))
        status: int | None = None
        size_in = size_out = 0

        async def counted_receive() -> Message:
            nonlocal size_in
            message = await receive()
            size_in += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            nonlocal status, size_out
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
            else:
                size_out += len(message.get("body", b""))
            await send(message)

        begin_note(note)
        try:
            await self._app(scope, counted_receive, counted_send)
        finally:
            end_note()
            end_s = time.monotonic()
            if self._is_told:
                _tell(note, scope, status, (end_s - begin_s) * 1e3, size_in, size_out)
            if self._traces is not None:
                _trace(self._traces, note, scope, status, begin_s)


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "unknown"))


def _trace(traces: Traces, note: RequestNote, scope: Scope, status: int | None, begin_s: float) -> None:
    method, route = scope["method"], _route(scope)
    traces.ended(
        note,
        name=f"{method} {route}",
        attributes={"http.request.method": method, "http.route": route, "http.response.status_code": status},
        is_failed=status is not None and status >= 500,
        carrier={name.decode("ascii"): value.decode("latin-1") for name, value in scope["headers"] if name in _CARRIED},
        begin_s=begin_s,
    )


def _tell(note: RequestNote, scope: Scope, status: int | None, ms: float, size_in: int, size_out: int) -> None:
    told = fields(
        request=note.id,
        method=scope["method"],
        route=_route(scope),
        status=status,
        ms=round(ms, 2),
        principal=note.principal.told(),
        bytes_in=size_in,
        bytes_out=size_out,
        model=note.model,
        version=note.version,
        variant=note.variant,
        error=note.error,
        sealed=note.sealed_status,
    )
    _log.info("request", extra=told)
