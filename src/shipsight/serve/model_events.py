# SPDX-License-Identifier: Apache-2.0
"""Tells that models come into service and leave it, and that the files of their bundles are opened, before it is done.

What cannot be recorded is not done. What the server does of itself to go on answering (a model that was pushed out comes back, a worker
process is started again) is told like the rest, but does not hang on it: predictions go on while nothing can be recorded.
Leaves to others: keeping events (`access.audit`). Private to the room. Source: OWASP ASVS 5.0, 16.2.1 and 16.5.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from shipsight.access import Event, EventKind, EventSink, LoggedEvents, Outcome, Principal
from shipsight.model.bundle import Bundle

__all__ = ["ModelEvents"]


class ModelEvents:
    """Tells of models.

    Args:
        events: takes what happens.
        late: takes what is done whether it can be recorded or not, and must not wait; None for `events`.
        now: tells the time.
    """

    def __init__(
        self,
        events: EventSink | None = None,
        *,
        late: Callable[[Event], None] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._events, self._now = events or LoggedEvents(), now
        self._late = late or self._events.record

    def reads(
        self, bundle: Bundle, model: str, variants: Sequence[str], actor: Principal, *, is_needed: bool = True
    ) -> None:
        """Tells that the files of a bundle's variants are about to be opened.

        Args:
            bundle: that holds them.
            model: name that it is served under.
            variants: names of what is opened.
            actor: who has it opened.
            is_needed: whether it must not be done where it cannot be recorded.

        Raises:
            AuditError: it cannot be recorded.
        """
        details: dict[str, str | list[str]] = {"path": str(bundle.path), "variants": list(variants)}
        self._tell(EventKind.BUNDLE_READ, bundle, model, actor, details, is_needed=is_needed)

    def loaded(
        self, bundle: Bundle, model: str, actor: Principal, *, instead_of: str | None, is_needed: bool = True
    ) -> None:
        """Tells that a model is about to answer.

        Args:
            bundle: that it was loaded from.
            model: name that it is served under.
            actor: who had it loaded.
            instead_of: digest of the bundle whose place it takes, None for none.
            is_needed: as `reads`.

        Raises:
            AuditError: it cannot be recorded.
        """
        details: dict[str, str | list[str]] = {} if instead_of is None else {"instead_of": instead_of}
        self._tell(EventKind.MODEL_LOADED, bundle, model, actor, details, is_needed=is_needed)

    def unloaded(self, model: str, version: str, digest: str, actor: Principal, *, reason: str) -> None:
        """Tells that a model is about to leave.

        Args:
            model: name that it is served under.
            version: of it.
            digest: of its bundle.
            actor: who takes it out of service.
            reason: `asked`, or `memory` where it only makes room and comes back: that does not hang on the record.

        Raises:
            AuditError: it cannot be recorded.
        """
        told = {"version": version, "digest": digest, "reason": reason}
        event = Event(
            self._now(), EventKind.MODEL_UNLOADED, Outcome.DONE, actor.told(), subject=f"model:{model}", details=told
        )
        self._record(event, is_needed=reason != "memory")

    def _tell(
        self,
        kind: EventKind,
        bundle: Bundle,
        model: str,
        actor: Principal,
        details: dict[str, str | list[str]],
        *,
        is_needed: bool,
    ) -> None:
        told = {"version": bundle.card.version, "digest": bundle.digest, **details}
        event = Event(self._now(), kind, Outcome.DONE, actor.told(), subject=f"model:{model}", details=told)
        self._record(event, is_needed=is_needed)

    def _record(self, event: Event, *, is_needed: bool) -> None:
        (self._events.record if is_needed else self._late)(event)
