# SPDX-License-Identifier: Apache-2.0
"""A principal: who acts. Every handler of a server takes one as an argument. Stable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

__all__ = ["LOOPBACK", "SERVER", "Certificate", "Principal", "PrincipalKind", "certificate_principal"]


class PrincipalKind(StrEnum):
    """What kind of principal acts."""

    LOOPBACK = "loopback"
    SERVER = "server"
    CERTIFICATE = "certificate"


@dataclass(frozen=True)
class Certificate:
    """A client's certificate, verified when the connection was made; not whether it is still valid now.

    Attributes:
        subject: as RFC 4514 writes it, empty where it has none.
        alternative_names: `DNS:`, `URI:`, `email:` and `IP:` names, in its order.
        issuer: subject of who signed it.
        serial: number that the issuer gave it, in hexadecimal.
        sha256: digest of the whole certificate, in hexadecimal.
        not_after: when it ends, UTC.
    """

    subject: str
    alternative_names: tuple[str, ...]
    issuer: str
    serial: str
    sha256: str
    not_after: datetime


@dataclass(frozen=True)
class Principal:
    """Who acts.

    Attributes:
        kind: how it is known.
        name: unique among its kind.
        certificate: that it showed, None for other kinds.
    """

    kind: PrincipalKind
    name: str
    certificate: Certificate | None = None

    def told(self) -> str:
        """Returns the principal as a record tells it: `loopback`, `certificate:CN=camera-1`."""
        return self.kind.value if self.kind is PrincipalKind.LOOPBACK else f"{self.kind.value}:{self.name}"


LOOPBACK = Principal(PrincipalKind.LOOPBACK, "this machine")
"""Anyone who reaches a server that listens on this machine alone."""

SERVER = Principal(PrincipalKind.SERVER, "this server")
"""The server itself, on behalf of whoever started it."""


def certificate_principal(certificate: Certificate) -> Principal:
    """Returns who shows a certificate: its subject, else its first alternative name, else its digest."""
    name = certificate.subject or next(iter(certificate.alternative_names), f"sha256:{certificate.sha256}")
    return Principal(PrincipalKind.CERTIFICATE, name, certificate)
