# SPDX-License-Identifier: Apache-2.0
"""What happened to identities and rights, told on one interface: sign-ins with their factors, refusals, changes.

Every decision of this room goes through an `EventSink`. Invariants: no event holds a password, code, key, token or seed;
texts that came from outside are told as they came, in fields of their own. Leaves to others: keeping them. Stable.
Source: OWASP ASVS 5.0, 16.2 and 16.3.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

__all__ = ["Event", "EventKind", "EventSink", "LoggedEvents", "Outcome", "asked_from", "client_address", "note_client"]

_log = logging.getLogger("shipsight.access")
_client: ContextVar[str | None] = ContextVar("shipsight_client", default=None)


def note_client(address: str | None) -> None:
    """Notes where the request at hand comes from, for the events of its task and of those that it starts."""
    _client.set(address)


def client_address() -> str | None:
    """Returns where the request at hand comes from, None outside of one; for what is told later, in a thread."""
    return _client.get()


@contextmanager
def asked_from(address: str | None) -> Iterator[None]:
    """Notes that within: for a thread, which has no task."""
    before = _client.set(address)
    try:
        yield
    finally:
        _client.reset(before)


class EventKind(StrEnum):
    """What happened."""

    SIGN_IN = "sign-in"
    SIGN_OUT = "sign-out"
    STEP_UP = "step-up"
    FACTOR_ADDED = "factor-added"
    FACTOR_REMOVED = "factor-removed"
    PASSWORD_CHANGED = "password-changed"  # noqa: S105 - no password
    CODES_MADE = "recovery-codes-made"
    INVITED = "invited"
    USER_ADDED = "user-added"
    USER_CHANGED = "user-changed"
    USER_REMOVED = "user-removed"
    GRANTS_CHANGED = "grants-changed"
    ROLE_CHANGED = "role-changed"
    KEY_ADDED = "key-added"
    KEY_ROTATED = "key-rotated"
    KEY_REVOKED = "key-revoked"
    KEY_REFUSED = "key-refused"
    CERTIFICATE_ADDED = "certificate-added"
    CERTIFICATE_REMOVED = "certificate-removed"
    CERTIFICATE_REFUSED = "certificate-refused"
    SESSION_ENDED = "session-ended"
    REFUSED = "refused"
    ALLOWED = "allowed"
    LIMITED = "limited"
    EXTRACTION_SUSPECTED = "extraction-suspected"
    STARTED = "started"
    BACKED_UP = "backed-up"
    RESTORED = "restored"
    STOPPED = "stopped"
    KEY_USED = "key-used"
    CERTIFICATE_USED = "certificate-used"
    CONFIGURATION_CHANGED = "configuration-changed"
    SEALING_KEY_MADE = "sealing-key-made"
    MODEL_LOADED = "model-loaded"
    MODEL_UNLOADED = "model-unloaded"
    ROLLOUT_CHANGED = "rollout-changed"
    BUNDLE_READ = "bundle-read"
    DATA_READ = "data-read"
    EXPORTED = "exported"
    RECORDINGS_ERASED = "recordings-erased"
    RECORDINGS_CHANGED = "recordings-changed"
    KEY_RELEASED = "key-released"
    PREDICTED = "predicted"
    AUDIT_STARTED = "audit-started"
    AUDIT_READ = "audit-read"
    AUDIT_LOST = "audit-lost"
    AUDIT_RECOVERED = "audit-recovered"
    AUDIT_KEY_ADDED = "audit-key-added"
    AUDIT_KEY_RETIRED = "audit-key-retired"
    AUDIT_ARCHIVED = "audit-archived"
    AUDIT_ERASED = "audit-erased"
    REVIEW_MADE = "review-made"
    REVIEW_SIGNED = "review-signed"


class Outcome(StrEnum):
    """How it ended."""

    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        at: when, UTC.
        kind: what.
        outcome: how it ended.
        actor: who did it, as `Principal.told` says it.
        subject: to whom or what, None where it is the actor or nothing.
        why: code of what refused it, None where it was done.
        factor: that was used, None where none was.
        address: that the request came from, None where there is none; that of the request at hand where none is given.
        details: more, plain values.
    """

    at: datetime
    kind: EventKind
    outcome: Outcome
    actor: str
    subject: str | None = None
    why: str | None = None
    factor: str | None = None
    address: str | None = None
    details: Mapping[str, str | int | float | bool | list[str] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.address is None:
            object.__setattr__(self, "address", _client.get())


class EventSink(Protocol):
    """Takes events."""

    def record(self, event: Event) -> None:
        """Keeps an event, or raises: then what it tells of must not be done."""


class LoggedEvents:
    """Tells events to the log, as fields."""

    def record(self, event: Event) -> None:
        """Tells one."""
        told = {
            **event.details,
            "event": event.kind.value,
            "outcome": event.outcome.value,
            "actor": event.actor,
            "subject": event.subject,
            "why": event.why,
            "factor": event.factor,
            "address": event.address,
        }
        level = logging.INFO if event.outcome is Outcome.DONE else logging.WARNING
        _log.log(
            level, event.kind.value, extra={"shipsight": {key: one for key, one in told.items() if one is not None}}
        )
