# SPDX-License-Identifier: Apache-2.0
"""A database of identities, opened: SQLite or PostgreSQL, its tables brought to what this version needs.

Invariants: a transaction that writes sees what it decided on unchanged until it ends (`write`): SQLite's write lock is taken
at its beginning, PostgreSQL holds an advisory lock. Nobody waits without end for another process: who cannot have the lock is
told so, and PostgreSQL ends a transaction whose process has frozen. Stable.
Source: sqlite.org/lang_transaction.html, PostgreSQL 13.2.1, 13.3.5 and 20.11.1.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import StaticPool

from shipsight.access.store.migrating import BEGIN_POSTGRESQL, IDENTITIES, Lineage, check_revision, upgrade
from shipsight.access.store.postgresql import postgresql_engine
from shipsight.errors import EnvironmentLackError, MissingDependencyError, UsageError

__all__ = ["Database", "memory_engine", "open_database"]

_BUSY_S = 10.0
# Of PostgreSQL's codes: lock not available, query cancelled, a transaction that was idle for too long.
_NO_ANSWERS = frozenset({"55P03", "57014", "25P03"})


class Database:
    """An open database. Threads may share it.

    Args:
        engine: of SQLAlchemy.
        lock_s: seconds that a transaction of PostgreSQL waits for those that write; SQLite's are the engine's.
        lineage: whose tables they are.
    """

    def __init__(self, engine: Engine, *, lock_s: float = _BUSY_S, lineage: Lineage = IDENTITIES) -> None:
        self._engine = engine
        self._write_lock = lineage.write_lock
        self._begin_postgresql = f"{BEGIN_POSTGRESQL}; SET LOCAL lock_timeout = {int(lock_s * 1000)}"
        self._numbers = itertools.count(1)
        self._writes = 0

    @property
    def writes(self) -> int:
        """A number that is another one after each time that something was written through this object."""
        return self._writes

    @property
    def kind(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Gives a transaction that only reads, and sees everything as it is at one moment.

        Raises:
            EnvironmentLackError: the database does not answer.
        """
        begin = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY" if self.kind == "postgresql" else "BEGIN"
        with self._named(), self._engine.connect() as connection:
            connection.exec_driver_sql(begin)
            yield connection
            connection.rollback()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Gives a transaction that writes: one at a time over all servers, kept where the block ends without an error.

        Raises:
            EnvironmentLackError: the database does not answer, or others write for so long that it gives up.
        """
        with self._named(), self._engine.connect() as connection:
            if self.kind == "postgresql":
                connection.exec_driver_sql(self._begin_postgresql)
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": self._write_lock})
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            connection.commit()
            # Each number is given once, so that none comes back, in whatever order threads that write at once get here.
            self._writes = next(self._numbers)

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if not (isinstance(error, OperationalError | InterfaceError) or _says_farewell(error)):
                raise
            raise _no_answer(self._engine, str(error.orig)) from error
        except PoolTimeoutError as error:
            raise _no_answer(self._engine, "all connections are taken") from error


def open_database(url: str, *, migrate: bool = True, lineage: Lineage = IDENTITIES) -> Database:
    """Opens a database, and makes it where it is SQLite's and is not there.

    Args:
        url: `sqlite:///path` or `postgresql://user:password@host/name`, its query as `postgresql_engine` takes it; a bare
            path is SQLite's.
        migrate: whether tables are brought to what this version needs; else one that is not there already is refused.
        lineage: whose tables they are.

    Raises:
        UsageError: it is no such URL.
        CertificateError: the file of authorities that it names cannot be used.
        MissingDependencyError: the driver is not installed.
        EnvironmentLackError: the database does not answer, or belongs to a newer version.
    """
    engine = _make_engine(url, lineage.option)
    try:
        if migrate:
            upgrade(engine, lineage=lineage)
        check_revision(engine, lineage=lineage)
    except DBAPIError as error:
        engine.dispose()
        raise _no_answer(engine, str(error.orig)) from error
    except BaseException:
        engine.dispose()
        raise
    return Database(engine, lineage=lineage)


def memory_engine() -> Engine:
    """Returns SQLite in memory, without tables, gone when it is disposed of."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _make_engine(url: str, option: str = IDENTITIES.option) -> Engine:
    if "://" not in url:
        url = f"sqlite:///{Path(url).absolute()}"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UsageError("not a database", where=option, expected="a path, or postgresql://...") from error
    kind = parsed.get_backend_name()
    if kind == "postgresql":
        try:
            return postgresql_engine(parsed)
        except (ModuleNotFoundError, NoSuchModuleError) as error:
            raise MissingDependencyError(
                "package pg8000 is not installed", hint="Run: pip install 'shipsight[postgresql]'"
            ) from error
    if kind != "sqlite" or not parsed.database:
        raise UsageError("no such kind of database", where=option, expected="sqlite or postgresql", got=kind)
    path = Path(parsed.database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Before SQLite makes it readable for all.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise EnvironmentLackError("the database cannot be used", where=path, got=error.strerror) from error
    engine = create_engine(parsed, connect_args={"timeout": _BUSY_S})
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:  # noqa: ANN401 - sqlite3.Connection behind SQLAlchemy
    # None: transactions begin where we say so, with the write lock where they write.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _says_farewell(error: DBAPIError) -> bool:
    """Whether PostgreSQL ended the connection (classes 08 and 57P of its codes) or the waiting: errors like any other to pg8000."""
    told = error.orig.args[0] if error.orig is not None and error.orig.args else None
    code = str(told.get("C", "")) if isinstance(told, dict) else ""
    return code.startswith(("08", "57P")) or code in _NO_ANSWERS


def _no_answer(engine: Engine, got: str) -> EnvironmentLackError:
    where = engine.url.render_as_string(hide_password=True)
    return EnvironmentLackError("the database does not answer", where=where, got=(got.splitlines() or [""])[0][:300])
