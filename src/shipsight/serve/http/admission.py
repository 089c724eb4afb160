# SPDX-License-Identifier: Apache-2.0
"""Where a route is guarded: who asks is found and the route's needs are met before its endpoint hears of the request.

Every route of the app is a `DescribedRoute` or a `GuardedWebSocketRoute`, which both come by here; a test holds that. The app
keeps its `Gate` in `app.state.gate`; without one nothing is answered. A refusal is recorded, and so is one by a handler (`handlers`).
Private to the room.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from shipsight.access import NOBODY, Principal
from shipsight.errors import AccessError, InternalError, ShipsightError
from shipsight.serve.gate import Caller, Gate, Shown, conceal
from shipsight.serve.http.answers import error_answer
from shipsight.serve.http.principals import CALLER, caller_of, check_page, is_stale_session, read_shown
from shipsight.serve.needs import Needs
from shipsight.serve.request_notes import note_principal

__all__ = ["GuardedWebSocketRoute", "Tell", "admit_again", "gate_of", "guard", "refuse", "route_of"]

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


async def _admit(scope: Scope, needs: Needs) -> None:
    """Puts the `Caller` into the scope of a request that may pass.

    Raises:
        AccessError: it may not.
        OverloadedError: too many ask.
    """
    gate, path = gate_of(scope), scope["path_params"]
    try:
        await _look(scope, needs, is_again=False)
    except ShipsightError as error:
        caller: Caller = scope.pop(CALLER)
        if isinstance(error, AccessError):
            await gate.refused(error, caller, model=path.get("model"), route=route_of(scope))
        raise


async def admit_again(scope: Scope) -> Caller:
    """Looks again at who asks and whether they may, once a body was read: it may have come slowly, and rights are those of the act.

    Args:
        scope: of a request that was let in.

    Returns:
        Who asks, with the rights of now; the scope holds them, too.

    Raises:
        AccessError: they may not any more; whoever calls has it recorded.
        CertificateError: theirs has ended.
    """
    before = caller_of(scope)
    try:
        return await _look(scope, scope["route"].needs, is_again=True)
    except ShipsightError:
        scope[CALLER] = before  # what is recorded names who began it
        raise


async def _look(scope: Scope, needs: Needs, *, is_again: bool) -> Caller:
    """Finds who asks and whether they may; the scope holds whoever it was, also where they are refused.

    Raises:
        AccessError: they may not.
        CertificateError: theirs has ended.
    """
    gate, shown = gate_of(scope), Shown()
    scope[CALLER] = caller = Caller(NOBODY)
    try:
        shown = read_shown(scope, gate)
        scope[CALLER] = caller = Caller(NOBODY, address=shown.address, client=shown.client)
        scope[CALLER] = caller = await gate.identify(shown)
    except ShipsightError as error:
        # A probe never fails for what it shows, nor for how many others ask.
        if not needs.is_health and not (needs.is_public and is_stale_session(error, shown)):
            raise
    note_principal(caller.principal)
    check_page(scope, caller, gate, needs_token=not needs.is_public)
    await gate.admit(caller, needs, scope["path_params"], route=route_of(scope), is_again=is_again)
    return caller


async def refuse(gate: Gate, scope: Scope, principal: Principal, error: ShipsightError) -> ShipsightError:
    """Records what a handler refused, and returns the error as this principal may know it."""
    if isinstance(error, AccessError):
        model = scope["path_params"].get("model")
        await gate.refused(error, replace(caller_of(scope), principal=principal), model=model, route=route_of(scope))
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
