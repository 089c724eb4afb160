# SPDX-License-Identifier: Apache-2.0
"""How a request that was let in meets its handler; errors become answers. Private to the room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from shipsight.access import Principal
from shipsight.errors import InternalError, ShipsightError
from shipsight.protect import SealedProtocol
from shipsight.serve.http.admission import Tell, refuse
from shipsight.serve.http.answers import error_answer
from shipsight.serve.http.principals import principal_of
from shipsight.serve.http.sealed import with_sealed
from shipsight.serve.service import PredictionService

__all__ = ["Handler", "bind"]

Handler = Callable[[PredictionService, Principal, Request], Awaitable[Response]]
_log = logging.getLogger("shipsight.serve")
_CLIENT_LEFT = 499
_WATCHED_AFTER_S = 0.1


def bind(
    service: PredictionService,
    handler: Handler,
    *,
    tell: Tell = error_answer,
    sealed: SealedProtocol | None = None,
) -> Callable[[Request], Awaitable[Response]]:
    """Makes a handler an endpoint.

    Args:
        service: answers.
        handler: of requests that were let in.
        tell: makes an answer of an error.
        sealed: the protocol, where requests may come sealed; None where these are refused.
    """
    answering = with_sealed(handler, sealed, tell=tell)

    async def endpoint(request: Request) -> Response:
        principal = principal_of(request.scope)
        try:
            return await _while_connected(request, lambda watched: answering(service, principal, watched))
        except ShipsightError as error:
            return tell(await refuse(service.gate, request.scope, principal, error))
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)
        except Exception:  # noqa: BLE001 - the edge of a request
            # The edge: whatever else happens is a bug of ours, told in the log and not to the client.
            _log.exception("a request failed: %s %.200r", request.method, request.scope["path"])
            return error_answer(InternalError("the server failed on this request"))

    return endpoint


async def _while_connected(request: Request, handle: Callable[[Request], Awaitable[Response]]) -> Response:
    """Runs a handler, and cancels it when the client has left: its waiting images then leave the queue.

    Raises:
        ClientDisconnect: the client left.
    """
    handling = asyncio.current_task()
    assert handling is not None
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None
    watcher: asyncio.Task[None] | None = None
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await request.receive())["type"] != "http.disconnect":
            continue
        has_left = True
        handling.cancel()

    def begin() -> None:
        nonlocal watcher
        watcher = loop.create_task(watch())

    async def receive() -> Message:
        nonlocal timer
        message = await request.receive()
        # Only once the body is there: before, what comes next is for the handler. And only where it takes a while: most
        # requests end before it is worth a task.
        if message["type"] == "http.request" and not message.get("more_body", False) and timer is None:
            timer = loop.call_later(_WATCHED_AFTER_S, begin)
        return message

    try:
        return await handle(Request(request.scope, receive))
    except asyncio.CancelledError:
        if has_left and not handling.uncancel():
            raise ClientDisconnect from None
        raise
    finally:
        if timer is not None:
            timer.cancel()
        if watcher is not None:
            watcher.cancel()
