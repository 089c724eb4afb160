# SPDX-License-Identifier: Apache-2.0
"""People who are known, and what everybody was granted: added, invited, disabled, removed.

Nobody has an account that they did not get from an administrator; the first administrator gets one by a setup code, which works
while nobody is known. Invariants: a code of invitation works once and for a limited time; nobody changes what they may do
themselves; the last administrator stays; who reads the audit log is decided by the server itself, so that no administrator becomes one
who does. Whoever acts is looked at again in the transaction that changes something (`acting`). Leaves to others: how people prove who they are (`factors`, `sign_in`); whether an
administrator proved it a short while ago (the edge, with `Principal.require`). Stable.
Sources: OWASP ASVS 5.0, 6.3.2, 6.4.1, 8.2 and 8.3.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from shipsight.access import grants as granting
from shipsight.access.acting import changing_access
from shipsight.access.ending import end_sessions_in
from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.permissions import AUDIT_ACTIONS, ROLES, Grant, Rights, Role
from shipsight.access.principal import SERVER, Principal
from shipsight.access.store import Database, grow_revision, read_revision
from shipsight.access.store.tables import (
    api_keys,
    certificates,
    challenges,
    invitations,
    known_devices,
    passkeys,
    recovery_codes,
    roles,
    sessions,
    settings,
    totps,
    users,
)
from shipsight.access.tokens import digest, is_id, new_id, new_token
from shipsight.errors import ConflictError, ForbiddenError, NotFoundError, UsageError

__all__ = [
    "Directory",
    "User",
    "insert_user_in",
    "keep_known_in",
    "known_form",
    "knows_anyone_in",
    "normal_name",
]

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")
_LONGEST_DISPLAY_NAME = 100
_HANDLE_BYTES = 32
_WAS_KNOWN = "access.was-known"  # a setting


@dataclass(frozen=True)
class User:
    """A person who is known.

    Attributes:
        id: that stays.
        name: to sign in with, lower case.
        display_name: to be shown.
        is_disabled: whether they are kept out.
        has_password: whether they have set one.
        created_at: when they were added.
        signed_in_at: when they last signed in, None where they never did.
        openid: whether a provider of OpenID Connect vouches for them.
    """

    id: str
    name: str
    display_name: str
    is_disabled: bool
    has_password: bool
    created_at: datetime
    signed_in_at: datetime | None
    openid: bool


class Directory:
    """People, roles, and grants.

    Args:
        db: where they are kept.
        events: takes what happens, before it is kept.
        now: tells the time.
    """

    def __init__(self, db: Database, events: EventSink, now: Callable[[], datetime]) -> None:
        self._db = db
        self._events = events
        self._now = now

    def add_user(
        self,
        actor: Principal,
        name: str,
        *,
        display_name: str | None = None,
        grants: Sequence[Grant] = (),
        lives_s: float = 86400.0,
    ) -> tuple[User, str]:
        """Adds a person, who then sets a password with the code that is returned.

        Args:
            actor: who does it.
            name: to sign in with.
            display_name: to be shown, None for the name.
            grants: what they may do.
            lives_s: seconds for which the code works.

        Raises:
            ForbiddenError: the actor may not, or a grant reads the audit log and they are not the server.
            AuthenticationError: their session has ended.
            UsageError: the name does not fit or is taken, or a role is unknown.
        """
        with changing_access(self._db, actor) as connection:
            user_id = insert_user_in(connection, self._now(), name=name, display_name=display_name)
            _check_audit_in(connection, actor, name, grants, had=(), command=f"user add {name}")
            granting.put_grants_in(connection, "user", user_id, grants)
            code = self._invite_in(connection, user_id, lives_s)
            user = _user_in(connection, user_id)
            self._tell(
                EventKind.USER_ADDED, actor, subject=f"person:{user.name}", grants=[one.told() for one in grants]
            )
        return user, code

    def invite(self, actor: Principal, user_id: str, *, lives_s: float = 86400.0) -> str:
        """Returns a new code with which a person sets a password; older codes end. Second factors stay as they are.

        Raises:
            ForbiddenError: the actor may not, it is themselves, or somebody who reads the audit log and the actor is not the server.
            AuthenticationError: their session has ended.
            NotFoundError: there is no such person.
        """
        with changing_access(self._db, actor) as connection:
            user = _user_in(connection, user_id)
            if actor.id == user_id:
                raise ForbiddenError("you change your own password with the old one")
            granting.check_is_not_an_auditors_in(connection, actor, user_id, command="user invite")
            code = self._invite_in(connection, user_id, lives_s)
            self._tell(EventKind.INVITED, actor, subject=f"person:{user.name}")
        return code

    def setup_code(self, *, lives_s: float = 3600.0) -> str:
        """Returns a code that makes the first administrator; older ones end.

        Raises:
            ForbiddenError: somebody is known already.
        """
        with self._db.write() as connection:
            if knows_anyone_in(connection):
                raise ForbiddenError("somebody is known here already", hint="An administrator adds further people.")
            code = self._invite_in(connection, None, lives_s)
            self._tell(EventKind.INVITED, SERVER, subject="the first administrator")
        return code

    def users(self) -> list[User]:
        """Returns all people, by name."""
        with self._db.read() as connection:
            return [_to_user(row) for row in connection.execute(select(users).order_by(users.c.name))]

    def user(self, name_or_id: str) -> User:
        """Returns a person.

        Raises:
            NotFoundError: nobody has that name or id.
        """
        with self._db.read() as connection:
            return _user_in(connection, name_or_id, by_name=True)

    def grants(self, kind: str, holder_id: str) -> tuple[Grant, ...]:
        """Returns what somebody was granted themselves; kind is user, key, certificate or group."""
        with self._db.read() as connection:
            return granting.grants_in(connection, kind, [holder_id])

    def groups(self) -> dict[str, tuple[Grant, ...]]:
        """Returns what groups of a provider were granted, by name; a group that was granted nothing is not known here."""
        with self._db.read() as connection:
            names = granting.holders_in(connection, "group")
            return {name: granting.grants_in(connection, "group", [name]) for name in names}

    def set_grants(
        self,
        actor: Principal,
        kind: str,
        holder_id: str,
        grants: Sequence[Grant],
        *,
        before: Sequence[Grant] | None = None,
    ) -> None:
        """Replaces what somebody was granted; open sessions have it at once.

        Args:
            actor: who does it.
            kind: user, key, certificate or group.
            holder_id: whom it is about; a group's name.
            grants: what they hold afterwards.
            before: what the actor saw that they hold, in any order, so that no change of another's is undone unseen; None for
                whatever they hold.

        Raises:
            ConflictError: they do not hold what the actor saw.
            ForbiddenError: the actor may not; it is themselves, or a group that is or may be theirs; it lets somebody read the audit log
                and they are not the server; or nobody would be left who may.
            AuthenticationError: their session has ended.
            UsageError: a role is unknown, or not for such a holder.
            NotFoundError: there is no such holder.
        """
        with changing_access(self._db, actor) as connection:
            granting.check_holder_in(connection, kind, holder_id)
            if (kind == "user" and actor.id == holder_id) or (
                kind == "group" and holder_id in granting.groups_in(connection, actor)
            ):
                raise ForbiddenError("nobody changes what they may do themselves")
            if kind == "group":
                _check_groups_are_known_in(connection, actor)
            administrators = granting.administrators_in(connection)
            old = granting.grants_in(connection, kind, [holder_id])
            if before is not None and set(before) != set(old):
                raise ConflictError(
                    "somebody else changed these grants meanwhile",
                    where="grants",
                    expected=", ".join(one.told() for one in before) or "none",
                    got=", ".join(one.told() for one in old) or "none",
                    hint="Look at what is there now, then decide again.",
                )
            name = _name_in(connection, kind, holder_id)
            _check_audit_in(connection, actor, name, grants, had=old, command=f"{kind} grant {name}")
            granting.put_grants_in(connection, kind, holder_id, grants)
            _check_administrator_is_left_in(connection, administrators)
            self._tell(
                EventKind.GRANTS_CHANGED,
                actor,
                subject=f"{kind}:{name}",
                before=[one.told() for one in old],
                after=[one.told() for one in grants],
            )

    def set_disabled(self, actor: Principal, user_id: str, is_disabled: bool) -> None:
        """Keeps a person out, and ends their sessions; or lets them in again.

        Raises:
            ForbiddenError: the actor may not, or nobody would be left who may.
            AuthenticationError: their session has ended.
            NotFoundError: there is no such person.
        """
        with changing_access(self._db, actor) as connection:
            user = _user_in(connection, user_id)
            before = granting.administrators_in(connection)
            connection.execute(update(users).where(users.c.id == user_id).values(is_disabled=is_disabled))
            if is_disabled:
                self._end_sessions_in(connection, actor, user_id)
                for table in (challenges, invitations, known_devices):
                    connection.execute(delete(table).where(table.c.user_id == user_id))
            _check_administrator_is_left_in(connection, before)
            grow_revision(connection)
            self._tell(EventKind.USER_CHANGED, actor, subject=f"person:{user.name}", is_disabled=is_disabled)

    def reset_factors(self, actor: Principal, user_id: str) -> None:
        """Takes all second factors and recovery codes away from somebody who lost them, and ends their sessions.

        A password alone then lets them in, to add others.

        Raises:
            ForbiddenError: the actor may not, it is themselves, or somebody who reads the audit log and the actor is not the server.
            AuthenticationError: their session has ended.
            NotFoundError: there is no such person.
        """
        with changing_access(self._db, actor) as connection:
            user = _user_in(connection, user_id)
            if actor.id == user_id:
                raise ForbiddenError("you remove your own factors one by one")
            granting.check_is_not_an_auditors_in(connection, actor, user_id, command="user reset-factors")
            for table, factor in ((totps, "totp"), (passkeys, "passkey"), (recovery_codes, "recovery")):
                gone = connection.execute(delete(table).where(table.c.user_id == user_id)).rowcount
                if gone:
                    self._tell(
                        EventKind.FACTOR_REMOVED, actor, subject=f"person:{user.name}", factor=factor, removed=gone
                    )
            self._end_sessions_in(connection, actor, user_id)
            grow_revision(connection)

    def remove_user(self, actor: Principal, user_id: str) -> None:
        """Removes a person, with all that is theirs: factors, sessions, keys.

        Raises:
            ForbiddenError: the actor may not, or nobody would be left who may.
            AuthenticationError: their session has ended.
            NotFoundError: there is no such person.
        """
        with changing_access(self._db, actor) as connection:
            user = _user_in(connection, user_id)
            before = granting.administrators_in(connection)
            self._end_sessions_in(connection, actor, user_id)
            granting.drop_holders_in(connection, user_id)
            connection.execute(delete(users).where(users.c.id == user_id))
            keep_known_in(connection)
            _check_administrator_is_left_in(connection, before)
            grow_revision(connection)
            self._tell(EventKind.USER_REMOVED, actor, subject=f"person:{user.name}")

    def roles(self) -> dict[str, Role]:
        """Returns all roles by name."""
        with self._db.read() as connection:
            return granting.roles_in(connection)

    def apply_role(self, actor: Principal, role: Role) -> None:
        """Adds a role, or changes what it allows.

        Raises:
            ForbiddenError: the actor may not; holds the role, or may by a group, and would be allowed more; it reads the audit log and
                they are not the server; or nobody would be left who may.
            AuthenticationError: their session has ended.
            UsageError: it is one of our own, or a holder may not have what it allows.
        """
        if role.name in ROLES:
            raise UsageError("this role cannot be changed", where=role.name, hint="Give yours another name.")
        with changing_access(self._db, actor) as connection:
            if role.actions & AUDIT_ACTIONS:
                granting.check_server_grants(actor, where=role.name, command="role apply FILE")
            old = granting.roles_in(connection).get(role.name)
            holders = granting.holders_of_in(connection, role.name)
            mine = {("user", actor.id), *(("group", one) for one in granting.groups_in(connection, actor))}
            if mine & set(holders) and role.actions - (old.actions if old else frozenset()):
                raise ForbiddenError("nobody changes what they may do themselves", where=role.name)
            if any(kind == "group" for kind, _ in holders):
                _check_groups_are_known_in(connection, actor)
            before = granting.administrators_in(connection)
            connection.execute(delete(roles).where(roles.c.name == role.name))
            connection.execute(insert(roles).values(name=role.name, told=role.to_dict()))
            known = granting.roles_in(connection)
            for kind, holder_id in holders:
                granting.check_together(kind, Rights.of(granting.grants_in(connection, kind, [holder_id]), known))
            _check_administrator_is_left_in(connection, before)
            grow_revision(connection)
            self._tell(
                EventKind.ROLE_CHANGED,
                actor,
                subject=f"role:{role.name}",
                before=sorted(old.actions) if old else None,
                after=sorted(role.actions),
            )

    def remove_role(self, actor: Principal, name: str) -> None:
        """Removes a role that nobody holds.

        Raises:
            ForbiddenError: the actor may not.
            AuthenticationError: their session has ended.
            UsageError: it is one of our own, or somebody holds it.
            NotFoundError: there is no such role.
        """
        if name in ROLES:
            raise UsageError("this role cannot be removed", where=name)
        with changing_access(self._db, actor) as connection:
            if name not in granting.roles_in(connection):
                raise NotFoundError("no such role", got=name)
            # Else a later role of that name would be theirs at once.
            if granting.holders_of_in(connection, name):
                raise UsageError("somebody holds this role", where=name, hint="Take it from them first.")
            connection.execute(delete(roles).where(roles.c.name == name))
            grow_revision(connection)
            self._tell(EventKind.ROLE_CHANGED, actor, subject=f"role:{name}", after=None)

    def rights_of_user(self, user_id: str, groups: Sequence[str] = ()) -> Rights:
        """Returns what a person may do now, none where they are disabled or gone.

        Args:
            user_id: who.
            groups: that a provider says they are in.
        """
        with self._db.read() as connection:
            return granting.rights_in(connection, user_id, groups)

    def knows_anyone(self) -> bool:
        """Whether a person, a key or a certificate is known, or ever was: what is closed does not open again."""
        with self._db.read() as connection:
            return knows_anyone_in(connection)

    def has_administrator(self) -> bool:
        """Whether somebody may change access; one who was invited counts."""
        with self._db.read() as connection:
            return bool(granting.administrators_in(connection))

    def revision(self) -> int:
        """Returns a number that grows with each change of rights or sessions, by whichever process."""
        with self._db.read() as connection:
            return read_revision(connection)

    def _invite_in(self, connection: Connection, user_id: str | None, lives_s: float) -> str:
        if not 0 < lives_s <= 30 * 86400:
            raise UsageError("out of range", where="lives_s", expected="at most 30 days", got=lives_s)
        code, at = new_token(), self._now()
        of_user = invitations.c.user_id.is_(None) if user_id is None else invitations.c.user_id == user_id
        connection.execute(delete(invitations).where(of_user))
        connection.execute(
            insert(invitations).values(
                id=new_id(),
                user_id=user_id,
                code_hash=digest(code),
                created_at=at,
                expires_at=at + timedelta(seconds=lives_s),
            )
        )
        return code

    def _end_sessions_in(self, connection: Connection, actor: Principal, user_id: str) -> None:
        which = sessions.c.user_id == user_id
        end_sessions_in(connection, which, events=self._events, actor=actor, at=self._now())

    def _tell(
        self,
        kind: EventKind,
        actor: Principal,
        *,
        subject: str,
        factor: str | None = None,
        **details: Any,  # noqa: ANN401 - plain
    ) -> None:
        event = Event(self._now(), kind, Outcome.DONE, actor.told(), subject=subject, factor=factor, details=details)
        self._events.record(event)


def normal_name(name: str) -> str:
    """Returns a name as it is compared: without blanks around it, in lower case."""
    return name.strip().lower()


def known_form(name: str) -> str:
    """Returns a name as somebody could have it, empty where nobody can; databases refuse some characters even to look for."""
    normal = normal_name(name)
    return normal if _NAME.fullmatch(normal) else ""


def insert_user_in(
    connection: Connection,
    now: datetime,
    *,
    name: str,
    display_name: str | None = None,
    oidc_issuer: str | None = None,
    oidc_subject: str | None = None,
) -> str:
    """Adds a person without rights, and returns the id; who may do so is the caller's to check.

    Raises:
        UsageError: a name does not fit or is taken.
    """
    normal = normal_name(name)
    # A name that could be an id would be taken for one.
    if not _NAME.fullmatch(normal) or is_id(normal):
        raise UsageError(
            "not a name of a user", where="name", expected="a-z, 0-9 and . _ @ + -, at most 64", got=name[:80]
        )
    shown = (display_name or name).strip()
    if not 0 < len(shown) <= _LONGEST_DISPLAY_NAME or not shown.isprintable():
        raise UsageError("not a name to be shown", where="display_name", expected="1 to 100 characters")
    if connection.execute(select(users.c.id).where(users.c.name == normal)).first() is not None:
        raise UsageError("this name is taken", where="name", got=normal)
    user_id = new_id()
    connection.execute(
        insert(users).values(
            id=user_id,
            name=normal,
            display_name=shown,
            is_disabled=False,
            webauthn_handle=secrets.token_bytes(_HANDLE_BYTES),
            oidc_issuer=oidc_issuer,
            oidc_subject=oidc_subject,
            created_at=now,
        )
    )
    grow_revision(connection)
    return user_id


def knows_anyone_in(connection: Connection) -> bool:
    """Whether a person, a key or a certificate is known or was: what was revoked counts, and who was removed."""
    return any(
        connection.execute(select(table.c.id).limit(1)).first() is not None for table in (users, api_keys, certificates)
    ) or _was_known_in(connection)


def keep_known_in(connection: Connection) -> None:
    """Keeps that somebody was known, before the last of them goes; keys and certificates that are revoked stay."""
    if not _was_known_in(connection):
        connection.execute(insert(settings).values(name=_WAS_KNOWN, value="yes"))


def _was_known_in(connection: Connection) -> bool:
    return connection.execute(select(settings.c.value).where(settings.c.name == _WAS_KNOWN)).first() is not None


def _user_in(connection: Connection, which: str, *, by_name: bool = False) -> User:
    named = users.c.name == known_form(which)
    row = connection.execute(
        select(users).where(named if by_name and not is_id(which) else users.c.id == (which if is_id(which) else ""))
    ).one_or_none()
    if row is None:
        raise NotFoundError("no such user", got=which[:80])
    return _to_user(row)


def _to_user(row: Any) -> User:  # noqa: ANN401 - a row of `users`
    return User(
        id=row.id,
        name=row.name,
        display_name=row.display_name,
        is_disabled=row.is_disabled,
        has_password=row.password_hash is not None,
        created_at=row.created_at,
        signed_in_at=row.signed_in_at,
        openid=row.oidc_subject is not None,
    )


def _name_in(connection: Connection, kind: str, holder_id: str) -> str:
    table = {"user": users, "key": api_keys, "certificate": certificates}.get(kind)
    if table is None:
        return holder_id
    return str(connection.execute(select(table.c.name).where(table.c.id == holder_id)).scalar_one())


def _check_audit_in(
    connection: Connection, actor: Principal, where: str, given: Sequence[Grant], *, had: Sequence[Grant], command: str
) -> None:
    """Refuses grants that read the audit log and were not held before, from anybody but the server itself."""
    if granting.audit_grants_in(connection, given) - set(had):
        granting.check_server_grants(actor, where=where, command=command)


def _check_groups_are_known_in(connection: Connection, actor: Principal) -> None:
    """Refuses somebody who has groups at their provider and signed in without it: any group may be theirs."""
    subject = connection.execute(select(users.c.oidc_subject).where(users.c.id == actor.id)).scalar()
    if subject is not None and "oidc" not in actor.factors:
        raise ForbiddenError(
            "which groups are yours is not known in this session",
            got=actor.told(),
            hint="Sign in with your organisation first.",
        )


def _check_administrator_is_left_in(connection: Connection, before: dict[str, bool]) -> None:
    after = granting.administrators_in(connection)
    if (before and not after) or (any(before.values()) and not any(after.values())):
        raise ForbiddenError(
            "nobody would be left who may change access", hint="Make somebody else an administrator first."
        )
