# SPDX-License-Identifier: Apache-2.0
"""Where a route is guarded: who asks is found and the route's needs are met before its endpoint hears of the request.

Every route of the app is a `DescribedRoute` or a `GuardedWebSocketRoute`, which both come by here; a test holds that. The app
keeps its `Gate` in `app.state.gate`; without one nothing is answered. A refusal is recorded, and so is one by a handler (`handlers`).
Private to the room.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from shipsight.access import NOBODY, Principal
from shipsight.errors import (
    AccessError,
    AuthenticationError,
    CertificateError,
    InternalError,
    ShipsightError,
)
from shipsight.serve.gate import Caller, Gate, Shown, conceal
from shipsight.serve.http.answers import error_answer
from shipsight.serve.http.cookies import clear_session_cookie
from shipsight.serve.http.principals import CALLER, caller_of, check_page, is_stale_session, read_shown
from shipsight.serve.needs import Needs
from shipsight.serve.request_notes import note_principal

__all__ = ["GuardedWebSocketRoute", "Tell", "gate_of", "guard", "refuse", "route_of"]

Tell = Callable[[ShipsightError], Response]
"""Makes an answer of an error, as a protocol has it."""

_log = logging.getLogger("shipsight.serve")


def gate_of(scope: Scope) -> Gate:
    """Returns the gate of the app that serves a request."""
    gate: Gate = scope["app"].state.gate
    return gate


def route_of(scope: Scope) -> str:
    """Returns method and path of the route, as records tell them; never the path that was asked for."""
    return f"{scope.get('method', 'WEBSOCKET')} {getattr(scope.get('route'), 'path', 'unknown')}"


async def guard(app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, needs: Needs, tell: Tell) -> None:
    """Has a route answer where its needs are met, and refuses otherwise.

    Args:
        app: the route's own.
        scope: of the request; afterwards it holds the `Caller`.
        receive: of ASGI.
        send: of ASGI.
        needs: of the route.
        tell: makes an answer of an error.
    """
    try:
        await _admit(scope, needs)
    except ShipsightError as error:
        response = tell(error)
        if scope.get(_STALE):
            clear_session_cookie(response, origin=gate_of(scope).origin)
    except Exception:  # noqa: BLE001 - the edge of a request: a bug of ours, told in the log
        _log.exception("a request could not be let in: %s", route_of(scope))
        response = tell(InternalError("the server failed on this request"))
    else:
        await app(scope, receive, send)
        return
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)


_STALE = "shipsight.stale_session"


async def _admit(scope: Scope, needs: Needs) -> None:
    """Puts the `Caller` into the scope of a request that may pass.

    Raises:
        AccessError: it may not.
    """
    gate, caller, shown = gate_of(scope), Caller(NOBODY), Shown()
    route, path = route_of(scope), scope["path_params"]
    try:
        try:
            shown = read_shown(scope, gate)
            caller = Caller(NOBODY, address=shown.address)
            caller = await gate.identify(shown)
        except (AuthenticationError, CertificateError) as error:
            scope[_STALE] = is_stale_session(error, shown)
            if not needs.is_health and not (needs.is_public and scope[_STALE]):
                raise
        note_principal(caller.principal)
        check_page(scope, caller, gate, needs_token=not needs.is_public)
        await gate.admit(caller, needs, path, route=route)
    except AccessError as error:
        await gate.refused(error, caller.principal, address=shown.address, model=path.get("model"), route=route)
        raise
    scope[CALLER] = caller


async def refuse(gate: Gate, scope: Scope, principal: Principal, error: ShipsightError) -> ShipsightError:
    """Records what a handler refused, and returns the error as this principal may know it."""
    if isinstance(error, AccessError):
        model = scope["path_params"].get("model")
        address = caller_of(scope).address
        await gate.refused(error, principal, address=address, model=model, route=route_of(scope))
    return conceal(error, principal)


class GuardedWebSocketRoute(WebSocketRoute):
    """A route of WebSocket that says what it needs.

    Args:
        path: as Starlette has it.
        endpoint: serves a socket that is not accepted yet.
        needs: what is needed of whoever asks.
    """

    def __init__(self, path: str, endpoint: Callable[[WebSocket], Awaitable[Any]], *, needs: Needs) -> None:
        super().__init__(path, endpoint)
        self.needs = needs

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a socket whose path fits."""
        await guard(super().handle, scope, receive, send, needs=self.needs, tell=error_answer)
