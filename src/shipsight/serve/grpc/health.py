# SPDX-License-Identifier: Apache-2.0
"""`grpc.health.v1`: the server's readiness under the empty name, each model's under its names. Private to the room.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md. States are asked when they are wanted, not kept:
a model that comes, goes or fails is told as it is. The server's own state is for anyone; a model's for those who may see it,
and to others it is as one that there is not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc
from grpc_health.v1 import health_pb2

from shipsight.access import Action, Principal, PrincipalKind
from shipsight.errors import AuthenticationError, NotFoundError
from shipsight.serve.grpc.handlers import Asking, Binding, Context, Method
from shipsight.serve.grpc.messages import SERVICE, Message
from shipsight.serve.needs import HEALTH
from shipsight.serve.open_inference import list_endpoints
from shipsight.serve.service import PredictionService

__all__ = ["health_service"]

_EVERY_S = 0.25  # how often a watched state is looked at
_Status = health_pb2.HealthCheckResponse


def health_service(service: PredictionService, binding: Binding) -> grpc.GenericRpcHandler:
    """Returns the health service."""
    health = _Health(service, binding)
    described = health_pb2.DESCRIPTOR.services_by_name["Health"]
    methods = {
        "Check": Method(HEALTH, health.check),
        "List": Method(HEALTH, health.list_all),
        "Watch": Method(HEALTH, health.watch),
    }
    return binding.service(described, methods, lambda name: getattr(health_pb2, name))


class _Health:
    def __init__(self, service: PredictionService, binding: Binding) -> None:
        self._service = service
        self._binding = binding

    def _states(self, principal: Principal) -> dict[str, bool]:
        """Returns name -> whether it answers, of what a principal may see."""
        stays = not self._binding.is_leaving
        is_ready = stays and self._service.is_ready()
        # A model that is out of service is known still, and does not answer.
        known = (name for name, _ in self._service.models.known() if principal.may(Action.MODELS_READ, name))
        states = dict.fromkeys(known, False)
        for name, model in list_endpoints(self._service.models):
            if principal.may(Action.MODELS_READ, model.name):
                states[name] = states.get(name, False) or (stays and model.answers)
        return {**states, "": is_ready, SERVICE.full_name: is_ready}

    async def check(self, asking: Asking, request: Message, context: Context) -> Message:
        states = self._states(asking.principal)
        if request.service not in states:
            if asking.principal.kind is PrincipalKind.NOBODY:
                raise AuthenticationError("say who you are", expected="an API key or a client certificate")
            raise NotFoundError(
                "no such service", where=request.service[:100], expected=", ".join(filter(None, states))
            )
        return _told(states[request.service])

    async def list_all(self, asking: Asking, request: Message, context: Context) -> Message:
        return health_pb2.HealthListResponse(
            statuses={name: _told(one) for name, one in self._states(asking.principal).items()}
        )

    async def watch(
        self, asking: Asking, requests: AsyncGenerator[Message, None], context: Context
    ) -> AsyncGenerator[Message, None]:
        before = None
        async for request in requests:
            while True:
                is_last = self._binding.is_leaving
                await asking.still()
                told = _told(self._states(asking.principal).get(request.service))
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
