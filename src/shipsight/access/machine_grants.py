# SPDX-License-Identifier: Apache-2.0
"""What machines (keys, certificates, devices) may do by their grants.

Invariant: a machine never holds an action of `access` or `audit`. It shows one factor, so what people need two for to
decide about other people is not open to it by that way (OWASP ASVS 5.0, 6.3.4). That is refused when it is granted
(`grants`), and left out again here, whatever a row says. Private to `access`.
"""

from __future__ import annotations

import re

from sqlalchemy import Connection

from shipsight.access import grants as granting
from shipsight.access.permissions import Action, Grant, Rights
from shipsight.errors import UsageError

__all__ = ["HUMAN", "check_name", "machine_rights_in", "told_grants_in"]

HUMAN = frozenset(one for one in Action if one.value.partition(".")[0] in ("access", "audit"))
"""Actions that are for people alone."""

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
    kept = ((actions - HUMAN, grant) for actions, grant in granted.grants)
    return Rights(tuple((actions, grant) for actions, grant in kept if actions))


def told_grants_in(connection: Connection, kind: str, holder_id: str) -> tuple[Grant, ...]:
    """Returns what a machine was granted, in an order that stays."""
    return tuple(sorted(granting.grants_in(connection, kind, [holder_id]), key=Grant.told))
