# SPDX-License-Identifier: Apache-2.0
"""What a request for entries of the audit log may ask for, read from its query. Private to the room.

Invariants: a name that is not declared, one that stands twice and a value that does not fit are refused: a filter that was
misread would show another part of the log than the reviewer believes to see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from shipsight.access import EventKind, Outcome
from shipsight.errors import UsageError
from shipsight.serve.http.access_fields import check_text, read_time
from shipsight.serve.http.description import Operation, query

__all__ = ["FILTERS", "FORMAT", "MOST_ENTRIES", "PAGING", "USUAL_ENTRIES", "Given", "read_query", "read_values"]

MOST_ENTRIES = 500
"""Entries in one answer."""
USUAL_ENTRIES = 100
"""Entries in one answer where nobody says how many."""
_MOST_SEQ = 2**63 - 1
_MOST_VALUES = len(EventKind)

_CSV, _JSONL = "csv", "jsonl"


@dataclass(frozen=True)
class Given:
    """What was asked for; None and empty for what was not.

    Attributes:
        since: entries of this time and later, UTC.
        until: entries before this time, UTC.
        first: least number of an entry.
        last: greatest number of an entry.
        kind: of events, one of these.
        outcome: one of these.
        actor: who did it, the whole name as entries tell it.
        subject: to whom or what, likewise.
        address: that it came from.
        text: that stands somewhere in it.
        server: that wrote it.
        before: only entries with lower numbers: where the page before ended.
        limit: entries of one page, None for as many as usual.
        format: of an export, None for a page of entries.
    """

    since: datetime | None = None
    until: datetime | None = None
    first: int | None = None
    last: int | None = None
    kind: tuple[EventKind, ...] = ()
    outcome: tuple[Outcome, ...] = ()
    actor: str | None = None
    subject: str | None = None
    address: str | None = None
    text: str | None = None
    server: str | None = None
    before: int | None = None
    limit: int | None = None
    format: str | None = None

    def filter(self) -> dict[str, Any]:
        """Returns what chooses entries, as `AuditLog.entries` takes it."""
        return {
            "since": self.since,
            "until": self.until,
            "first": self.first,
            "last": self.last,
            "kinds": self.kind,
            "outcomes": self.outcome,
            "actor": self.actor,
            "subject": self.subject,
            "address": self.address,
            "text": self.text,
            "server": self.server,
        }

    def told(self) -> str:
        """Returns what chooses entries, as a record tells it; empty where all were asked for."""
        parts = []
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name in _CHOOSING and value not in (None, ()):
                shown = value.isoformat() if isinstance(value, datetime) else value
                parts.append(f"{one.name}={','.join(shown) if isinstance(shown, tuple) else shown}")
        return "&".join(parts)


_TIME: Mapping[str, Any] = {"type": "string", "format": "date-time"}
_SEQ: Mapping[str, Any] = {"type": "integer", "minimum": 0, "maximum": _MOST_SEQ}
_TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1, "maxLength": 1000}


def _choices(of: Iterable[str]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "enum": sorted(of)}, "minItems": 1, "maxItems": _MOST_VALUES}


FILTERS: Mapping[str, Operation] = {
    name: query(name, schema)
    for name, schema in {
        "since": _TIME,
        "until": _TIME,
        "first": _SEQ,
        "last": _SEQ,
        "kind": _choices(EventKind),
        "outcome": _choices(Outcome),
        "actor": _TEXT,
        "subject": _TEXT,
        "address": _TEXT,
        "text": _TEXT,
        "server": _TEXT,
    }.items()
}
"""What chooses entries."""
PAGING: Mapping[str, Operation] = {
    "before": query("before", _SEQ),
    "limit": query("limit", {"type": "integer", "minimum": 1, "maximum": MOST_ENTRIES, "default": USUAL_ENTRIES}),
}
"""Which part of them."""
FORMAT: Mapping[str, Operation] = {"format": query("format", {"type": "string", "enum": [_CSV, _JSONL]})}
"""As what they are exported."""
PAGE_FORMAT: Mapping[str, Operation] = {"format": query("format", {"type": "string", "enum": ["html", "json"]})}
"""As what a report is shown."""
_CHOOSING = frozenset(FILTERS)


def read_values(given: Iterable[tuple[str, str]], allowed: Mapping[str, Operation]) -> dict[str, Any]:
    """Reads a query: what was given, by name.

    Args:
        given: its names and values.
        allowed: what it may hold.

    Raises:
        UsageError: it holds something else, or something twice, or a value does not fit.
    """
    read: dict[str, Any] = {}
    for name, text in given:
        if name not in allowed:
            raise UsageError("no such parameter", where="query", expected=", ".join(allowed) or "nothing")
        if name in read:
            raise UsageError("this stands twice", where=name)
        read[name] = _read(name, check_text(name, text), allowed[name]["schema"])
    return read


def read_query(given: Iterable[tuple[str, str]], allowed: Mapping[str, Operation]) -> Given:
    """Reads a query of the audit log; as `read_values`."""
    return Given(**read_values(given, allowed))


def _read(name: str, text: str, schema: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever the schema says
    if schema.get("format") == "date-time":
        return read_time(name, text)
    if schema["type"] == "integer":
        least, most = schema["minimum"], schema["maximum"]
        if (
            not (text.isascii() and text.isdecimal())
            or len(text) > len(str(_MOST_SEQ))
            or not least <= int(text) <= most
        ):
            raise UsageError("not a number that fits", where=name, expected=f"{least} to {most}")
        return int(text)
    if schema["type"] == "array":
        known: dict[str, Any] = {"kind": EventKind, "outcome": Outcome}
        words = tuple(dict.fromkeys(text.split(",")))
        if not set(words) <= set(schema["items"]["enum"]):
            raise UsageError("not one of those that there are", where=name, expected=", ".join(schema["items"]["enum"]))
        return tuple(map(known[name], words))
    if not text:
        raise UsageError("this is empty", where=name)
    if "enum" in schema and text not in schema["enum"]:
        raise UsageError("not one of those that there are", where=name, expected=", ".join(schema["enum"]))
    return text
