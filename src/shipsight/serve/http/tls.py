# SPDX-License-Identifier: Apache-2.0
"""uvicorn behind TLS: handshakes that cannot hold up others, and clients' certificates where the app sees them.

uvicorn takes one context for good and gives handshakes a minute each. Here connections are accepted one by one: each
gets the context of that moment and a limited time, and of too many unfinished handshakes the oldest goes.

What is refused for a certificate is told to whoever keeps events, also where the app never hears of it. The app finds ASGI's `tls` extension in its scope, and under `CLIENT_CERTIFICATE` what the certificate says; a header
is never believed. Leaves contexts to `serve/tls.py`. Private to the room.
Source: ASGI TLS extension, https://asgi.readthedocs.io/en/latest/specs/tls.html
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from shipsight.access import Certificate
from shipsight.errors import CertificateError
from shipsight.serve.http.answers import error_answer
from shipsight.serve.http.principals import CLIENT_CERTIFICATE
from shipsight.serve.tls import read_certificate

__all__ = ["Listener", "Refused", "TlsAcceptor"]

Refused = Callable[[CertificateError, str | None], Awaitable[None]]
"""Told why a certificate was refused, and from where it came; raises nothing."""

_log = logging.getLogger("shipsight.serve")
_PAUSE_S = 0.1
_NONE_SHOWN = "PEER_DID_NOT_RETURN_A_CERTIFICATE"
_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}


class TlsAcceptor:
    """Takes connections that speak TLS alone.

    Args:
        context: returns the context for a new connection.
        handshake_s: seconds that a handshake may take.
        handshakes: most that may be under way.
        refused: told of certificates that were not accepted.
    """

    def __init__(
        self, context: Callable[[], ssl.SSLContext], *, handshake_s: float, handshakes: int, refused: Refused
    ) -> None:
        self._context, self._handshake_s, self._handshakes = context, handshake_s, handshakes
        self._refused = refused

    def listen(self, listener: socket.socket, server: uvicorn.Server) -> Listener:
        """Begins to accept on a bound socket, for a server of uvicorn."""

        def protocol() -> asyncio.Protocol:
            make: Callable[..., Any] = server.config.http_protocol_class
            made = make(config=server.config, server_state=server.server_state, app_state=server.lifespan.state)
            upgrade = made.ws_protocol_class
            if upgrade is not None:
                made.ws_protocol_class = lambda **told: _show_tls(upgrade(**told), self._refused)
            shown: asyncio.Protocol = _show_tls(made, self._refused)
            return shown

        return Listener(listener, protocol, self._context, self._handshake_s, self._handshakes, self._refused)


class Listener:
    """Accepts connections on a socket; what uvicorn takes for a server."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        context: Callable[[], ssl.SSLContext],
        handshake_s: float,
        handshakes: int,
        refused: Refused,
    ) -> None:
        self._protocol, self._context, self._refused = protocol, context, refused
        self._handshake_s, self._most = handshake_s, handshakes
        self._under_way: dict[asyncio.Task[None], None] = {}  # oldest first
        listener.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listener))

    def close(self) -> None:
        """Takes no more connections; those whose handshake is not done are dropped."""
        for task in (self._accepting, *self._under_way):
            task.cancel()

    async def wait_closed(self) -> None:
        """Returns when nothing is left of it."""
        await asyncio.gather(self._accepting, *self._under_way, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:  # no descriptors left, or a client that left already: the next may do
                _log.warning("a connection could not be accepted: %s", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            if len(self._under_way) >= self._most:
                oldest = next(iter(self._under_way))
                del self._under_way[oldest]
                oldest.cancel()
            task = loop.create_task(self._shake_hands(connection, address[0]))
            self._under_way[task] = None
            task.add_done_callback(lambda done: self._under_way.pop(done, None))

    async def _shake_hands(self, connection: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._protocol, connection, ssl=self._context(), ssl_handshake_timeout=self._handshake_s
            )
        except OSError as error:  # a client's fault: what it showed, what it speaks, or that it left
            reason = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error
            _log.info("a TLS handshake with %s failed: %s", address, reason)
            if isinstance(error, ssl.SSLCertVerificationError) or reason == _NONE_SHOWN:
                await self._refused(CertificateError("a client's certificate was not accepted", got=reason), address)
        except BaseException:
            connection.close()
            raise


def _show_tls(protocol: Any, refused: Refused) -> Any:  # noqa: ANN401 - one of uvicorn's protocols
    protocol.app = _ShowsTls(protocol.app, protocol, refused)
    return protocol


class _ShowsTls:
    """Puts what the handshake found into the scopes of one connection."""

    def __init__(self, app: ASGIApp, protocol: Any, refused: Refused) -> None:  # noqa: ANN401 - as above
        self._app, self._protocol, self._refused = app, protocol, refused
        self._extensions: dict[str, Any] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._extensions is None:
            try:
                self._extensions = _extensions(self._protocol.transport.get_extra_info("ssl_object"))
            except CertificateError as error:
                await self._refuse(error, scope, receive, send)
                return
        certificate: Certificate | None = self._extensions[CLIENT_CERTIFICATE]
        if certificate is not None and datetime.now(UTC) > certificate.not_after:
            # The handshake checked it; the connection outlived it.
            end = f"{certificate.not_after:%F %T} UTC"
            ended = CertificateError("the client's certificate has ended", where=certificate.subject, got=end)
            await self._refuse(ended, scope, receive, send)
            return
        scope["extensions"] = {**scope.get("extensions", {}), **self._extensions}
        await self._app(scope, receive, send)

    async def _refuse(self, error: CertificateError, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        await self._refused(error, client and client[0])
        await error_answer(error)(scope, receive, send)


def _extensions(connection: ssl.SSLObject) -> dict[str, Any]:
    der = connection.getpeercert(binary_form=True)
    certificate = None if der is None else read_certificate(der)
    tls = {
        "server_cert": None,
        "client_cert_chain": [] if der is None else [ssl.DER_cert_to_PEM_cert(der)],
        "client_cert_name": None if certificate is None else certificate.subject,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(connection.version() or ""),
        "cipher_suite": None,
    }
    return {"tls": tls, CLIENT_CERTIFICATE: certificate}
