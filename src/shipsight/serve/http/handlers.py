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
    has_body = asyncio.Event()

    async def receive() -> Message:
        message = await request.receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            has_body.set()
        return message

    async def watch() -> None:
        # Only once the body is there: before, what comes next is for the handler.
        await has_body.wait()
        while (await request.receive())["type"] != "http.disconnect":
            continue

    task = asyncio.ensure_future(handle(Request(request.scope, receive)))
    watcher = asyncio.ensure_future(watch())
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, watcher):
            one.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)
