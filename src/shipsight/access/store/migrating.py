# SPDX-License-Identifier: Apache-2.0
"""Tables are brought from one version to another by Alembic, forwards and back. Private to the room.

Alembic is imported where tables are changed: to see that they are as they should be, every command and server would wait a
fifth of its start for it.

Identities and the audit log are two lineages (`Lineage`): each has tables, versions and a place to note its version, so that
both may lie in one database of PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from sqlalchemy import Column, Engine, MetaData, String, Table, inspect, select, text

from shipsight.errors import EnvironmentLackError, InternalError

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = [
    "BEGIN_POSTGRESQL",
    "IDENTITIES",
    "Lineage",
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


@dataclass(frozen=True)
class Lineage:
    """Tables that have versions of their own.

    Attributes:
        package: whose folder `migrations` holds the steps.
        version_table: where Alembic notes how far they are.
        lock: of those who change them, among PostgreSQL's advisory locks.
        write_lock: of those who write, likewise.
        option: of the command line that names the place.
        newest: the last step's name, which is what this version needs.
    """

    package: str
    version_table: str
    lock: int
    write_lock: int
    option: str
    newest: str


IDENTITIES = Lineage("shipsight.access.store", "alembic_version", 7_407_084, 7_407_083, "--database", "0001")
"""People, keys, rights."""


def upgrade(engine: Engine, revision: str = "head", *, lineage: Lineage = IDENTITIES) -> None:
    """Brings tables forward; servers that start together wait for each other.

    Raises:
        EnvironmentLackError: they belong to a newer version.
    """
    found = revision_of(engine, lineage=lineage)
    if found == newest_revision(lineage) and revision == "head":
        return
    if found is not None and found not in known_revisions(lineage):
        raise _another_version(engine, found, lineage)
    from alembic import command

    _run(engine, lambda config: command.upgrade(config, revision), lineage)


def downgrade(engine: Engine, revision: str, *, lineage: Lineage = IDENTITIES) -> None:
    """Brings tables back."""
    from alembic import command

    _run(engine, lambda config: command.downgrade(config, revision), lineage)


def revision_of(engine: Engine, *, lineage: Lineage = IDENTITIES) -> str | None:
    """Returns where the tables are, None where there are none."""
    noted = Table(lineage.version_table, MetaData(), Column("version_num", String))
    with engine.connect() as connection:
        if not inspect(connection).has_table(noted.name):
            return None
        return connection.scalar(select(noted.c.version_num))


@cache
def known_revisions(lineage: Lineage = IDENTITIES) -> frozenset[str]:
    """Returns all that this version can bring forward."""
    from alembic.script import ScriptDirectory

    with as_file(files(lineage.package) / "migrations") as folder:
        return frozenset(one.revision for one in ScriptDirectory(str(folder)).walk_revisions())


def newest_revision(lineage: Lineage = IDENTITIES) -> str:
    """Returns what this version needs."""
    return lineage.newest


def check_revision(engine: Engine, *, lineage: Lineage = IDENTITIES) -> None:
    """Refuses tables that are not what this version needs.

    Raises:
        EnvironmentLackError: they are older or newer.
    """
    found = revision_of(engine, lineage=lineage)
    if found != newest_revision(lineage):
        raise _another_version(engine, found, lineage)


def _another_version(engine: Engine, found: str | None, lineage: Lineage) -> EnvironmentLackError:
    return EnvironmentLackError(
        "the database is of another version",
        where=engine.url.render_as_string(hide_password=True),
        expected=newest_revision(lineage),
        got=found or "empty",
        hint="Use the version of shipsight that it belongs to, or the newer one.",
    )


def _run(engine: Engine, act: Callable[[Config], None], lineage: Lineage = IDENTITIES) -> None:
    from alembic.config import Config

    is_sqlite = engine.dialect.name == "sqlite"
    with as_file(files(lineage.package) / "migrations") as folder, engine.connect() as connection:
        if is_sqlite:
            # A table that is changed is copied and dropped there: rows that point to its own would go with it. No
            # effect within a transaction, hence before.
            connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql(BEGIN_POSTGRESQL)
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": lineage.lock})
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
