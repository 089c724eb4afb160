# SPDX-License-Identifier: Apache-2.0
"""How the operator's own proxy is known: by the unix socket that it alone reaches, by its address, by a secret that it sends.

Leaves to others: reading those off a wire, and dropping what others claim about themselves. Private to the room.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["SECRET_HEADER", "ProxyRules", "is_forwarding", "read_user"]

SECRET_HEADER = "x-shipsight-proxy-secret"  # noqa: S105 - a header's name
_MOST_CHARACTERS = 256


@dataclass(frozen=True)
class ProxyRules:
    """How a proxy is known; all that is given must fit.

    Attributes:
        has_socket: whether the server listens on a unix socket alone.
        networks: that it comes from, empty for any.
        secret: that it sends, None for none.
        user_header: in which it names the person who asks, None where it does not.
    """

    has_socket: bool = False
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    secret: str | None = field(default=None, repr=False)
    user_header: str | None = None

    def knows(self, address: str | None, secrets: Iterable[str]) -> bool:
        """Tells whether a request came through the proxy.

        Args:
            address: that it came from; None on a unix socket.
            secrets: that it brought along.
        """
        if not (self.has_socket or self.networks or self.secret is not None):
            return False
        if self.has_socket and address is not None:
            return False
        if self.networks and not _is_in(address, self.networks):
            return False
        given = list(secrets)
        if self.secret is None:
            return True
        return len(given) == 1 and hmac.compare_digest(given[0].encode("utf-8", "replace"), self.secret.encode())


def _is_in(address: str | None, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return any((mapped or found) in one for one in networks)


def is_forwarding(name: str) -> bool:
    """Tells whether proxies add a header to what they pass on.

    Args:
        name: of the header, in lower case.
    """
    return name in ("forwarded", "x-real-ip") or name.startswith("x-forwarded-")


def read_user(told: Sequence[str]) -> str | None:
    """Returns whom a proxy names, None where it names nobody, or several, or what is no name."""
    is_user = len(told) == 1 and told[0] != "" and told[0].isprintable() and len(told[0]) <= _MOST_CHARACTERS
    return told[0] if is_user else None
