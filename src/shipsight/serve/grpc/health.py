# SPDX-License-Identifier: Apache-2.0
"""`grpc.health.v1`: the server's readiness under the empty name, each model's under its names. Private to the room.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md. States are asked when they are wanted: a model that
comes, goes or fails is told as it is, to who watches within half a second. All who watch share one look, and there are few of them,
since anyone may watch and watching has no end. The server's own state is for anyone; a model's for those who may see it,
and to others it is as one that there is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2

from shipsight.access import Action, Principal, PrincipalKind
from shipsight.errors import AuthenticationError, NotFoundError, OverloadedError
from shipsight.serve.grpc.handlers import Asking, Binding, Context, Method
from shipsight.serve.grpc.messages import SERVICE, Message
from shipsight.serve.needs import HEALTH
from shipsight.serve.open_inference import list_endpoints
from shipsight.serve.service import PredictionService

__all__ = ["health_service"]

_EVERY_S = 0.25  # how often a watched state is looked at
_MOST_WATCHES = 32
_MOST_NOBODYS = 8  # of them, without a credential
_Status = health_pb2.HealthCheckResponse


@dataclass(frozen=True)
class _Look:
    """What a look found.

    Attributes:
        names: of models -> the model behind each, and whether it answers.
        is_ready: whether the server is.
    """

    names: dict[str, tuple[str, bool]]
    is_ready: bool

    def state(self, principal: Principal, name: str) -> bool | None:
        """Returns whether a name answers, None where this principal may not see one of that name."""
        if name in ("", SERVICE.full_name):
            return self.is_ready
        model, answers = self.names.get(name, (None, False))
        return answers if model is not None and principal.may(Action.MODELS_READ, model) else None

    def states(self, principal: Principal) -> dict[str, bool]:
        """Returns all that a principal may see."""
        seen = {name: self.state(principal, name) for name in (*self.names, "", SERVICE.full_name)}
        return {name: one for name, one in seen.items() if one is not None}


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
        self._watching: list[PrincipalKind] = []
        self._shared: _Look | None = None
        self._shared_at = 0.0
        self._looking = asyncio.Lock()

    async def _look(self, principal: Principal | None = None) -> _Look:
        """Looks; for a principal who may see no model, at the server alone."""
        known = []
        if principal is None or principal.rights.allows_somewhere(Action.MODELS_READ):
            # The repository is a folder: not on the event loop.
            known = await asyncio.to_thread(self._service.models.known)
        stays = not self._binding.is_leaving
        # A model that is out of service is known still, and does not answer.
        names = {name: (name, False) for name, _ in known}
        for name, model in list_endpoints(self._service.models):
            names[name] = (model.name, names.get(name, ("", False))[1] or (stays and model.answers))
        return _Look(names, stays and self._service.is_ready())

    async def _shared_look(self) -> _Look:
        """Returns a look that is at most a quarter of a second old; one for all who watch."""
        async with self._looking:
            at = asyncio.get_running_loop().time()
            # One from before the server began to leave would keep from a watcher that it did.
            if self._shared is None or at - self._shared_at >= _EVERY_S or self._binding.is_leaving:
                self._shared, self._shared_at = await self._look(), at
            return self._shared

    async def check(self, asking: Asking, request: Message, context: Context) -> Message:
        principal = asking.principal
        look = await self._look(principal)
        state = look.state(principal, request.service)
        if state is None:
            if principal.kind is PrincipalKind.NOBODY:
                raise AuthenticationError("say who you are", expected="an API key or a client certificate")
            known = ", ".join(filter(None, look.states(principal)))
            raise NotFoundError("no such service", where=request.service[:100], expected=known)
        return _told(state)

    async def list_all(self, asking: Asking, request: Message, context: Context) -> Message:
        states = (await self._look(asking.principal)).states(asking.principal)
        return health_pb2.HealthListResponse(statuses={name: _told(one) for name, one in states.items()})

    async def watch(
        self, asking: Asking, requests: AsyncGenerator[Message, None], context: Context
    ) -> AsyncGenerator[Message, None]:
        before = None
        with self._counted(asking.principal.kind):
            async for request in requests:
                while True:
                    is_last = self._binding.is_leaving
                    await asking.still()
                    told = _told((await self._shared_look()).state(asking.principal, request.service))
                    if told != before:
                        yield told
                    before = told
                    if is_last:
                        return
                    await self._binding.pause(_EVERY_S)

    @contextmanager
    def _counted(self, kind: PrincipalKind) -> Iterator[None]:
        """Counts a watcher for as long as it watches.

        Raises:
            OverloadedError: there are too many.
        """
        is_nobodys = kind is PrincipalKind.NOBODY
        if is_nobodys and self._watching.count(kind) >= _MOST_NOBODYS:
            most = f"at most {_MOST_NOBODYS} without a credential"
            raise OverloadedError("too many watch the server's health", where="Watch", expected=most)
        if len(self._watching) >= _MOST_WATCHES:
            raise OverloadedError(
                "too many watch the server's health", where="Watch", expected=f"at most {_MOST_WATCHES}"
            )
        self._watching.append(kind)
        try:
            yield
        finally:
            self._watching.remove(kind)


def _told(answers: bool | None) -> Message:
    """Returns a state; None for a name that nobody knows."""
    if answers is None:
        return _Status(status=_Status.SERVICE_UNKNOWN)
    return _Status(status=_Status.SERVING if answers else _Status.NOT_SERVING)
