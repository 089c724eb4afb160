# SPDX-License-Identifier: Apache-2.0
"""One request over HTTP to an address that the operator named, bounded in time and size whatever the other side does.

With the standard library alone, so that it is there without any extra. Invariants: nothing is followed elsewhere, no proxy and no setting is
taken from the environment, TLS is verified, nothing is kept between requests. What is not cut in time is the look-up of a name, which is the
system's. Private to the house.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from shipsight.errors import ServiceError

__all__ = ["HttpAnswer", "ask_http", "ends_in_time", "is_loopback"]


class HttpAnswer(NamedTuple):
    """What came back: status, headers, and at most one byte more of the body than was allowed."""

    status: int
    headers: Message
    body: bytes


class _HasSocket(Protocol):
    @property
    def sock(self) -> socket.socket | None: ...

    def close(self) -> None: ...


def ask_http(
    url: str,
    method: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str],
    ca: Path | None,
    timeout_s: float,
    most_bytes: int,
    name: str,
) -> HttpAnswer:
    """Asks once. A redirect is an answer like any other.

    Args:
        url: `http` or `https`, without user and fragment; the caller has checked it.
        method: of HTTP.
        body: to send.
        headers: beside the usual.
        ca: authorities to trust, in PEM; None for the system's.
        timeout_s: longest that all of it takes, from the first byte to the last.
        most_bytes: of the body; the caller refuses what is longer.
        name: of the other side, for messages.

    Raises:
        ServiceError: what comes is not HTTP.
        OSError: it does not answer in time, or not over TLS as it must.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca)
        connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout_s, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout_s)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with ends_in_time(connection, timeout_s):
        try:
            connection.request(method, target, body, dict(headers))
            # The answer keeps the socket where the other side said that it ends.
            with contextlib.closing(connection.getresponse()) as answer:
                data = _read(answer, time.monotonic() + timeout_s, most_bytes)
        except http.client.HTTPException as error:
            raise ServiceError("not an answer of HTTP", where=name, got=type(error).__name__) from error
    return HttpAnswer(answer.status, answer.headers, data)


def _read(answer: http.client.HTTPResponse, until_s: float, most_bytes: int) -> bytes:
    # Piece by piece: who sends a byte now and then is within each time-out of the socket.
    data = b""
    while len(data) <= most_bytes and (piece := answer.read1(most_bytes)):
        data += piece
        if time.monotonic() > until_s:
            raise TimeoutError("the answer came too slowly")
    return data[: most_bytes + 1]


@contextmanager
def ends_in_time(connection: _HasSocket, timeout_s: float) -> Iterator[None]:
    """Cuts a connection after a time, however busily the other side sends pieces of a head or of a handshake; closes it at the end.

    Raises:
        TimeoutError: it was cut.
    """
    is_cut = threading.Event()

    def cut() -> None:
        is_cut.set()
        opened = connection.sock
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, cut)
    timer.daemon = True
    timer.start()
    late = TimeoutError(f"no whole answer within {timeout_s:g} s")
    try:
        yield
        if is_cut.is_set():
            raise late
    except (OSError, ServiceError) as error:
        if is_cut.is_set():
            raise late from error
        raise
    finally:
        timer.cancel()
        connection.close()


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name or address alone; nothing is looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
