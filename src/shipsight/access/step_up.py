# SPDX-License-Identifier: Apache-2.0
"""Somebody who is signed in proves again who they are, before what is sensitive, and changes their password. Private to the room.

Invariant: it takes as many factors as signing in does, so that no way around is weaker; tries are counted by session, so that who
guesses at one that was left open does not slow its owner down elsewhere. Source: OWASP ASVS 5.0, 6.3.4, 7.2.4 and 7.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select

from shipsight.access.acting import check_actor_in
from shipsight.access.events import EventKind
from shipsight.access.factors import check_factors_are_own, factors_in, looks_like_recovery
from shipsight.access.passwords import Passwords
from shipsight.access.principal import Principal
from shipsight.access.proofs import PasskeyCheck, Proofs
from shipsight.access.sessions import Session, Sessions
from shipsight.access.store import Database
from shipsight.access.store.tables import users
from shipsight.access.throttle import CODES, PASSWORDS
from shipsight.errors import AuthenticationError, ForbiddenError

__all__ = ["StepUp"]


class StepUp:
    """Renews sessions of people who prove themselves again.

    Args:
        db: where people are kept.
        proofs: counts, takes and refuses.
        passwords: hashes them.
        passkeys: those of people.
        sessions: renews them.
        now: tells the time.
    """

    def __init__(
        self,
        db: Database,
        proofs: Proofs,
        passwords: Passwords,
        passkeys: PasskeyCheck,
        sessions: Sessions,
        now: Callable[[], datetime],
    ) -> None:
        self._db, self._proofs, self._passwords = db, proofs, passwords
        self._passkeys, self._sessions, self._now = passkeys, sessions, now

    def prove_password(self, principal: Principal, password: str, code: str | None = None) -> Session:
        """Renews a session by password, and by code where the person has a second factor.

        Args:
            principal: who is signed in.
            password: as it was typed.
            code: one-time or recovery code, None for who has no second factor.

        Raises:
            AuthenticationError: something is not right, or the session ended.
            RateLimitError: too many tries.
        """
        user_id, handle = _person(principal)
        self._check_password(principal, password)
        with self._db.read() as connection:
            needs_code = factors_in(connection, user_id).has_second
        factors, whom = ["password"], f"session:{handle}"
        if needs_code:
            factors.append("recovery" if looks_like_recovery(code or "") else "totp")
            if factors[-1] == "totp":
                self._proofs.take(CODES, whom, principal.told(), None)
        with self._db.write() as connection:
            if not needs_code or self._proofs.use_code_in(connection, user_id, code or ""):
                session = self._sessions.prove_in(connection, handle, factors=factors)
            else:
                session = None
        if session is None:
            raise self._proofs.refused(EventKind.STEP_UP, principal.told(), factors[-1], None)
        self._proofs.forgive(PASSWORDS, whom)
        self._proofs.forgive(CODES, whom)
        return session

    def prove_passkey(self, principal: Principal, challenge: str, credential: Mapping[str, Any]) -> Session:
        """Renews a session by a passkey that verifies its user.

        Raises:
            AuthenticationError: it is not accepted, is another's, or the session ended.
        """
        user_id, handle = _person(principal)
        try:
            owner = self._passkeys.finish_authentication(
                challenge, credential, user_id=user_id, needs_verification=True
            )
        except AuthenticationError:
            owner = None
        if owner != user_id:
            raise self._proofs.refused(EventKind.STEP_UP, principal.told(), "passkey", None)
        with self._db.write() as connection:
            return self._sessions.prove_in(connection, handle, factors=["passkey"])

    def change_password(self, principal: Principal, current: str, new: str) -> None:
        """Sets another password; all other sessions, and codes of invitation, end; browsers are no longer known.

        Raises:
            StepUpError: the person has to prove first who they are, by all that they sign in with.
            AuthenticationError: the current one is not right, or the session has ended.
            UsageError: the new one is not taken.
            RateLimitError: too many tries.
        """
        user_id, handle = _person(principal)
        check_factors_are_own(principal, user_id, self._now())
        kept = self._check_password(principal, current)
        with self._db.read() as connection:
            row = connection.execute(select(users).where(users.c.id == user_id)).one_or_none()
        if row is None:
            raise AuthenticationError("sign in again")
        made = self._passwords.make(new, words=(row.name, row.display_name))
        with self._db.write() as connection:
            if connection.execute(select(users.c.password_hash).where(users.c.id == user_id)).scalar() != kept:
                raise AuthenticationError("sign in again")
            check_actor_in(connection, principal)
            self._proofs.put_password_in(connection, user_id, made, by=principal.told())
            self._sessions.end_all_in(connection, principal, user_id, but=handle)
        self._proofs.forgive(PASSWORDS, f"session:{handle}")

    def _check_password(self, principal: Principal, password: str) -> str:
        """Compares the password of somebody who is signed in, and returns the hash; counted by session."""
        user_id, handle = _person(principal)
        self._proofs.take(PASSWORDS, f"session:{handle}", principal.told(), None)
        with self._db.read() as connection:
            kept = connection.execute(select(users.c.password_hash).where(users.c.id == user_id)).scalar()
        if not self._passwords.matches(password, kept) or kept is None:
            raise self._proofs.refused(EventKind.STEP_UP, principal.told(), "password", None)
        return str(kept)


def _person(principal: Principal) -> tuple[str, str]:
    """Returns id and session of somebody who is signed in."""
    if not principal.is_person or principal.id is None or principal.session is None:
        raise ForbiddenError("this is for people who signed in", got=principal.told())
    return principal.id, principal.session
