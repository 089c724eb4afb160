# SPDX-License-Identifier: Apache-2.0
"""How a request meets its handler: who asks is found first, errors become answers. Private to the room."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from shipsight.access import LOOPBACK, Principal
from shipsight.errors import InternalError, ShipsightError
from shipsight.serve.http.answers import error_answer
from shipsight.serve.service import PredictionService

__all__ = ["Handler", "bind"]

Handler = Callable[[PredictionService, Principal, Request], Awaitable[Response]]
_log = logging.getLogger("shipsight.serve")
_CLIENT_LEFT = 499


def bind(service: PredictionService, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Makes a handler an endpoint."""

    async def endpoint(request: Request) -> Response:
        try:
            return await handler(service, LOOPBACK, request)
        except ShipsightError as error:
            return error_answer(error)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_LEFT)
        except Exception:  # noqa: BLE001 - the edge of a request
            # The edge: whatever else happens is a bug of ours, told in the log and not to the client.
            _log.exception("a request failed: %s %s", request.method, request.url.path)
            return error_answer(InternalError("the server failed on this request"))

    return endpoint
