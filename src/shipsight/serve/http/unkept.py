# SPDX-License-Identifier: Apache-2.0
"""Routes whose answers, errors included, are kept by no cache on the way. Private to the room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shipsight.access import Principal
from shipsight.errors import ShipsightError
from shipsight.serve.http.answers import error_answer
from shipsight.serve.http.description import DescribedRoute, Operation
from shipsight.serve.http.handlers import bind
from shipsight.serve.needs import Needs
from shipsight.serve.service import PredictionService

__all__ = ["unkept_route"]


def unkept_route(
    service: PredictionService,
    path: str,
    answering: Callable[[Request], Awaitable[Response]],
    *,
    method: str,
    described: Operation,
    needs: Needs,
) -> Route:
    """Returns a route.

    Args:
        service: of the server.
        path: of it.
        answering: answers a request that was let in.
        method: of HTTP.
        described: for the description.
        needs: of whoever asks.
    """

    async def handle(service: PredictionService, principal: Principal, request: Request) -> Response:
        return _unkept(await answering(request))

    endpoint = bind(service, handle, tell=_refused)
    return DescribedRoute(path, endpoint, method=method, described=described, needs=needs, tell=_refused)


def _refused(error: ShipsightError) -> Response:
    return _unkept(error_answer(error))


def _unkept(response: Response) -> Response:
    response.headers["cache-control"] = "no-store"
    return response
