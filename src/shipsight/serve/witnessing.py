# SPDX-License-Identifier: Apache-2.0
"""A witness of audit logs as a small server of HTTP: signs what it is given to sign, and shows what it signed last.

Nobody signs in: a request is believed for the log's signature in it, and what is shown is public. Leaves to others: what is
signed (`shipsight.access.audit.witness`). Stable: the routes are documented in `docs/protocols/witness.md`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from dataclasses import replace

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from shipsight.access.audit.witness import MOST_REQUEST_BYTES, Witness, WitnessAnswer
from shipsight.errors import CertificateError, ShipsightError, UsageError
from shipsight.serve.http.answers import error_answer
from shipsight.serve.http.body import HeldBodies, read_body
from shipsight.serve.http.connections import limit_connections
from shipsight.serve.http.safe_headers import SafeHeaders
from shipsight.serve.http.server import HttpServer
from shipsight.serve.http.tls import TlsAcceptor
from shipsight.serve.limits import Limits
from shipsight.serve.tls import Reloaded, TlsSettings, make_context

__all__ = ["serve_witness", "witness_app"]

_log = logging.getLogger("shipsight.serve")
_LIMITS = replace(Limits(), body_bytes=MOST_REQUEST_BYTES, connections=128, body_s=10.0)
_MOST_ORIGIN = 1000
_CERTIFICATES_S = 1.0
_DRAIN_S = 5.0


def witness_app(witness: Witness) -> ASGIApp:
    """Returns the app of a witness."""

    async def add(request: Request) -> Response:
        try:
            body = await read_body(request, _LIMITS)
            # Its disk is waited for: not by the event loop.
            return _answer(await run_in_threadpool(witness.add, body))
        except ShipsightError as error:
            return error_answer(error)
        except OSError as error:
            _log.error("what is signed cannot be written down, so nothing is signed: %s", error)
            return _answer(WitnessAnswer(503, "nothing can be written down here, so nothing is signed\n"))

    async def show(request: Request) -> Response:
        origin = request.query_params.get("origin", "")
        if not origin or len(origin) > _MOST_ORIGIN:
            return error_answer(UsageError("which log is meant", where="origin", expected="/checkpoint?origin=LOG"))
        return _answer(witness.newest(origin))

    async def live(_: Request) -> Response:
        return _answer(WitnessAnswer(200, "alive\n"))

    routes = [
        Route("/add-checkpoint", add, methods=["POST"]),
        Route("/checkpoint", show, methods=["GET"]),
        Route("/livez", live, methods=["GET"]),
    ]
    return SafeHeaders(HeldBodies(Starlette(routes=routes), _LIMITS.bodies_bytes))


def serve_witness(
    witness: Witness, listener: socket.socket, tls: TlsSettings | None, *, ready: Callable[[], None]
) -> None:
    """Answers until SIGTERM or SIGINT; SIGHUP has the certificate read anew.

    Args:
        witness: signs.
        listener: bound, listening.
        tls: certificate and key; None on this machine alone.
        ready: called once it can be asked, and told to end.

    Raises:
        UsageError: others than this machine could ask, without TLS.
        CertificateError: the certificate cannot be used.
    """
    host = listener.getsockname()[0]
    if tls is None and not ipaddress.ip_address(host).is_loopback:
        raise UsageError("other machines are answered over TLS alone", where=f"--host {host}", hint="Give --tls-cert.")
    config = uvicorn.Config(
        witness_app(witness),
        http=limit_connections(_LIMITS, _ignore_status),
        ws="none",
        loop="uvloop",
        proxy_headers=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
    )
    config.load()
    acceptor = None
    contexts = None if tls is None else Reloaded(tls, make_context)
    if contexts is not None:
        contexts.watch(_CERTIFICATES_S)
        acceptor = TlsAcceptor(
            lambda: contexts.value,
            handshake_s=_LIMITS.header_s,
            handshakes=_LIMITS.connections,
            refused=_ignore_refused,
        )
    server = HttpServer(config, drain_s=_DRAIN_S, acceptor=acceptor)

    def leave(number: int, frame: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    if contexts is not None:
        signal.signal(signal.SIGHUP, lambda number, frame: contexts.refresh())
    ready()
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))


def _answer(answer: WitnessAnswer) -> Response:
    # Latin letters alone come after the type: what a witness says is the same text for everybody.
    return Response(answer.text, answer.status, {"content-type": answer.kind})


def _ignore_status(status: int) -> None:
    """Counts nothing: a witness has no metrics."""


async def _ignore_refused(error: CertificateError, address: str | None) -> None:
    """Records nothing: no client is asked for a certificate."""
