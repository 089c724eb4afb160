# SPDX-License-Identifier: Apache-2.0
"""Grants and roles as the store keeps them, and the rights that follow. All within a transaction of the caller's.

Invariants: nobody holds the right to change something and the right to read the audit log; a machine holds no right over access
or the audit log; every change of grants makes the revision grow in the same transaction. Private to the room.
Source: OWASP ASVS 5.0, 8.1 to 8.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, and_, delete, insert, or_, select

from shipsight.access.permissions import (
    ALL_MODELS,
    AUDIT_ACTIONS,
    HUMAN_ACTIONS,
    NO_RIGHTS,
    ROLES,
    Action,
    Grant,
    Rights,
    Role,
)
from shipsight.access.principal import Principal, PrincipalKind
from shipsight.access.store import grow_revision
from shipsight.access.store.tables import api_keys, certificates, grants, roles, sessions, users
from shipsight.access.tokens import is_id, new_id
from shipsight.errors import ForbiddenError, NotFoundError, UsageError

__all__ = [
    "HOLDERS",
    "administrators_in",
    "audit_grants_in",
    "check_holder_in",
    "check_is_not_an_auditors_in",
    "check_server_grants",
    "check_together",
    "drop_holders_in",
    "grants_in",
    "groups_in",
    "holders_in",
    "holders_of_in",
    "put_grants_in",
    "rights_in",
    "roles_in",
]

HOLDERS = ("user", "key", "certificate", "group")
_MACHINES = ("key", "certificate")
_LONGEST_GROUP = 256


def roles_in(connection: Connection) -> dict[str, Role]:
    """Returns all roles by name; those of our own cannot be replaced."""
    kept = {row.name: Role.from_dict(row.name, row.told) for row in connection.execute(select(roles))}
    return {**kept, **ROLES}


def grants_in(connection: Connection, kind: str, holder_ids: Iterable[str]) -> tuple[Grant, ...]:
    """Returns what holders of one kind were granted, together."""
    rows = connection.execute(
        select(grants.c.role, grants.c.models)
        .where(grants.c.holder_kind == kind, grants.c.holder_id.in_(list(holder_ids)))
        .order_by(grants.c.role, grants.c.id)
    )
    return tuple(Grant(row.role, tuple(row.models)) for row in rows)


def put_grants_in(connection: Connection, kind: str, holder_id: str, given: Sequence[Grant]) -> None:
    """Replaces what a holder was granted; who may do so is the caller's to check.

    Raises:
        UsageError: a role is unknown or not for such a holder, or together they read the audit log and change things.
    """
    known = roles_in(connection)
    unknown = sorted({one.role for one in given} - known.keys())
    if unknown:
        raise UsageError("no such role", where="grants", expected=", ".join(sorted(known)), got=", ".join(unknown))
    check_together(kind, Rights.of(given, known))
    connection.execute(delete(grants).where(grants.c.holder_kind == kind, grants.c.holder_id == holder_id))
    for one in dict.fromkeys(given):
        connection.execute(
            insert(grants).values(
                id=new_id(), holder_kind=kind, holder_id=holder_id, role=one.role, models=list(one.models)
            )
        )
    grow_revision(connection)


def check_together(kind: str, rights: Rights) -> None:
    """Refuses rights that one holder may not have.

    Raises:
        UsageError: they are such.
    """
    actions = {action for allowed, _ in rights.grants for action in allowed}
    if kind in _MACHINES and actions & HUMAN_ACTIONS:
        raise UsageError(
            "only people may be granted this", where="grants", got=", ".join(sorted(actions & HUMAN_ACTIONS))
        )
    if actions & AUDIT_ACTIONS and any(action.changes for action in actions):
        raise UsageError("who reads the audit log may change nothing", where="grants")


def rights_in(connection: Connection, user_id: str, groups: Sequence[str] = ()) -> Rights:
    """Returns what a user may do now, by themselves and by the groups that they signed in with; nothing where disabled.

    The same is looked up of a user that there is not, so that who shows a key cannot tell by the work.
    """
    is_disabled = connection.execute(select(users.c.is_disabled).where(users.c.id == user_id)).scalar_one_or_none()
    held = grants_in(connection, "user", [user_id])
    if groups:
        held += grants_in(connection, "group", groups)
    rights = _apart(Rights.of(held, roles_in(connection)))
    return NO_RIGHTS if is_disabled is None or is_disabled else rights


def audit_grants_in(connection: Connection, given: Iterable[Grant]) -> set[Grant]:
    """Returns those grants whose role reads the audit log."""
    known = roles_in(connection)
    return {one for one in given if one.role in known and known[one.role].actions & AUDIT_ACTIONS}


def check_server_grants(actor: Principal, *, where: str, command: str) -> None:
    """Refuses to say who reads the audit log, to anybody but who has the server's own machine.

    Else an administrator would let somebody read who is themselves, or become somebody who reads: what they did would be theirs to review.

    Args:
        actor: who would.
        where: whom it concerns, for the error.
        command: of `shipsight` that does it.

    Raises:
        ForbiddenError: the actor is not the server.
    """
    if actor.kind is not PrincipalKind.SERVER:
        raise ForbiddenError(
            "who reads the audit log is decided on the server's own machine",
            where=where,
            got=actor.told(),
            hint=f"Run on the server: shipsight {command}",
        )


def check_is_not_an_auditors_in(connection: Connection, actor: Principal, user_id: str, *, command: str) -> None:
    """Refuses to take over how somebody else proves who they are, where they were granted to read the audit log.

    Raises:
        ForbiddenError: as `check_server_grants`.
    """
    if actor.id != user_id and audit_grants_in(connection, grants_in(connection, "user", [user_id])):
        name = connection.execute(select(users.c.name).where(users.c.id == user_id)).scalar_one()
        check_server_grants(actor, where=name, command=f"{command} {name}")


def _apart(rights: Rights) -> Rights:
    """What is changed by itself may add up with groups, or with a role that changed: then the audit log stays shut."""
    if not any(action.changes for actions, _ in rights.grants for action in actions):
        return rights
    return Rights(tuple((actions - AUDIT_ACTIONS, grant) for actions, grant in rights.grants))


def administrators_in(connection: Connection) -> dict[str, bool]:
    """Returns users who may change access, and whether each is able to sign in already; no disabled ones."""
    known = roles_in(connection)
    names = [name for name, role in known.items() if Action.ACCESS_CHANGE in role.actions]
    rows = connection.execute(
        select(users.c.id, users.c.password_hash, users.c.oidc_subject, grants.c.models)
        .join(grants, and_(grants.c.holder_kind == "user", grants.c.holder_id == users.c.id))
        .where(grants.c.role.in_(names), users.c.is_disabled.is_(False))
    )
    return {
        row.id: row.password_hash is not None or row.oidc_subject is not None
        for row in rows
        if tuple(row.models) == ALL_MODELS
    }


def check_holder_in(connection: Connection, kind: str, holder_id: str) -> None:
    """Refuses a holder that there is not; groups are the provider's, so any name will do.

    Raises:
        UsageError: there is no such kind, or it is no name of a group.
        NotFoundError: nobody has that id.
    """
    if kind not in HOLDERS:
        raise UsageError("no such kind of holder", where="kind", expected=", ".join(HOLDERS), got=kind)
    if kind == "group":
        if not 0 < len(holder_id) <= _LONGEST_GROUP or not holder_id.isprintable():
            raise UsageError("not a name of a group", where="group")
        return
    table = {"user": users, "key": api_keys, "certificate": certificates}[kind]
    if not is_id(holder_id) or connection.execute(select(table.c.id).where(table.c.id == holder_id)).first() is None:
        raise NotFoundError(f"no such {kind}", got=holder_id[:80])


def groups_in(connection: Connection, actor: Principal) -> tuple[str, ...]:
    """Returns the groups that an actor signed in with."""
    if actor.session is None:
        return ()
    proved = connection.execute(select(sessions.c.factors).where(sessions.c.handle == actor.session)).scalar()
    return tuple(proved["groups"]) if proved else ()


def holders_in(connection: Connection, kind: str) -> list[str]:
    """Returns the ids of all of a kind who hold something, in order."""
    ids = connection.execute(select(grants.c.holder_id).where(grants.c.holder_kind == kind).distinct()).scalars()
    return sorted(ids)  # as Python has it: databases order texts by their locale


def holders_of_in(connection: Connection, role: str) -> list[tuple[str, str]]:
    """Returns kind and id of all who hold a role."""
    rows = connection.execute(select(grants.c.holder_kind, grants.c.holder_id).where(grants.c.role == role).distinct())
    return [(row.holder_kind, row.holder_id) for row in rows]


def drop_holders_in(connection: Connection, user_id: str) -> None:
    """Removes what a user, and the keys that are theirs, were granted: before they go themselves."""
    keys = select(api_keys.c.id).where(api_keys.c.owner_id == user_id).scalar_subquery()
    connection.execute(
        delete(grants).where(
            or_(
                and_(grants.c.holder_kind == "user", grants.c.holder_id == user_id),
                and_(grants.c.holder_kind == "key", grants.c.holder_id.in_(keys)),
            )
        )
    )
