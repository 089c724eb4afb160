# SPDX-License-Identifier: Apache-2.0
"""Errors and answers as HTTP has them. Private to the room."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from shipsight.errors import (
    AccessError,
    AnswerIsNoError,
    ArtefactError,
    AuditError,
    AuthenticationError,
    CertificateError,
    ConflictError,
    DeadlineError,
    ImageFormatError,
    ImageTooLargeError,
    InputError,
    LimitError,
    NotFoundError,
    RateLimitError,
    SealingRequiredError,
    SealingUnsupportedError,
    ServiceError,
    ShipsightError,
    StepUpError,
)
from shipsight.serve.request_notes import note_error

__all__ = ["error_answer", "headers_of", "json_answer", "shown", "status_of"]

_STATUSES: tuple[tuple[type[ShipsightError], int], ...] = (
    (AuthenticationError, 401),
    (AccessError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (ImageTooLargeError, 413),
    (LimitError, 413),
    (ImageFormatError, 415),
    (SealingRequiredError, 415),
    (SealingUnsupportedError, 415),
    (CertificateError, 403),
    (InputError, 400),
    (ArtefactError, 422),
    (AnswerIsNoError, 422),
    (DeadlineError, 504),
    (RateLimitError, 429),
    (ServiceError, 503),
    (AuditError, 503),
)

_CHALLENGE = 'Bearer realm="shipsight"'
_MOST_CHARACTERS = 500  # of what a client sent, said back to it


def status_of(error: ShipsightError) -> int:
    """Returns the HTTP status of an error; what is nobody's named fault is ours, 500."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns a JSON answer."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Clients may send half of a surrogate pair in a name: UTF-8 has no form for it, JSON has this one.
    body = text.encode(errors="backslashreplace")
    return Response(body, status, headers, media_type="application/json")


def error_answer(error: ShipsightError) -> Response:
    """Returns `{"error": {code, what, where, expected, got, hint}}`; 429, 503 and 504 say when to ask again, 401 how."""
    note_error(error.code)
    status = status_of(error)
    return json_answer({"error": shown(error)}, status, headers_of(error))


def headers_of(error: ShipsightError) -> dict[str, str]:
    """Returns what an error says in headers: when to ask again where that helps, how where a credential is missing."""
    if isinstance(error, StepUpError):  # RFC 9470
        return {"www-authenticate": f'{_CHALLENGE}, error="insufficient_user_authentication"'}
    if isinstance(error, AuthenticationError):
        return {"www-authenticate": _CHALLENGE}
    return {"retry-after": str(error.retry_after_s)} if isinstance(error, ServiceError) else {}


def shown(error: ShipsightError) -> dict[str, Any]:
    """Returns what a client may know of an error: `code, what, where, expected, got, hint`."""
    told = {name: None if text is None else text[:_MOST_CHARACTERS] for name, text in error.to_dict().items()}
    # What went wrong inside, with a bundle or with the audit log may name files of this machine.
    is_inside = status_of(error) in (422, 500) or isinstance(error, AuditError)
    return {**told, "where": None, "expected": None, "got": None} if is_inside else told
