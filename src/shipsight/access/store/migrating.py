# SPDX-License-Identifier: Apache-2.0
"""Tables are brought from one version to another by Alembic, forwards and back. Private to the room."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from shipsight.errors import EnvironmentLackError, InternalError

__all__ = [
    "BEGIN_POSTGRESQL",
    "check_revision",
    "downgrade",
    "known_revisions",
    "newest_revision",
    "revision_of",
    "upgrade",
]

# Read committed, whatever the server's default: what is read after the lock was waited for is as it is then. And a process
# that has frozen keeps the lock for half a minute at most.
BEGIN_POSTGRESQL = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '30s'"
)
"""What a transaction of PostgreSQL that writes begins with."""

_LOCK = 7_407_084


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Brings tables forward; servers that start together wait for each other.

    Raises:
        EnvironmentLackError: they belong to a newer version.
    """
    found = revision_of(engine)
    if found == newest_revision() and revision == "head":
        return
    if found is not None and found not in known_revisions():
        raise _another_version(engine, found)
    _run(engine, lambda config: command.upgrade(config, revision))


def downgrade(engine: Engine, revision: str) -> None:
    """Brings tables back."""
    _run(engine, lambda config: command.downgrade(config, revision))


def revision_of(engine: Engine) -> str | None:
    """Returns where the tables are, None where there are none."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


@cache
def known_revisions() -> frozenset[str]:
    """Returns all that this version can bring forward."""
    with as_file(files("shipsight.access.store") / "migrations") as folder:
        return frozenset(one.revision for one in ScriptDirectory(str(folder)).walk_revisions())


@cache
def newest_revision() -> str:
    """Returns what this version needs."""
    with as_file(files("shipsight.access.store") / "migrations") as folder:
        head = ScriptDirectory(str(folder)).get_current_head()
    assert head is not None
    return head


def check_revision(engine: Engine) -> None:
    """Refuses tables that are not what this version needs.

    Raises:
        EnvironmentLackError: they are older or newer.
    """
    found = revision_of(engine)
    if found != newest_revision():
        raise _another_version(engine, found)


def _another_version(engine: Engine, found: str | None) -> EnvironmentLackError:
    return EnvironmentLackError(
        "the database is of another version",
        where=engine.url.render_as_string(hide_password=True),
        expected=newest_revision(),
        got=found or "empty",
        hint="Use the version of shipsight that it belongs to, or the newer one.",
    )


def _run(engine: Engine, act: Callable[[Config], None]) -> None:
    is_sqlite = engine.dialect.name == "sqlite"
    with as_file(files("shipsight.access.store") / "migrations") as folder, engine.connect() as connection:
        if is_sqlite:
            # A table that is changed is copied and dropped there: rows that point to its own would go with it. No
            # effect within a transaction, hence before.
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(BEGIN_POSTGRESQL)
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
        try:
            config = Config()
            config.set_main_option("script_location", str(folder).replace("%", "%%"))
            config.attributes["connection"] = connection
            act(config)
            if is_sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
                raise InternalError("a change of tables left a row that points nowhere", where=broken[0])
            connection.commit()
        finally:
            connection.rollback()
            if is_sqlite:
                connection.exec_driver_sql("PRAGMA foreign_keys = ON")
