# SPDX-License-Identifier: Apache-2.0
"""On loopback, only this machine's own names are answered: a page elsewhere cannot reach the server by DNS rebinding."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from shipsight.errors import UsageError
from shipsight.serve.http.answers import error_answer

__all__ = ["LoopbackGuard"]

_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class LoopbackGuard:
    """Refuses requests whose `Host`, or `Origin` where there is one, is not this machine.

    Args:
        app: answers the others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection or message of ASGI."""
        if scope["type"] == "http" or scope["type"] == "websocket":
            for name, value in scope["headers"]:
                wrong = (name == b"host" and not _is_local(value.decode("latin-1"))) or (
                    name == b"origin" and not _is_local_origin(value.decode("latin-1"))
                )
                if wrong:
                    error = UsageError(
                        "this server answers its own machine only",
                        where=name.decode(),
                        expected="localhost or 127.0.0.1",
                    )
                    response = error_answer(error)
                    response.status_code = 403
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def _is_local(host: str) -> bool:
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, "0"
    return name.lower() in _NAMES and port.isdecimal()


def _is_local_origin(origin: str) -> bool:
    scheme, found, host = origin.partition("://")
    return bool(found) and scheme in ("http", "https") and _is_local(host)
