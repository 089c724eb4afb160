# SPDX-License-Identifier: Apache-2.0
"""Headers about clients are believed from the operator's own proxy, and dropped from all others.

What is dropped is gone before anything else reads the request; the proxy's secret is dropped always. Leaves to others: how a
proxy is known (`proxy_rules`). Private to the room. Source: OWASP ASVS 5.0, 4.1.3.
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from shipsight.serve.proxy_rules import SECRET_HEADER, ProxyRules, is_forwarding, read_user

__all__ = ["FORWARDED", "PROXIED", "Proxied", "TrustedProxies"]

PROXIED = "shipsight.proxied"
"""Where a scope holds what a trusted proxy told; missing where none did."""
FORWARDED = "shipsight.forwarded"
"""Where a scope says that somebody passed the request on who is not a trusted proxy."""
_ABOUT_CLIENTS = frozenset({"x-client-cert", "x-ssl-client-cert"})
_PREFIXES = ("x-ssl-client-", "x-client-cert-")


@dataclass(frozen=True)
class Proxied:
    """What a trusted proxy told.

    Attributes:
        user: who asks, None where it named nobody.
        address: of the client, None where it named none.
    """

    user: str | None
    address: str | None


class TrustedProxies:
    """Drops headers about clients; keeps what a trusted proxy told apart from them.

    Args:
        app: answers.
        rules: how a proxy is known, None where there is none.
    """

    def __init__(self, app: ASGIApp, rules: ProxyRules | None) -> None:
        self._app, self._rules = app, rules or ProxyRules()
        user = self._rules.user_header
        self._about_clients = _ABOUT_CLIENTS | {SECRET_HEADER} | ({user.lower()} if user else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection or message of ASGI."""
        if scope["type"] in ("http", "websocket"):
            kept: list[tuple[bytes, bytes]] = []
            told: list[tuple[str, bytes]] = []
            for name, value in scope["headers"]:
                text = name.decode("latin-1").lower()
                if text in self._about_clients or text.startswith(_PREFIXES) or is_forwarding(text):
                    told.append((text, value))
                else:
                    kept.append((name, value))
            client = scope.get("client")
            proxied = self._read([(name, value.decode("latin-1")) for name, value in told], client and client[0])
            is_forwarded = proxied is None and any(is_forwarding(name) for name, _ in told)
            scope = {**scope, "headers": kept, FORWARDED: is_forwarded}
            scope.pop(PROXIED, None)
            if proxied is not None:
                scope[PROXIED] = proxied
        await self._app(scope, receive, send)

    def _read(self, told: list[tuple[str, str]], address: str | None) -> Proxied | None:
        if not self._rules.knows(address, (value for name, value in told if name == SECRET_HEADER)):
            return None
        header = self._rules.user_header
        users = [] if header is None else [value for name, value in told if name == header.lower()]
        # The last is the proxy's own; what stands before it, its client may have written.
        addresses = [part.strip() for name, value in told if name == "x-forwarded-for" for part in value.split(",")]
        return Proxied(read_user(users), addresses[-1][:64] if addresses else None)
