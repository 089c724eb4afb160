# SPDX-License-Identifier: Apache-2.0
"""What a server answered: JSON, or an error that it names, raised as the same class here. Private to the room."""

from __future__ import annotations

import json
from typing import Any

from shipsight import errors
from shipsight.errors import ServiceError, ShipsightError

__all__ = ["MOST_ANSWER_BYTES", "error_of", "read_json"]

MOST_ANSWER_BYTES = 2**28
"""Of one answer: masks of many large images stay well below."""
_CLASSES: dict[str, type[ShipsightError]] = {
    getattr(errors, name).code: getattr(errors, name) for name in errors.__all__
}
_LONGEST_RETRY_S = 86_400


def read_json(status: int, body: bytes, *, where: str, retry_after: str | None = None) -> dict[str, Any]:
    """Returns the mapping that a server answered with.

    Args:
        status: of HTTP.
        body: of the answer.
        where: the server, as errors call it.
        retry_after: that header.

    Raises:
        ShipsightError: what the server says.
        ServiceError: it is no answer of ours.
    """
    told = _loads(body)
    if status == 200 and isinstance(told, dict):
        return told
    raise error_of(status, body, where=where, retry_after=retry_after)


def error_of(status: int, body: bytes, *, where: str, retry_after: str | None = None) -> ShipsightError:
    """Returns the error that an answer names.

    Args:
        status: of HTTP.
        body: of the answer.
        where: the server, as errors call it.
        retry_after: that header.
    """
    told = _loads(body)
    error = told.get("error") if isinstance(told, dict) else None
    if isinstance(told, dict) and isinstance(error, str) and told.get("code") in _CLASSES:
        # As the Open Inference Protocol has it: one text.
        error = {"code": told["code"], "what": error}
    if not isinstance(error, dict) or not isinstance(error.get("what"), str):
        return ServiceError("this is no server of shipsight, or an old one", where=where, got=f"status {status}")
    named = _CLASSES.get(str(error.get("code")), ServiceError)(
        error["what"],
        where=error.get("where"),
        expected=error.get("expected"),
        got=error.get("got"),
        hint=_text(error.get("hint")),
    )
    if isinstance(named, ServiceError) and (seconds := read_retry_after(retry_after)) is not None:
        named.retry_after_s = seconds
    return named


def read_retry_after(text: str | None) -> int | None:
    """Returns the seconds of a header `Retry-After`; None where there is none, or a date, which our servers never send."""
    if text is None or not (text.isascii() and text.isdecimal() and len(text) < 10):
        return None
    return min(int(text), _LONGEST_RETRY_S)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _loads(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
