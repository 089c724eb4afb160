# SPDX-License-Identifier: Apache-2.0
"""Access over HTTP, put together. Described in `docs/protocols/access.md`.

Below `/v1/access/`: sign-in (`access_sign_in`), one's own account (`access_account`), administration
(`access_administration`). No answer of these may be kept by a cache, errors included. Private to the room.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shipsight.access import Principal
from shipsight.errors import ShipsightError
from shipsight.serve.http.access_account import ACCOUNT_ROUTES
from shipsight.serve.http.access_administration import ADMINISTRATION_ROUTES
from shipsight.serve.http.access_edge import AccessEdge, AccessRoute
from shipsight.serve.http.access_fields import schema_of
from shipsight.serve.http.access_sign_in import SIGN_IN_ROUTES
from shipsight.serve.http.answers import error_answer
from shipsight.serve.http.description import DescribedRoute, Operation, answer, operation
from shipsight.serve.http.handlers import bind
from shipsight.serve.service import PredictionService

__all__ = ["access_routes"]

_JSON = "application/json"
_FOUND = 302


def access_routes(service: PredictionService) -> list[Route]:
    """Returns the routes."""
    edge = AccessEdge(service.gate, service.limits)
    return [_route(service, edge, one) for one in (*SIGN_IN_ROUTES, *ACCOUNT_ROUTES, *ADMINISTRATION_ROUTES)]


def _route(service: PredictionService, edge: AccessEdge, one: AccessRoute) -> Route:
    async def handle(service: PredictionService, principal: Principal, request: Request) -> Response:
        return _unkept(await edge.answer(one, request))

    return DescribedRoute(
        f"/v1/access/{one.path}",
        bind(service, handle, tell=_refused),
        method=one.method,
        described=_described(one),
        needs=one.needs,
        tell=_refused,
    )


def _described(one: AccessRoute) -> Operation:
    takes_body = one.method in ("POST", "PUT", "PATCH")
    needs_body = any(field.is_required for field in one.fields.values())
    content = None if one.status == _FOUND else {_JSON: one.gives}
    return operation(
        one.summary,
        tag="access",
        answers={one.status: answer("where to go on" if content is None else "done", content)},
        body={_JSON: schema_of(one.fields)} if takes_body else None,
        needs_body=needs_body,
        errors=(404, *((409,) if "before" in one.fields else ()), 413, 429),
    )


def _refused(error: ShipsightError) -> Response:
    return _unkept(error_answer(error))


def _unkept(response: Response) -> Response:
    response.headers["cache-control"] = "no-store"
    return response
