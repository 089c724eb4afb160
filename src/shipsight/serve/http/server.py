# SPDX-License-Identifier: Apache-2.0
"""uvicorn as this server runs it: within limits, over TLS where that is asked for, ending video before it cuts connections.

Leaves to others: the app (`app`), the protocol class (`connections`), handshakes (`tls`). Private to the room.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Callable, Generator
from functools import partial

import uvicorn

from shipsight.access import NOBODY
from shipsight.errors import CertificateError
from shipsight.serve.gate import Caller, Gate
from shipsight.serve.http.app import build_app
from shipsight.serve.http.connections import limit_connections
from shipsight.serve.http.stream import Streams
from shipsight.serve.http.tls import Listener, TlsAcceptor
from shipsight.serve.metrics import Metrics
from shipsight.serve.monitors import Monitors
from shipsight.serve.open_inference import OpenInference
from shipsight.serve.options import ServeOptions
from shipsight.serve.recordings import Recordings
from shipsight.serve.sealing import Sealing
from shipsight.serve.service import PredictionService
from shipsight.serve.tls import Reloaded
from shipsight.serve.traces import Traces

__all__ = ["HttpServer", "make_server"]

_log = logging.getLogger("shipsight.serve")
_KEEP_ALIVE_S = 75


class HttpServer(uvicorn.Server):
    """uvicorn's server; signals are its process's own affair.

    Args:
        config: uvicorn's; it names no TLS.
        drain_s: seconds that requests and streams have when it leaves.
        streams: of video, which end before connections are cut; None for none.
        acceptor: takes connections over TLS; None for plain HTTP.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain_s: float,
        streams: Streams | None = None,
        acceptor: TlsAcceptor | None = None,
    ) -> None:
        super().__init__(config)
        self._drain_s, self._streams, self._acceptor = drain_s, streams, acceptor

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Captures none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept on bound sockets."""
        if self._acceptor is None and all(one.family != socket.AF_UNIX for one in sockets or ()):
            await super().startup(sockets)
            return
        await self.lifespan.startup()
        listeners = [await self._listen(one) for one in sockets or ()]
        self.servers = listeners  # type: ignore[assignment]  # uvicorn only closes them and waits
        self.started = True

    async def _listen(self, listener: socket.socket) -> Listener | asyncio.AbstractServer:
        if self._acceptor is not None:
            return self._acceptor.listen(listener, self)
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        protocol = partial(make, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        return await asyncio.get_running_loop().create_unix_server(protocol, sock=listener)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends streams after the frame that each is at, then lets requests end; else uvicorn cuts frames in the middle."""
        begin_s = time.monotonic()
        if self._streams is not None:
            await self._streams.leave(self._drain_s)
        self.config.timeout_graceful_shutdown = max(int(self._drain_s - (time.monotonic() - begin_s)), 1)
        await super().shutdown(sockets)


def make_server(
    options: ServeOptions,
    service: PredictionService,
    metrics: Metrics,
    *,
    open_inference: OpenInference,
    contexts: Reloaded[ssl.SSLContext] | None,
    traces: Traces | None,
    sealing: Sealing | None = None,
    recordings: Recordings | None = None,
    monitors: Monitors | None = None,
) -> HttpServer:
    """Returns the server of HTTP.

    Args:
        options: of the server.
        service: answers.
        metrics: counts.
        open_inference: that protocol, which gRPC speaks, too.
        contexts: of TLS, the latest for each new connection; None for plain HTTP.
        traces: where spans go, None for nowhere.
        sealing: opens sealed requests; None where none are taken.
        recordings: that are being made; None where there are none.
        monitors: that look for drift, None where nobody does.
    """
    limits = options.limits
    streams = Streams(service, limits, metrics, traces)
    app = build_app(
        service,
        metrics,
        open_inference=open_inference,
        streams=streams,
        vertex=options.vertex,
        logs_requests=options.logs.requests,
        traces=traces,
        proxy=options.access.proxy_rules(),
        sealing=sealing,
        recordings=recordings,
        monitors=monitors,
    )
    config = uvicorn.Config(
        app,
        http=limit_connections(limits, partial(metrics.request_done, "unread")),
        ws="websockets-sansio",
        ws_max_size=limits.body_bytes,
        # Images do not shrink, and what does not unpack cannot be a bomb.
        ws_per_message_deflate=False,
        loop="uvloop",
        # uvicorn's own believes headers about clients from every program of this machine: `proxies` decides that.
        proxy_headers=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    config.load()
    acceptor = None
    if contexts is not None:
        acceptor = TlsAcceptor(
            lambda: contexts.value,
            handshake_s=limits.header_s,
            handshakes=limits.connections,
            refused=partial(_record_refused, service.gate),
        )
    return HttpServer(config, drain_s=options.drain_s, streams=streams, acceptor=acceptor)


async def _record_refused(gate: Gate, error: CertificateError, address: str | None) -> None:
    """Records that a certificate was refused before the app heard of who shows it."""
    try:
        await gate.refused(error, Caller(NOBODY, address=address), model=None, route="TLS")
    except Exception:  # noqa: BLE001 - the edge: it is refused all the same
        _log.exception("a refusal could not be recorded: TLS")
