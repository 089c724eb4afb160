# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol 2 over REST, with Triton's extensions: binary tensors, configuration, repository, statistics.

Described in `docs/protocols/open-inference.md`.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shipsight.access import Action, Principal
from shipsight.errors import AuditError, ShipsightError, UsageError
from shipsight.protect import SealedProtocol
from shipsight.serve.http.admission import admit_again
from shipsight.serve.http.answers import headers_of, json_answer, status_of
from shipsight.serve.http.body import read_body, read_view
from shipsight.serve.http.description import DescribedRoute
from shipsight.serve.http.handlers import Handler, bind
from shipsight.serve.http.json_body import read_json
from shipsight.serve.http.open_inference_description import described_operations
from shipsight.serve.http.routing import read_key
from shipsight.serve.http.tensors import InferRequest, read_request, write_answer
from shipsight.serve.needs import HANDLER, HEALTH, KNOWN, Needs
from shipsight.serve.open_inference import Endpoint, OpenInference
from shipsight.serve.questions import Target
from shipsight.serve.request_notes import note_error
from shipsight.serve.service import PredictionService

__all__ = ["open_inference_routes"]

_MOST_CHARACTERS = 1000  # of an error: it may say back what a client sent


def open_inference_routes(protocol: OpenInference) -> list[Route]:
    """Returns the protocol's routes."""
    calls = _Calls(protocol)

    described = described_operations(protocol.service.limits)

    def route(path: str, handler: Handler, needs: Needs, method: str = "GET") -> Route:
        sealed = SealedProtocol.OPEN_INFERENCE if handler.__name__ == "infer" else None
        endpoint = bind(protocol.service, handler, tell=_tell_plainly, sealed=sealed)
        operation = described[handler.__name__]
        return DescribedRoute(path, endpoint, method=method, described=operation, needs=needs, tell=_tell_plainly)

    # A name in the path is an endpoint's: the handler finds the model that it stands for.
    reads, loads = Needs(Action.MODELS_READ, HANDLER), Needs(Action.MODELS_LOAD, HANDLER)
    routes = [
        route("/v2", calls.server, KNOWN),
        route("/v2/health/live", calls.live, HEALTH),
        route("/v2/health/ready", calls.ready, HEALTH),
        route("/v2/repository/index", calls.index, reads, "POST"),
        route("/v2/repository/models/{model}/load", calls.load, loads, "POST"),
        route("/v2/repository/models/{model}/unload", calls.unload, loads, "POST"),
        route("/v2/models/stats", calls.statistics, reads),
    ]
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            route(prefix, calls.metadata, reads),
            route(f"{prefix}/ready", calls.model_ready, reads),
            route(f"{prefix}/config", calls.config, reads),
            route(f"{prefix}/stats", calls.statistics, reads),
            route(f"{prefix}/infer", calls.infer, Needs(Action.MODELS_PREDICT, HANDLER), "POST"),
        ]
    return routes


def _tell_plainly(error: ShipsightError) -> Response:
    """Gives an error as the protocol has it: `{"error": "text"}`."""
    note_error(error.code)
    status = status_of(error)
    # What went wrong inside, with a bundle or with the audit log may name files of this machine.
    told = {422: error.what, 500: "the server failed on this request"}
    text = told.get(status, error.what if isinstance(error, AuditError) else str(error))[:_MOST_CHARACTERS]
    return json_answer({"error": text, "code": error.code}, status, headers_of(error))


class _Calls:
    """The protocol's calls as handlers of HTTP."""

    def __init__(self, protocol: OpenInference) -> None:
        self._protocol = protocol

    async def server(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        return json_answer(self._protocol.server_metadata())

    async def live(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        return json_answer({"live": True})

    async def ready(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        is_ready = service.is_ready()
        return json_answer({"ready": is_ready, "live": True}, 200 if is_ready else 503)

    async def model_ready(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        self._protocol.check_ready(self._target(principal, request))
        return json_answer({"name": request.path_params["model"], "ready": True})

    async def metadata(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        return json_answer(self._protocol.metadata(await self._find(principal, request)))

    async def config(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        return json_answer(self._protocol.config(await self._find(principal, request)))

    async def index(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        told = _read_mapping(await read_body(request, service.limits))
        only_ready = told.get("ready", False)
        if not isinstance(only_ready, bool):
            raise UsageError("not a filter", where="body", expected='{"ready": true or false}')
        return json_answer(await self._protocol.index(principal, only_ready=only_ready))

    async def load(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        parameters = _read_parameters(await read_body(request, service.limits))
        await self._protocol.load(await admit_again(request.scope), request.path_params["model"], parameters)
        return json_answer({})

    async def unload(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        parameters = _read_parameters(await read_body(request, service.limits))
        await self._protocol.unload(await admit_again(request.scope), request.path_params["model"], parameters)
        return json_answer({})

    async def statistics(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        path = request.path_params
        return json_answer(
            {"model_stats": self._protocol.statistics(principal, path.get("model"), path.get("version"))}
        )

    async def infer(self, service: PredictionService, principal: Principal, request: Request) -> Response:
        target = self._target(principal, request, Action.MODELS_PREDICT)
        endpoint = await self._protocol.find(request.path_params["model"], target)
        with self._protocol.counted(endpoint):
            asked = await _read(request, service, endpoint)
            subject = service.subject_of(request.headers.getlist)
            tensors, parameters = asked.tensors, asked.parameters
            outputs, version = await self._protocol.infer(
                principal, endpoint, target, tensors, parameters, subject=subject
            )
        head = {"model_name": endpoint.name, "model_version": version}
        body, header_size = write_answer(head, outputs, asked)
        if header_size is None:
            return Response(body, media_type="application/json")
        headers = {"inference-header-content-length": str(header_size)}
        return Response(body, headers=headers, media_type="application/octet-stream")

    def _target(self, principal: Principal, request: Request, action: Action = Action.MODELS_READ) -> Target:
        path = request.path_params
        return self._protocol.target(principal, action, path["model"], path.get("version"), **read_key(request))

    async def _find(self, principal: Principal, request: Request) -> Endpoint:
        return await self._protocol.find(request.path_params["model"], self._target(principal, request))


async def _read(request: Request, service: PredictionService, endpoint: Endpoint) -> InferRequest:
    size = request.headers.get("inference-header-content-length")
    if size is not None and not (size.isascii() and size.isdecimal() and len(size) < 12):
        raise UsageError("not a size", where="Inference-Header-Content-Length", got=size[:40])
    body = await read_view(request, service.limits)
    return read_request(body, None if size is None else int(size), endpoint.inputs, service.limits)


def _read_mapping(body: bytes) -> dict[str, Any]:
    """Reads a body that may be missing.

    Raises:
        UsageError: it is no mapping.
    """
    told = read_json(body) if body else {}
    if not isinstance(told, dict):
        raise UsageError("not a mapping", where="body", got=type(told).__name__)
    return told


def _read_parameters(body: bytes) -> dict[str, Any]:
    given = _read_mapping(body).get("parameters", {})
    if not isinstance(given, dict):
        raise UsageError("not a mapping", where="parameters", got=type(given).__name__)
    return given
