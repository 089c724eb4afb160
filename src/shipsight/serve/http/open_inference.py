# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol 2 over REST, with Triton's extensions: binary tensors, configuration, repository, statistics.

Described in `docs/protocols/open-inference.md`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Collection
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from shipsight import __version__
from shipsight.access import Principal
from shipsight.errors import ShipsightError, UsageError
from shipsight.serve.http.answers import headers_of, json_answer, status_of
from shipsight.serve.http.body import read_body
from shipsight.serve.http.description import DescribedRoute
from shipsight.serve.http.handlers import Handler, bind
from shipsight.serve.http.json_body import read_json
from shipsight.serve.http.open_inference_description import described_operations
from shipsight.serve.http.routing import read_key
from shipsight.serve.http.settings import read_settings
from shipsight.serve.http.tensors import InferRequest, read_request, write_answer
from shipsight.serve.models import ModelState, ServedModel
from shipsight.serve.open_inference import (
    Endpoint,
    config_of,
    endpoint_of,
    list_endpoints,
    metadata_of,
    model_of,
)
from shipsight.serve.request_notes import note_error
from shipsight.serve.service import EncodedImage, PredictionService, Question, Target

__all__ = ["open_inference_routes"]

_EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
_MOST_CHARACTERS = 1000  # of an error: it may say back what a client sent
_PARAMETERS = ("conf", "iou", "max_det", "agnostic_nms")
_STATES = {
    ModelState.READY: "READY",
    ModelState.LOADING: "LOADING",
    ModelState.RESTARTING: "LOADING",
    ModelState.FAILED: "UNAVAILABLE",
    ModelState.EVICTED: "UNAVAILABLE",
}


def open_inference_routes(service: PredictionService) -> list[Route]:
    """Returns the protocol's routes."""
    protocol = _Protocol(Counter())

    described = described_operations(service.limits)

    def route(path: str, handler: Handler, method: str = "GET") -> Route:
        endpoint = bind(service, _told_plainly(handler))
        return DescribedRoute(path, endpoint, method=method, described=described[handler.__name__])

    routes = [
        route("/v2", protocol.server),
        route("/v2/health/live", protocol.live),
        route("/v2/health/ready", protocol.ready),
        route("/v2/repository/index", protocol.index, "POST"),
        route("/v2/repository/models/{model}/load", protocol.load, "POST"),
        route("/v2/repository/models/{model}/unload", protocol.unload, "POST"),
        route("/v2/models/stats", protocol.statistics),
    ]
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            route(prefix, protocol.metadata),
            route(f"{prefix}/ready", protocol.model_ready),
            route(f"{prefix}/config", protocol.config),
            route(f"{prefix}/stats", protocol.statistics),
            route(f"{prefix}/infer", protocol.infer, "POST"),
        ]
    return routes


def _told_plainly(handler: Handler) -> Handler:
    """Gives errors as the protocol has them: `{"error": "text"}`."""

    async def handle(service: PredictionService, principal: Principal, request: Request) -> Response:
        try:
            return await handler(service, principal, request)
        except ShipsightError as error:
            note_error(error.code)
            status = status_of(error)
            text = "the server failed on this request" if status == 500 else str(error)[:_MOST_CHARACTERS]
            return json_answer({"error": text, "code": error.code}, status, headers_of(error))

    return handle


class _Protocol:
    """The handlers, and what they count for the statistics extension."""

    def __init__(self, counts: Counter[tuple[str, str, str]]) -> None:
        self._counts = counts  # (name, version, what) -> number or nanoseconds

    async def server(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        return json_answer({"name": "shipsight", "version": __version__, "extensions": list(_EXTENSIONS)})

    async def live(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        return json_answer({"live": True})

    async def ready(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        is_ready = service.is_ready()
        return json_answer({"ready": is_ready, "live": True}, 200 if is_ready else 503)

    async def model_ready(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        # Asking whether a model answers does not bring back one that was pushed out: a request does.
        model = _find(service, request)
        if not model.answers:
            service.models.get(model.name, model.version)
        return json_answer({"name": request.path_params["model"], "ready": True})

    async def metadata(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        endpoint = await _endpoint(service, request)
        versions = [one.version for name, one in list_endpoints(service.models) if name == endpoint.name]
        return json_answer(metadata_of(endpoint, versions))

    async def config(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        return json_answer(config_of(await _endpoint(service, request)))

    async def index(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        only_ready = _index_filter(await read_body(request, service.limits))
        found = []
        for name, model in list_endpoints(service.models):
            state = _STATES.get(model.state, "UNLOADING")
            if state == "READY" or not only_ready:
                reason = "" if model.error is None else model.error.what
                if model.state is ModelState.EVICTED:
                    reason = "gave its memory to others; the next request loads it"
                found.append({"name": name, "version": model.version, "state": state, "reason": reason})
        in_service = {(model.name, model.version) for model in service.models.all()}
        if not only_ready:
            found += [
                {"name": name, "version": version, "state": "UNAVAILABLE", "reason": "not loaded"}
                for name, version in await asyncio.to_thread(service.models.known)
                if (name, version) not in in_service
            ]
        return json_answer(found)

    async def load(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        version = _load_version(await read_body(request, service.limits))
        name = model_of(service.models, request.path_params["model"])
        await asyncio.to_thread(service.models.reload, name, version)
        return json_answer({})

    async def unload(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        _read_parameters(await read_body(request, service.limits), ("unload_dependents",))
        name = model_of(service.models, request.path_params["model"])
        await asyncio.to_thread(service.models.unload, name)
        return json_answer({})

    async def statistics(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        asked = request.path_params.get("model")
        if asked is not None:
            _find(service, request)
        found = [
            self._statistics(name, model.version)
            for name, model in list_endpoints(service.models)
            if asked in (None, name)
        ]
        return json_answer({"model_stats": found})

    def _statistics(self, name: str, version: str) -> dict[str, Any]:
        def pair(what: str) -> dict[str, int]:
            return {"count": self._counts[name, version, what], "ns": self._counts[name, version, f"{what}_ns"]}

        return {
            "name": name,
            "version": version,
            "last_inference": self._counts[name, version, "last"],
            "inference_count": self._counts[name, version, "success"],
            "execution_count": self._counts[name, version, "success"],
            "inference_stats": {
                what: pair(what)
                for what in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
            },
            "batch_stats": [],
        }

    async def infer(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        endpoint = await _endpoint(service, request)
        begin = time.perf_counter_ns()
        version = endpoint.model.version
        try:
            asked = await _read(request, service, endpoint)
            if endpoint.takes_images:
                outputs, version = await self._predict(service, principal, request, endpoint, asked)
            else:
                outputs = await self._infer(service, principal, endpoint, asked)
        except (ShipsightError, ClientDisconnect):
            self._count(endpoint, "fail", time.perf_counter_ns() - begin)
            raise
        self._count(endpoint, "success", time.perf_counter_ns() - begin)
        self._counts[endpoint.name, endpoint.model.version, "last"] = time.time_ns() // 1_000_000
        head = {"model_name": endpoint.name, "model_version": version}
        body, header_size = write_answer(head, outputs, asked)
        if header_size is None:
            return Response(body, media_type="application/json")
        headers = {"inference-header-content-length": str(header_size)}
        return Response(body, headers=headers, media_type="application/octet-stream")

    def _count(self, endpoint: Endpoint, what: str, ns: int) -> None:
        self._counts[endpoint.name, endpoint.model.version, what] += 1
        self._counts[endpoint.name, endpoint.model.version, f"{what}_ns"] += ns

    async def _infer(
        self, service: PredictionService, principal: Principal, endpoint: Endpoint, asked: InferRequest
    ) -> dict[str, Any]:
        (tensor,) = asked.tensors.values()
        target = Target(endpoint.model.name, endpoint.model.version, endpoint.runner.variant.name)
        assert not isinstance(tensor, list)
        begin = time.perf_counter_ns()
        outputs = await service.infer(principal, target, tensor)
        self._count(endpoint, "compute_infer", time.perf_counter_ns() - begin)
        return dict(outputs)

    async def _predict(
        self,
        service: PredictionService,
        principal: Principal,
        request: Request,
        endpoint: Endpoint,
        asked: InferRequest,
    ) -> tuple[dict[str, Any], str]:
        (images,) = asked.tensors.values()
        assert isinstance(images, list)
        question = Question(
            _target(service, request),
            [EncodedImage(image) for image in images],
            read_settings({k: v for k, v in asked.parameters.items() if k != "binary_data_output"}, _PARAMETERS),
        )
        answer = await service.predict(principal, question)
        stages = answer.stages_ms
        for what, names in (
            ("queue", ("queue",)),
            ("compute_input", ("decode", "prepare")),
            ("compute_infer", ("infer",)),
            ("compute_output", ("postprocess",)),
        ):
            self._count(endpoint, what, int(sum(stages[name] for name in names) * 1e6))
        texts = [json.dumps(one.to_dict()).encode() for one in answer.predictions.images]
        return {"predictions": texts}, answer.predictions.version


def _target(service: PredictionService, request: Request) -> Target:
    """Returns what a request means; the same each time, since a key that the client does not give is made once."""
    if not hasattr(request.state, "target"):
        name = model_of(service.models, request.path_params["model"])
        request.state.target = Target(name, request.path_params.get("version"), **read_key(request))
    target: Target = request.state.target
    return target


def _find(service: PredictionService, request: Request) -> ServedModel:
    target = _target(service, request)
    return service.models.find(target.model, target.version, target.key)


async def _endpoint(service: PredictionService, request: Request) -> Endpoint:
    return endpoint_of(request.path_params["model"], await service.model_for(_target(service, request)))


async def _read(request: Request, service: PredictionService, endpoint: Endpoint) -> InferRequest:
    size = request.headers.get("inference-header-content-length")
    if size is not None and not (size.isascii() and size.isdecimal() and len(size) < 12):
        raise UsageError("not a size", where="Inference-Header-Content-Length", got=size[:40])
    body = await read_body(request, service.limits)
    return read_request(body, None if size is None else int(size), endpoint.inputs, service.limits)


def _load_version(body: bytes) -> str | None:
    """Returns the version that `{"parameters": {"version": ...}}` names; other parameters are refused."""
    version = _read_parameters(body, ("version",)).get("version")
    if not isinstance(version, str | None):
        raise UsageError("not a version", where="version", expected="a text", got=type(version).__name__)
    return version


def _index_filter(body: bytes) -> bool:
    told = read_json(body) if body else {}
    if not isinstance(told, dict) or not isinstance(told.get("ready", False), bool):
        raise UsageError("not a filter", where="body", expected='{"ready": true or false}')
    return bool(told.get("ready", False))


def _read_parameters(body: bytes, allowed: Collection[str]) -> dict[str, Any]:
    """Triton takes another configuration and files of a model here; a bundle has its own."""
    told = read_json(body) if body else {}
    given = told.get("parameters", {}) if isinstance(told, dict) else None
    if not isinstance(given, dict) or not set(given) <= set(allowed):
        raise UsageError("no such parameter", where="parameters", expected=", ".join(allowed) or "none")
    return given
