# SPDX-License-Identifier: Apache-2.0
"""Sealed requests: opened once they were let in, answered by the handler of plain ones, and their answers sealed.

Who asks, limits on bytes and connections, and errors before a request is opened are as for plain ones. All answers of the handler,
errors included, go sealed: outside there is 200, a length, and who answered when. Described in `docs/protocols/sealed.md`.
Private to the room.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

from shipsight.access import Principal
from shipsight.access.quotas import turn_of
from shipsight.errors import (
    InternalError,
    OverloadedError,
    SealedRequestError,
    SealingUnsupportedError,
    ShipsightError,
    UsageError,
)
from shipsight.protect import (
    CARRIED_HEADERS,
    MEDIA_TYPE,
    SUITE,
    OpenedRequest,
    PlainAnswer,
    PlainRequest,
    SealedFor,
    SealedProtocol,
    seal_answer,
)
from shipsight.serve.http.admission import Tell, refuse, route_of
from shipsight.serve.http.answers import error_answer, json_answer
from shipsight.serve.http.body import is_sealed_scope, read_body
from shipsight.serve.http.description import DescribedRoute, answer, operation
from shipsight.serve.http.principals import caller_of
from shipsight.serve.needs import PUBLIC
from shipsight.serve.request_notes import note_digest, note_sealed, note_sealed_status, was_model_asked
from shipsight.serve.sealing import Sealing
from shipsight.serve.service import PredictionService

__all__ = ["sealing_routes", "with_sealed"]

Handler = Callable[[PredictionService, Principal, Request], Awaitable[Response]]
_log = logging.getLogger("shipsight.serve")
_LARGE_BYTES = 2**18  # takes a fifth of a millisecond to open: above it, others need not wait
_REPLACED = frozenset(
    {b"content-type", b"content-length", b"accept", *(one.lower().encode() for one in CARRIED_HEADERS)}
)
_UNCARRIED = frozenset({"content-type", "content-length"})


def sealing_routes(sealing: Sealing) -> list[Route]:
    """Returns the route by which clients learn keys."""

    async def tell_keys(request: Request) -> Response:
        try:
            return json_answer(sealing.keys.listing(), headers={"cache-control": "no-store"})
        except ShipsightError as error:
            return error_answer(error)

    text = {"type": "string"}
    key = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
            "public_key": {"type": "string", "contentEncoding": "base64"},
            "not_after": {"type": "integer", "description": "milliseconds since 1970"},
            "suite": {"const": SUITE},
        },
        "required": ["id", "public_key", "not_after", "suite"],
    }
    told = {
        "type": "object",
        "properties": {
            "keys": {"type": "array", "items": key, "minItems": 1},
            "now": {"type": "integer", "description": "milliseconds since 1970"},
            "identity": {**text, "description": "who signed it; clients pin what they learnt elsewhere"},
            "signature": {**text, "contentEncoding": "base64"},
        },
        "required": ["keys", "now", "identity", "signature"],
    }
    described = operation(
        "Tells the keys that requests may be sealed to",
        tag="sealed",
        answers={200: answer("signed by the server's sealing identity", {"application/json": told})},
    )
    return [DescribedRoute("/v1/sealing-keys", tell_keys, method="GET", described=described, needs=PUBLIC)]


def with_sealed(handler: Handler, protocol: SealedProtocol | None, *, tell: Tell) -> Handler:
    """Has a handler of plain requests answer sealed ones, too; or refuses these.

    Args:
        handler: of requests that were let in.
        protocol: that is sealed; None for routes that take nothing sealed.
        tell: makes an answer of an error.
    """

    async def either(service: PredictionService, principal: Principal, request: Request) -> Response:
        if not is_sealed_scope(request.scope):
            return await handler(service, principal, request)
        sealing: Sealing | None = getattr(request.app.state, "sealing", None)
        if protocol is None or sealing is None:
            raise SealingUnsupportedError(
                "sealed requests are not taken here",
                where=request.scope["route"].path,
                expected="the native protocol's predict, or Open Inference's infer over REST",
            )
        if request.scope.get("query_string"):
            raise UsageError("options of a sealed request stand inside it", where="query")
        try:
            opened = await _open(service, sealing, principal, request, protocol)
        except SealedRequestError as error:
            # Somebody may be trying, or playing again what they caught: that is told, never why it was refused.
            caller, model = caller_of(request.scope), request.path_params["model"]
            try:
                await service.gate.refused(error, caller, model=model, route=route_of(request.scope))
            except OverloadedError as full:
                # Nothing was done that would have to be recorded, and the answer stays the one that all get.
                _log.warning("a refused sealed request could not be recorded: %s", full)
            raise
        try:
            told = await _answer(handler, service, principal, request, opened, tell)
        finally:
            if not was_model_asked():
                await sealing.give_back(opened)
        note_sealed_status(told.status)
        return await _seal(told, opened)

    return either


async def _open(
    service: PredictionService, sealing: Sealing, principal: Principal, request: Request, protocol: SealedProtocol
) -> OpenedRequest:
    """Opens a request and takes its id.

    Raises:
        SealedRequestError: whatever is wrong with it.
        LimitError, OverloadedError, UsageError, ClientDisconnect: as `read_body`; or its id cannot be kept.
    """
    body = await read_body(request, service.limits)
    path = request.path_params
    sealed_for = SealedFor(protocol, path["model"], path.get("version", ""))
    await sealing.keys.look_for(body[4:12])
    if len(body) > _LARGE_BYTES:
        opened, digest = await asyncio.to_thread(_opened, sealing, body, sealed_for)
    else:
        opened, digest = _opened(sealing, body, sealed_for)
    await sealing.take(opened, owner=turn_of(principal))
    note_digest(digest, len(body))  # and let go of the body: what was in it is held from here on
    note_sealed()
    return opened


def _opened(sealing: Sealing, body: bytes, sealed_for: SealedFor) -> tuple[OpenedRequest, str]:
    return sealing.open(body, sealed_for), hashlib.sha256(body).hexdigest()


async def _answer(
    handler: Handler,
    service: PredictionService,
    principal: Principal,
    request: Request,
    opened: OpenedRequest,
    tell: Tell,
) -> PlainAnswer:
    """Has the handler of plain requests answer; what it raises is an answer, too.

    Raises:
        ClientDisconnect: the client left.
    """
    try:
        response = await handler(service, principal, _inner(request, opened.request))
    except ShipsightError as error:
        response = tell(await refuse(service.gate, request.scope, principal, error))
    except ClientDisconnect:
        raise
    except Exception:  # noqa: BLE001 - the edge of a request
        # As at the edge of a plain one: a bug of ours, told in the log and not to the client.
        _log.exception("a sealed request failed: %.200r", request.scope["path"])
        response = error_answer(InternalError("the server failed on this request"))
    headers = {name: value for name, value in response.headers.items() if name not in _UNCARRIED}
    return PlainAnswer(response.status_code, bytes(response.body), response.headers.get("content-type", ""), headers)


async def _seal(told: PlainAnswer, opened: OpenedRequest) -> Response:
    if len(told.body) > _LARGE_BYTES:
        sealed = await asyncio.to_thread(seal_answer, told, opened)
    else:
        sealed = seal_answer(told, opened)
    return Response(sealed, headers={"cache-control": "no-store"}, media_type=MEDIA_TYPE)


def _inner(request: Request, plain: PlainRequest) -> Request:
    """Returns the request that was inside: what it says replaces what stands outside, where anybody could have put it."""
    headers = [one for one in request.scope["headers"] if one[0] not in _REPLACED]
    inside: Mapping[str, str | None] = {
        "content-type": plain.content_type or None,
        "accept": plain.accept,
        **plain.headers,
    }
    headers += [(name.lower().encode(), value.encode()) for name, value in inside.items() if value is not None]
    headers.append((b"content-length", str(len(plain.body)).encode()))
    scope = {**request.scope, "headers": headers, "query_string": plain.query.encode()}
    # Starlette keeps what it read of the request outside in its scope.
    scope.pop("state", None)
    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if is_read:
            return await request.receive()
        is_read = True
        return {"type": "http.request", "body": plain.body, "more_body": False}

    return Request(scope, receive)
