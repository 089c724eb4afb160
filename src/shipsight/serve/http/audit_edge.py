# SPDX-License-Identifier: Apache-2.0
"""How a request about the audit log meets its handler: who asks, a strict query and body, threads, and what reading leaves behind.

A handler is a plain function that runs in a thread, since reading the log waits for a disk or a database; there are few of these
threads, and each person has few places, so that who searches a long log costs the rest of the server nothing. What walks through
the whole log (verifying, reviewing) does so once at a time. Reading is itself recorded: once for each person, hour and filter.
Leaves to others: who asks and what they may do (`handlers`). Private to the room. Source: OWASP ASVS 5.0, 16.4.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from shipsight.access import Event, EventKind, Outcome, Principal
from shipsight.errors import NotFoundError, OverloadedError
from shipsight.serve.gate import Caller, Gate
from shipsight.serve.http.access_fields import Field, check_text, read_fields
from shipsight.serve.http.admission import admit_again
from shipsight.serve.http.audit_query import Given, read_query
from shipsight.serve.http.body import read_json_body
from shipsight.serve.http.description import Operation
from shipsight.serve.http.principals import check_sender
from shipsight.serve.lanes import Lane, network_of
from shipsight.serve.limits import Limits
from shipsight.serve.needs import Needs

if TYPE_CHECKING:
    from shipsight.serve.auditing import Audited

__all__ = ["AuditAsked", "AuditEdge", "AuditHandler", "AuditRoute", "ascii_answer", "told_moment"]

_BODY_BYTES = 64 * 1024
_MOST_READINGS = 4096


class Readings:
    """Which readings were recorded: one of a person with a filter is recorded once in an hour, not for each page of it."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str, str], None] = {}
        self._lock = threading.Lock()

    def is_new(self, actor: str, what: str, now: datetime) -> bool:
        """Tells whether a reading was not recorded in this hour; where there are very many, the oldest are forgotten."""
        key = (actor, what, f"{now:%Y-%m-%dT%H}")
        with self._lock:
            return key not in self._told

    def note(self, actor: str, what: str, now: datetime) -> None:
        """Notes that it was recorded."""
        with self._lock:
            self._told[actor, what, f"{now:%Y-%m-%dT%H}"] = None
            while len(self._told) > _MOST_READINGS:
                del self._told[next(iter(self._told))]


@dataclass(frozen=True)
class AuditAsked:
    """A request, read.

    Attributes:
        audited: the log and its reviews.
        gate: lets in, and takes events.
        caller: who asks.
        given: its query.
        told: its body: a value for each declared name, None for what is not there.
        request: the rest of it.
        readings: which were recorded.
        run: has more work of this request done in a thread.
    """

    audited: Audited
    gate: Gate
    caller: Caller
    given: Given
    told: Mapping[str, Any] = field(repr=False)
    request: Request = field(repr=False)
    readings: Readings = field(repr=False)
    run: Callable[..., Awaitable[Any]] = field(repr=False)

    @property
    def principal(self) -> Principal:
        """Who asks."""
        return self.caller.principal

    def path(self, name: str) -> str:
        """Returns a parameter of the path."""
        return check_text(name, self.request.path_params[name])

    def record(self, kind: EventKind, subject: str | None = None, **details: str | int | None) -> None:
        """Records what this request does, before it does it.

        Raises:
            AuditError: it cannot be recorded, so it must not be done.
        """
        event = Event(
            at=self.gate.now(),
            kind=kind,
            outcome=Outcome.DONE,
            actor=self.principal.told(),
            subject=subject,
            address=self.caller.address,
            details={name: one for name, one in details.items() if one is not None},
        )
        self.gate.events.record(event)

    def note_reading(self, what: str, told: str = "", subject: str | None = None) -> None:
        """Records that somebody reads, where that was not recorded in this hour.

        Args:
            what: they read.
            told: by which filter.
            subject: which one, None for no single one.

        Raises:
            AuditError: it cannot be recorded, so nothing is read.
        """
        now, actor = self.gate.now(), self.principal.told()
        key = f"{what} {subject or ''} {told}"
        if self.readings.is_new(actor, key, now):
            self.record(EventKind.AUDIT_READ, subject, what=what, filter=told or None)
            self.readings.note(actor, key, now)


AuditHandler = Callable[[AuditAsked], Response]


@dataclass(frozen=True)
class AuditRoute:
    """A route of the audit log, declared.

    Attributes:
        method: of HTTP.
        path: below `/v1/audit/`.
        summary: one sentence without a full stop.
        handler: answers.
        needs: what whoever asks needs.
        gives: media type -> schema of what it answers.
        query: schemas of what the query may hold.
        fields: what the body may hold.
        status: of that answer.
        errors: statuses of errors beside those that any route may give.
        is_long: whether it walks through the whole log: one at a time.
    """

    method: str
    path: str
    summary: str
    handler: AuditHandler
    needs: Needs
    gives: Mapping[str, Any]
    query: Mapping[str, Operation] = field(default_factory=dict)
    fields: Mapping[str, Field] = field(default_factory=dict)
    status: int = 200
    errors: tuple[int, ...] = ()
    is_long: bool = False


class AuditEdge:
    """Runs handlers of the audit log.

    Args:
        gate: knows the log, where the server keeps one.
        limits: of the server, of which bodies here take a small part.
    """

    def __init__(self, gate: Gate, limits: Limits) -> None:
        self._gate = gate
        self._limits = replace(limits, body_bytes=min(limits.body_bytes, _BODY_BYTES))
        self._readings = Readings()
        self._short = Lane("audit", threads=2, places=32, share=6)
        self._long = Lane("audit-long", threads=1, places=1)
        self._walks = False

    async def answer(self, route: AuditRoute, request: Request) -> Response:
        """Answers a request that the gate let in.

        Args:
            route: that it came by.
            request: of Starlette.

        Raises:
            NotFoundError: this server keeps no audit log.
            ForbiddenError: a page of another origin sent it.
            AccessError: who asks may not any more, now that the body is there.
            OverloadedError: too many wait.
            UsageError: the query or the body does not fit.
        """
        if request.method not in ("GET", "HEAD"):
            check_sender(request.scope, self._gate)
        audited = self._gate.audited
        if audited is None:
            raise NotFoundError("this server keeps no audit log", hint="Start it with --audit.")
        given = read_query(request.query_params.multi_items(), route.query)
        told = read_fields(await read_json_body(request, self._limits), route.fields)
        caller = await admit_again(request.scope)
        whose = caller.principal.id or network_of(caller.client)
        context, lane = copy_context(), self._long if route.is_long else self._short

        def run(work: Callable[..., Any], *arguments: object) -> asyncio.Future[Any]:
            # A context of its own each time: one cannot be entered twice.
            return lane.submit(context.copy().run, work, *arguments, whose=whose)

        asked = AuditAsked(audited, self._gate, caller, given, told, request, self._readings, run)
        if not route.is_long:
            # Whoever leaves does not stop what is being recorded half-way.
            return await asyncio.shield(run(route.handler, asked))
        if self._walks:
            raise OverloadedError(
                "the log is being verified or reviewed already", expected="one at a time", hint="Wait for its end."
            )
        walk = run(route.handler, asked)
        self._walks = True
        walk.add_done_callback(self._walked)
        return await asyncio.shield(walk)

    def close(self) -> None:
        """Ends the threads."""
        for lane in (self._short, self._long):
            lane.close()

    def _walked(self, done: object) -> None:
        self._walks = False


def ascii_answer(value: object, status: int = 200) -> Response:
    """Returns a JSON answer in ASCII: what strangers wrote into the log moves no terminal's cursor and turns no text around."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Response(text.encode("ascii"), status, media_type="application/json")


def told_moment(at: datetime | None) -> str | None:
    """Returns a time as answers tell it, with microseconds: entries lie close together."""
    return None if at is None else f"{at:%FT%T.%fZ}"
