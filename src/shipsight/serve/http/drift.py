# SPDX-License-Identifier: Apache-2.0
"""Drift over HTTP. Described in `docs/monitoring.md`.

GET  /v1/models/{model}/drift           how each variant of a model stands
POST /v1/models/{model}/drift/forget    {"version", "variant"}, both optional: what comes from now on is the reference

Private to the room.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shipsight.access import Action, Event, EventKind, Outcome, Principal
from shipsight.errors import NotFoundError
from shipsight.monitor.drift import Drift, Estimate
from shipsight.serve.http.access_fields import Field, read_fields, schema_of
from shipsight.serve.http.admission import admit_again
from shipsight.serve.http.answers import json_answer
from shipsight.serve.http.body import read_json_body
from shipsight.serve.http.description import DescribedRoute, answer, operation
from shipsight.serve.http.handlers import bind
from shipsight.serve.monitors import Monitors
from shipsight.serve.needs import Needs
from shipsight.serve.service import PredictionService

__all__ = ["drift_routes"]

_TEXT: dict[str, Any] = {"type": "string"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
_FLAG: dict[str, Any] = {"type": "boolean"}
_EITHER: dict[str, Any] = {"type": ["number", "string"]}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


_FEATURE = {
    "feature": _TEXT,
    "effect": _SHARE,
    "p": _SHARE,
    "alarm": _FLAG,
    "before": _EITHER,
    "here": _EITHER,
    "images": _COUNT,
}
_FEATURES = {"type": "array", "items": _object(_FEATURE)}
_COUNTS = ("taken", "unreadable", "reference", "window", "spacing", "windows")
_MONITOR = {
    "version": _TEXT,
    "variant": _TEXT,
    "phase": _TEXT,
    **dict.fromkeys(_COUNTS, _COUNT),
    "kept": _FLAG,
    "features": _FEATURES,
    "trends": _FEATURES,
    "precision": {
        "oneOf": [
            _object(
                {
                    **dict.fromkeys(("value", "low", "high", "measured", "conf"), _SHARE),
                    "images": _COUNT,
                    "predictions": _COUNT,
                    "alarm": _FLAG,
                }
            ),
            {"type": "null"},
        ]
    },
    "not_estimated": {"type": ["string", "null"]},
}
_REPORT = _object({"model": _TEXT, "drifting": _FLAG, "monitors": {"type": "array", "items": _object(_MONITOR)}})
_FORGET = {"version": Field(is_required=False), "variant": Field(is_required=False)}
_GIVES = {200: answer("how each variant stands", {"application/json": _REPORT})}
_READ = operation("Tells how drift stands", tag="drift", answers=_GIVES, errors=(404,))
_CHANGE = operation(
    "Takes what comes from now on for the reference",
    tag="drift",
    answers=_GIVES,
    body={"application/json": schema_of(_FORGET)},
    needs_body=False,
    errors=(404, 413, 422),
)


def drift_routes(service: PredictionService, monitors: Monitors | None) -> list[Route]:
    """Returns the routes.

    Args:
        service: of the server.
        monitors: of the server; None where nobody looks for drift: then both are refused as not there.
    """

    def watched(model: str) -> Monitors:
        if monitors is None:
            raise NotFoundError("this server does not look for drift", where=model[:100])
        service.models.find(model)
        return monitors

    async def report(service: PredictionService, principal: Principal, request: Request) -> Response:
        model = request.path_params["model"]
        return json_answer(_told(watched(model), model))

    async def forget(service: PredictionService, principal: Principal, request: Request) -> Response:
        given = read_fields(await read_json_body(request, service.limits), _FORGET)
        told = {name: value for name, value in given.items() if value is not None}
        model = request.path_params["model"]
        principal = (await admit_again(request.scope)).principal
        found, gate = watched(model), service.gate
        event = Event(
            gate.now(),
            EventKind.CONFIGURATION_CHANGED,
            Outcome.DONE,
            principal.told(),
            model,
            details={"drift reference": "kept -> forgotten", **told},
        )
        # Which of them began anew is known after; that it was asked is on record before.
        await asyncio.to_thread(gate.events.record, event)
        await asyncio.to_thread(partial(found.forget, model, **told))
        return json_answer(_told(found, model))

    path = "/v1/models/{model}/drift"
    reads, changes = Needs(Action.METRICS_READ), Needs(Action.MODELS_LOAD, "model")
    return [
        DescribedRoute(path, bind(service, report), method="GET", described=_READ, needs=reads),
        DescribedRoute(f"{path}/forget", bind(service, forget), method="POST", described=_CHANGE, needs=changes),
    ]


def _told(monitors: Monitors, model: str) -> dict[str, Any]:
    told = []
    for key, report, is_kept in monitors.reports(model):
        figures = asdict(report)
        counts = {name: figures[name] for name in _COUNTS}
        told.append(
            {
                "version": key.version,
                "variant": key.variant,
                "phase": report.phase.value,
                **counts,
                "kept": is_kept,
                "features": [_shown(one) for one in report.drifts],
                "trends": [_shown(one) for one in report.trends],
                "precision": None if report.accuracy is None else _precision(report.accuracy),
                "not_estimated": report.not_estimated,
            }
        )
    return {"model": model, "drifting": monitors.is_drifting(model), "monitors": told}


def _shown(one: Drift) -> dict[str, Any]:
    return {
        "feature": one.feature,
        "effect": one.effect,
        "p": one.p_family,
        "alarm": one.is_alarm,
        "before": one.before,
        "here": one.here,
        "images": one.images,
    }


def _precision(one: Estimate) -> dict[str, Any]:
    told = asdict(one)
    told["alarm"] = told.pop("is_alarm")
    return told
