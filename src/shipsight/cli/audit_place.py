# SPDX-License-Identifier: Apache-2.0
"""Where the audit log is kept when no option says so: the same for a server and for the verbs beside it. Private to `cli`."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

from shipsight.cli.access_place import default_database, sqlite_path, state_folder

__all__ = [
    "AUDIT_KEY_VARIABLE",
    "AUDIT_VARIABLE",
    "OFF",
    "SERVER_NAME_VARIABLE",
    "audit_beside",
    "audit_key_path",
    "audit_place",
    "log_left_alone",
    "server_name",
]

AUDIT_VARIABLE = "SHIPSIGHT_AUDIT"
AUDIT_KEY_VARIABLE = "SHIPSIGHT_AUDIT_KEY"
SERVER_NAME_VARIABLE = "SHIPSIGHT_SERVER_NAME"
OFF = "off"
_LONGEST = 64


def audit_place(given: str | None = None, *, database: str | None = None) -> str | None:
    """Returns where the log is kept: as an option or `$SHIPSIGHT_AUDIT` has it, else beside identities.

    Args:
        given: by the option.
        database: of identities; None for the usual one.

    Returns:
        Absolute path of SQLite's file, or a URL; None where it is switched off.

    Raises:
        UsageError: nobody is at home, and nothing says where.
    """
    place = given or os.environ.get(AUDIT_VARIABLE)
    if place == OFF:
        return None
    if place:
        return place if "://" in place else str(Path(place).absolute())
    return audit_beside(database or default_database())


def audit_beside(database: str) -> str:
    """Returns the log's place beside identities: `access.db` -> `access.audit.db`; the same database where that is PostgreSQL."""
    path = sqlite_path(database)
    return database if path is None else str(path.with_suffix(".audit.db"))


def log_left_alone(database: str, place: str | None) -> tuple[str, Path] | None:
    """Returns the log that lies beside identities and its key, where another place or none was named; else None.

    Args:
        database: of identities.
        place: that was named, None for `off`.
    """
    path = sqlite_path(audit_beside(database))
    if path is None or not path.exists():
        return None
    named = None if place is None else sqlite_path(place)
    if named is not None and named.resolve() == path.resolve():
        return None
    key = path.with_suffix(".key")
    return str(path.absolute()), key if key.exists() else audit_key_path(None, str(path))


def audit_key_path(given: Path | None, place: str) -> Path:
    """Returns the file of the key that signs: as an option or `$SHIPSIGHT_AUDIT_KEY` has it, else beside SQLite's file, else the user's.

    Args:
        given: by the option.
        place: of the log.

    Raises:
        UsageError: nobody is at home, and nothing says where.
    """
    found = given or os.environ.get(AUDIT_KEY_VARIABLE)
    if found:
        return Path(found).absolute()
    path = sqlite_path(place)
    return (state_folder("--audit-key") / "audit.key") if path is None else path.with_suffix(".key")


def server_name(given: str | None = None, *, port: int | None = None) -> str:
    """Returns what this server, or a command on its machine, is called in the log.

    Args:
        given: by the option.
        port: of the server, None or 0 for none that stays the same.

    Returns:
        The option, else `$SHIPSIGHT_SERVER_NAME`, else the machine's name with the port.
    """
    named = given or os.environ.get(SERVER_NAME_VARIABLE)
    if named:
        return named
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[: _LONGEST - 8].strip("-.") or "server"
    return f"{host}:{port}" if port else host
