# SPDX-License-Identifier: Apache-2.0
"""Where a server answers, and what is trusted there. Private to the room."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from shipsight.errors import UsageError

__all__ = ["Address", "trust"]

_UNIX = "unix:"


@dataclass(frozen=True)
class Address:
    """A server's.

    Attributes:
        url: as it was given.
        host: name or number; `localhost` behind a socket of this machine.
        port: None for the scheme's own.
        is_tls: whether TLS is spoken.
        socket: path of a Unix socket, None for TCP.
    """

    url: str
    host: str
    port: int | None
    is_tls: bool
    socket: str | None = None

    @classmethod
    def read(cls, url: str, *, where: str = "url", takes_sockets: bool = True) -> Address:
        """Reads an address.

        Args:
            url: `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:/PATH`.
            where: what errors call it.
            takes_sockets: whether a Unix socket will do.

        Raises:
            UsageError: it is none.
        """
        if takes_sockets and url.startswith(_UNIX) and url[len(_UNIX) :].startswith("/"):
            return cls(url, "localhost", None, is_tls=False, socket=url[len(_UNIX) :])
        try:
            address = urlsplit(url)
            host, port = address.hostname, address.port
        except ValueError:
            host = port = None
            address = urlsplit("")
        is_plain = address.path in ("", "/") and not (address.query or address.fragment or address.username)
        if address.scheme not in ("http", "https") or not host or not host.isascii() or not is_plain:
            more = " or unix:/PATH" if takes_sockets else ""
            raise UsageError("not a server", where=where, expected=f"http[s]://HOST[:PORT]{more}", got=_bare(url))
        return cls(url.rstrip("/"), host, port, is_tls=address.scheme == "https")

    @property
    def authority(self) -> str:
        """What the header `Host` says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    def check_secret(self, *, where: str) -> None:
        """Refuses to send a secret in the clear to another machine.

        Raises:
            UsageError: it would be.
        """
        if not self.is_tls and self.socket is None and not _is_here(self.host):
            raise UsageError("a key is sent to this machine or over https alone", where=where, got=self.url)

    def check_certificates(self, *, where: str) -> None:
        """Refuses certificates where none are shown.

        Raises:
            UsageError: TLS is not spoken.
        """
        if not self.is_tls:
            raise UsageError("certificates are for https", where=where, got=self.url)


def trust(
    ca: str | Path | None, certificate: tuple[str | Path, str | Path] | None = None, *, where: str
) -> ssl.SSLContext:
    """Returns how a server is known, and how this client shows itself.

    Args:
        ca: file of certificates that the server's must be signed by; None for the system's.
        certificate: files of the client's certificate and its key.
        where: what errors call the first.

    Raises:
        UsageError: a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise UsageError("no certificates can be read here", where=where, got=f"{ca}: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None:
        try:
            # Without the callback OpenSSL would ask for a password on the terminal.
            context.load_cert_chain(str(certificate[0]), str(certificate[1]), password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            raise UsageError(
                "the client's certificate or key cannot be used", where="certificate", got=f"{certificate[0]}: {error}"
            ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _bare(url: str) -> str:
    """Returns an address without what stands before an `@`: it may be a password."""
    return url.rpartition("@")[2]


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
