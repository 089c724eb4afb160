# SPDX-License-Identifier: Apache-2.0
"""Reading what a client sends, within limits of size and time. Private to the room."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shipsight.errors import LimitError, OverloadedError, UsageError
from shipsight.protect import MEDIA_TYPE
from shipsight.serve.limits import Limits
from shipsight.serve.memory import give_back_memory
from shipsight.serve.request_notes import note_body

__all__ = ["HeldBodies", "is_sealed_scope", "read_body", "read_json_body", "read_view"]

_FLOOD_BYTES = 32 * 2**20  # of bodies at once; once they are answered their memory goes back


async def read_body(request: Request, limits: Limits) -> bytes:
    """Returns a request's body; errors as of `read_view`."""
    return bytes(await read_view(request, limits))


async def read_view(request: Request, limits: Limits) -> bytes | memoryview:
    """Returns a request's body, of a sealed one a view into what was opened: it is not copied.

    Raises:
        LimitError: it is too large, or came too slowly.
        OverloadedError: the bodies of all requests are too large together.
        UsageError: its length is no number, or it is compressed.
        ClientDisconnect: the client left.
    """
    coding = request.headers.get("content-encoding", "identity")
    if coding.strip().lower() != "identity":
        raise UsageError("bodies are taken as they are", where="Content-Encoding", expected="identity", got=coding[:40])
    promised = request.headers.get("content-length")
    if promised is not None and (not promised.isdecimal() or int(promised) > limits.body_bytes):
        if not promised.isdecimal():
            raise UsageError("not a length", where="Content-Length", got=promised[:40])
        raise _too_large(limits, f"{promised} bytes")
    chunks: list[bytes | memoryview] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.body_bytes:
                    raise _too_large(limits, f"more than {size} bytes")
                if chunk:  # the last one is empty
                    chunks.append(chunk)
    except TimeoutError:
        raise LimitError(
            "the body came too slowly", where="body", expected=f"within {limits.body_s:g} s", got=f"{size} bytes"
        ) from None
    if promised is not None and size != int(promised):
        raise ClientDisconnect
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    note_body(body)
    return body


async def read_json_body(request: Request, limits: Limits) -> bytes:
    """Returns a body that calls itself JSON, or none at all.

    Raises:
        UsageError: it is called something else.
        LimitError, OverloadedError, ClientDisconnect: as `read_view`.
    """
    body = await read_body(request, limits)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # A form of another site can send any text, but not call it JSON.
    if body and kind != "application/json":
        raise UsageError("bodies are JSON here", where="Content-Type", expected="application/json", got=kind[:40])
    return body


def is_sealed_scope(scope: Scope) -> bool:
    """Tells whether a request of HTTP says that its body is sealed."""
    kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return kind.partition(b";")[0].strip().lower() == MEDIA_TYPE.encode()


def _too_large(limits: Limits, got: str) -> LimitError:
    return LimitError("the body is too large", where="body", expected=f"at most {limits.body_bytes} bytes", got=got)


class HeldBodies:
    """Counts the bytes of all bodies that are held at once, and refuses what would be too many.

    Args:
        app: answers.
        limit_bytes: most bytes.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app, self._limit_bytes = app, limit_bytes
        self._bytes = self._most_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection or message of ASGI; its body counts until it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held, weight = 0, 1 + is_sealed_scope(scope)  # a sealed one is held a second time, opened

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b"")) * weight
            if self._bytes + size > self._limit_bytes:
                raise OverloadedError(
                    "too much is being sent at once", where="body", expected=f"at most {self._limit_bytes} bytes in all"
                )
            self._bytes += size
            self._most_bytes = max(self._most_bytes, self._bytes)
            held += size
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._bytes -= held
            if self._bytes == 0 and self._most_bytes > _FLOOD_BYTES:
                self._most_bytes = 0
                asyncio.get_running_loop().run_in_executor(None, give_back_memory)
