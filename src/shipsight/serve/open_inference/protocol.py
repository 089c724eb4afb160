# SPDX-License-Identifier: Apache-2.0
"""What the calls of the Open Inference Protocol do, whatever wire they come over, and what they count. Private to the room.

Statistics are Triton's: one set for each endpoint and version, over all wires. Invariants: who asks is an argument of every
call; a name stands for a model, and it is the model that may be asked or not: a name that there is and one that there is not are
refused alike.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from shipsight import __version__
from shipsight.access import Action, Principal
from shipsight.errors import ForbiddenError, UsageError
from shipsight.serve.gate import Caller
from shipsight.serve.models import ModelState
from shipsight.serve.open_inference.endpoints import (
    Endpoint,
    config_of,
    endpoint_of,
    list_endpoints,
    metadata_of,
    model_of,
)
from shipsight.serve.open_inference.parameters import Asked, read_parameters
from shipsight.serve.open_inference.tensors import Tensor
from shipsight.serve.questions import EncodedImage, Question, Target
from shipsight.serve.request_notes import is_sealed
from shipsight.serve.service import PredictionService

__all__ = ["OpenInference"]

_EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
_STATES = {
    ModelState.READY: "READY",
    ModelState.LOADING: "LOADING",
    ModelState.RESTARTING: "LOADING",
    ModelState.FAILED: "UNAVAILABLE",
    ModelState.EVICTED: "UNAVAILABLE",
}
_STAGES = {
    "queue": ("queue",),
    "compute_input": ("decode", "prepare"),
    "compute_infer": ("infer",),
    "compute_output": ("postprocess", "steps"),
}


class OpenInference:
    """The protocol, over the models of one server.

    Args:
        service: answers.
    """

    def __init__(self, service: PredictionService) -> None:
        self.service = service
        self._counts: Counter[tuple[str, str, str]] = Counter()  # (name, version, what) -> number or nanoseconds

    def server_metadata(self) -> dict[str, Any]:
        """Returns name, version and extensions of the server."""
        return {"name": "shipsight", "version": __version__, "extensions": list(_EXTENSIONS)}

    def target(self, principal: Principal, action: Action, name: str, version: str | None = None, **key: str) -> Target:
        """Returns what a request means; once for each, since a key that the client does not give is made here.

        Args:
            principal: who asks.
            action: what for.
            name: of an endpoint.
            version: None or empty for the current one, or the canary.
            key: of the request, as `key=`; none where the client gives none.

        Raises:
            ForbiddenError: it may not be done to that model.
        """
        model = model_of(self.service.models, name)
        if not principal.may(action, model):
            raise _refused(principal, action, name)
        return Target(model, version or None, **key)

    def check_ready(self, target: Target) -> None:
        """Refuses a model that does not answer. Asking does not bring back one that was pushed out: a request does.

        Raises:
            NotFoundError: nothing of that name is served.
            NotReadyError: the model is not ready.
        """
        model = self.service.models.find(target.model, target.version, target.key)
        if not model.answers:
            self.service.models.get(model.name, model.version)

    async def find(self, name: str, target: Target, *, deadline_s: float | None = None) -> Endpoint:
        """Returns what a name stands for, its model ready.

        Args:
            name: of the endpoint.
            target: as `target` made it of the name.
            deadline_s: as in `Question`.

        Raises:
            NotFoundError: nothing of that name is served, or not as raw tensors.
            NotReadyError: the model is not ready.
        """
        return endpoint_of(name, await self.service.model_for(target, deadline_s=deadline_s))

    def metadata(self, endpoint: Endpoint) -> dict[str, Any]:
        """Returns the protocol's model metadata."""
        versions = [one.version for name, one in list_endpoints(self.service.models) if name == endpoint.name]
        return metadata_of(endpoint, versions)

    def config(self, endpoint: Endpoint) -> dict[str, Any]:
        """Returns Triton's model configuration."""
        return config_of(endpoint)

    async def index(self, principal: Principal, *, only_ready: bool) -> list[dict[str, str]]:
        """Returns names and states: of what is in service, and of what can be loaded."""
        found = []
        for name, model in list_endpoints(self.service.models):
            state = _STATES.get(model.state, "UNLOADING")
            if not principal.may(Action.MODELS_READ, model.name):
                continue
            if state == "READY" or not only_ready:
                reason = "" if model.error is None else model.error.what
                if model.state is ModelState.EVICTED:
                    reason = "gave its memory to others; the next request loads it"
                found.append({"name": name, "version": model.version, "state": state, "reason": reason})
        in_service = {(model.name, model.version) for model in self.service.models.all()}
        if not only_ready:
            found += [
                {"name": name, "version": version, "state": "UNAVAILABLE", "reason": "not loaded"}
                for name, version in await asyncio.to_thread(self.service.models.known)
                if (name, version) not in in_service and principal.may(Action.MODELS_READ, name)
            ]
        return found

    async def load(self, caller: Caller, name: str, parameters: Mapping[str, Any]) -> None:
        """Brings a model back into service, or loads it anew, from the bundle that it came from.

        Args:
            caller: who asks.
            name: of an endpoint.
            parameters: of the request: `version` names one. Triton's bring configurations and files along.

        Raises:
            ForbiddenError: it may not be done to that model.
            UsageError: there are others; what is served comes from a bundle alone.
            NotFoundError: nothing of that name is known.
            ReplayMismatchError, TamperedError, CorruptError, EnvironmentLackError: as `Models.load`.
        """
        model = await self._allow_loading(caller, name)
        _check_parameters(parameters, ("version",))
        version = parameters.get("version")
        if not isinstance(version, str | None):
            raise UsageError("not a version", where="version", expected="a text", got=type(version).__name__)
        await asyncio.to_thread(partial(self.service.models.reload, model, version, actor=caller.principal))

    async def unload(self, caller: Caller, name: str, parameters: Mapping[str, Any]) -> None:
        """Takes a model out of service, both its names and all its versions.

        Args:
            caller: who asks.
            name: of an endpoint.
            parameters: of the request: `unload_dependents`, of which a bundle has none.

        Raises:
            ForbiddenError: it may not be done to that model.
            UsageError: there are others.
            NotFoundError: it is not in service.
        """
        model = await self._allow_loading(caller, name)
        _check_parameters(parameters, ("unload_dependents",))
        await asyncio.to_thread(partial(self.service.models.unload, model, actor=caller.principal))

    async def _allow_loading(self, caller: Caller, name: str) -> str:
        model = model_of(self.service.models, name)
        if not caller.principal.may(Action.MODELS_LOAD, model):
            raise _refused(caller.principal, Action.MODELS_LOAD, name)
        await self.service.gate.allow(caller, Action.MODELS_LOAD, model, route="repository")
        return model

    def statistics(
        self, principal: Principal, name: str | None = None, version: str | None = None
    ) -> list[dict[str, Any]]:
        """Returns counts and times since the start, of all endpoints where none is named.

        Raises:
            NotFoundError: nothing of that name is served.
        """
        if name:
            target = self.target(principal, Action.MODELS_READ, name, version)
            self.service.models.find(target.model, target.version, target.key)
        return [
            self._statistics(endpoint, model.version)
            for endpoint, model in list_endpoints(self.service.models)
            if (not name or name == endpoint)
            and (not version or version == model.version)
            and principal.may(Action.MODELS_READ, model.name)
        ]

    def _statistics(self, name: str, version: str) -> dict[str, Any]:
        def pair(what: str) -> dict[str, int]:
            return {"count": self._counts[name, version, what], "ns": self._counts[name, version, f"{what}_ns"]}

        return {
            "name": name,
            "version": version,
            "last_inference": self._counts[name, version, "last"],
            "inference_count": self._counts[name, version, "images"],
            # Batches are taken apart: each image is an execution.
            "execution_count": self._counts[name, version, "images"],
            "inference_stats": {what: pair(what) for what in ("success", "fail", *_STAGES)},
            "batch_stats": [],
        }

    @contextmanager
    def counted(self, endpoint: Endpoint) -> Iterator[None]:
        """Counts a request, from reading it to its outputs; one that was left counts as failed."""
        begin = time.perf_counter_ns()
        try:
            yield
        except BaseException:
            self._count(endpoint, "fail", time.perf_counter_ns() - begin)
            raise
        self._count(endpoint, "success", time.perf_counter_ns() - begin)
        self._counts[endpoint.name, endpoint.model.version, "last"] = time.time_ns() // 1_000_000

    def _count(self, endpoint: Endpoint, what: str, ns: int) -> None:
        self._counts[endpoint.name, endpoint.model.version, what] += 1
        self._counts[endpoint.name, endpoint.model.version, f"{what}_ns"] += ns

    def _count_images(self, endpoint: Endpoint, stages_ms: Mapping[str, float], images: int) -> None:
        # A sealed request counts as one image, with the mean of their times: how many were in it is for its client.
        parts = images if is_sealed() else 1
        self._counts[endpoint.name, endpoint.model.version, "images"] += images // parts
        # All of them, also those that took no time: perf_analyzer reads from the queue's count which version answered.
        for what, names in _STAGES.items():
            self._count(endpoint, what, int(sum(stages_ms.get(name, 0.0) for name in names) * 1e6 / parts))

    async def infer(
        self,
        principal: Principal,
        endpoint: Endpoint,
        target: Target,
        tensors: Mapping[str, Tensor],
        parameters: Mapping[str, Any],
        *,
        deadline_s: float | None = None,
        subject: str | None = None,
    ) -> tuple[dict[str, Tensor], str]:
        """Runs a request.

        Args:
            principal: who asks.
            endpoint: of whom.
            target: that it was found by.
            tensors: input name -> tensor, checked against the endpoint.
            parameters: of the request, without those that the wire format has for itself.
            deadline_s: seconds that the wire gives, None where it does not say; the sooner of it and the parameter counts.
            subject: as in `Question`.

        Returns:
            Output name -> tensor, and the version that answered.

        Raises:
            ShipsightError: as `PredictionService.predict` and `infer`; and what the parameters hold.
        """
        asked = read_parameters(parameters, takes_images=endpoint.takes_images)
        limit_s = min((one for one in (asked.timeout_s, deadline_s) if one is not None), default=None)
        (tensor,) = tensors.values()
        if isinstance(tensor, list):
            outputs, version = await self._predict(principal, endpoint, target, tensor, asked, limit_s, subject)
        else:
            version = endpoint.model.version
            # The tensor was checked against this version's input.
            exact = Target(endpoint.model.name, version, endpoint.runner.variant.name)
            found = await self.service.infer(principal, exact, tensor, deadline_s=limit_s)
            self._count_images(endpoint, found.stages_ms, len(tensor))
            outputs = dict(found.outputs)
        return outputs, version

    async def _predict(
        self,
        principal: Principal,
        endpoint: Endpoint,
        target: Target,
        images: list[bytes],
        asked: Asked,
        limit_s: float | None,
        subject: str | None,
    ) -> tuple[dict[str, Tensor], str]:
        question = Question(
            replace(target, variant=asked.variant),
            [EncodedImage(image) for image in images],
            asked.settings,
            limit_s,
            subject=subject,
        )
        answer = await self.service.predict(principal, question)
        self._count_images(endpoint, answer.stages_ms, len(images))
        texts = [json.dumps(one.to_dict()).encode() for one in answer.predictions.images]
        return {"predictions": texts}, answer.predictions.version


def _refused(principal: Principal, action: Action, name: str) -> ForbiddenError:
    # As `Principal.require` has it, but with the name that was asked for: whether it stands for a model is not told.
    return ForbiddenError("this is not allowed to you", where=name[:100], expected=action.value, got=principal.told())


def _check_parameters(given: Mapping[str, Any], allowed: Collection[str]) -> None:
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise UsageError(
            "no such parameter",
            where="parameters",
            expected=", ".join(allowed),
            got=", ".join(unknown)[:200],
            hint="A model is loaded from its bundle alone.",
        )
