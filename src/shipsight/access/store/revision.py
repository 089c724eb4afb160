# SPDX-License-Identifier: Apache-2.0
"""A number that grows with every change that may affect what somebody may do; servers that cache rights look at it.

Whoever changes users, grants, roles, keys, certificates or sessions calls `grow_revision` in the same transaction.
Private to `access`.
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from shipsight.access.store.tables import settings

__all__ = ["grow_revision", "read_revision", "write_revision"]

_NAME = "access.revision"


def read_revision(connection: Connection) -> int:
    """Returns the number; 0 where nothing was changed yet."""
    found = connection.execute(select(settings.c.value).where(settings.c.name == _NAME)).scalar()
    return 0 if found is None else int(found)


def grow_revision(connection: Connection) -> None:
    """Lets it grow, within `Database.write`, where nobody else does at once."""
    write_revision(connection, read_revision(connection) + 1)


def write_revision(connection: Connection, revision: int) -> None:
    """Sets the number, which must not become less than it was."""
    value = str(revision)
    changed = connection.execute(update(settings).where(settings.c.name == _NAME).values(value=value))
    if not changed.rowcount:
        connection.execute(insert(settings).values(name=_NAME, value=value))
