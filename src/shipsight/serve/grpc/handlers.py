# SPDX-License-Identifier: Apache-2.0
"""How a call meets its handler: who asks is found and the method's needs are met, the request is read in time, errors become statuses. Private to the room.

Every method reads its own request, also those that take one alone: only so there is a limit on how long it may take to
come. On the wire there is no difference.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from shipsight.access import PrincipalKind
from shipsight.errors import (
    AccessError,
    CertificateError,
    InternalError,
    LimitError,
    NotReadyError,
    OverloadedError,
    ShipsightError,
    UsageError,
)
from shipsight.serve.gate import Gate, conceal
from shipsight.serve.grpc.callers import Asking
from shipsight.serve.grpc.messages import Message
from shipsight.serve.grpc.statuses import details_of, status_of, text_of
from shipsight.serve.limits import Limits
from shipsight.serve.logs import fields
from shipsight.serve.metrics import Metrics
from shipsight.serve.needs import Needs
from shipsight.serve.proxy_rules import ProxyRules
from shipsight.serve.request_notes import RequestNote, begin_note, end_note, note_body, request_id
from shipsight.serve.revocation import Revocations
from shipsight.serve.routing import KEY_HEADER, check_key
from shipsight.serve.traces import CARRIED, Traces

__all__ = ["Answer", "Answers", "Asking", "Binding", "Context", "Method", "given_values", "routing_key"]

_log = logging.getLogger("shipsight.serve")
_requests_log = logging.getLogger("shipsight.serve.requests")

Context = Any
"""A call: `grpc.aio.ServicerContext`; gRPC brings no types along."""
Answer = Callable[[Asking, Message, Context], Awaitable[Message]]
"""Answers one request with one message."""
Answers = Callable[[Asking, AsyncGenerator[Message, None], Context], AsyncGenerator[Message, None]]
"""Answers a stream of requests with a stream of messages; after the last it ends."""
_LOOK_S = 1.0  # between looks at what a client may do that sends nothing
_SERVERS_FAULT = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)  # as OpenTelemetry's conventions for RPC count them
_MOST_NOBODYS = 64  # calls at once without a credential: they take no room from those who show one


@dataclass(frozen=True)
class Method:
    """A method of a service.

    Attributes:
        needs: what is needed of whoever calls it.
        answer: answers.
    """

    needs: Needs
    answer: Answer | Answers


class Binding:
    """Makes handlers of gRPC from what answers.

    Args:
        limits: on requests.
        metrics: counts them.
        gate: lets them in.
        proxy: how the operator's own is known, None where there is none.
        revocations: of clients' certificates, None where none are asked for.
        logs_requests: whether each is told in the log.
        traces: where spans go, None for nowhere.
    """

    def __init__(
        self,
        limits: Limits,
        metrics: Metrics,
        gate: Gate,
        *,
        proxy: ProxyRules | None,
        revocations: Revocations | None,
        logs_requests: bool,
        traces: Traces | None = None,
    ) -> None:
        self._gate = gate
        self._proxy = proxy or ProxyRules()
        self._revocations = revocations
        self._limits = limits
        self._metrics = metrics
        self._logs_requests, self._traces = logs_requests, traces
        self._leaving = asyncio.Event()
        self._held_bytes = 0
        self._nobodys = 0

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
        methods: Mapping[str, Method],
        message: Callable[[str], type[Message]],
    ) -> grpc.GenericRpcHandler:
        """Returns a service.

        Args:
            described: as protobuf has it.
            methods: by name; those that are missing are refused as unimplemented.
            message: message name -> its class.
        """
        handlers = {
            method.name: self._handler(method, methods[method.name], message(method.input_type.name))
            for method in described.methods
            if method.name in methods
        }
        return grpc.method_handlers_generic_handler(described.full_name, handlers)

    def _handler(self, method: MethodDescriptor, bound: Method, kind: type[Message]) -> grpc.RpcMethodHandler:
        answer = bound.answer
        route = f"/{method.containing_service.full_name}/{method.name}"

        async def one(_: object, context: Context) -> Message:
            asking = self._asking(context, bound, route)
            async with self._edge(context, route, asking):
                await asking.enter()
                with self._counted(asking):
                    raw = await self._read(context)
                    if bound.needs.action is not None and bound.needs.action.changes:
                        await asking.still()  # the request may have come slowly, and rights are those of the act
                    with self._held(raw):
                        return await cast("Answer", answer)(asking, _parse(raw, kind), context)

        async def several(_: object, context: Context) -> None:
            asking = self._asking(context, bound, route)
            async with self._edge(context, route, asking):
                await asking.enter()
                with self._counted(asking):
                    async with (
                        aclosing(self._requests(context, kind, method, asking)) as requests,
                        aclosing(cast("Answers", answer)(asking, requests, context)) as answers,
                    ):
                        async for told in answers:
                            await context.write(told)

        if method.server_streaming:
            return grpc.stream_stream_rpc_method_handler(several, response_serializer=_serialize)
        return grpc.stream_unary_rpc_method_handler(one, response_serializer=_serialize)

    def _asking(self, context: Context, bound: Method, route: str) -> Asking:
        proxy, revocations = self._proxy, self._revocations
        return Asking(context, self._gate, bound.needs, route=route, proxy=proxy, revocations=revocations)

    def _edge(self, context: Context, route: str, asking: Asking) -> _Edge:
        is_told, traces = self._logs_requests, self._traces
        return _Edge(context, route, self._metrics, self._gate, asking, is_told=is_told, traces=traces)

    @contextmanager
    def _counted(self, asking: Asking) -> Iterator[None]:
        """Counts a call of somebody without a credential until it ends.

        Raises:
            OverloadedError: there are too many.
        """
        is_nobodys = asking.principal.kind is PrincipalKind.NOBODY
        if is_nobodys and self._nobodys >= _MOST_NOBODYS:
            most = f"at most {_MOST_NOBODYS} at once without a credential"
            raise OverloadedError("too many calls are open", expected=most)
        self._nobodys += is_nobodys
        try:
            yield
        finally:
            self._nobodys -= is_nobodys

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
        self, context: Context, kind: type[Message], method: MethodDescriptor, asking: Asking
    ) -> AsyncGenerator[Message, None]:
        """Yields the requests of a stream, until the client has no more; before each, and each second, looks who asks.

        Raises:
            ForbiddenError: the client may not go on.
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
                while not (reading.done() or leaving.done()):
                    await asyncio.wait({reading, leaving}, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                    await asking.still()
                if not reading.done():
                    raise NotReadyError("the server is leaving")
                raw = reading.result()
                if raw is grpc.aio.EOF:
                    return
                with self._held(raw):
                    yield _parse(raw, kind)
        finally:
            for one in (leaving, reading):
                if one is not None:
                    one.cancel()


class _Edge:
    """The edge of a call: its errors become statuses, its end is counted and told."""

    def __init__(
        self,
        context: Context,
        route: str,
        metrics: Metrics,
        gate: Gate,
        asking: Asking,
        *,
        is_told: bool,
        traces: Traces | None,
    ) -> None:
        self._context, self._route, self._metrics, self._is_told = context, route, metrics, is_told
        self._traces = traces
        self._gate, self._asking = gate, asking
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
        if isinstance(known, AccessError | CertificateError):
            caller = self._asking.caller
            try:
                await self._gate.refused(known, caller, model=None, route=self._route)
            except Exception:  # noqa: BLE001 - the edge: it is refused all the same
                _log.exception("a refusal could not be recorded: %s", self._route)
        if known is not None:
            known = conceal(known, self._asking.principal)
        code = grpc.StatusCode.OK if error is None else grpc.StatusCode.CANCELLED
        code = code if known is None else status_of(known)
        self._metrics.request_done(self._route, code.name, None if known is None else known.code)
        end_note()
        if self._is_told:
            self._tell(code, known)
        if self._traces is not None:
            self._trace(self._traces, code, known)
        if known is not None:
            await self._context.abort(code, text_of(known), trailing_metadata=details_of(known))

    def _trace(self, traces: Traces, code: grpc.StatusCode, error: ShipsightError | None) -> None:
        self._note.error = None if error is None else error.code
        service, method = self._route.removeprefix("/").rsplit("/", maxsplit=1)
        given = {name: _given(self._context, name) for name in CARRIED}
        traces.ended(
            self._note,
            name=f"{service}/{method}",
            attributes={
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "rpc.grpc.status_code": code.value[0],
            },
            is_failed=code in _SERVERS_FAULT,
            carrier={name: value for name, value in given.items() if isinstance(value, str)},
            begin_s=self._begin_s,
        )

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
    return next(iter(given_values(context, name)), None)


def given_values(context: Context, name: str) -> list[str]:
    """Returns the values of that name which the client sent along."""
    return [value for key, value in context.invocation_metadata() or () if key == name and isinstance(value, str)]


def routing_key(context: Context) -> dict[str, str]:
    """Returns the key of a call as an argument of `Target`; nothing where the client gives none.

    Raises:
        UsageError: it is too long.
    """
    return check_key(_given(context, KEY_HEADER))


def _parse(raw: bytes, kind: type[Message]) -> Message:
    if raw is grpc.aio.EOF:
        raise UsageError("there is no request", where="request", expected=kind.DESCRIPTOR.full_name)
    note_body(raw, is_next=True)
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise UsageError("not a message of the protocol", where="request", expected=kind.DESCRIPTOR.full_name) from None


def _serialize(told: Message) -> bytes:
    return bytes(told.SerializeToString())
