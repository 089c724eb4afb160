# SPDX-License-Identifier: Apache-2.0
"""What all ways of proving who somebody is have in common: tries that are counted, codes, one refusal for everything. Private to the room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, delete, select, update

from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.factors import Factors, looks_like_recovery
from shipsight.access.pending import forget_pending_in
from shipsight.access.store import Database, grow_revision
from shipsight.access.store.tables import invitations, known_devices, users
from shipsight.access.throttle import Pace, Throttle
from shipsight.errors import AuthenticationError, RateLimitError

__all__ = ["PasskeyCheck", "Proofs", "name_in"]


class PasskeyCheck(Protocol):
    """What is asked of passkeys here."""

    def finish_authentication(
        self,
        challenge: str,
        credential: Mapping[str, Any],
        /,
        *,
        user_id: str | None,
        needs_verification: bool,
    ) -> str:
        """Returns whose passkey answered; raises AuthenticationError where none did."""


class Proofs:
    """Counts tries, takes codes, keeps passwords, and refuses.

    Args:
        db: where people are kept.
        factors: their codes.
        events: takes what happens, before it is kept.
        now: tells the time.
    """

    def __init__(self, db: Database, factors: Factors, events: EventSink, now: Callable[[], datetime]) -> None:
        self._factors, self._events, self._now = factors, events, now
        self._throttle = Throttle(db, now)

    def take(self, pace: Pace, whom: str, actor: str, address: str | None) -> None:
        """Takes a try, and tells where it comes too early.

        Raises:
            RateLimitError: it does.
        """
        try:
            self._throttle.take(pace, whom)
        except RateLimitError:
            event = Event(
                self._now(),
                EventKind.LIMITED,
                Outcome.REFUSED,
                actor,
                why=RateLimitError.code,
                factor=pace.name,
                address=address,
            )
            self._events.record(event)
            raise

    def forgive(self, pace: Pace, whom: str) -> None:
        """Forgets failures: the last try was right."""
        self._throttle.forgive(pace, whom)

    def use_code_in(self, connection: Connection, user_id: str, code: str) -> bool:
        """Whether a one-time code or a recovery code is right; then it is used up."""
        if looks_like_recovery(code):
            return self._factors.use_recovery_code_in(connection, user_id, code)
        return self._factors.check_totp_in(connection, user_id, code)

    def put_password_in(self, connection: Connection, user_id: str, made: str, *, by: str) -> None:
        """Keeps the hash of a new password; what began with an older one, or was to set one, ends, and no browser is known any more."""
        at = self._now()
        connection.execute(
            update(users).where(users.c.id == user_id).values(password_hash=made, password_changed_at=at)
        )
        connection.execute(delete(invitations).where(invitations.c.user_id == user_id, invitations.c.used_at.is_(None)))
        # Whoever had the old one may have signed in with it: their browser would still have tries of its own.
        connection.execute(delete(known_devices).where(known_devices.c.user_id == user_id))
        forget_pending_in(connection, user_id)
        grow_revision(connection)
        self._events.record(Event(at, EventKind.PASSWORD_CHANGED, Outcome.DONE, by))

    def refused(self, kind: EventKind, actor: str, factor: str, address: str | None) -> AuthenticationError:
        """Tells of a refusal, and returns its error, the same for everything that can be wrong."""
        self._events.record(
            Event(
                self._now(),
                kind,
                Outcome.REFUSED,
                actor,
                why=AuthenticationError.code,
                factor=factor,
                address=address,
            )
        )
        return AuthenticationError(
            "this is not accepted", hint="Check what you typed; after five minutes, begin again."
        )


def name_in(connection: Connection, user_id: str) -> str:
    """Returns how a person is told of, by their id."""
    name = connection.execute(select(users.c.name).where(users.c.id == user_id)).scalar()
    return f"person:{name}"
