# SPDX-License-Identifier: Apache-2.0
"""Sending a request and hearing its answer, for threads and for tasks, bounded in time and size whatever the other side does.

Invariants: no redirect is followed; no proxy is taken from the environment; answers that are compressed are refused, so that what is
counted is what is read. Connections are kept and shared. Needs the extra `client`. Private to the room.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any

from shipsight.client.address import Address
from shipsight.client.answers import MOST_ANSWER_BYTES
from shipsight.client.exchange import Asked, Heard, Reached, UnheardError
from shipsight.errors import MissingDependencyError, UsageError

try:
    import anyio
    import httpcore
except ImportError as error:
    raise MissingDependencyError(
        "the client's packages are not installed", got=error, hint="Run: pip install 'shipsight[client]'"
    ) from error

__all__ = ["AsyncTransport", "Transport", "check_proxy"]

_CONNECTIONS = 32
# Below what our servers keep an idle connection for: one that is being closed is not taken up again.
_IDLE_S = 30.0
_FAILURES = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.ProxyError, OSError)
_UNCONNECTED = (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout, httpcore.ProxyError)

_until: ContextVar[float] = ContextVar("shipsight_client_until")


class Transport:
    """A server's connections. Threads may share it.

    Args:
        address: of the server.
        headers: of every request.
        context: of TLS, None where it is not spoken.
        proxy: `http://HOST:PORT` through which to go, None for straight there.
    """

    def __init__(
        self, address: Address, headers: Mapping[str, str], context: ssl.SSLContext | None, proxy: str | None = None
    ) -> None:
        self._address, self._headers = address, headers
        backend = _Bounded()
        if proxy is not None:
            self._pool: httpcore.ConnectionPool = httpcore.HTTPProxy(
                proxy,
                ssl_context=context,
                max_connections=_CONNECTIONS,
                keepalive_expiry=_IDLE_S,
                network_backend=backend,
            )
            return
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=_CONNECTIONS,
            keepalive_expiry=_IDLE_S,
            uds=address.socket,
            network_backend=backend,
        )

    def exchange(self, asked: Asked) -> Heard:
        """Sends a request.

        Raises:
            UnheardError: no whole answer came.
        """
        left_s = _left(asked)
        mark = _until.set(asked.until)
        reached = Reached.SOMEBODY
        try:
            with self._pool.stream(**_request(self._address, self._headers, asked, left_s)) as response:
                reached = Reached.ANSWERED
                gathered = _Gathered(response.headers)
                for part in response.iter_stream():
                    gathered.add(part)
                return gathered.heard(response.status)
        except _FAILURES as error:
            raise _unheard(error, reached, asked) from error
        finally:
            _until.reset(mark)

    def close(self) -> None:
        """Closes all connections."""
        self._pool.close()


class AsyncTransport:
    """A server's connections, for tasks of one event loop.

    Args:
        address: of the server.
        headers: of every request.
        context: of TLS, None where it is not spoken.
        proxy: `http://HOST:PORT` through which to go, None for straight there.
    """

    def __init__(
        self, address: Address, headers: Mapping[str, str], context: ssl.SSLContext | None, proxy: str | None = None
    ) -> None:
        self._address, self._headers = address, headers
        if proxy is not None:
            self._pool: httpcore.AsyncConnectionPool = httpcore.AsyncHTTPProxy(
                proxy, ssl_context=context, max_connections=_CONNECTIONS, keepalive_expiry=_IDLE_S
            )
            return
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context, max_connections=_CONNECTIONS, keepalive_expiry=_IDLE_S, uds=address.socket
        )

    async def exchange(self, asked: Asked) -> Heard:
        """Sends a request; a task that is cancelled closes its connection.

        Raises:
            UnheardError: no whole answer came.
        """
        left_s = _left(asked)
        reached = Reached.SOMEBODY
        try:
            with anyio.fail_after(left_s):
                async with self._pool.stream(**_request(self._address, self._headers, asked, left_s)) as response:
                    reached = Reached.ANSWERED
                    gathered = _Gathered(response.headers)
                    async for part in response.aiter_stream():
                        gathered.add(part)
                    return gathered.heard(response.status)
        except _FAILURES as error:
            raise _unheard(error, reached, asked) from error

    async def close(self) -> None:
        """Closes all connections."""
        await self._pool.aclose()


class _Gathered:
    """An answer while it comes.

    Raises:
        UnheardError: it is compressed, or too large.
    """

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        self._parts: list[bytes] = []
        self._left_bytes = MOST_ANSWER_BYTES
        if self._headers.get("content-encoding", "identity").lower() != "identity":
            raise UnheardError("a compressed answer, which was not asked for", Reached.ANSWERED)

    def add(self, part: bytes) -> None:
        self._left_bytes -= len(part)
        if self._left_bytes < 0:
            raise UnheardError(f"an answer of more than {MOST_ANSWER_BYTES} bytes", Reached.ANSWERED)
        self._parts.append(part)

    def heard(self, status: int) -> Heard:
        return Heard(status, self._headers, b"".join(self._parts))


def check_proxy(proxy: str | None, address: Address) -> None:
    """Checks how a proxy is named.

    Raises:
        UsageError: it is none, or leads nowhere.
    """
    if proxy is not None and (not proxy.startswith(("http://", "https://")) or address.socket is not None):
        raise UsageError("not a proxy for this server", where="proxy", expected="http://HOST:PORT, towards a host")


def _request(address: Address, always: Mapping[str, str], asked: Asked, left_s: float) -> dict[str, Any]:
    """Returns the arguments of a pool's `stream`."""
    headers = {"Host": address.authority, "Accept-Encoding": "identity", **always, **asked.headers}
    if asked.body or asked.method != "GET":
        headers["Content-Length"] = str(len(asked.body))
    scheme = "https" if address.is_tls else "http"
    return {
        "method": asked.method,
        "url": httpcore.URL(scheme=scheme, host=address.host, port=address.port, target=asked.target),
        "headers": list(headers.items()),
        "content": asked.body,
        "extensions": {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), left_s)},
    }


def _left(asked: Asked) -> float:
    left_s = asked.until - time.monotonic()
    if left_s <= 0:
        raise UnheardError("no time is left", Reached.NOBODY, is_late=True)
    return left_s


def _unheard(error: BaseException, reached: Reached, asked: Asked) -> UnheardError:
    """Says of a failure what it means."""
    if isinstance(error, _UNCONNECTED):
        reached = Reached.NOBODY
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            reached = Reached.STRANGER
        cause = cause.__cause__ or cause.__context__
    is_late = isinstance(error, TimeoutError | httpcore.TimeoutException) and time.monotonic() >= asked.until - 0.01
    return UnheardError(str(error) or type(error).__name__, reached, is_late=is_late)


class _Bounded(httpcore.SyncBackend):
    """Connections each of whose reads ends when the request's time does, however slowly byte follows byte."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        return _BoundedStream(super().connect_tcp(host, port, _time_left(), local_address, socket_options))

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        return _BoundedStream(super().connect_unix_socket(path, _time_left(), socket_options))


class _BoundedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _time_left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _time_left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, _time_left()))

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _time_left() -> float:
    left_s = _until.get() - time.monotonic()
    if left_s <= 0:
        raise httpcore.ReadTimeout("no time is left")
    return left_s
