# SPDX-License-Identifier: Apache-2.0
"""Ends sessions, and tells of each: the one way in which they end before their time. Private to the room. Source: OWASP ASVS 5.0, 7.4."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, select

from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.principal import Principal, PrincipalKind
from shipsight.access.store import grow_revision
from shipsight.access.store.tables import sessions, users

__all__ = ["end_sessions_in"]


def end_sessions_in(
    connection: Connection,
    which: ColumnElement[bool],
    *,
    events: EventSink,
    actor: Principal,
    at: datetime,
    kind: EventKind = EventKind.SESSION_ENDED,
) -> int:
    """Ends sessions within a transaction of the caller's, who checked that it may be done.

    Args:
        connection: of the transaction.
        which: rows of `sessions`.
        events: takes what happens, before it is kept.
        actor: who does it.
        at: time.
        kind: what it is told as.

    Returns:
        How many there were.
    """
    rows = connection.execute(
        select(sessions.c.handle, users.c.name).join(users, users.c.id == sessions.c.user_id).where(which)
    ).all()
    if not rows:
        return 0
    connection.execute(delete(sessions).where(sessions.c.handle.in_([row.handle for row in rows])))
    grow_revision(connection)
    for row in rows:
        subject, details = f"{PrincipalKind.PERSON}:{row.name}", {"session": row.handle}
        events.record(Event(at, kind, Outcome.DONE, actor.told(), subject=subject, details=details))
    return len(rows)
