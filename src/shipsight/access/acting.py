# SPDX-License-Identifier: Apache-2.0
"""Whether who acts still may, looked at within the transaction that changes something.

A request carries the rights that its principal had when they were last looked at; until it is done its session may have ended, its person
may have been disabled, a grant may be gone. Transactions that write come one after another, so what is read here holds until the change
is kept. Private to the room. Source: OWASP ASVS 5.0, 7.4.1, 7.4.2, 8.2.1 and 8.3.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Connection, select

from shipsight.access.grants import groups_in, rights_in
from shipsight.access.permissions import Action
from shipsight.access.principal import Principal, PrincipalKind
from shipsight.access.store import Database
from shipsight.access.store.tables import sessions, users
from shipsight.errors import AuthenticationError

__all__ = ["changing_access", "check_actor_in"]


@contextmanager
def changing_access(db: Database, actor: Principal) -> Iterator[Connection]:
    """Gives a transaction to who may change access.

    Raises:
        ForbiddenError: they may not.
        AuthenticationError: they may no longer: their session has ended, or they are disabled or gone.
    """
    actor.require(Action.ACCESS_CHANGE)  # before others are kept waiting for it
    with db.write() as connection:
        check_actor_in(connection, actor, Action.ACCESS_CHANGE)
        yield connection


def check_actor_in(connection: Connection, actor: Principal, action: Action | None = None) -> None:
    """Refuses a person whose session has ended or who is kept out by now, and who may not do what they could when they asked.

    Args:
        connection: of the transaction that changes something.
        actor: as they were when they asked.
        action: that they need, None where it is their own affair.

    Raises:
        AuthenticationError: the session has ended, or they are disabled or gone.
        ForbiddenError: the action is not allowed to them.
    """
    now = actor
    if actor.is_person:
        is_let_in = connection.execute(select(users.c.is_disabled).where(users.c.id == actor.id)).scalar() is False
        handle = select(sessions.c.handle).where(sessions.c.handle == actor.session, sessions.c.user_id == actor.id)
        has_ended = actor.session is not None and connection.execute(handle).first() is None
        if actor.id is None or not is_let_in or has_ended:
            raise AuthenticationError("this session has ended", hint="Sign in again.")
        now = replace(actor, rights=rights_in(connection, actor.id, groups_in(connection, actor)))
    # What the server does for whoever started it is theirs to do; machines and strangers hold nothing over access.
    if action is not None and actor.kind is not PrincipalKind.SERVER:
        now.require(action)
