# SPDX-License-Identifier: Apache-2.0
"""What every answer tells browsers: take it for what it says it is, run nothing of it, show it in nobody's frame, keep no copy.

Pages set policies of their own, which stay. Over TLS, also where a proxy in front ends it, browsers are told to come back over
TLS alone. Private to the room.
Sources: OWASP ASVS 5.0, 3.2.1, 3.4.1, 3.4.3 to 3.4.6, 14.3.2; RFC 6797.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["SafeHeaders"]

_ALWAYS = {
    "content-security-policy": "default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_YEAR_S = 31_536_000
_TLS = {"strict-transport-security": f"max-age={_YEAR_S}; includeSubDomains"}


class SafeHeaders:
    """Adds headers where an answer has none of that name.

    Args:
        app: answers.
        is_tls_in_front: whether browsers speak TLS with whoever stands in front of the server.
    """

    def __init__(self, app: ASGIApp, *, is_tls_in_front: bool = False) -> None:
        self._app, self._is_tls_in_front = app, is_tls_in_front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection or message of ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        is_tls = self._is_tls_in_front or scope["scheme"] in ("https", "wss")
        wanted = {**_ALWAYS, **_TLS} if is_tls else _ALWAYS

        async def with_headers(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in wanted.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)
