# SPDX-License-Identifier: Apache-2.0
"""Errors and answers as HTTP has them. Private to the room."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.responses import Response

from shipsight.errors import (
    DeadlineError,
    ImageFormatError,
    ImageTooLargeError,
    InputError,
    LimitError,
    NotFoundError,
    ServiceError,
    ShipsightError,
)

__all__ = ["error_answer", "json_answer", "status_of"]

_STATUSES: tuple[tuple[type[ShipsightError], int], ...] = (
    (NotFoundError, 404),
    (ImageTooLargeError, 413),
    (LimitError, 413),
    (ImageFormatError, 415),
    (InputError, 400),
    (DeadlineError, 504),
    (ServiceError, 503),
)
_RETRY = re.compile(r"in (\d+) s")


def status_of(error: ShipsightError) -> int:
    """Returns the HTTP status of an error; what is nobody's named fault is ours, 500."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns a JSON answer."""
    body = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status, headers, media_type="application/json")


def error_answer(error: ShipsightError) -> Response:
    """Returns `{"error": {code, what, where, expected, got, hint}}`; 503 says when to ask again."""
    status = status_of(error)
    headers: dict[str, str] = {}
    if status == 503:
        found = _RETRY.search(error.hint or "")
        headers["retry-after"] = found[1] if found else "1"
    return json_answer({"error": _shown(error, status)}, status, headers)


def _shown(error: ShipsightError, status: int) -> dict[str, Any]:
    told = error.to_dict()
    # What went wrong inside may name files of this machine.
    return told if status != 500 else {**told, "where": None, "expected": None, "got": None}
