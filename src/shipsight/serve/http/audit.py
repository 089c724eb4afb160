# SPDX-License-Identifier: Apache-2.0
"""The audit log over HTTP, put together. Described in `docs/protocols/audit.md`.

Below `/v1/audit/`: entries (`audit_records`), state and verification (`audit_state`), reviews (`audit_reviews`). Nothing here changes
or adds to the log but what is recorded of the asking itself. No answer of these may be kept by a cache, errors included.
Private to the room.
"""

from __future__ import annotations

from functools import partial

from starlette.routing import Route

from shipsight.serve.http.access_fields import schema_of
from shipsight.serve.http.audit_edge import AuditEdge, AuditRoute
from shipsight.serve.http.audit_records import RECORD_ROUTES
from shipsight.serve.http.audit_reviews import REVIEW_ROUTES
from shipsight.serve.http.audit_state import STATE_ROUTES
from shipsight.serve.http.description import Operation, answer, operation
from shipsight.serve.http.unkept import unkept_route
from shipsight.serve.service import PredictionService

__all__ = ["AUDIT_ROUTES", "audit_routes"]

AUDIT_ROUTES = (*RECORD_ROUTES, *STATE_ROUTES, *REVIEW_ROUTES)
_JSON = "application/json"


def audit_routes(service: PredictionService) -> list[Route]:
    """Returns the routes."""
    edge = AuditEdge(service.gate, service.limits)
    return [
        unkept_route(
            service,
            f"/v1/audit/{one.path}",
            partial(edge.answer, one),
            method=one.method,
            described=_described(one),
            needs=one.needs,
        )
        for one in AUDIT_ROUTES
    ]


def _described(one: AuditRoute) -> Operation:
    return operation(
        one.summary,
        tag="audit",
        answers={one.status: answer("done", one.gives)},
        parameters=tuple(one.query.values()),
        body={_JSON: schema_of(one.fields)} if one.method != "GET" else None,
        needs_body=any(field.is_required for field in one.fields.values()),
        errors={404, 413, *one.errors},
    )
