# SPDX-License-Identifier: Apache-2.0
"""`grpc.health.v1`: the server's readiness under the empty name, each model's under its names. Private to the room.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md. States are asked when they are wanted, not kept:
a model that comes, goes or fails is told as it is.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc
from grpc_health.v1 import health_pb2

from shipsight.access import Principal
from shipsight.errors import NotFoundError
from shipsight.serve.grpc.handlers import Answer, Answers, Binding, Context
from shipsight.serve.grpc.messages import SERVICE, Message
from shipsight.serve.open_inference import list_endpoints
from shipsight.serve.service import PredictionService

__all__ = ["health_service"]

_EVERY_S = 0.25  # how often a watched state is looked at
_Status = health_pb2.HealthCheckResponse


def health_service(service: PredictionService, binding: Binding) -> grpc.GenericRpcHandler:
    """Returns the health service."""
    health = _Health(service, binding)
    described = health_pb2.DESCRIPTOR.services_by_name["Health"]
    answers: dict[str, Answer | Answers] = {"Check": health.check, "List": health.list_all, "Watch": health.watch}
    return binding.service(described, answers, lambda name: getattr(health_pb2, name))


class _Health:
    def __init__(self, service: PredictionService, binding: Binding) -> None:
        self._service = service
        self._binding = binding

    def _states(self) -> dict[str, bool]:
        """Returns name -> whether it answers."""
        stays = not self._binding.is_leaving
        is_ready = stays and self._service.is_ready()
        # A model that is out of service is known still, and does not answer.
        states = dict.fromkeys((name for name, _ in self._service.models.known()), False)
        for name, model in list_endpoints(self._service.models):
            states[name] = states.get(name, False) or (stays and model.answers)
        return {**states, "": is_ready, SERVICE.full_name: is_ready}

    async def check(self, principal: Principal, request: Message, context: Context) -> Message:
        states = self._states()
        if request.service not in states:
            raise NotFoundError(
                "no such service", where=request.service[:100], expected=", ".join(filter(None, states))
            )
        return _told(states[request.service])

    async def list_all(self, principal: Principal, request: Message, context: Context) -> Message:
        return health_pb2.HealthListResponse(statuses={name: _told(one) for name, one in self._states().items()})

    async def watch(
        self, principal: Principal, requests: AsyncGenerator[Message, None], context: Context
    ) -> AsyncGenerator[Message, None]:
        before = None
        async for request in requests:
            while True:
                is_last = self._binding.is_leaving
                told = _told(self._states().get(request.service))
                if told != before:
                    yield told
                before = told
                if is_last:
                    return
                await self._binding.pause(_EVERY_S)


def _told(answers: bool | None) -> Message:
    """Returns a state; None for a name that nobody knows."""
    if answers is None:
        return _Status(status=_Status.SERVICE_UNKNOWN)
    return _Status(status=_Status.SERVING if answers else _Status.NOT_SERVING)
