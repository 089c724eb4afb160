# SPDX-License-Identifier: Apache-2.0
"""One request to a provider that the operator named, bounded in time and size whatever the other side does.

Invariants: no redirect is followed, no proxy and no setting is taken from the environment, nothing is kept between requests.
An answer that is compressed is refused: what is counted is what is read. Needs the extra `oidc`. Private to the room.
Source: OWASP ASVS 5.0, 12.3 and 13.2.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import httpcore

from shipsight.errors import EnvironmentLackError, UsageError

__all__ = ["Fetcher"]

_LIMIT_BYTES = 512 * 1024


class Fetcher:
    """Asks a provider. Threads may share it.

    Args:
        ca_file: authorities to trust, in PEM; None for those of the system and of Mozilla.
        time_s: seconds after which no answer is waited for any more.

    Raises:
        UsageError: the file holds none.
    """

    def __init__(self, *, ca_file: Path | None = None, time_s: float = 10.0) -> None:
        self._time_s = time_s
        try:
            self._context = ssl.create_default_context(cafile=ca_file)
            if ca_file is None:
                self._context.load_verify_locations(certifi.where())
        except OSError as error:
            raise UsageError("not a file of certificates", where="openid.ca_file", got=ca_file) from error

    def ask(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[int, bytes]:
        """Returns status and body. A redirect is an answer like any other.

        Args:
            method: GET or POST.
            url: `https`, or `http` where the caller allows it.
            headers: beside the usual.
            body: to send.

        Raises:
            EnvironmentLackError: no whole answer came in time, or it is too large or compressed.
        """
        sent = {
            "Host": urlsplit(url).netloc,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **({"Content-Length": str(len(body))} if method == "POST" else {}),
            **(headers or {}),
        }
        backend = _Bounded(time.monotonic() + self._time_s)
        try:
            # A connection each: sign-ins are rare, and the time that is left is a connection's.
            with (
                httpcore.ConnectionPool(ssl_context=self._context, network_backend=backend) as pool,
                pool.stream(method, url, headers=list(sent.items()), content=body) as response,
            ):
                encodings = [value for name, value in response.headers if name.lower() == b"content-encoding"]
                if any(value.lower() != b"identity" for value in encodings):
                    raise _no_answer(url, "a compressed answer")
                return response.status, _limited(response.iter_stream(), url)
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            raise _no_answer(url, type(error).__name__) from error


def _no_answer(url: str, got: str) -> EnvironmentLackError:
    return EnvironmentLackError("the provider of sign-on does not answer as it must", where=url, got=got)


def _limited(parts: Iterable[bytes], url: str) -> bytes:
    body = b""
    for part in parts:
        body += part
        if len(body) > _LIMIT_BYTES:
            raise _no_answer(url, f"more than {_LIMIT_BYTES} bytes")
    return body


class _Bounded(httpcore.SyncBackend):
    """Connections that end at a time, however slowly the other side gives byte after byte."""

    def __init__(self, until: float) -> None:
        self._until = until

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(host, port, _left(self._until), local_address, socket_options)
        return _BoundedStream(stream, self._until)


class _BoundedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, until: float) -> None:
        self._stream = stream
        self._until = until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._until))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._until))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, _left(self._until)), self._until)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout
    return left
