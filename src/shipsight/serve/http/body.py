# SPDX-License-Identifier: Apache-2.0
"""Reading what a client sends, within limits of size and time. Private to the room."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from shipsight.errors import LimitError, UsageError
from shipsight.serve.limits import Limits

__all__ = ["read_body"]


async def read_body(request: Request, limits: Limits) -> bytes:
    """Returns a request's body.

    Raises:
        LimitError: it is too large, or came too slowly.
        UsageError: its length is no number.
        ClientDisconnect: the client left.
    """
    promised = request.headers.get("content-length")
    if promised is not None and (not promised.isdecimal() or int(promised) > limits.body_bytes):
        if not promised.isdecimal():
            raise UsageError("not a length", where="Content-Length", got=promised[:40])
        raise _too_large(limits, f"{promised} bytes")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.body_bytes:
                    raise _too_large(limits, f"more than {size} bytes")
                chunks.append(chunk)
    except TimeoutError:
        raise LimitError(
            "the body came too slowly", where="body", expected=f"within {limits.body_s:g} s", got=f"{size} bytes"
        ) from None
    if promised is not None and size != int(promised):
        raise ClientDisconnect
    return b"".join(chunks)


def _too_large(limits: Limits, got: str) -> LimitError:
    return LimitError("the body is too large", where="body", expected=f"at most {limits.body_bytes} bytes", got=got)
