# SPDX-License-Identifier: Apache-2.0
"""What is known of the request at hand, gathered on its way for the log and for traces. No image content. Private."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass, field

from shipsight.access import NOBODY, Principal

__all__ = [
    "RequestNote",
    "begin_note",
    "current_note",
    "end_note",
    "note_error",
    "note_model",
    "note_principal",
    "request_id",
]

_WELL_FORMED = re.compile(r"[A-Za-z0-9._:~-]{1,64}", re.ASCII)


@dataclass(eq=False)
class RequestNote:
    """A request.

    Attributes:
        id: the client's own where it gave a sound one.
        principal: who asks.
        model: name of the model that was found, with `version` and `variant`; None before.
        error: code of the error that it was answered with, None otherwise.
        stages: of each image, `(place of the image, stage, begin, end)`, monotonic seconds.
    """

    id: str
    principal: Principal = NOBODY
    model: str | None = None
    version: str | None = None
    variant: str | None = None
    error: str | None = None
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
    """Notes when each stage of each image was."""
    note = _current.get()
    if note is not None:
        note.stages = stages


def note_error(code: str) -> None:
    """Notes what went wrong."""
    note = _current.get()
    if note is not None:
        note.error = code
