# SPDX-License-Identifier: Apache-2.0
"""Access over HTTP, put together. Described in `docs/protocols/access.md`.

Below `/v1/access/`: sign-in (`access_sign_in`), one's own account (`access_account`), administration
(`access_administration`). No answer of these may be kept by a cache, errors included. Private to the room.
"""

from __future__ import annotations

from functools import partial

from starlette.routing import Route

from shipsight.serve.http.access_account import ACCOUNT_ROUTES
from shipsight.serve.http.access_administration import ADMINISTRATION_ROUTES
from shipsight.serve.http.access_edge import AccessEdge, AccessRoute
from shipsight.serve.http.access_fields import schema_of
from shipsight.serve.http.access_sign_in import SIGN_IN_ROUTES
from shipsight.serve.http.description import Operation, answer, operation
from shipsight.serve.http.unkept import unkept_route
from shipsight.serve.service import PredictionService

__all__ = ["access_routes"]

_JSON = "application/json"
_FOUND = 302


def access_routes(service: PredictionService) -> list[Route]:
    """Returns the routes."""
    edge = AccessEdge(service.gate, service.limits)
    return [
        unkept_route(
            service,
            f"/v1/access/{one.path}",
            partial(edge.answer, one),
            method=one.method,
            described=_described(one),
            needs=one.needs,
        )
        for one in (*SIGN_IN_ROUTES, *ACCOUNT_ROUTES, *ADMINISTRATION_ROUTES)
    ]


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
