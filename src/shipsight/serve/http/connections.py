# SPDX-License-Identifier: Apache-2.0
"""uvicorn's HTTP/1.1 within limits: on heads, on connections, on what a body costs beside its bytes, on slow readers.

Leaves to others: how long a head may take (`slow_clients`), what a body may hold (`body`). Rules: a request that cannot be
read is refused with an error of ours and its connection closed, for where the next one begins is no longer sure; what
two readers could understand in two ways (length and chunks at once, two hosts, codings that are not `chunked`) is
refused; where connections run out, the one that has kept the server waiting longest makes room. Private to the room.
Sources: RFC 9112 sections 3.2, 5, 6 and 7; RFC 6585 section 5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum
from http import HTTPStatus
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from shipsight.errors import LimitError, OverloadedError, ShipsightError, UsageError
from shipsight.serve.http.answers import error_answer, status_of
from shipsight.serve.http.slow_clients import PunctualProtocol
from shipsight.serve.limits import Limits

__all__ = ["limit_connections"]

_MOST_PIPELINED = 16
_FREE_OVERHEAD_BYTES = 64 * 2**10
_HEADS_TOO_LARGE = 431


class _Phase(Enum):
    IDLE = "between requests"
    HEAD = "within a head"
    BODY = "within a body"


class LimitedProtocol(PunctualProtocol):
    """A connection of a server; `limit_connections` makes the class for one.

    Attributes:
        limits: of the server.
        on_refusal: told the status of an answer that the app never saw.
        waiting: connections that have no whole request under way, the longest waiting first.
    """

    limits: ClassVar[Limits]
    on_refusal: ClassVar[Callable[[int], None]]
    waiting: ClassVar[dict[LimitedProtocol, None]]

    _phase = _Phase.IDLE
    _number = 0  # of the message under way
    _head_bytes = _head_bytes_told = _body_bytes = _overhead_bytes = 0
    _fault: tuple[ShipsightError, int] | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _unwritten_bytes = 0

    # --- coming and going ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._cycles: list[RequestResponseCycle] = []  # answered now, and next
        if len(self.connections) > self.limits.connections:
            if not self.waiting:
                most = f"at most {self.limits.connections}"
                self._refuse(OverloadedError("too many connections", where="connections", expected=most))
                return
            next(iter(self.waiting)).make_room()
        self.waiting[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        self._disconnect()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._leave()
        super().handle_websocket_upgrade()

    def _leave(self) -> None:
        self.waiting.pop(self, None)
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def make_room(self) -> None:
        self.waiting.pop(self, None)
        if self._phase is _Phase.IDLE:
            self._close()
        else:
            self._refuse(
                OverloadedError("too many connections, and this one was slow", where="connections"),
            )

    # --- reading ---

    def data_received(self, data: bytes) -> None:
        phase, number, body_bytes = self._phase, self._number, self._body_bytes
        super().data_received(data)
        # What a chunk of bytes belongs to is sure only where no message began or ended in it.
        if self.transport.is_closing() or (self._phase, self._number) != (phase, number):
            return
        if phase is _Phase.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes:
                self._refuse(self._too_large(), _HEADS_TOO_LARGE)
        elif phase is _Phase.BODY:
            self._overhead_bytes += len(data) - (self._body_bytes - body_bytes)
            if self._overhead_bytes > _FREE_OVERHEAD_BYTES + self._body_bytes:
                self._refuse(
                    LimitError("more around the body's chunks than in them", where="body", expected="larger chunks")
                )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase = _Phase.HEAD
        self._number += 1
        self._head_bytes = self._head_bytes_told = self._body_bytes = self._overhead_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is not _Phase.HEAD:
            return  # a trailer: whatever it says comes after it could count
        self._count_head(len(name) + len(value))
        if len(self.headers) >= self.limits.headers:
            self._fail(
                LimitError("too many headers", where="headers", expected=f"at most {self.limits.headers}"),
                _HEADS_TOO_LARGE,
            )
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        fault = _fault_in(self.parser.get_http_version(), self.headers)
        if fault is not None:
            self._fail(fault)
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._fail(LimitError("too many requests ahead of their answers", expected=f"{_MOST_PIPELINED}"))
        self._phase = _Phase.BODY
        super().on_headers_complete()
        self._cycles = [one for one in self._cycles if not one.response_complete] + [self.cycle]

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = _Phase.IDLE
        if self.cycle is not None and not self.cycle.response_complete:
            self.waiting.pop(self, None)
        super().on_message_complete()

    def _count_head(self, count: int) -> None:
        self._head_bytes_told += count
        if self._head_bytes_told > self.limits.head_bytes:
            self._fail(self._too_large(), _HEADS_TOO_LARGE)

    def _too_large(self) -> LimitError:
        return LimitError("the head is too large", where="headers", expected=f"at most {self.limits.head_bytes} bytes")

    # --- refusing ---

    def _fail(self, error: ShipsightError, status: int | None = None) -> None:
        """Ends reading from within the parser, which then calls `send_400_response`."""
        self._fault = error, status or status_of(error)
        raise error

    def send_400_response(self, msg: str) -> None:
        error, status = self._fault or (UsageError("not a request of HTTP/1.1", where="request"), 400)
        self._refuse(error, status)

    def _refuse(self, error: ShipsightError, status: int | None = None) -> None:
        """Answers in place of the app, where an answer still has its place, and closes the connection."""
        cycle, status = self.cycle, status or status_of(error)
        is_behind = self._phase is _Phase.HEAD and cycle is not None and not cycle.response_complete
        has_begun = self._phase is _Phase.BODY and cycle is not None and cycle.response_started
        type(self).on_refusal(status)
        self._disconnect()
        if not is_behind and not has_begun and not self.transport.is_closing():
            answer = error_answer(error)
            head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
            head += [name + b": " + value for name, value in answer.raw_headers]
            self.transport.write(b"\r\n".join([*head, b"connection: close", b"", bytes(answer.body)]))
        self._close()

    def _disconnect(self) -> None:
        """Tells the app, for each of its answers: uvicorn tells it for the last alone."""
        for one in self._cycles:
            if not one.response_complete:
                one.disconnected = True
                one.message_event.set()

    def _close(self) -> None:
        self.transport.close()
        self._watch_writing()

    # --- writing ---

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and not self.pipeline:
            self.waiting[self] = None
        self._watch_writing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def _watch_writing(self) -> None:
        """Hangs up on a client that takes nothing of its answer: else closing would wait for it without end."""
        if self._write_timer is None and self.transport.get_write_buffer_size():
            self._unwritten_bytes = self.transport.get_write_buffer_size()
            self._write_timer = self.loop.call_later(self.limits.body_s, self._check_writing)

    def _check_writing(self) -> None:
        self._write_timer = None
        if self.transport.get_write_buffer_size() >= self._unwritten_bytes:
            self.transport.abort()
        else:
            self._watch_writing()


def limit_connections(limits: Limits, on_refusal: Callable[[int], None]) -> type[LimitedProtocol]:
    """Returns the protocol class of a server: uvicorn makes its connections from a class, with arguments of its own.

    Args:
        limits: of the server.
        on_refusal: told the status of an answer that the app never saw.
    """
    own = {"limits": limits, "head_s": limits.header_s, "on_refusal": staticmethod(on_refusal), "waiting": {}}
    return type("ServerProtocol", (LimitedProtocol,), own)


def _fault_in(version: str, headers: Sequence[tuple[bytes, bytes]]) -> ShipsightError | None:
    """Returns what makes a head one that two readers may understand in two ways."""

    def values(wanted: bytes) -> list[bytes]:
        return [value.strip().lower() for name, value in headers if name == wanted]

    if version not in ("1.0", "1.1"):
        return UsageError("not a request of HTTP/1.1", where="request", got=f"HTTP/{version}")
    hosts, lengths, codings = values(b"host"), values(b"content-length"), values(b"transfer-encoding")
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        return UsageError("a request names one host", where="Host", expected=1, got=len(hosts))
    if len(lengths) > 1 or (lengths and codings):
        return UsageError("a body has one length", where="Content-Length, Transfer-Encoding", expected=1)
    if codings and (codings != [b"chunked"] or version != "1.1"):
        got = b", ".join(codings).decode("latin-1")[:40]
        return UsageError("bodies are taken as they are", where="Transfer-Encoding", expected="chunked", got=got)
    return None
