# SPDX-License-Identifier: Apache-2.0
"""The contracts of managed clouds: SageMaker, Vertex AI, Azure ML. Described in `docs/protocols/clouds.md`.

    SageMaker   GET /ping, POST /invocations
    Azure ML    GET /healthz, GET /readyz, POST /score
    Vertex AI   the routes that it names in AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE; {"instances", "parameters"} in JSON

`/invocations` and `/score` take and give what the native protocol does. They name no model: the server's only one
answers, or the one that `?model=` names. Sources: each provider's container contract.
"""

from __future__ import annotations

import base64
import binascii

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shipsight.access import Action, Principal
from shipsight.errors import UsageError
from shipsight.serve.http.answers import json_answer
from shipsight.serve.http.body import read_body
from shipsight.serve.http.description import DescribedRoute, Operation, answer, operation, query
from shipsight.serve.http.handlers import bind
from shipsight.serve.http.json_body import read_json
from shipsight.serve.http.native import options_of, predict, prediction_operation
from shipsight.serve.http.routing import read_key
from shipsight.serve.http.schemas import ref, thresholds
from shipsight.serve.http.settings import read_settings
from shipsight.serve.limits import Limits
from shipsight.serve.needs import HANDLER, HEALTH, Needs
from shipsight.serve.options import VertexRoutes
from shipsight.serve.questions import EncodedImage, Question, Target
from shipsight.serve.service import PredictionService

__all__ = ["cloud_routes"]

_PREDICTS = Needs(Action.MODELS_PREDICT, HANDLER)
_PARAMETERS = ("conf", "iou", "max_det", "classes", "agnostic_nms")


def cloud_routes(service: PredictionService, vertex: VertexRoutes | None) -> list[Route]:
    """Returns the routes; Vertex AI's where it has named them."""
    limits = service.limits
    which = query("model", {"type": "string", "description": "which model; needed where there are several"})
    ready = answer("ready")
    not_ready = answer("not ready")

    def ping(path: str, cloud: str) -> Route:
        described = operation("Tells whether models answer", tag=cloud, answers={200: ready, 503: not_ready})
        return DescribedRoute(path, bind(service, _ping), method="GET", described=described, needs=HEALTH)

    def invoke(path: str, cloud: str) -> Route:
        described = prediction_operation(limits, tag=cloud, more=[which])
        return DescribedRoute(path, bind(service, _invoke), method="POST", described=described, needs=_PREDICTS)

    routes = [ping("/ping", "sagemaker"), invoke("/invocations", "sagemaker"), invoke("/score", "azure-ml")]
    if vertex is not None:
        described = _vertex_operation(limits, which)
        routes += [
            ping(vertex.health, "vertex"),
            DescribedRoute(vertex.predict, bind(service, _vertex), method="POST", described=described, needs=_PREDICTS),
        ]
    return routes


def _vertex_operation(limits: Limits, which: Operation) -> Operation:
    image = {"type": "string", "contentEncoding": "base64"}
    instance = {"anyOf": [image, {"type": "object", "properties": {"b64": image}, "required": ["b64"]}]}
    known = thresholds(limits)
    asked = {
        "type": "object",
        "properties": {
            "instances": {"type": "array", "items": instance, "minItems": 1, "maxItems": limits.images},
            "parameters": {
                "type": "object",
                "properties": {name: known[name] for name in _PARAMETERS},
                "additionalProperties": False,
            },
        },
        "required": ["instances"],
    }
    told = {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": ref("ImagePredictions")}, "model": {"type": "string"}},
        "required": ["predictions", "model"],
    }
    return operation(
        "Predicts on images",
        tag="vertex",
        parameters=[which],
        body={"application/json": asked},
        answers={200: answer("one entry an instance", {"application/json": told})},
        errors=(404, 413, 415, 504),
    )


async def _ping(service: PredictionService, principal: Principal, request: Request) -> Response:
    return Response(status_code=200 if service.is_ready() else 503)


async def _invoke(service: PredictionService, principal: Principal, request: Request) -> Response:
    options = options_of(request)
    model = _model(service, principal, options.pop("model", None))
    return await predict(service, principal, request, model=model, options=options)


def _model(service: PredictionService, principal: Principal, asked: str | None) -> str:
    """Returns which model is meant: of those that the principal may ask, the only one, where none is named.

    Raises:
        ForbiddenError: it may not ask the one that is named.
        UsageError: none is named, and there are several.
    """
    if asked is not None:
        principal.require(Action.MODELS_PREDICT, asked)
        return asked
    names = sorted({one.name for one in service.models.all() if principal.may(Action.MODELS_PREDICT, one.name)})
    if len(names) != 1:
        raise UsageError("this server has several models", where="?model=", expected=", ".join(names) or "a model")
    return names[0]


async def _vertex(service: PredictionService, principal: Principal, request: Request) -> Response:
    """Answers `{"instances": [image, ...], "parameters": {...}}`, an image as base64 or `{"b64": base64}`."""
    model = _model(service, principal, request.query_params.get("model"))
    told = read_json(await read_body(request, service.limits))
    if not isinstance(told, dict) or not isinstance(told.get("instances"), list):
        raise UsageError("not a request", where="body", expected='{"instances": [...]}')
    service.limits.check_images(len(told["instances"]))
    question = Question(
        Target(model, **read_key(request)),
        [_instance(one, position) for position, one in enumerate(told["instances"])],
        read_settings(told.get("parameters", {}), _PARAMETERS),
        subject=service.subject_of(request.headers.getlist),
    )
    found = (await service.predict(principal, question)).predictions
    answered_by = f"{found.model}/{found.version}/{found.variant}"
    return json_answer({"predictions": [one.to_dict() for one in found.images], "model": answered_by})


def _instance(given: object, position: int) -> EncodedImage:
    text = given.get("b64") if isinstance(given, dict) else given
    try:
        if not isinstance(text, str):
            raise TypeError
        return EncodedImage(base64.b64decode(text, validate=True))
    except (TypeError, ValueError, binascii.Error):
        raise UsageError("not an image in base64", where=f"instances[{position}]", expected='{"b64": "..."}') from None
