# SPDX-License-Identifier: Apache-2.0
"""What is known of the request at hand, gathered on its way for the log and for traces. No image content. Private."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field

from shipsight.access import NOBODY, Principal

__all__ = [
    "Digest",
    "RequestNote",
    "begin_note",
    "current_body",
    "current_note",
    "end_note",
    "is_sealed",
    "note_body",
    "note_digest",
    "note_error",
    "note_model",
    "note_principal",
    "note_sealed",
    "note_sealed_status",
    "note_stages",
    "request_id",
    "was_model_asked",
]


@dataclass(frozen=True)
class Digest:
    """What stands for a body that is not held any more.

    Attributes:
        sha256: of it, in hexadecimal.
        bytes: its length.
    """

    sha256: str
    bytes: int


_body: ContextVar[bytes | memoryview | Digest | None] = ContextVar("shipsight_body", default=None)
_WELL_FORMED = re.compile(r"[A-Za-z0-9._:~-]{1,64}", re.ASCII)


@dataclass(eq=False)
class RequestNote:
    """A request.

    Attributes:
        id: the client's own where it gave a sound one.
        principal: who asks.
        model: name of the model that was found, with `version` and `variant`; None before.
        error: code of the error that it was answered with, None otherwise.
        is_sealed: whether it came sealed, and was opened.
        sealed_status: status of the answer inside a sealed one, None otherwise.
        stages: of each image, `(place of the image, stage, begin, end)`, monotonic seconds.
    """

    id: str
    principal: Principal = NOBODY
    model: str | None = None
    version: str | None = None
    variant: str | None = None
    error: str | None = None
    is_sealed: bool = False
    sealed_status: int | None = None
    stages: list[tuple[int, str, float, float]] = field(default_factory=list)


_current: ContextVar[RequestNote | None] = ContextVar("shipsight_request", default=None)


def request_id(given: str | None) -> str:
    """Returns a client's id where it is 1 to 64 of `A-Z a-z 0-9 . _ : ~ -`, else one of our own."""
    return given if given is not None and _WELL_FORMED.fullmatch(given) else secrets.token_hex(8)


def begin_note(note: RequestNote) -> None:
    """Makes a note that of the task at hand, and of those that it starts."""
    _current.set(note)


def end_note() -> None:
    """Leaves the task without a note."""
    _current.set(None)


def current_note() -> RequestNote | None:
    """Returns the note of the request at hand, None outside of one."""
    return _current.get()


def is_sealed() -> bool:
    """Tells whether the request at hand came sealed, and was opened."""
    note = _current.get()
    return note is not None and note.is_sealed


def was_model_asked() -> bool:
    """Tells whether a model was asked with the request at hand; True where nobody takes notes of it."""
    note = _current.get()
    return note is None or note.model is not None


def note_body(body: bytes | memoryview, *, is_next: bool = False) -> None:
    """Notes what was sent, as it came, for the record of predictions. What came first counts: it may have held another body.

    Args:
        body: of the request.
        is_next: whether it is a message of a stream, and takes the place of the one before.
    """
    if is_next or _body.get() is None:
        _body.set(body)


def note_digest(sha256: str, size: int) -> None:
    """Notes the digest of what was sent in its place, so that it need not be held.

    Args:
        sha256: of the body, in hexadecimal.
        size: of the body, bytes.
    """
    _body.set(Digest(sha256, size))


def current_body() -> bytes | memoryview | Digest | None:
    """Returns that of the request at hand, or what stands for it; None outside of one."""
    return _body.get()


def note_model(model: str, version: str, variant: str) -> None:
    """Notes who answers."""
    note = _current.get()
    if note is not None:
        note.model, note.version, note.variant = model, version, variant


def note_principal(principal: Principal) -> None:
    """Notes who asks."""
    note = _current.get()
    if note is not None:
        note.principal = principal


def note_stages(stages: list[tuple[int, str, float, float]]) -> None:
    """Notes when each stage of each image was; not of a sealed request: that tells how many images were in it."""
    note = _current.get()
    if note is not None and not note.is_sealed:
        note.stages = stages


def note_sealed() -> None:
    """Notes that the request came sealed, and was opened."""
    note = _current.get()
    if note is not None:
        note.is_sealed = True


def note_sealed_status(status: int) -> None:
    """Notes the status of the answer inside a sealed one."""
    note = _current.get()
    if note is not None:
        note.sealed_status = status


def note_error(code: str) -> None:
    """Notes what went wrong."""
    note = _current.get()
    if note is not None:
        note.error = code
