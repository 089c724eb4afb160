# SPDX-License-Identifier: Apache-2.0
"""Entries of the audit log over HTTP: pages of them, one of them, and exports as JSON lines or CSV.

Texts in entries come from strangers, too. JSON goes out in ASCII, where nothing moves a terminal's cursor or turns a text around; CSV is
for people and their spreadsheets: what is not printable is written out, and no cell begins a formula. A page shows long texts cut, and
says which; a single entry and JSON lines hold all of it. Private to the room. Source: OWASP ASVS 5.0, 1.2.10, 16.4.1 and 16.4.2.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from starlette.responses import Response, StreamingResponse

from shipsight.access import Action, EventKind
from shipsight.errors import NotFoundError, UsageError
from shipsight.serve.http.audit_edge import AuditAsked, AuditRoute, ascii_answer, told_moment
from shipsight.serve.http.audit_query import FILTERS, FORMAT, PAGING, USUAL_ENTRIES
from shipsight.serve.needs import Needs

if TYPE_CHECKING:
    from shipsight.access.audit import Entry

__all__ = ["RECORD_ROUTES", "csv_row", "safe_cell", "told_entry"]

_CHUNK_CHARACTERS = 1 << 20
_MOST_SEARCHED = 20_000  # entries that one request, or one piece of an export, looks through
_MOST_SHOWN = 1000  # characters of a text, on a page of entries
_MOST_CELL = 32_000  # characters of a cell: spreadsheets take 32,767
_KINDS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}
_ACCEPTED = {"text/csv": "csv", "application/jsonl": "jsonl", "application/x-ndjson": "jsonl"}
_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\N{FULLWIDTH EQUALS SIGN}",
    "\N{FULLWIDTH PLUS SIGN}",
    "\N{FULLWIDTH HYPHEN-MINUS}",
    "\N{FULLWIDTH COMMERCIAL AT}",
)
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"  # spreadsheets take what begins with it for UTF-8
_COLUMNS = (
    "seq",
    "at",
    "server",
    "kind",
    "outcome",
    "actor",
    "subject",
    "why",
    "factor",
    "address",
    "details",
    "erased_by",
)


def _records(asked: AuditAsked) -> Response:
    wanted = _format(asked)
    if wanted is not None:
        return _export(asked, wanted)
    given, log = asked.given, asked.audited.log
    most = given.limit or USUAL_ENTRIES
    asked.note_reading("entries", given.told())
    last = min(
        one for one in (given.last, log.size - 1, None if given.before is None else given.before - 1) if one is not None
    )
    least = given.first or 0
    # Texts are looked for entry by entry: what one request may look through has an end, and the next goes on there.
    first = least if given.text is None else max(least, last - _MOST_SEARCHED + 1)
    found = []
    if first <= last:
        chosen = {**given.filter(), "first": first, "last": last}
        found = list(log.entries(**chosen, newest_first=True, limit=most + 1))
    shown = found[:most]
    before = shown[-1].seq if len(found) > most else first if first > least else None
    return ascii_answer({"records": [_cut(told_entry(one)) for one in shown], "before": before})


def _record(asked: AuditAsked) -> Response:
    text = asked.path("seq")
    if not (text.isascii() and text.isdecimal()) or len(text) > 19:
        raise UsageError("not the number of an entry", where="seq", expected="a whole number")
    seq = int(text)
    asked.note_reading("entry", subject=f"entry:{seq}")
    found = next(iter(asked.audited.log.entries(first=seq, last=seq)), None)
    if found is None:
        raise NotFoundError("no such entry", where="seq")
    return ascii_answer({"record": told_entry(found)})


def _format(asked: AuditAsked) -> str | None:
    """Returns what an export is wanted as, None for a page of entries."""
    if asked.given.format is not None:
        return asked.given.format
    accepted = asked.request.headers.get("accept", "").lower().split(",")
    return next((_ACCEPTED[kind] for one in accepted if (kind := one.partition(";")[0].strip()) in _ACCEPTED), None)


def _export(asked: AuditAsked, wanted: str) -> Response:
    given = asked.given
    if given.before is not None or given.limit is not None:
        raise UsageError("an export has no pages", where="before, limit", expected="nothing")
    end = asked.audited.log.size
    name = f"audit-{asked.gate.now():%Y-%m-%dT%H%M%SZ}.{wanted}"
    headers = {"content-disposition": f'attachment; filename="{name}"', "x-content-type-options": "nosniff"}
    if asked.request.method == "HEAD":
        return Response(headers=headers, media_type=_KINDS[wanted])
    # Before the first byte: who has taken the log away stands in it.
    asked.record(
        EventKind.EXPORTED, "audit-log", what="entries", format=wanted, filter=given.told() or None, before=end
    )
    return StreamingResponse(_chunks(asked, wanted, end), headers=headers, media_type=_KINDS[wanted])


async def _chunks(asked: AuditAsked, wanted: str, end: int) -> AsyncIterator[bytes]:
    """Yields an export piece by piece: each is read in a thread of its own turn, so that no transaction stays open for a slow client."""
    write = _csv_lines if wanted == "csv" else _json_lines
    if wanted == "csv":
        yield (_MARK + _csv_line(_COLUMNS)).encode()
    first: int | None = asked.given.first or 0
    while first is not None:
        text, first = await asked.run(_chunk, asked, write, first, end)
        yield text


def _chunk(
    asked: AuditAsked, write: Callable[[Iterator[Entry]], Iterator[tuple[int, str]]], first: int, end: int
) -> tuple[bytes, int | None]:
    """Returns a piece of an export, and the number with which the next one begins, None after the last."""
    chosen = asked.given.filter()
    last = end - 1 if chosen["last"] is None else min(chosen["last"], end - 1)
    if first > last:
        return b"", None
    # No more than this at once: who waits for a thread meanwhile waits a moment, whatever is looked for.
    until = min(first + _MOST_SEARCHED - 1, last)
    lines, size, following = [], 0, until + 1
    for seq, line in write(asked.audited.log.entries(**{**chosen, "first": first, "last": until})):
        lines.append(line)
        size += len(line)
        if size > _CHUNK_CHARACTERS:
            following = seq + 1
            break
    return "".join(lines).encode(), following


def _json_lines(entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
    for one in entries:
        yield one.seq, json.dumps(told_entry(one), ensure_ascii=True, separators=(",", ":")) + "\n"


def _csv_lines(entries: Iterator[Entry]) -> Iterator[tuple[int, str]]:
    for one in entries:
        yield one.seq, _csv_line(csv_row(one))


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow(cells)
    return line.getvalue()


def csv_row(entry: Entry) -> list[str]:
    """Returns an entry's cells."""
    told = told_entry(entry)
    told["details"] = json.dumps(told["details"], ensure_ascii=False, separators=(",", ":")) if told["details"] else ""
    return [safe_cell("" if told[name] is None else str(told[name])) for name in _COLUMNS]


def safe_cell(text: str) -> str:
    """Returns a text as a spreadsheet may hold it: printable, not too long, and no formula (ASVS 1.2.10)."""
    shown = "".join(one if one.isprintable() else f"\\u{{{ord(one):04x}}}" for one in text[:_MOST_CELL])
    if len(text) > _MOST_CELL or len(shown) > _MOST_CELL:
        shown = f"{shown[:_MOST_CELL]}... ({len(text)} characters)"
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def told_entry(entry: Entry) -> dict[str, Any]:
    """Returns an entry as answers tell it."""
    event = entry.event
    return {
        "seq": entry.seq,
        "at": told_moment(event.at),
        "server": entry.server,
        "kind": event.kind.value,
        "outcome": event.outcome.value,
        "actor": event.actor,
        "subject": event.subject,
        "why": event.why,
        "factor": event.factor,
        "address": event.address,
        "details": dict(event.details),
        "erased_by": entry.erased_by,
        "written": told_moment(entry.written),
        "clock_back": entry.is_clock_back,
    }


def _cut(told: dict[str, Any]) -> dict[str, Any]:
    """Returns an entry with no text longer than people read; `cut` names those that are."""
    cut: list[str] = []

    def shorter(name: str, value: Any) -> Any:  # noqa: ANN401 - any plain value
        is_long = isinstance(value, str | list) and len(value) > _MOST_SHOWN
        if isinstance(value, list):
            is_long = is_long or any(len(one) > _MOST_SHOWN for one in value)
            value = [one[:_MOST_SHOWN] for one in value]
        if is_long:
            cut.append(name)
        return value[:_MOST_SHOWN] if is_long else value

    told = {name: one if name == "details" else shorter(name, one) for name, one in told.items()}
    told["details"] = {name: shorter(f"details.{name}", one) for name, one in told["details"].items()}
    return {**told, "cut": cut}


_TEXT_OR_NONE = {"type": ["string", "null"]}
_ENTRY = {
    "type": "object",
    "properties": {
        "seq": {"type": "integer", "minimum": 0},
        "at": {"type": "string", "format": "date-time"},
        "server": {"type": "string"},
        "kind": {"enum": [one.value for one in EventKind]},
        "outcome": {"enum": ["done", "refused"]},
        "actor": {"type": "string"},
        **dict.fromkeys(("subject", "why", "factor", "address"), _TEXT_OR_NONE),
        "details": {"type": "object"},
        "erased_by": {"type": ["integer", "null"]},
        "written": _TEXT_OR_NONE,
        "clock_back": {"type": "boolean"},
    },
    "required": [*_COLUMNS, "written", "clock_back"],
}
_JSON = "application/json"
_PAGE = {
    "type": "object",
    "properties": {"records": {"type": "array", "items": _ENTRY}, "before": {"type": ["integer", "null"]}},
    "required": ["records", "before"],
}
_ONE = {"type": "object", "properties": {"record": _ENTRY}, "required": ["record"]}
_READ = Needs(Action.AUDIT_READ)
RECORD_ROUTES = (
    AuditRoute(
        "GET",
        "records",
        "Lists entries, the newest first, or exports them, the oldest first",
        _records,
        _READ,
        {_JSON: _PAGE, "text/csv": {}, "application/jsonl": {}},
        query={**FILTERS, **PAGING, **FORMAT},
    ),
    AuditRoute("GET", "records/{seq}", "Tells all of one entry", _record, _READ, {_JSON: _ONE}, errors=(404,)),
)
"""What there is, in order."""
