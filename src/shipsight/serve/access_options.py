# SPDX-License-Identifier: Apache-2.0
"""What a server is told of who may ask it: identities, who stands in front of it, how that one is known. Frozen, checked. Stable."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipsight.access.settings import AccessSettings
from shipsight.errors import UsageError
from shipsight.serve.gate import Behind, GateRules
from shipsight.serve.proxy_rules import SECRET_HEADER, ProxyRules

__all__ = ["AccessOptions"]

_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,63}", re.ASCII)
_TAKEN = frozenset({"authorization", "cookie", "host", "origin", "x-api-key", "x-csrf-token", SECRET_HEADER})
_LEAST_SECRET = 16


@dataclass(frozen=True)
class AccessOptions:
    """Access to one server.

    Attributes:
        settings: of identities, None for a server that keeps none.
        is_required: whether everything needs a credential, also where nobody is known yet.
        behind: who encrypts and asks who is there in front of it, None for nobody.
        uds: path of a unix socket that HTTP is answered on instead of a port, None for a port.
        proxy_peers: networks that the proxy's connections come from.
        proxy_secret_file: holds what the proxy sends in `X-Shipsight-Proxy-Secret`.
        proxy_user_header: in which the proxy names the person who asks, None where it does not.
    """

    settings: AccessSettings | None = None
    is_required: bool = False
    behind: Behind | None = None
    uds: Path | None = None
    proxy_peers: tuple[str, ...] = ()
    proxy_secret_file: Path | None = None
    proxy_user_header: str | None = None

    def __post_init__(self) -> None:
        if self.is_required and self.settings is None:
            raise UsageError("needs a database of identities", where="--require-access", expected="--database")
        for option, given in (
            ("--proxy-peers", self.proxy_peers),
            ("--proxy-secret-file", self.proxy_secret_file),
            ("--proxy-user-header", self.proxy_user_header),
        ):
            if given and self.behind is not Behind.PROXY:
                raise UsageError("needs --behind proxy", where=option)
        if self.behind is Behind.PROXY and not (self.uds or self.proxy_peers or self.proxy_secret_file):
            raise UsageError(
                "the proxy has to be known by something",
                where="--behind proxy",
                expected="--uds, --proxy-peers or --proxy-secret-file",
            )
        for peer in self.proxy_peers:
            _network(peer)
        header = self.proxy_user_header
        if header is not None and (not _HEADER.fullmatch(header) or header.lower() in _TAKEN):
            raise UsageError("not a header for a user", where="--proxy-user-header", got=header[:64])

    def gate_rules(self, *, is_local: bool) -> GateRules:
        """Returns how the server lets requests in.

        Args:
            is_local: whether nothing but its own machine reaches it.
        """
        return GateRules(is_local, self.is_required, self.behind, takes_user=self.proxy_user_header is not None)

    def proxy_rules(self) -> ProxyRules | None:
        """Returns how the proxy is known, None where there is none.

        Raises:
            UsageError: its secret cannot be read, or is too short.
        """
        if self.behind is not Behind.PROXY:
            return None
        networks = tuple(map(_network, self.proxy_peers))
        return ProxyRules(self.uds is not None, networks, self._secret(), self.proxy_user_header)

    def _secret(self) -> str | None:
        path = self.proxy_secret_file
        if path is None:
            return None
        try:
            secret = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise UsageError("this file cannot be read", where=f"--proxy-secret-file {path}") from None
        if len(secret) < _LEAST_SECRET:
            raise UsageError(
                "too short", where=f"--proxy-secret-file {path}", expected=f"{_LEAST_SECRET} characters and more"
            )
        return secret

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> AccessOptions:
        """Reads what `dataclasses.asdict` and JSON made of options."""
        secret = told["proxy_secret_file"]
        return cls(
            **{
                **told,
                "settings": None if told["settings"] is None else AccessSettings.from_dict(told["settings"]),
                "behind": None if told["behind"] is None else Behind(told["behind"]),
                "uds": None if told["uds"] is None else Path(told["uds"]),
                "proxy_peers": tuple(told["proxy_peers"]),
                "proxy_secret_file": None if secret is None else Path(secret),
            }
        )


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise UsageError("not an address or network", where="--proxy-peers", expected="10.0.0.0/8", got=text) from None
