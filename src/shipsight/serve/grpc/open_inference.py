# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol 2 over gRPC, with Triton's extensions: stream, configuration, repository, statistics.

Described in `docs/protocols/open-inference.md`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

import grpc

from shipsight.access import Action, Principal
from shipsight.errors import AccessError, DeadlineError, NotReadyError, ShipsightError
from shipsight.serve.gate import conceal
from shipsight.serve.grpc.handlers import Asking, Binding, Context, Method, given_values, routing_key
from shipsight.serve.grpc.messages import SERVICE, Message, message
from shipsight.serve.grpc.statuses import text_of
from shipsight.serve.grpc.tensors import is_raw, read_request, value_of, write_answer
from shipsight.serve.needs import HANDLER, HEALTH, KNOWN, Needs
from shipsight.serve.open_inference import Endpoint, OpenInference

__all__ = ["open_inference_service"]

_FINAL = "triton_final_response"
_WANTS_FINAL = "triton_enable_empty_final_response"


def open_inference_service(protocol: OpenInference, binding: Binding) -> grpc.GenericRpcHandler:
    """Returns the protocol's service."""
    calls = _Calls(protocol)
    reads, predicts = Needs(Action.MODELS_READ, HANDLER), Needs(Action.MODELS_PREDICT, HANDLER)
    loads = Needs(Action.MODELS_LOAD, HANDLER)
    methods = {
        "ServerLive": Method(HEALTH, calls.server_live),
        "ServerReady": Method(HEALTH, calls.server_ready),
        "ModelReady": Method(reads, calls.model_ready),
        "ServerMetadata": Method(KNOWN, calls.server_metadata),
        "ModelMetadata": Method(reads, calls.model_metadata),
        "ModelInfer": Method(predicts, calls.model_infer),
        "ModelStreamInfer": Method(predicts, calls.model_stream_infer),
        "ModelConfig": Method(reads, calls.model_config),
        "ModelStatistics": Method(reads, calls.model_statistics),
        "RepositoryIndex": Method(reads, calls.repository_index),
        "RepositoryModelLoad": Method(loads, calls.repository_model_load),
        "RepositoryModelUnload": Method(loads, calls.repository_model_unload),
    }
    return binding.service(SERVICE, methods, message)


class _Calls:
    """The protocol's calls as handlers of gRPC; requests and answers are messages of `open_inference.proto`."""

    def __init__(self, protocol: OpenInference) -> None:
        self._protocol = protocol

    async def server_live(self, asking: Asking, request: Message, context: Context) -> Message:
        return message("ServerLiveResponse")(live=True)

    async def server_ready(self, asking: Asking, request: Message, context: Context) -> Message:
        return message("ServerReadyResponse")(ready=self._protocol.service.is_ready())

    async def model_ready(self, asking: Asking, request: Message, context: Context) -> Message:
        try:
            self._protocol.check_ready(
                self._protocol.target(asking.principal, Action.MODELS_READ, request.name, request.version)
            )
        except NotReadyError:
            return message("ModelReadyResponse")(ready=False)
        return message("ModelReadyResponse")(ready=True)

    async def server_metadata(self, asking: Asking, request: Message, context: Context) -> Message:
        return message("ServerMetadataResponse")(**self._protocol.server_metadata())

    async def model_metadata(self, asking: Asking, request: Message, context: Context) -> Message:
        told = self._protocol.metadata(await self._find(asking.principal, request.name, request.version, context))
        return message("ModelMetadataResponse")(**told)

    async def model_config(self, asking: Asking, request: Message, context: Context) -> Message:
        told = self._protocol.config(await self._find(asking.principal, request.name, request.version, context))
        parameters = told.pop("parameters")
        answer = message("ModelConfigResponse")(config=told)
        for name, value in parameters.items():
            answer.config.parameters[name].string_value = value["string_value"]
        return answer

    async def model_statistics(self, asking: Asking, request: Message, context: Context) -> Message:
        found = self._protocol.statistics(asking.principal, request.name, request.version)
        return message("ModelStatisticsResponse")(
            model_stats=[{name: value for name, value in one.items() if name != "batch_stats"} for one in found]
        )

    async def repository_index(self, asking: Asking, request: Message, context: Context) -> Message:
        return message("RepositoryIndexResponse")(
            models=await self._protocol.index(asking.principal, only_ready=request.ready)
        )

    async def repository_model_load(self, asking: Asking, request: Message, context: Context) -> Message:
        name = request.model_name or request.repository_name
        await self._protocol.load(asking.caller, name, _values(request.parameters))
        return message("RepositoryModelLoadResponse")(model_name=name, isLoaded=True)

    async def repository_model_unload(self, asking: Asking, request: Message, context: Context) -> Message:
        name = request.model_name or request.repository_name
        await self._protocol.unload(asking.caller, name, _values(request.parameters))
        return message("RepositoryModelUnloadResponse")(model_name=name, isUnloaded=True)

    async def model_infer(self, asking: Asking, request: Message, context: Context) -> Message:
        return await self._infer(asking.principal, request, context, self._remaining(context))

    async def model_stream_infer(
        self, asking: Asking, requests: AsyncGenerator[Message, None], context: Context
    ) -> AsyncGenerator[Message, None]:
        async for request in requests:
            wants_final = _WANTS_FINAL in request.parameters and request.parameters[_WANTS_FINAL].bool_param
            request.parameters.pop(_WANTS_FINAL, None)
            try:
                # The call's own deadline is for the whole stream.
                answer = await self._infer(asking.principal, request, context, None)
            except AccessError:
                raise  # what a client may do has changed, or it asks for what is not its own: the stream ends
            except ShipsightError as error:
                answer = message("ModelInferResponse")(id=request.id)
                text = text_of(conceal(error, asking.principal))
                yield message("ModelStreamInferResponse")(error_message=text, infer_response=answer)
                continue
            if wants_final:
                answer.parameters[_FINAL].bool_param = True
            yield message("ModelStreamInferResponse")(infer_response=answer)

    async def _find(self, principal: Principal, name: str, version: str, context: Context) -> Endpoint:
        target = self._protocol.target(principal, Action.MODELS_READ, name, version, **routing_key(context))
        return await self._protocol.find(name, target)

    async def _infer(
        self, principal: Principal, request: Message, context: Context, deadline_s: float | None
    ) -> Message:
        name, version = request.model_name, request.model_version
        target = self._protocol.target(principal, Action.MODELS_PREDICT, name, version, **routing_key(context))
        endpoint = await self._protocol.find(request.model_name, target, deadline_s=deadline_s)
        service = self._protocol.service
        limits, subject = service.limits, service.subject_of(partial(given_values, context))
        # Numbers by type are read and written one by one: other requests are not kept waiting for it.
        raw = is_raw(request)
        with self._protocol.counted(endpoint):
            if raw:
                asked = read_request(request, endpoint.inputs, limits)
            else:
                asked = await asyncio.to_thread(read_request, request, endpoint.inputs, limits)
            outputs, version = await self._protocol.infer(
                principal, endpoint, target, asked.tensors, asked.parameters, deadline_s=deadline_s, subject=subject
            )
        if raw:
            return write_answer(endpoint.name, version, outputs, asked)
        return await asyncio.to_thread(write_answer, endpoint.name, version, outputs, asked)

    def _remaining(self, context: Context) -> float | None:
        """Returns the seconds that the client still waits, within the server's limit; None where it did not say.

        Raises:
            DeadlineError: it waits no longer.
        """
        left_s: float | None = context.time_remaining()
        if left_s is None:
            return None
        if left_s <= 0:
            raise DeadlineError("the client's deadline has passed", where="deadline")
        return min(left_s, self._protocol.service.limits.longest_deadline_s)


def _values(parameters: Mapping[str, Message]) -> dict[str, Any]:
    return {name: value_of(name, one) for name, one in parameters.items()}
