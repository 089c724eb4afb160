# SPDX-License-Identifier: Apache-2.0
"""Passkeys and security keys of people: registered, and asked for at sign-in (WebAuthn).

Which are taken is said in `passkey_proofs`. User verification (PIN, finger, face) is required when a passkey is registered,
so that each can stand alone and prove somebody again, and wherever it does; as a second factor after a password it need not. A signature whose counter did not grow, where it counts, is refused and told as a clone; the
passkey stays, since nobody knows which of the two is the owner's.

Invariants: a challenge is used once, also where it fails; each refusal is an event that says why, and the error does not.
Leaves to others: what a sign-in consists of (`sign_in`).
Stable. Source: W3C WebAuthn Level 3, 7.1 and 7.2; OWASP ASVS 5.0, 6.3.3 and 6.7.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from webauthn import generate_authentication_options, generate_registration_options
from webauthn.helpers import base64url_to_bytes, options_to_json_dict
from webauthn.helpers.structs import (
    AttestationConveyancePreference,
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from shipsight.access.acting import check_actor_in
from shipsight.access.challenges import make_challenge, take_challenge
from shipsight.access.directory import User
from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.factors import check_factors_are_own, check_is_not_last_in, factors_in
from shipsight.access.grants import check_is_not_an_auditors_in
from shipsight.access.passkey_proofs import (
    ALGORITHMS,
    Assertion,
    ProofError,
    Registration,
    bytes_of,
    check_assertion,
    check_registration,
)
from shipsight.access.permissions import Action
from shipsight.access.principal import Principal
from shipsight.access.sessions import strengthen_in
from shipsight.access.store import Database
from shipsight.access.store.tables import passkeys, users
from shipsight.access.tokens import new_id
from shipsight.errors import AuthenticationError, ForbiddenError, NotFoundError, UsageError

__all__ = ["Passkey", "Passkeys"]

_REGISTRATION, _AUTHENTICATION = "passkey-registration", "passkey-authentication"
_LIVES_S = 300.0
_MOST = 20
_LONGEST_NAME = 64


@dataclass(frozen=True)
class Passkey:
    """A passkey of somebody.

    Attributes:
        id: that the store knows it by.
        user_id: whose it is.
        name: that they gave it.
        is_backed_up: whether its provider keeps a copy, so that it may be on several devices.
        created_at: when it was registered.
        used_at: when it was last used, None before.
    """

    id: str
    user_id: str
    name: str
    is_backed_up: bool
    created_at: datetime
    used_at: datetime | None


class Passkeys:
    """Passkeys of everybody.

    Args:
        database: of identities.
        events: takes what happens.
        now: tells the time.
        origin: that browsers see, `https://host[:port]`; its host is the id of the relying party. Browsers take names
            alone there, no addresses, and `http` for `localhost` alone.
    """

    def __init__(self, database: Database, events: EventSink, now: Callable[[], datetime], *, origin: str) -> None:
        self._database = database
        self._events = events
        self._now = now
        self._origin = origin.rstrip("/")
        self._rp_id = urlsplit(origin).hostname or ""

    def begin_registration(self, user: User) -> tuple[dict[str, Any], str]:
        """Returns what a browser's `navigator.credentials.create` needs, as JSON, and the challenge to come back with.

        Raises:
            NotFoundError: there is no such user.
        """
        with self._database.write() as connection:
            handle = connection.scalar(select(users.c.webauthn_handle).where(users.c.id == user.id))
            if handle is None:
                raise NotFoundError("no such user", where=user.id)
            known = _descriptors(connection, user.id)
            challenge = make_challenge(connection, _REGISTRATION, now=self._now(), lives_s=_LIVES_S, user_id=user.id)
        options = generate_registration_options(
            rp_id=self._rp_id,
            rp_name="shipsight",
            user_id=handle,
            user_name=user.name,
            user_display_name=user.display_name,
            challenge=base64url_to_bytes(challenge),
            timeout=int(_LIVES_S * 1000),
            attestation=AttestationConveyancePreference.NONE,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.REQUIRED
            ),
            exclude_credentials=known,
            supported_pub_key_algs=list(ALGORITHMS),
        )
        return options_to_json_dict(options), challenge

    def finish_registration(
        self, actor: Principal, user_id: str, challenge_token: str, credential: Mapping[str, Any], *, name: str
    ) -> Passkey:
        """Keeps a new passkey.

        Args:
            actor: who asks; people add passkeys for themselves alone.
            user_id: whose it becomes.
            challenge_token: as it was given.
            credential: what the browser answered, as JSON.
            name: for people to tell it by; 1 to 64 characters.

        Raises:
            ForbiddenError: it is not the actor's own, or there are too many.
            StepUpError: the actor has to prove first who they are.
            UsageError: the name does not fit.
            AuthenticationError: the challenge or the credential is not accepted, or the actor's session has ended.
        """
        check_factors_are_own(actor, user_id, self._now())
        if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
            raise UsageError("not a name of a passkey", where="name", expected=f"1 to {_LONGEST_NAME} characters")
        try:
            self._take(challenge_token, _REGISTRATION, user_id, must_be_begun_for=True)
            proved = check_registration(credential, challenge=challenge_token, rp_id=self._rp_id, origin=self._origin)
            with self._database.write() as connection:
                check_actor_in(connection, actor)
                return self._keep(connection, actor, user_id, proved, name)
        except ProofError as error:
            self._tell_refusal(error, actor=actor.told())
            raise AuthenticationError("this passkey is not accepted", hint="Begin again.") from error

    def begin_authentication(
        self, user_id: str | None, *, needs_verification: bool = False
    ) -> tuple[dict[str, Any], str]:
        """Returns what a browser's `navigator.credentials.get` needs, as JSON, and the challenge to come back with.

        Args:
            user_id: who proved a first factor; None for a passkey that stands alone, of whoever comes.
            needs_verification: whether the authenticator must verify its user, as for proving again who one is; one that
                stands alone must in any case.
        """
        with self._database.write() as connection:
            known = [] if user_id is None else _descriptors(connection, user_id)
            challenge = make_challenge(connection, _AUTHENTICATION, now=self._now(), lives_s=_LIVES_S, user_id=user_id)
        options = generate_authentication_options(
            rp_id=self._rp_id,
            challenge=base64url_to_bytes(challenge),
            timeout=int(_LIVES_S * 1000),
            allow_credentials=known,
            user_verification=(
                UserVerificationRequirement.REQUIRED
                if user_id is None or needs_verification
                else UserVerificationRequirement.PREFERRED
            ),
        )
        return options_to_json_dict(options), challenge

    def finish_authentication(
        self, challenge_token: str, credential: Mapping[str, Any], *, user_id: str | None, needs_verification: bool
    ) -> str:
        """Checks a passkey and returns whose it is.

        Args:
            challenge_token: as it was given; one that was begun for somebody is taken from them alone.
            credential: what the browser answered, as JSON.
            user_id: whose it must be; None where it stands alone: then it must itself say whose it is.
            needs_verification: whether the authenticator must have verified its user; it must in any case where the passkey
                stands alone.

        Raises:
            AuthenticationError: anything of it is not accepted.
        """
        found: Row[Any] | None = None
        try:
            self._take(challenge_token, _AUTHENTICATION, user_id)
            found = self._find(credential, user_id)
            proved = check_assertion(
                credential,
                challenge=challenge_token,
                rp_id=self._rp_id,
                origin=self._origin,
                public_key=found.public_key,
                needs_verification=needs_verification or user_id is None,
            )
            self._keep_use(found.id, proved)
        except ProofError as error:
            actor = "nobody" if found is None else f"person:{found.user_name}"
            self._tell_refusal(error, actor=actor, passkey=None if found is None else found.id)
            raise AuthenticationError("this passkey is not accepted", hint="Begin again.") from error
        return str(found.user_id)

    def list(self, user_id: str) -> list[Passkey]:
        """Returns somebody's passkeys, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(passkeys).where(passkeys.c.user_id == user_id).order_by(passkeys.c.created_at, passkeys.c.id)
            )
            return [
                Passkey(row.id, row.user_id, row.name, row.is_backed_up, row.created_at, row.used_at) for row in rows
            ]

    def count(self, user_id: str) -> int:
        """Returns how many somebody has."""
        with self._database.read() as connection:
            return _count_of(connection, user_id)

    def remove(self, actor: Principal, user_id: str, passkey_id: str) -> None:
        """Removes a passkey.

        Args:
            actor: whose it is, or who may change access: they take the last one away, too, since it may be lost.
            user_id: whose it is.
            passkey_id: which.

        Raises:
            ForbiddenError: the actor may not, or it is their own last second factor and their rights need one.
            StepUpError: the actor has to prove first who they are.
            AuthenticationError: the actor's session has ended.
            NotFoundError: there is no such passkey of theirs.
        """
        at = self._now()
        check_factors_are_own(actor, user_id, at, or_action=Action.ACCESS_CHANGE)
        with self._database.write() as connection:
            check_actor_in(connection, actor, None if actor.id == user_id else Action.ACCESS_CHANGE)
            check_is_not_an_auditors_in(connection, actor, user_id, command="user reset-factors")
            row = connection.execute(
                select(passkeys.c.name, users.c.name.label("user_name"))
                .join(users)
                .where(passkeys.c.id == passkey_id, passkeys.c.user_id == user_id)
            ).first()
            if row is None:
                raise NotFoundError("no such passkey", where=passkey_id)
            connection.execute(delete(passkeys).where(passkeys.c.id == passkey_id))
            check_is_not_last_in(connection, actor, user_id, events=self._events, at=at)
            self._tell(
                EventKind.FACTOR_REMOVED, actor.told(), f"person:{row.user_name}", passkey=passkey_id, name=row.name
            )

    def _take(self, challenge: str, kind: str, user_id: str | None, *, must_be_begun_for: bool = False) -> None:
        """Takes a challenge away. One that was begun for whoever comes fits anybody, where that is allowed."""
        try:
            taken = take_challenge(self._database, challenge, kind, now=self._now)
        except AuthenticationError as error:
            raise ProofError("challenge-refused") from error
        if taken.user_id != user_id and (must_be_begun_for or taken.user_id is not None):
            raise ProofError("challenge-of-another")

    def _find(self, credential: Mapping[str, Any], user_id: str | None) -> Row[Any]:
        """Returns the passkey that a credential names, where it is of whom it must be."""
        columns = [
            passkeys.c.id,
            passkeys.c.user_id,
            passkeys.c.public_key,
            users.c.name.label("user_name"),
            users.c.webauthn_handle,
        ]
        with self._database.read() as connection:
            row = connection.execute(
                select(*columns)
                .join(users)
                .where(passkeys.c.credential_id == (bytes_of(credential, "id") or b""), users.c.is_disabled.is_(False))
            ).first()
        if row is None:
            raise ProofError("passkey-unknown")
        handle = bytes_of(credential, "response", "userHandle")
        if user_id is None:
            is_theirs = handle is not None and hmac.compare_digest(handle, row.webauthn_handle)
        else:
            is_theirs = row.user_id == user_id and handle in (None, b"", row.webauthn_handle)
        if not is_theirs:
            raise ProofError("passkey-of-another")
        return row

    def _keep(self, connection: Connection, actor: Principal, user_id: str, proved: Registration, name: str) -> Passkey:
        is_known = select(passkeys.c.id).where(passkeys.c.credential_id == proved.credential_id)
        if connection.execute(is_known).first() is not None:
            raise ProofError("passkey-known", "registered before")
        if _count_of(connection, user_id) >= _MOST:
            raise ForbiddenError("too many passkeys", expected=f"at most {_MOST}", hint="Remove one first.")
        is_first = not factors_in(connection, user_id).has_second
        made = Passkey(new_id(), user_id, name, proved.is_backed_up, self._now(), None)
        connection.execute(
            insert(passkeys).values(
                id=made.id,
                user_id=user_id,
                credential_id=proved.credential_id,
                public_key=proved.public_key,
                sign_count=proved.sign_count,
                is_backed_up=proved.is_backed_up,
                name=name,
                transports=list(proved.transports),
                created_at=made.created_at,
            )
        )
        strengthen_in(connection, actor, "passkey", is_first=is_first, events=self._events, at=made.created_at)
        self._tell(EventKind.FACTOR_ADDED, actor.told(), None, passkey=made.id, name=name)
        return made

    def _keep_use(self, passkey_id: str, proved: Assertion) -> None:
        """Keeps the counter, where it grew or never counts: one statement, so that of two uses at once one is refused."""
        grew = passkeys.c.sign_count < proved.sign_count
        if proved.sign_count == 0:
            grew = passkeys.c.sign_count == 0
        with self._database.write() as connection:
            kept = connection.execute(
                update(passkeys)
                .where(passkeys.c.id == passkey_id, grew)
                .values(sign_count=proved.sign_count, is_backed_up=proved.is_backed_up, used_at=self._now())
            )
            if kept.rowcount != 1:
                raise ProofError("passkey-cloned", "its counter did not grow")

    def _tell_refusal(self, error: ProofError, *, actor: str, passkey: str | None = None) -> None:
        with self._database.write():
            self._events.record(
                Event(
                    self._now(),
                    EventKind.REFUSED,
                    Outcome.REFUSED,
                    actor,
                    why=error.why,
                    factor="passkey",
                    details={"passkey": passkey, "said": error.said},
                )
            )

    def _tell(self, kind: EventKind, actor: str, subject: str | None, **details: str) -> None:
        self._events.record(
            Event(self._now(), kind, Outcome.DONE, actor, subject=subject, factor="passkey", details=details)
        )


def _descriptors(connection: Connection, user_id: str) -> list[PublicKeyCredentialDescriptor]:
    rows = connection.execute(
        select(passkeys.c.credential_id, passkeys.c.transports).where(passkeys.c.user_id == user_id)
    )
    return [
        PublicKeyCredentialDescriptor(
            id=row.credential_id, transports=[AuthenticatorTransport(one) for one in row.transports] or None
        )
        for row in rows
    ]


def _count_of(connection: Connection, user_id: str) -> int:
    return connection.scalar(select(func.count()).select_from(passkeys).where(passkeys.c.user_id == user_id)) or 0
