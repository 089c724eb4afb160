# SPDX-License-Identifier: Apache-2.0
"""What a request about access may hold, declared once: it is read by the declaration, and described by it.

Invariants: a key that is not declared is refused, so that nobody sets what they were not asked for; a value of another type
is refused, not converted. Leaves to others: what the values mean. Private to the room. Source: OWASP ASVS 5.0, 15.3.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from shipsight.errors import UsageError
from shipsight.serve.http.json_body import read_json

__all__ = ["Field", "FieldKind", "check_text", "read_fields", "read_time", "schema_of"]

_MOST_CHARACTERS = 1000
_MOST_ITEMS = 200


class FieldKind(StrEnum):
    """What type a value is of."""

    TEXT = "text"
    FLAG = "flag"
    NUMBER = "number"
    TEXTS = "list of texts"
    MAPPING = "mapping"
    TIME = "time with its zone, as 2030-01-31T12:00:00Z"


_SCHEMAS: Mapping[FieldKind, Mapping[str, Any]] = {
    FieldKind.TEXT: {"type": "string", "maxLength": _MOST_CHARACTERS},
    FieldKind.FLAG: {"type": "boolean"},
    FieldKind.NUMBER: {"type": "number"},
    FieldKind.TEXTS: {
        "type": "array",
        "items": {"type": "string", "maxLength": _MOST_CHARACTERS},
        "maxItems": _MOST_ITEMS,
    },
    FieldKind.MAPPING: {"type": "object"},
    FieldKind.TIME: {"type": "string", "format": "date-time"},
}


@dataclass(frozen=True)
class Field:
    """One value of a body.

    Attributes:
        kind: type of it.
        is_required: whether a body without it is refused.
        choices: all that a text may be, empty for any; words that may stand for a time.
    """

    kind: FieldKind = FieldKind.TEXT
    is_required: bool = True
    choices: tuple[str, ...] = ()

    def schema(self) -> dict[str, Any]:
        """Returns the value as JSON Schema tells it; what is not required may be null, too."""
        told = dict(_SCHEMAS[self.kind])
        if self.choices and self.kind is FieldKind.TIME:
            told = {"anyOf": [told, {"enum": [*self.choices, *([] if self.is_required else [None])]}]}
        elif self.choices:
            told = {"enum": [*self.choices, *([] if self.is_required else [None])]}
        elif not self.is_required:
            told["type"] = [told["type"], "null"]
        return told


def schema_of(fields: Mapping[str, Field]) -> dict[str, Any]:
    """Returns a body as JSON Schema tells it."""
    return {
        "type": "object",
        "properties": {name: field.schema() for name, field in fields.items()},
        "required": [name for name, field in fields.items() if field.is_required],
        "additionalProperties": False,
    }


def read_fields(body: bytes, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Reads a body.

    Args:
        body: JSON; none at all where nothing is required.
        fields: what it may hold.

    Returns:
        All names; None for what is not there.

    Raises:
        UsageError: it is no mapping of these, lacks something that is required, or a value does not fit.
    """
    told = read_json(body) if body else {}
    if not isinstance(told, dict):
        raise UsageError("not a mapping", where="body", expected=", ".join(fields) or "nothing")
    unknown = sorted(set(told) - set(fields))
    if unknown:
        # Its name is not said back: it may be a value that slipped.
        raise UsageError("a key that is not known here", where="body", expected=", ".join(fields) or "nothing")
    missing = [name for name, field in fields.items() if field.is_required and told.get(name) is None]
    if missing:
        raise UsageError("this is missing", where=missing[0], expected=fields[missing[0]].kind.value)
    return {name: None if told.get(name) is None else _read(name, told[name], field) for name, field in fields.items()}


def check_text(name: str, text: str) -> str:
    """Returns a text that can be kept: whole characters, no NUL, not too long.

    Raises:
        UsageError: it is another.
    """
    if len(text) > _MOST_CHARACTERS:
        raise UsageError("too long", where=name, expected=f"at most {_MOST_CHARACTERS} characters", got=len(text))
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UsageError("not a text", where=name, expected="whole characters")
    return text


def _read(name: str, value: Any, field: Field) -> Any:  # noqa: ANN401 - whatever a client sent
    fits = False
    match field.kind:
        case FieldKind.TEXT | FieldKind.TIME:
            fits = isinstance(value, str)
        case FieldKind.FLAG:
            fits = isinstance(value, bool)
        case FieldKind.NUMBER:
            fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        case FieldKind.TEXTS:
            fits = isinstance(value, list) and all(isinstance(one, str) for one in value)
        case FieldKind.MAPPING:
            fits = isinstance(value, dict)
    if not fits:
        raise UsageError("not of the type that belongs here", where=name, expected=field.kind.value)
    if field.kind is FieldKind.TEXTS:
        if len(value) > _MOST_ITEMS:
            raise UsageError("too many", where=name, expected=f"at most {_MOST_ITEMS}", got=len(value))
        return tuple(check_text(name, one) for one in value)
    if field.kind is FieldKind.TIME:
        return value if value in field.choices else read_time(name, value)
    if field.kind is FieldKind.TEXT:
        check_text(name, value)
    if field.choices and value not in field.choices:
        raise UsageError("not one of those that there are", where=name, expected=", ".join(field.choices))
    return value


def read_time(name: str, text: str) -> datetime:
    """Reads a time with its zone.

    Raises:
        UsageError: it is none.
    """
    try:
        read = datetime.fromisoformat(text)
        if read.tzinfo is not None:
            return read.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise UsageError("not a time", where=name, expected=FieldKind.TIME.value)
