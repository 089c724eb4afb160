# SPDX-License-Identifier: Apache-2.0
"""How people prove who they are: a password and a second factor, a passkey alone, a code of invitation; and again later.

What is wrong is never told, neither in words nor by the work that it takes: an unknown name costs the same look-ups, the same try
and one hash. Whoever has a second factor is asked for it on each way in, an invitation included; whose rights need one and who
has none gets a session that may only add one. What proves somebody, what it uses up and the session that follows are one
transaction. Stable. Sources: OWASP ASVS 5.0, 6.3, 6.4 and 7.2.4.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, select, update

from shipsight.access.devices import counted_as, know_in
from shipsight.access.directory import Directory, insert_user_in, known_form, knows_anyone_in
from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.factors import FactorList, Factors, factors_in, looks_like_recovery
from shipsight.access.grants import put_grants_in, rights_in
from shipsight.access.passwords import Passwords
from shipsight.access.pending import (
    Pending,
    begin_pending_in,
    end_pending_in,
    find_pending_in,
)
from shipsight.access.permissions import Grant
from shipsight.access.principal import Principal, PrincipalKind
from shipsight.access.proofs import PasskeyCheck, Proofs, name_in
from shipsight.access.sessions import SECOND_FACTORS, Session, Sessions
from shipsight.access.step_up import StepUp
from shipsight.access.store import Database
from shipsight.access.store.tables import invitations, users
from shipsight.access.throttle import CODES, PASSWORDS
from shipsight.access.tokens import digest
from shipsight.errors import AuthenticationError, ForbiddenError, UsageError

__all__ = ["PasskeyCheck", "SignIn", "Step", "StepKind"]


class StepKind(StrEnum):
    """What comes next."""

    SESSION = "session"
    SECOND_FACTOR = "second-factor"
    ENROL = "enrol"


@dataclass(frozen=True)
class Step:
    """Where a sign-in is.

    Attributes:
        kind: what comes next; with `enrol` there is a session that may only add a second factor.
        session: that began, None where a second factor is missing.
        pending: token that the second factor has to come with, None where none is missing.
        factors: that may follow, `totp`, `passkey`, `recovery`.
        device: token that the browser keeps, so that guesses from elsewhere do not slow it down; None before the session, and
            where it keeps the one that it has.
    """

    kind: StepKind
    session: Session | None = None
    pending: str | None = field(default=None, repr=False)
    factors: tuple[str, ...] = ()
    device: str | None = field(default=None, repr=False)


class SignIn:
    """Ways in.

    Args:
        db: where people are kept.
        directory: knows what they may do.
        factors: their codes.
        passkeys: their passkeys.
        sessions: begins sessions.
        events: takes what happens, before it is kept.
        now: tells the time.
        passwords: hashes them.
    """

    def __init__(
        self,
        db: Database,
        directory: Directory,
        factors: Factors,
        passkeys: PasskeyCheck,
        sessions: Sessions,
        events: EventSink,
        now: Callable[[], datetime],
        *,
        passwords: Passwords | None = None,
    ) -> None:
        self._db = db
        self._directory = directory
        self._passkeys = passkeys
        self._sessions = sessions
        self._events = events
        self._now = now
        self._passwords = passwords or Passwords()
        self._unknown_key = secrets.token_bytes(32)
        self._proofs = Proofs(db, factors, events, now)
        self._step_up = StepUp(db, self._proofs, self._passwords, passkeys, sessions, now)

    def begin(
        self,
        name: str,
        password: str,
        *,
        device: str | None = None,
        address: str | None = None,
        agent: str | None = None,
    ) -> Step:
        """Takes a name and a password.

        Args:
            name: as it was typed.
            password: as it was typed.
            device: token that the browser was given when somebody signed in with it.
            address: where it comes from.
            agent: what the browser calls itself.

        Raises:
            AuthenticationError: they do not belong together, or the user is disabled.
            RateLimitError: too many tries.
            OverloadedError: too many people sign in at once.
        """
        name, at = known_form(name), self._now()
        with self._db.read() as connection:
            row = connection.execute(select(users).where(users.c.name == name)).one_or_none()
            whom = counted_as(connection, None if row is None else row.id, name, device, at)
        actor = self._unknown(name) if row is None else f"person:{name}"
        self._proofs.take(PASSWORDS, whom, actor, address)
        kept = None if row is None else row.password_hash
        is_right = self._passwords.matches(password, kept)
        if row is None or row.is_disabled or not is_right:
            raise self._proofs.refused(EventKind.SIGN_IN, actor, "password", address)
        with self._db.write() as connection:
            # Another process may have changed what was just compared.
            now_kept = connection.execute(
                select(users.c.password_hash).where(users.c.id == row.id, users.c.is_disabled.is_(False))
            ).scalar()
            if now_kept != kept:
                raise self._proofs.refused(EventKind.SIGN_IN, actor, "password", address)
            step = self._next_in(
                connection, Pending(row.id, ("password",), ()), device=device, address=address, agent=agent
            )
        self._proofs.forgive(PASSWORDS, whom)
        self._rehash(row.id, password, kept)
        return step

    def begin_federated(
        self,
        user_id: str,
        *,
        factors: Sequence[str],
        groups: Sequence[str],
        proved_at: datetime | None = None,
        device: bytes | None = None,
        address: str | None = None,
        agent: str | None = None,
    ) -> Step:
        """Goes on with somebody whom a provider vouches for.

        Args:
            user_id: who it is.
            factors: `oidc`, and `mfa` where the provider says that they proved two.
            groups: that it says they are in.
            proved_at: when they proved it there, None where it does not say.
            device: digest of the token that the browser was given before, which does not come along from another site.
            address: where they come from.
            agent: what the browser calls itself.

        Raises:
            AuthenticationError: they are disabled or gone.
        """
        with self._db.write() as connection:
            actor = name_in(connection, user_id)
            if _is_let_in(connection, user_id):
                proved = Pending(user_id, tuple(factors), tuple(groups), proved_at)
                return self._next_in(connection, proved, device=device, address=address, agent=agent)
        raise self._proofs.refused(EventKind.SIGN_IN, actor, "+".join(factors), address)

    def user_of(self, pending: str) -> str | None:
        """Returns the id of whom a sign-in waits for, None where it is unknown or its time is over."""
        with self._db.read() as connection:
            found = find_pending_in(connection, pending, self._now())
        return None if found is None else found.user_id

    def finish_code(
        self,
        pending: str,
        code: str,
        *,
        device: str | None = None,
        address: str | None = None,
        agent: str | None = None,
    ) -> Step:
        """Takes a one-time code, or a recovery code, as the second factor.

        Args:
            pending: token of the step before.
            code: as it was typed.
            device: token that the browser was given before.
            address: where it comes from.
            agent: what the browser calls itself.

        Raises:
            AuthenticationError: it is not right, was used, or the step before is too long ago.
            RateLimitError: too many tries.
        """
        at = self._now()
        with self._db.read() as connection:
            found = find_pending_in(connection, pending, at)
            if found is None:
                actor, whom = "nobody", ""
            else:
                actor = name_in(connection, found.user_id)
                whom = counted_as(connection, found.user_id, found.user_id, device, at)
        factor = "recovery" if looks_like_recovery(code) else "totp"
        if found is None:
            raise self._proofs.refused(EventKind.SIGN_IN, actor, factor, address)
        # Nobody guesses 120 bits: recovery codes get their owner in while somebody else guesses.
        if factor == "totp":
            self._proofs.take(CODES, whom, actor, address)
        step = None
        with self._db.write() as connection:
            # Looked for again: another request may have come to its end in the meantime.
            still = find_pending_in(connection, pending, self._now())
            if still is not None and self._proofs.use_code_in(connection, still.user_id, code):
                end_pending_in(connection, pending)
                step = self._open_in(connection, still, factor, device=device, address=address, agent=agent)
        if step is None:
            raise self._proofs.refused(EventKind.SIGN_IN, actor, factor, address)
        self._proofs.forgive(CODES, whom)
        return step

    def finish_passkey(
        self,
        pending: str | None,
        challenge: str,
        credential: Mapping[str, Any],
        *,
        device: str | None = None,
        address: str | None = None,
        agent: str | None = None,
    ) -> Step:
        """Takes a passkey: as the second factor with a token of the step before, without one as the only one.

        Args:
            pending: token of the step before; None for a passkey alone, which has to verify its user itself.
            challenge: token of the passkeys' ceremony.
            credential: what the browser answers.
            device: token that the browser was given before.
            address: where it comes from.
            agent: what the browser calls itself.

        Raises:
            AuthenticationError: it is not accepted, or the step before is too long ago.
        """
        found = None
        if pending is not None:
            with self._db.read() as connection:
                found = find_pending_in(connection, pending, self._now())
            if found is None:
                raise self._proofs.refused(EventKind.SIGN_IN, "nobody", "passkey", address)
        try:
            user_id = self._passkeys.finish_authentication(
                challenge,
                credential,
                user_id=None if found is None else found.user_id,
                needs_verification=found is None,
            )
        except AuthenticationError:
            raise self._proofs.refused(EventKind.SIGN_IN, self._told(found), "passkey", address) from None
        with self._db.write() as connection:
            is_there = pending is None or end_pending_in(connection, pending)
            if is_there and _is_let_in(connection, user_id) and (found is None or found.user_id == user_id):
                proved = found or Pending(user_id, (), ())
                return self._open_in(connection, proved, "passkey", device=device, address=address, agent=agent)
        raise self._proofs.refused(EventKind.SIGN_IN, self._told(found), "passkey", address)

    def accept_invitation(
        self,
        code: str,
        password: str,
        *,
        name: str | None = None,
        address: str | None = None,
        agent: str | None = None,
    ) -> Step:
        """Sets a password with a code of invitation, and signs in; a setup code makes the first administrator.

        Args:
            code: that was given to the person.
            password: that they choose.
            name: that the first administrator chooses; None with an invitation, which is for somebody.
            address: where it comes from.
            agent: what the browser calls itself.

        Raises:
            AuthenticationError: the code is unknown, was used, or is too old.
            ForbiddenError: it is a setup code, and somebody is known already.
            UsageError: the password or the name is not taken, or a name is missing or given where it must not.
        """
        with self._db.read() as connection:
            row = _invitation_in(connection, code, self._now())
            shown = None if row is None else self._names_in(connection, row.user_id, name)
        if row is None or shown is None:
            raise self._proofs.refused(EventKind.SIGN_IN, "nobody", "invitation", address)
        made = self._passwords.make(password, words=shown)
        with self._db.write() as connection:
            at = self._now()
            used = connection.execute(
                update(invitations)
                .where(invitations.c.id == row.id, invitations.c.used_at.is_(None), invitations.c.expires_at > at)
                .values(used_at=at)
            )
            if used.rowcount == 1:
                user_id = row.user_id or self._first_in(connection, name or "")
                return self._begin_anew_in(connection, user_id, made, address=address, agent=agent)
        raise self._proofs.refused(EventKind.SIGN_IN, "nobody", "invitation", address)

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
        return self._step_up.prove_password(principal, password, code)

    def prove_passkey(self, principal: Principal, challenge: str, credential: Mapping[str, Any]) -> Session:
        """Renews a session by a passkey that verifies its user.

        Raises:
            AuthenticationError: it is not accepted, is another's, or the session ended.
        """
        return self._step_up.prove_passkey(principal, challenge, credential)

    def change_password(self, principal: Principal, current: str, new: str) -> None:
        """Sets another password; all other sessions, and codes of invitation, end; browsers are no longer known.

        Raises:
            StepUpError: the person has to prove first who they are, by all that they sign in with.
            AuthenticationError: the current one is not right, or the session has ended.
            UsageError: the new one is not taken.
            RateLimitError: too many tries.
        """
        self._step_up.change_password(principal, current, new)

    def _next_in(
        self,
        connection: Connection,
        proved: Pending,
        *,
        device: str | bytes | None,
        address: str | None,
        agent: str | None,
    ) -> Step:
        """Asks for the second factor of who has one, else begins the session."""
        has = factors_in(connection, proved.user_id)
        if has.has_second and not SECOND_FACTORS & set(proved.proved):
            token = begin_pending_in(connection, proved, now=self._now())
            return Step(StepKind.SECOND_FACTOR, pending=token, factors=_may_follow(has))
        return self._open_in(connection, proved, None, device=device, address=address, agent=agent)

    def _open_in(
        self,
        connection: Connection,
        proved: Pending,
        factor: str | None,
        *,
        device: str | bytes | None,
        address: str | None,
        agent: str | None,
    ) -> Step:
        factors = proved.proved if factor is None else (*proved.proved, factor)
        session = self._sessions.begin_in(
            connection,
            proved.user_id,
            factors=factors,
            groups=proved.groups,
            # A passkey proves anew who somebody is; a code does not make an older proof younger.
            proved_at=None if factor == "passkey" else proved.proved_at,
            address=address,
            agent=agent,
        )
        needs = rights_in(connection, proved.user_id, proved.groups).needs_factors
        kind = StepKind.ENROL if needs and not SECOND_FACTORS & set(factors) else StepKind.SESSION
        return Step(kind, session, device=know_in(connection, proved.user_id, device, self._now()))

    def _begin_anew_in(
        self, connection: Connection, user_id: str, made: str, *, address: str | None, agent: str | None
    ) -> Step:
        """After an invitation: nothing that began with an older password goes on."""
        told = name_in(connection, user_id)
        self._proofs.put_password_in(connection, user_id, made, by=told)
        person = Principal(kind=PrincipalKind.PERSON, name=told.partition(":")[2], id=user_id)
        self._sessions.end_all_in(connection, person, user_id)
        proved = Pending(user_id, ("password",), ())
        return self._next_in(connection, proved, device=None, address=address, agent=agent)

    def _first_in(self, connection: Connection, name: str) -> str:
        """Makes the first administrator."""
        if knows_anyone_in(connection):
            raise ForbiddenError("somebody is known here already")
        at = self._now()
        user_id = insert_user_in(connection, at, name=name)
        put_grants_in(connection, "user", user_id, [Grant("admin")])
        self._events.record(
            Event(
                at,
                EventKind.USER_ADDED,
                Outcome.DONE,
                name_in(connection, user_id),
                details={"grants": ["admin"], "by": "setup code"},
            )
        )
        return user_id

    def _names_in(self, connection: Connection, user_id: str | None, name: str | None) -> tuple[str, ...] | None:
        """Names that a person's password may not be made of; None for somebody who is disabled or gone."""
        if user_id is None:
            if name is None:
                raise UsageError("a name is missing", where="name")
            if knows_anyone_in(connection):
                raise ForbiddenError("somebody is known here already")
            return (name,)
        if name is not None:
            raise UsageError("an invitation is for somebody who has a name", where="name")
        row = connection.execute(select(users).where(users.c.id == user_id)).one_or_none()
        return None if row is None or row.is_disabled else (row.name, row.display_name)

    def _rehash(self, user_id: str, password: str, kept: str | None) -> None:
        """Keeps a hash with the parameters of now, where they were others."""
        if kept is not None and self._passwords.is_outdated(kept):
            made = self._passwords.make_again(password)
            with self._db.write() as connection:
                connection.execute(
                    update(users).where(users.c.id == user_id, users.c.password_hash == kept).values(password_hash=made)
                )

    def _unknown(self, name: str) -> str:
        """Returns how a name is told that nobody here has: people type their passwords there.

        The same name is the same until the process ends, so that tries can be counted, and nobody can try names against it later.
        """
        if not name:
            return "nobody"
        return f"unknown:{hmac.digest(self._unknown_key, name.encode(), 'sha256').hex()[:12]}"

    def _told(self, pending: Pending | None) -> str:
        if pending is None:
            return "nobody"
        with self._db.read() as connection:
            return name_in(connection, pending.user_id)


def _invitation_in(connection: Connection, code: str, at: datetime) -> Any:  # noqa: ANN401 - a row of `invitations`
    return connection.execute(
        select(invitations).where(
            invitations.c.code_hash == digest(code),
            invitations.c.used_at.is_(None),
            invitations.c.expires_at > at,
            invitations.c.created_at <= at,
        )
    ).one_or_none()


def _may_follow(has: FactorList) -> tuple[str, ...]:
    there = {"totp": has.has_totp, "passkey": has.passkeys > 0, "recovery": has.recovery_left > 0}
    return tuple(name for name, is_there in there.items() if is_there)


def _is_let_in(connection: Connection, user_id: str) -> bool:
    return connection.execute(select(users.c.is_disabled).where(users.c.id == user_id)).scalar() is False
