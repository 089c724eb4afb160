# SPDX-License-Identifier: Apache-2.0
"""Who asks over HTTP: what a request shows, read strictly, and whether a page may have sent it. Private to the room.

    Authorization: Bearer ssk_...    an API key; X-API-Key takes the same
    Cookie: __Host-shipsight=...     a session; `shipsight` where the server's own address is plain HTTP
    a certificate of the connection  verified by its handshake

Invariants: nothing in a URL is a credential; a header that names a client is read only where `proxies` left it; each
credential stands once. A session's cookie is sent by browsers unasked, so what changes something needs the session's token in
`X-CSRF-Token` and a page of this origin. They send certificates, and what a proxy signed them in with, unasked, too: whatever was
not shown with a key must not come from a page of another origin. Sources: OWASP ASVS 5.0, 3.3, 3.5 and 4.1.3; RFC 6750, RFC 6265bis.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import Scope

from shipsight.access import OPEN_RIGHTS, Certificate, Principal, PrincipalKind
from shipsight.errors import AuthenticationError, ForbiddenError, ShipsightError
from shipsight.serve.gate import KEY_PREFIX, Caller, Gate, Shown, several_credentials
from shipsight.serve.http.cookies import session_cookie_name
from shipsight.serve.http.proxies import FORWARDED, PROXIED, Proxied

__all__ = [
    "CALLER",
    "CLIENT_CERTIFICATE",
    "CSRF_HEADER",
    "caller_of",
    "check_page",
    "check_sender",
    "is_stale_session",
    "principal_of",
    "read_shown",
]

CLIENT_CERTIFICATE = "shipsight.client_certificate"
"""The extension of ASGI's scope that holds the `Certificate` of a TLS connection, None where the client showed none."""
CALLER = "shipsight.caller"
"""Where a scope holds the `Caller`, once the route's needs were met."""
CSRF_HEADER = "x-csrf-token"

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_MOST_CHARACTERS = 512
_NO_KEY = "\x00"  # what is shown is none, and never accepted


def caller_of(scope: Scope) -> Caller:
    """Returns who asks, with what only the edge needs; a request that did not pass the gate has none, and fails."""
    caller: Caller = scope[CALLER]
    return caller


def principal_of(scope: Scope) -> Principal:
    """Returns who asks; a request that did not pass the gate has none, and fails."""
    return caller_of(scope).principal


def read_shown(scope: Scope, gate: Gate) -> Shown:
    """Returns what a request shows of who asks.

    Raises:
        AuthenticationError: a credential stands there twice, or different ones do.
    """
    headers = Headers(scope=scope)
    proxied: Proxied | None = scope.get(PROXIED)
    client = scope.get("client")
    peer = client[0] if client else None
    is_direct = gate.rules.knows_clients(is_vouched=proxied is not None)
    of_client = peer if is_direct else None
    if proxied is not None and not is_direct:
        of_client = proxied.address
    certificate: Certificate | None = scope.get("extensions", {}).get(CLIENT_CERTIFICATE)
    return Shown(
        key=_read_key(headers, gate),
        session=_read_session(headers, session_cookie_name(gate.origin)),
        certificate=certificate,
        is_vouched=proxied is not None,
        user=None if proxied is None else proxied.user,
        address=of_client or peer,
        client=of_client,
        is_forwarded=scope.get(FORWARDED, False),
    )


def _read_key(headers: Headers, gate: Gate) -> str | None:
    found = headers.getlist("x-api-key")
    for value in headers.getlist("authorization"):
        scheme, _, key = value.partition(" ")
        found.append(key.strip() if scheme.lower() == "bearer" else _NO_KEY)
    if gate.rules.behind is not None:
        # What a platform puts there is for itself; ours are known by how they begin.
        found = [one for one in found if one.startswith(KEY_PREFIX)]
    if len(set(found)) > 1:
        raise several_credentials()
    return found[0][:_MOST_CHARACTERS] if found else None


def _read_session(headers: Headers, name: str) -> str | None:
    found = set()
    for header in headers.getlist("cookie"):
        for part in header.split(";"):
            key, equals, value = part.strip().partition("=")
            if equals and key == name:
                found.add(value)
    if len(found) > 1:
        raise several_credentials()
    return found.pop()[:_MOST_CHARACTERS] if found else None


def check_page(scope: Scope, caller: Caller, gate: Gate, *, needs_token: bool) -> None:
    """Refuses what a browser sent unasked for a page that is not this server's. Source: OWASP ASVS 5.0, 3.5.

    Args:
        scope: of the request.
        caller: who asks.
        gate: knows the origin that browsers see.
        needs_token: whether the token of a session must be sent along.

    Raises:
        ForbiddenError: another page sent it; or it came with a session, and nothing shows that a page of this server sent it.
    """
    # Keys are never sent unasked. An open server asks nobody for anything, and `LoopbackGuard` says whose pages may ask it.
    is_asked = caller.principal.kind is PrincipalKind.KEY or caller.principal.rights is OPEN_RIGHTS
    is_socket = scope["type"] == "websocket"
    if is_asked or (not is_socket and scope["method"] in _SAFE):
        return
    check_sender(scope, gate)
    if caller.csrf is None:
        return
    headers = Headers(scope=scope)
    site = headers.get("sec-fetch-site")
    # With a session a page has to be named: it is no program's.
    is_ours = "origin" in headers or (site == "same-origin" and not is_socket)
    if not is_ours or site == "none":
        raise ForbiddenError("no page of this server sent this", where="Origin, Sec-Fetch-Site")
    if needs_token and not is_socket:
        token = headers.get(CSRF_HEADER, "")
        if not hmac.compare_digest(token.encode("latin-1", "replace"), caller.csrf.encode()):
            raise ForbiddenError("the session's token is missing or wrong", where="X-CSRF-Token")


def check_sender(scope: Scope, gate: Gate) -> None:
    """Refuses what a page of another origin sent. Programs, which say nothing of pages, pass.

    Args:
        scope: of the request.
        gate: knows the origin that browsers see.

    Raises:
        ForbiddenError: one did.
    """
    headers = Headers(scope=scope)
    site, ours = headers.get("sec-fetch-site"), _origins(scope, headers, gate)
    if site not in (None, "same-origin", "none") or not all(one in ours for one in headers.getlist("origin")):
        raise ForbiddenError("a page of another site sent this", where="Origin, Sec-Fetch-Site")


def _origins(scope: Scope, headers: Headers, gate: Gate) -> frozenset[str]:
    """Returns the origins of this server's pages."""
    access = gate.access
    if access is not None and access.settings.public_url is not None:
        return frozenset({access.settings.public_url.rstrip("/").lower()})
    host = headers.get("host", "").lower()
    is_tls = scope["scheme"] in ("https", "wss")
    if gate.rules.behind is not None:  # what the browser speaks with whoever stands in front is not known here
        return frozenset({f"http://{host}", f"https://{host}"})
    return frozenset({f"http{'s' * is_tls}://{host}"})


def is_stale_session(error: ShipsightError, shown: Shown) -> bool:
    """Tells whether nothing was shown but the cookie of a session that has ended: browsers send that unasked."""
    return shown.session is not None and shown.key is None and error.code == AuthenticationError.code
