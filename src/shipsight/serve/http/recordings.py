# SPDX-License-Identifier: Apache-2.0
"""Recordings of production over HTTP. Described in `docs/recording.md`.

GET  /v1/recordings                 what is told of them without opening them, the newest first
GET  /v1/recordings/{recording}     one, opened
POST /v1/recordings/erase           {"subject"}, {"day"} or {"recordings": [...]}

Whoever asks is elsewhere, also from the same machine: they get what the policy lets leave. Each is in the audit log before it is done. No
answer may be kept by a cache, errors included. Private to the room.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shipsight.access import Action, Principal
from shipsight.errors import NotFoundError, UsageError
from shipsight.serve.http.access_fields import Field, FieldKind, check_text, read_fields, schema_of
from shipsight.serve.http.admission import admit_again
from shipsight.serve.http.answers import json_answer
from shipsight.serve.http.audit_query import read_values
from shipsight.serve.http.body import read_json_body
from shipsight.serve.http.description import Operation, answer, operation, query
from shipsight.serve.http.principals import caller_of, check_sender
from shipsight.serve.http.unkept import unkept_route
from shipsight.serve.lanes import Lane, network_of
from shipsight.serve.needs import HANDLER, Needs
from shipsight.serve.recordings import Recordings
from shipsight.serve.service import PredictionService

if TYPE_CHECKING:
    from shipsight.monitor.recording import Entry, KeptErasure

__all__ = ["recording_routes"]

_BODY_BYTES = 64 * 1024
_MOST, _USUAL = 500, 100
_CURSOR = re.compile(r"(\d{1,15})-([0-9a-f]{32})", re.ASCII)
_JSON = "application/json"

_TEXT: dict[str, Any] = {"type": "string"}
_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_MAY_LACK: dict[str, Any] = {"type": ["string", "null"]}
_LABEL: dict[str, dict[str, Any]] = {
    "id": _TEXT,
    "at": _TIME,
    "model": _TEXT,
    "version": _TEXT,
    "variant": _TEXT,
    "reasons": _TEXTS,
    "redacted": _TEXTS,
    "policy": _TEXT,
    "media_type": _MAY_LACK,
    "bytes": _COUNT,
}
_RECEIPT: dict[str, dict[str, Any]] = {
    "receipt": _TEXT,
    "what": _TEXT,
    "asked_at": _TIME,
    "asked_by": _TEXT,
    "records": _COUNT,
    "days": _TEXTS,
    "digest": _TEXT,
    "done_at": _TIME,
}
_FILTERS = {
    name: query(name, schema)
    for name, schema in {
        "since": _TIME,
        "until": _TIME,
        "model": {**_TEXT, "minLength": 1, "maxLength": 1000},
        "before": {**_TEXT, "minLength": 1, "maxLength": 64},
        "limit": {"type": "integer", "minimum": 1, "maximum": _MOST, "default": _USUAL},
    }.items()
}
_ERASED = {
    "subject": Field(is_required=False),
    "day": Field(is_required=False),
    "recordings": Field(FieldKind.TEXTS, is_required=False),
}


def recording_routes(service: PredictionService, recordings: Recordings | None) -> list[Route]:
    """Returns the routes.

    Args:
        service: of the server.
        recordings: that are being made; None where there are none: then all is refused as not there.
    """
    edge = _Edge(service, recordings)
    reads, erases = Needs(Action.RECORDINGS_READ, HANDLER), Needs(Action.RECORDINGS_CHANGE)

    def route(path: str, act: _Act, described: Operation, needs: Needs, method: str = "GET") -> Route:
        answering = partial(edge.answer, act)
        return unkept_route(
            service, f"/v1/recordings{path}", answering, method=method, described=described, needs=needs
        )

    page: dict[str, dict[str, Any]] = {"recordings": {"type": "array", "items": _object(_LABEL)}, "before": _MAY_LACK}
    opened = {**_LABEL, "predictions": {"type": "object"}, "image": {**_MAY_LACK, "contentEncoding": "base64"}}
    return [
        route("", edge.list, _described("Lists recordings", page, parameters=tuple(_FILTERS.values())), reads),
        route("/erase", edge.erase, _described("Erases recordings", _RECEIPT, body=_ERASED), erases, "POST"),
        route("/{recording}", edge.show, _described("Opens a recording", opened), reads),
    ]


def _object(properties: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _described(
    summary: str,
    gives: dict[str, dict[str, Any]],
    *,
    parameters: tuple[Operation, ...] = (),
    body: dict[str, Field] | None = None,
) -> Operation:
    return operation(
        summary,
        tag="recordings",
        answers={200: answer("done", {_JSON: _object(gives)})},
        parameters=parameters,
        body=None if body is None else {_JSON: schema_of(body)},
        errors=(404, 422) if body is None else (404, 413),
    )


_Act = Callable[[Recordings, Request], Awaitable[Response]]


class _Edge:
    """Answers requests about recordings; what waits for a disk is done in threads of their own."""

    def __init__(self, service: PredictionService, recordings: Recordings | None) -> None:
        self._gate, self._recordings = service.gate, recordings
        self._limits = replace(service.limits, body_bytes=min(service.limits.body_bytes, _BODY_BYTES))
        self._lane = Lane("recordings", threads=2, places=32, share=6)

    async def answer(self, act: _Act, request: Request) -> Response:
        """Answers a request that the gate let in.

        Raises:
            ForbiddenError: a page of another origin sent it.
            NotFoundError: this server records no single images.
        """
        if request.method not in ("GET", "HEAD"):
            check_sender(request.scope, self._gate)
        if self._recordings is None:
            raise NotFoundError("this server records nothing", hint="Start it with --record-policy.")
        return await act(self._recordings, request)

    async def list(self, recordings: Recordings, request: Request) -> Response:
        """Lists."""
        given = read_values(request.query_params.multi_items(), _FILTERS)
        before, most = given.pop("before", None), given.pop("limit", _USUAL)
        cursor = None if before is None else _read_cursor(before)

        def read(actor: Principal) -> Response:
            from shipsight.monitor.recording import list_recordings

            store, events = recordings.store, self._gate.events
            found = list_recordings(store, actor=actor, events=events, before=cursor, limit=most + 1, **given)
            shown = found[:most]
            following = _cursor(shown[-1]) if len(found) > most else None
            return json_answer({"recordings": [_told(one) for one in shown], "before": following})

        return await self._run(request, read)

    async def show(self, recordings: Recordings, request: Request) -> Response:
        """Opens one."""
        name = check_text("recording", request.path_params["recording"])

        def read(actor: Principal) -> Response:
            from shipsight.monitor.recording import show_recording

            store = recordings.store
            found = show_recording(store, name, actor=actor, events=self._gate.events)
            image = None if found.image is None else base64.b64encode(found.image).decode()
            return json_answer({**_told(store.entry(name)), "predictions": found.predictions, "image": image})

        return await self._run(request, read)

    async def erase(self, recordings: Recordings, request: Request) -> Response:
        """Erases."""
        told = read_fields(await read_json_body(request, self._limits), _ERASED)
        chosen = [name for name, value in told.items() if value is not None]
        if len(chosen) != 1:
            raise UsageError("one of these", where="body", expected=", ".join(_ERASED), got=len(chosen))
        await admit_again(request.scope)

        def change(actor: Principal) -> Response:
            from shipsight.monitor.recording import erase_day, erase_recordings, erase_subject

            recordings.flush()
            store, events = recordings.store, self._gate.events
            if told["subject"] is not None:
                receipt = erase_subject(store, told["subject"], actor=actor, events=events)
            elif told["day"] is not None:
                receipt = erase_day(store, told["day"], actor=actor, events=events)
            else:
                receipt = erase_recordings(store, told["recordings"], actor=actor, events=events)
            return json_answer(_told_receipt(receipt))

        return await self._run(request, change)

    async def _run(self, request: Request, work: Callable[[Principal], Response]) -> Response:
        """Does work in a thread, as whoever asks; whoever leaves does not stop it half-way."""
        caller = caller_of(request.scope)
        whose = caller.principal.id or network_of(caller.client)
        return await asyncio.shield(self._lane.submit(copy_context().run, work, caller.principal, whose=whose))


def _told(one: Entry) -> dict[str, Any]:
    return {**one.label.to_dict(), "at": _moment(one.label.at), "bytes": one.size}


def _told_receipt(receipt: KeptErasure) -> dict[str, Any]:
    assert receipt.done_at is not None  # else it had raised
    return {
        "receipt": receipt.id,
        "what": receipt.what,
        "asked_at": _moment(receipt.asked_at),
        "asked_by": receipt.asked_by,
        "records": receipt.records,
        "days": list(receipt.days),
        "digest": receipt.digest,
        "done_at": _moment(receipt.done_at),
    }


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cursor(one: Entry) -> str:
    return f"{one.label.to_dict()['at']}-{one.label.id}"


def _read_cursor(text: str) -> tuple[datetime, str]:
    """Reads where the page before ended.

    Raises:
        UsageError: no page ended so.
    """
    from shipsight.monitor.recording.record import read_time

    found = _CURSOR.fullmatch(text)
    if found is None:
        raise UsageError("not what a page before ended with", where="before")
    try:
        return read_time(int(found[1])), found[2]
    except OverflowError:
        raise UsageError("not what a page before ended with", where="before") from None
