# SPDX-License-Identifier: Apache-2.0
"""The pages for people: files as they lie in `serve/pages`, given to anyone, since what they show is asked for by them.

A browser runs nothing in them but files of this server, and shows them in no other site's frame. Private to the room.
Source: OWASP ASVS 5.0, 3.4.
"""

from __future__ import annotations

from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shipsight.serve.http.description import DescribedRoute, answer, operation
from shipsight.serve.needs import PUBLIC

__all__ = ["page_routes"]

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_PAGES = {
    "/": "index.html",
    "/sign-in": "sign-in.html",
    "/invitation": "invitation.html",
    "/second-factor": "second-factor.html",
    "/account": "account.html",
    "/administration": "administration.html",
    "/audit": "audit.html",
}
_PARTS = (
    "page.css",
    "icon.svg",
    "account.js",
    "administration.js",
    "audit.js",
    "audit-entries.js",
    "audit-reviews.js",
    "audit-state.js",
    "audit-words.js",
    "elements.js",
    "forms.js",
    "grants.js",
    "invitation.js",
    "keys.js",
    "page.js",
    "passkeys.js",
    "person.js",
    "prove.js",
    "seal.js",
    "second-factor.js",
    "server.js",
    "sessions.js",
    "sign-in.js",
)
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def page_routes() -> list[Route]:
    """Returns the routes of all pages, and of what they are made of."""
    return [_route(path, name) for path, name in (*_PAGES.items(), *((f"/pages/{one}", one) for one in _PARTS))]


def _route(path: str, name: str) -> Route:
    content = (files("shipsight.serve") / "pages" / name).read_bytes()
    kind = _KINDS[name.rpartition(".")[2]]

    async def give(request: Request) -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    described = operation("A page for people", tag="page", answers={200: answer("the page", {kind: {}})})
    return DescribedRoute(path, give, method="GET", described=described, needs=PUBLIC)
