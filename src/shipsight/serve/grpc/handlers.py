# SPDX-License-Identifier: Apache-2.0
"""How a call meets its handler: who asks is found, the request is read in time, errors become statuses. Private to the room.

Every method reads its own request, also those that take one alone: only so there is a limit on how long it may take to
come. On the wire there is no difference.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from shipsight.access import LOOPBACK, Principal, certificate_principal
from shipsight.errors import (
    CertificateError,
    InternalError,
    LimitError,
    NotReadyError,
    OverloadedError,
    ShipsightError,
    UsageError,
)
from shipsight.serve.grpc.messages import Message
from shipsight.serve.grpc.statuses import details_of, status_of, text_of
from shipsight.serve.limits import Limits
from shipsight.serve.logs import fields
from shipsight.serve.metrics import Metrics
from shipsight.serve.request_notes import RequestNote, begin_note, end_note, note_principal, request_id
from shipsight.serve.routing import KEY_HEADER, check_key
from shipsight.serve.tls import read_certificate

__all__ = ["Answer", "Answers", "Binding", "Context", "routing_key"]

_log = logging.getLogger("shipsight.serve")
_requests_log = logging.getLogger("shipsight.serve.requests")

Context = Any
"""A call: `grpc.aio.ServicerContext`; gRPC brings no types along."""
Answer = Callable[[Principal, Message, Context], Awaitable[Message]]
"""Answers one request with one message."""
Answers = Callable[[Principal, AsyncGenerator[Message, None], Context], AsyncGenerator[Message, None]]
"""Answers a stream of requests with a stream of messages; after the last it ends."""


class Binding:
    """Makes handlers of gRPC from what answers.

    Args:
        limits: on requests.
        metrics: counts them.
        logs_requests: whether each is told in the log.
    """

    def __init__(self, limits: Limits, metrics: Metrics, *, logs_requests: bool) -> None:
        self._limits = limits
        self._metrics = metrics
        self._logs_requests = logs_requests
        self._leaving = asyncio.Event()
        self._held_bytes = 0

    @property
    def is_leaving(self) -> bool:
        """Whether the server drains."""
        return self._leaving.is_set()

    def leave(self) -> None:
        """Ends streams between two answers; calls that have begun are answered."""
        self._leaving.set()

    async def pause(self, seconds: float) -> None:
        """Waits, but no longer than the server stays."""
        try:
            async with asyncio.timeout(seconds):
                await self._leaving.wait()
        except TimeoutError:
            return

    def service(
        self,
        described: ServiceDescriptor,
        answers: Mapping[str, Answer | Answers],
        message: Callable[[str], type[Message]],
    ) -> grpc.GenericRpcHandler:
        """Returns a service.

        Args:
            described: as protobuf has it.
            answers: method name -> what answers; methods that are missing are refused as unimplemented.
            message: message name -> its class.
        """
        handlers = {
            method.name: self._handler(method, answers[method.name], message(method.input_type.name))
            for method in described.methods
            if method.name in answers
        }
        return grpc.method_handlers_generic_handler(described.full_name, handlers)

    def _handler(
        self, method: MethodDescriptor, answer: Answer | Answers, kind: type[Message]
    ) -> grpc.RpcMethodHandler:
        route = f"/{method.containing_service.full_name}/{method.name}"

        async def one(_: object, context: Context) -> Message:
            async with self._edge(context, route):
                principal = _principal(context)
                raw = await self._read(context)
                with self._held(raw):
                    return await cast("Answer", answer)(principal, _parse(raw, kind), context)

        async def several(_: object, context: Context) -> None:
            async with (
                self._edge(context, route),
                aclosing(self._requests(context, kind, method)) as requests,
                aclosing(cast("Answers", answer)(_principal(context), requests, context)) as answers,
            ):
                async for told in answers:
                    await context.write(told)

        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(several, response_serializer=_serialize)
        return grpc.stream_unary_rpc_method_handler(one, response_serializer=_serialize)

    def _edge(self, context: Context, route: str) -> _Edge:
        return _Edge(context, route, self._metrics, is_told=self._logs_requests)

    @contextmanager
    def _held(self, raw: bytes) -> Iterator[None]:
        """Counts the bytes of a request until it is answered.

        Raises:
            OverloadedError: those of all requests together are too many.
        """
        size = 0 if raw is grpc.aio.EOF else len(raw)
        if self._held_bytes + size > self._limits.bodies_bytes:
            most = f"at most {self._limits.bodies_bytes} bytes in all"
            raise OverloadedError("too much is being sent at once", where="request", expected=most)
        self._held_bytes += size
        try:
            yield
        finally:
            self._held_bytes -= size

    async def _read(self, context: Context) -> bytes:
        """Reads the one request of a call.

        Raises:
            LimitError: it came too slowly.
        """
        try:
            async with asyncio.timeout(self._limits.body_s):
                raw = await context.read()
        except TimeoutError:
            raise LimitError(
                "the request came too slowly", where="request", expected=f"within {self._limits.body_s:g} s"
            ) from None
        return cast("bytes", raw)

    async def _requests(
        self, context: Context, kind: type[Message], method: MethodDescriptor
    ) -> AsyncGenerator[Message, None]:
        """Yields the requests of a stream, until the client has no more.

        Raises:
            NotReadyError: the server leaves.
            UsageError: one is not what the method takes.
        """
        if not method.client_streaming:
            raw = await self._read(context)
            with self._held(raw):
                yield _parse(raw, kind)
            return
        leaving = asyncio.ensure_future(self._leaving.wait())
        reading = None
        try:
            while True:
                reading = asyncio.ensure_future(context.read())
                await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    raise NotReadyError("the server is leaving")
                raw = reading.result()
                if raw is grpc.aio.EOF:
                    return
                _principal(context)  # a stream may outlive the certificate
                with self._held(raw):
                    yield _parse(raw, kind)
        finally:
            for one in (leaving, reading):
                if one is not None:
                    one.cancel()


class _Edge:
    """The edge of a call: its errors become statuses, its end is counted and told."""

    def __init__(self, context: Context, route: str, metrics: Metrics, *, is_told: bool) -> None:
        self._context, self._route, self._metrics, self._is_told = context, route, metrics, is_told
        self._note = RequestNote(request_id(_given(context, "x-request-id")))
        self._begin_s = time.monotonic()

    async def __aenter__(self) -> None:
        begin_note(self._note)

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        known: ShipsightError | None = None
        if isinstance(error, ShipsightError):
            known = error
        elif isinstance(error, Exception):
            # Whatever else happens is a bug of ours, told in the log and not to the client.
            _log.error("a request failed: %s", self._route, exc_info=error)
            known = InternalError("the server failed on this request")
        code = grpc.StatusCode.OK if error is None else grpc.StatusCode.CANCELLED
        code = code if known is None else status_of(known)
        self._metrics.request_done(self._route, code.name)
        end_note()
        if self._is_told:
            self._tell(code, known)
        if known is not None:
            await self._context.abort(code, text_of(known), trailing_metadata=details_of(known))

    def _tell(self, code: grpc.StatusCode, error: ShipsightError | None) -> None:
        note = self._note
        told = fields(
            request=note.id,
            method="gRPC",
            route=self._route,
            status=code.name,
            ms=round((time.monotonic() - self._begin_s) * 1e3, 2),
            principal=note.principal.told(),
            model=note.model,
            version=note.version,
            variant=note.variant,
            error=None if error is None else error.code,
        )
        _requests_log.info("request", extra=told)


def _given(context: Context, name: str) -> str | None:
    """Returns the first value of that name which the client sent along, None where it sent none."""
    return next((value for key, value in context.invocation_metadata() or () if key == name), None)


def routing_key(context: Context) -> dict[str, str]:
    """Returns the key of a call as an argument of `Target`; nothing where the client gives none.

    Raises:
        UsageError: it is too long.
    """
    return check_key(_given(context, KEY_HEADER))


def _principal(context: Context) -> Principal:
    """Returns who asks, and notes it: the client's certificate where it showed one, else anyone on this machine.

    Raises:
        CertificateError: it has ended since the client connected.
    """
    shown = context.auth_context().get("x509_pem_cert")
    if not shown:
        return LOOPBACK
    certificate = read_certificate(shown[0])
    if datetime.now(UTC) > certificate.not_after:
        raise CertificateError("the client's certificate has ended", got=f"{certificate.not_after:%F %T} UTC")
    principal = certificate_principal(certificate)
    note_principal(principal)
    return principal


def _parse(raw: bytes, kind: type[Message]) -> Message:
    if raw is grpc.aio.EOF:
        raise UsageError("there is no request", where="request", expected=kind.DESCRIPTOR.full_name)
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise UsageError("not a message of the protocol", where="request", expected=kind.DESCRIPTOR.full_name) from None


def _serialize(told: Message) -> bytes:
    return bytes(told.SerializeToString())
