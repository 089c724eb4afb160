# SPDX-License-Identifier: Apache-2.0
"""Where identities are kept when no option says so: the same for a server and for the verbs that manage it. Private to `cli`."""

from __future__ import annotations

import os
from pathlib import Path

from shipsight.errors import UsageError

__all__ = [
    "DATABASE_VARIABLE",
    "SECRETS_KEY_VARIABLE",
    "default_database",
    "default_secrets_key",
    "sqlite_path",
    "state_folder",
]

DATABASE_VARIABLE = "SHIPSIGHT_DATABASE"
SECRETS_KEY_VARIABLE = "SHIPSIGHT_SECRETS_KEY"


def default_database() -> str:
    """Returns `$SHIPSIGHT_DATABASE`, else `access.db` in the user's state folder.

    Raises:
        UsageError: nobody is at home (no `$HOME`), so there is no such folder.
    """
    return os.environ.get(DATABASE_VARIABLE) or str(state_folder("--database") / "access.db")


def default_secrets_key(database: str) -> Path:
    """Returns `$SHIPSIGHT_SECRETS_KEY`, else the file beside SQLite's, else `access.key` in the user's state folder.

    Args:
        database: path of SQLite's file, or a URL.

    Raises:
        UsageError: the database is not a file, and nobody is at home.
    """
    given = os.environ.get(SECRETS_KEY_VARIABLE)
    if given:
        return Path(given)
    path = sqlite_path(database)
    return state_folder("--secrets-key") / "access.key" if path is None else path.with_suffix(".key")


def sqlite_path(database: str) -> Path | None:
    """Returns where SQLite's file is, None for another kind of database."""
    path = database.removeprefix("sqlite:///").partition("?")[0]
    return None if "://" in path else Path(path).absolute()


def state_folder(option: str) -> Path:
    """Returns the user's, as the XDG base directory specification has it."""
    state, home = os.environ.get("XDG_STATE_HOME"), os.environ.get("HOME")
    if state:
        return Path(state) / "shipsight"
    if home:
        return Path(home) / ".local" / "state" / "shipsight"
    raise UsageError("there is no home folder to keep identities in", hint=f"Give {option}.")
