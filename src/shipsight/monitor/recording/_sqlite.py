# SPDX-License-Identifier: Apache-2.0
"""SQLite as a store of recordings uses it: short transactions, whole or not at all, and nothing of what was deleted left in the file.

The standard library's, not the house's layer for identities: a store lies on one machine by its policy, in files that may not be a
server's. Private to the room. Source: sqlite.org/pragma.html (secure_delete, synchronous).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from shipsight.errors import CorruptError, EnvironmentLackError, UnsupportedError

__all__ = ["make_database", "reading", "writing"]

_WAIT_S = 10.0


def make_database(path: Path, schema: str, *, version: int) -> None:
    """Makes a database where there is none, readable for its owner alone; refuses one of another version.

    Raises:
        UnsupportedError: a newer version made it.
        EnvironmentLackError, CorruptError: it cannot be used.
    """
    if not path.exists():
        try:
            path.touch(mode=0o600)
        except OSError as error:
            raise EnvironmentLackError("recordings cannot be kept here", where=path, got=error.strerror) from error
    with writing(path) as connection:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > version:
            raise UnsupportedError("a newer version of shipsight made this", where=path, expected=version, got=found)
        if not found:
            for statement in filter(str.strip, schema.split(";")):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Gives a connection that sees one moment.

    Raises:
        EnvironmentLackError, CorruptError: the database cannot be used.
    """
    with _opened(path) as connection:
        connection.execute("BEGIN")
        yield connection
        connection.execute("ROLLBACK")


@contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Gives a transaction; kept when it ends without an error, else nothing of it is.

    Raises:
        EnvironmentLackError, CorruptError: the database cannot be used.
    """
    with _opened(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            # A full disk has rolled back already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        # Opened to read and write, never made: what is gone is an error, not an empty store.
        address = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=_WAIT_S, isolation_level=None)) as connection:
            connection.execute("PRAGMA secure_delete = ON")
            # The folder is synced, too: else a journal that comes back after a power cut brings back what was erased.
            connection.execute("PRAGMA synchronous = EXTRA")
            yield connection
    except sqlite3.OperationalError as error:
        raise EnvironmentLackError("the store of recordings cannot be used", where=path, got=error) from error
    except sqlite3.DatabaseError as error:
        raise CorruptError("the store of recordings is damaged", where=path, got=error) from error
