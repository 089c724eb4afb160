# SPDX-License-Identifier: Apache-2.0
"""What keys and certificates, which stand for machines, have in common: names, rights, and when they were last shown.

Invariant: a machine never holds an action of `access` or `audit`. It shows one factor, so what people need two for to
decide about other people is not open to it by that way (OWASP ASVS 5.0, 6.3.4). That is refused when it is granted
(`grants`), and left out again here, whatever a row says. Private to `access`.
"""

from __future__ import annotations

import logging
import re
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, or_, update

from shipsight.access import grants as granting
from shipsight.access.permissions import HUMAN_ACTIONS, Grant, Rights
from shipsight.access.store import Database
from shipsight.errors import EnvironmentLackError, UsageError

__all__ = ["USED_S", "check_name", "keep_use", "machine_rights_in", "told_grants_in"]

USED_S = 60.0
"""Seconds within which a second use is not kept."""

_log = logging.getLogger("shipsight.access")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(name: str) -> None:
    """Refuses what is no name of a key or certificate.

    Raises:
        UsageError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise UsageError("not a name", where="name", expected="letters, digits, . _ -, at most 64", got=repr(name[:80]))


def machine_rights_in(connection: Connection, kind: str, holder_id: str) -> Rights:
    """Returns what a machine was granted, with the roles as they are now."""
    granted = Rights.of(granting.grants_in(connection, kind, [holder_id]), granting.roles_in(connection))
    kept = ((actions - HUMAN_ACTIONS, grant) for actions, grant in granted.grants)
    return Rights(tuple((actions, grant) for actions, grant in kept if actions))


def told_grants_in(connection: Connection, kind: str, holder_id: str) -> tuple[Grant, ...]:
    """Returns what a machine was granted, in an order that stays."""
    return tuple(sorted(granting.grants_in(connection, kind, [holder_id]), key=Grant.told))


def keep_use(db: Database, table: Table, row: Any, now: datetime) -> None:  # noqa: ANN401 - a row of the table
    """Keeps when a key or certificate was last shown, at most once a minute.

    People who tidy up look at it: where it cannot be kept no request is refused for that.

    Args:
        db: where it is kept.
        table: `api_keys` or `certificates`.
        row: of it.
        now: time.
    """
    before = now - timedelta(seconds=USED_S)
    if row.used_at is not None and row.used_at > before:
        return
    is_older = or_(table.c.used_at.is_(None), table.c.used_at <= before)
    try:
        with db.write() as connection:
            connection.execute(update(table).where(table.c.id == row.id, is_older).values(used_at=now))
    except EnvironmentLackError as error:
        told = {"table": table.name, "id": row.id, "why": str(error)}
        _log.warning("the use of a key or certificate was not kept", extra={"shipsight": told})
