# SPDX-License-Identifier: Apache-2.0
"""The description of the server in OpenAPI 3.1, put together from its routes.

A protocol's file declares what each route takes and gives beside the route (`DescribedRoute`, `operation`); nothing is
kept twice. Limits, defaults and error codes come from the code that holds them. A route without a declaration still
answers, but a test refuses it. Source: OpenAPI Specification 3.1.1. Stable.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from shipsight import __version__
from shipsight.serve.http.admission import Tell, guard
from shipsight.serve.http.answers import error_answer
from shipsight.serve.http.schemas import SCHEMAS, ref
from shipsight.serve.needs import Needs

__all__ = ["DescribedRoute", "Operation", "answer", "describe", "operation", "query"]

Operation = Mapping[str, Any]

_MEANINGS = {
    400: "a body, image or option that cannot be used",
    401: "no credential, or one that is not accepted; code `step-up` where it has to be proved again",
    403: "not allowed, or `Host` or `Origin` is not this machine",
    404: "no such model, version or variant",
    409: "somebody else changed meanwhile what is to be changed",
    413: "a limit: bytes, pixels, images, predictions, time for the body",
    415: "a format that is not taken here: of an image, or sealed, or in the clear",
    422: "a bundle that cannot be brought into service",
    426: "the request did not ask for WebSocket",
    429: "asked too often, or for more than a quota",
    431: "too many or too large headers",
    500: "a bug; the details are in the server's log",
    503: "overloaded or not ready",
    504: "the deadline passed while the request waited",
}
_EVERYWHERE = (400, 401, 403, 431, 500, 503)
_RETRY = {"retry-after": {"description": "seconds after which to ask again", "schema": {"type": "integer"}}}


class DescribedRoute(Route):
    """A route that says what it takes and gives, and what it needs of whoever asks.

    Args:
        path: as Starlette has it.
        endpoint: answers.
        method: of HTTP.
        described: what `operation` made.
        needs: what is needed of whoever asks; a HEAD needs what a GET does.
        tell: makes an answer of an error.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[[Request], Awaitable[Response]],
        *,
        method: str,
        described: Operation,
        needs: Needs,
        tell: Tell = error_answer,
    ) -> None:
        super().__init__(path, endpoint, methods=[method])
        self.method = method
        self.described = described
        self.needs = needs
        self._tell = tell

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request whose path fits; one of another method is refused whoever asks."""
        if scope["method"] not in (self.methods or ()):
            await super().handle(scope, receive, send)
            return
        await guard(super().handle, scope, receive, send, needs=self.needs, tell=self._tell)


def operation(
    summary: str,
    *,
    tag: str,
    answers: Mapping[int, Operation],
    parameters: Sequence[Operation] = (),
    body: Mapping[str, Any] | None = None,
    needs_body: bool = True,
    errors: Iterable[int] = (),
    error: Mapping[str, Any] | None = None,
) -> Operation:
    """Describes what a route takes and gives.

    Args:
        summary: one sentence without a full stop.
        tag: the protocol.
        answers: status -> answer, as `answer` makes them.
        parameters: of query and headers; those of the path come from the path.
        body: media type -> schema; None for no body.
        needs_body: whether a request without one is refused.
        errors: statuses of errors beside those that any route may give.
        error: schema of an error's body, None for that of the native protocol.
    """
    shape = {"application/json": {"schema": error or ref("Error")}}
    responses: dict[str, Any] = {}
    for status in sorted({*_EVERYWHERE, *errors}):
        responses[str(status)] = {"description": _MEANINGS[status], "content": shape}
        if status in (503, 504):
            responses[str(status)]["headers"] = _RETRY
    for status, given in answers.items():
        both = responses.get(str(status))
        if both is None:
            responses[str(status)] = given
            continue
        # One status, two bodies: the protocol's own, and that of an error before it.
        own = given.get("content", {}).get("application/json")
        either = {} if own is None else {"anyOf": [own["schema"], shape["application/json"]["schema"]]}
        responses[str(status)] = {**both, "content": {"application/json": {"schema": either}}}
    told: dict[str, Any] = {"summary": summary, "tags": [tag], "responses": dict(sorted(responses.items()))}
    if parameters:
        told["parameters"] = list(parameters)
    if body is not None:
        content = {kind: {"schema": schema} for kind, schema in body.items()}
        told["requestBody"] = {"required": needs_body, "content": content}
    return told


def answer(description: str, content: Mapping[str, Any] | None = None) -> Operation:
    """Describes an answer.

    Args:
        description: one sentence.
        content: media type -> schema, None for no body.
    """
    told: dict[str, Any] = {"description": description}
    if content is not None:
        told["content"] = {kind: {"schema": schema} for kind, schema in content.items()}
    return told


def query(name: str, schema: Mapping[str, Any]) -> Operation:
    """Describes an option in the query; lists are comma-separated."""
    told: dict[str, Any] = {"name": name, "in": "query", "schema": schema}
    if schema.get("type") == "array":
        told.update(style="form", explode=False)
    return told


def describe(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """Returns the OpenAPI document of all routes that describe themselves."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if not isinstance(route, DescribedRoute):
            continue
        path = re.sub(r"{(\w+):\w+}", r"{\1}", route.path)
        named = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in re.findall(r"{(\w+)}", path)
        ]
        words = re.findall(r"\w+", path)
        paths.setdefault(path, {})[route.method.lower()] = {
            "operationId": "_".join([route.method.lower(), *words]),
            **route.described,
            "parameters": [*named, *route.described.get("parameters", ())],
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "shipsight",
            "version": __version__,
            "description": "Models in service: images in, predictions out.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(SCHEMAS)},
    }
