# SPDX-License-Identifier: Apache-2.0
"""How a request about access meets its handler: who asks, a strict body, threads, cookies, and never a cache.

A handler is a plain function that runs in a thread, since the database and the hashing of passwords block; there are few of
these threads, and few requests may wait for one, so that a flood of sign-ins costs the rest of the server nothing. Who is known
has threads and places of their own, and so has what waits for a provider of OpenID Connect. Leaves to others: who asks and what
they may do (`handlers`), whether a page of another origin sent it (`principals`). Private to the room. Source: OWASP ASVS 5.0, 3.3, 3.5 and 14.3.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from shipsight.access import Principal
from shipsight.errors import ForbiddenError, NotFoundError, StepUpError, UsageError
from shipsight.serve.gate import Caller, Gate
from shipsight.serve.http.access_fields import Field, check_text, read_fields
from shipsight.serve.http.admission import admit_again
from shipsight.serve.http.body import read_json_body
from shipsight.serve.http.cookies import session_cookie_name
from shipsight.serve.http.principals import caller_of, check_sender
from shipsight.serve.lanes import Lane, Paced, network_of
from shipsight.serve.limits import Limits
from shipsight.serve.needs import Needs

if TYPE_CHECKING:
    # Half a second of imports that a server without users does not need.
    from shipsight.access.service import Access

__all__ = [
    "AccessEdge",
    "AccessHandler",
    "AccessRoute",
    "Asked",
    "Cookie",
    "person_of",
    "require_fresh",
    "seconds",
    "told_time",
]

_BODY_BYTES = 64 * 1024
_AGENT_CHARACTERS = 200


@dataclass(frozen=True)
class Cookie:
    """A cookie of a sign-in; no script can read it. A session's is in `cookies`.

    Attributes:
        name: without the prefix that binds it to its host, which is put before it on TLS.
        lives_s: seconds, None for as long as the browser is open.
        same_site: `strict`, or `lax` where another site leads back here.
    """

    name: str
    lives_s: int | None
    same_site: str = "strict"

    def name_at(self, origin: str) -> str:
        """Returns its name at an origin."""
        return f"__Host-{self.name}" if origin.startswith("https:") else self.name

    def set_on(self, response: Response, origin: str, value: str) -> None:
        """Sets it."""
        self._put(response, origin, value, self.lives_s)

    def end_on(self, response: Response, origin: str) -> None:
        """Takes it away."""
        self._put(response, origin, "", 0)

    def _put(self, response: Response, origin: str, value: str, lives_s: int | None) -> None:
        parts = [f"{self.name_at(origin)}={value}", "Path=/", "HttpOnly", f"SameSite={self.same_site.capitalize()}"]
        if lives_s is not None:
            parts.append(f"Max-Age={lives_s}")
        if origin.startswith("https:"):
            parts.append("Secure")
        response.headers.append("set-cookie", "; ".join(parts))


@dataclass(frozen=True)
class Asked:
    """A request, read.

    Attributes:
        access: all of it.
        origin: that browsers see.
        caller: who asks.
        told: its body: a value for each declared name, None for what is not there.
        request: the rest of it.
    """

    access: Access
    origin: str
    caller: Caller
    told: Mapping[str, Any] = field(repr=False)
    request: Request = field(repr=False)

    @property
    def principal(self) -> Principal:
        """Who asks."""
        return self.caller.principal

    def path(self, name: str) -> str:
        """Returns a parameter of the path."""
        return check_text(name, self.request.path_params[name])

    def cookie(self, cookie: Cookie) -> str | None:
        """Returns a cookie's value."""
        return self.request.cookies.get(cookie.name_at(self.origin))

    @property
    def session_token(self) -> str | None:
        """What the browser's session is known by, None without one."""
        return self.request.cookies.get(session_cookie_name(self.origin))

    @property
    def where(self) -> dict[str, str | None]:
        """Where it came from, as `access` takes it: `address`, `agent`."""
        agent = self.request.headers.get("user-agent")
        return {"address": self.caller.address, "agent": None if agent is None else agent[:_AGENT_CHARACTERS]}


AccessHandler = Callable[[Asked], Response]


@dataclass(frozen=True)
class AccessRoute:
    """A route of access, declared.

    Attributes:
        method: of HTTP.
        path: below `/v1/access/`.
        summary: one sentence without a full stop.
        handler: answers.
        needs: what whoever asks needs.
        fields: what the body may hold.
        gives: schema of what it answers.
        status: of that answer.
        without: answers where the server keeps no identities, None for an error.
        is_begin: whether it begins a ceremony that anybody may begin, and keeps something for it.
        asks_provider: whether it waits for a provider of OpenID Connect.
    """

    method: str
    path: str
    summary: str
    handler: AccessHandler
    needs: Needs
    fields: Mapping[str, Field] = field(default_factory=dict)
    gives: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    status: int = 200
    without: Callable[[Principal], Response] | None = None
    is_begin: bool = False
    asks_provider: bool = False


class AccessEdge:
    """Runs handlers of access.

    Args:
        gate: knows identities, where the server keeps some.
        limits: of the server, of which bodies here take a small part.
    """

    def __init__(self, gate: Gate, limits: Limits) -> None:
        self._gate = gate
        self._limits = replace(limits, body_bytes=min(limits.body_bytes, _BODY_BYTES))
        self._known = Lane("access", threads=4, places=64, share=32)
        # One less than passwords are hashed at once: who is signed in and proves it again finds a turn.
        self._anyone = Lane("access-anyone", threads=3, places=64, share=8)
        self._provider = Lane("access-provider", threads=2, places=32, share=8)
        self._begun = Paced(60, window_s=60.0)

    async def answer(self, route: AccessRoute, request: Request) -> Response:
        """Answers a request that the gate let in.

        Args:
            route: that it came by.
            request: of Starlette.

        Raises:
            NotFoundError: this server keeps no identities.
            ForbiddenError: a page of another origin sent it.
            AccessError: who asks may not any more, now that the body is there.
            OverloadedError: too many wait.
            RateLimitError: too many sign-ins were begun from where it comes.
            UsageError: the body does not fit.
        """
        if request.method not in ("GET", "HEAD"):
            check_sender(request.scope, self._gate)
        access = self._gate.access
        if access is None:
            if route.without is None:
                raise NotFoundError("this server keeps no identities")
            return route.without(caller_of(request.scope).principal)
        began = caller_of(request.scope)
        if route.is_begin and began.principal.id is None:
            self._begun.take(network_of(began.client))
        told = read_fields(await read_json_body(request, self._limits), route.fields)
        caller = await admit_again(request.scope)
        asked = Asked(access, self._gate.origin, caller, told, request)
        # Whoever leaves does not stop a change half-way.
        return await asyncio.shield(self._submit(route, asked))

    def close(self) -> None:
        """Ends the threads."""
        for lane in (self._known, self._anyone, self._provider):
            lane.close()

    def _submit(self, route: AccessRoute, asked: Asked) -> asyncio.Future[Response]:
        """Hands a request to a thread: of those for who has a row here, or of those for anybody."""
        known = asked.principal.id
        lane = self._anyone if known is None else self._known
        if route.asks_provider:
            lane = self._provider
        whose = known or network_of(asked.caller.client)
        return lane.submit(copy_context().run, route.handler, asked, whose=whose)


def person_of(asked: Asked) -> str:
    """Returns the id of the person who asks.

    Raises:
        ForbiddenError: it is nobody who signed in.
    """
    if not asked.principal.is_person or asked.principal.id is None:
        raise ForbiddenError("this is for people who signed in", got=asked.principal.told())
    return asked.principal.id


def require_fresh(asked: Asked) -> None:
    """Lets pass who proved a short while ago who they are. Source: OWASP ASVS 5.0, 7.5.1 and 7.5.3.

    Raises:
        StepUpError: that was too long ago.
    """
    if not asked.principal.is_fresh(asked.access.now()):
        raise StepUpError("prove again who you are", got=asked.principal.told())


def told_time(at: datetime | None) -> str | None:
    """Returns a time as answers tell it."""
    return None if at is None else f"{at:%FT%TZ}"


def seconds(asked: Asked, name: str, default: float, *, most: float) -> float:
    """Returns a length of time of the body.

    Raises:
        UsageError: it is below 0 or too long.
    """
    given = asked.told[name]
    if given is None:
        return default
    if not 0 <= given <= most:
        raise UsageError("out of range", where=name, expected=f"0 to {most:g} seconds", got=given)
    return float(given)
