# SPDX-License-Identifier: Apache-2.0
"""Tables go forwards and back with their rows, on both kinds of database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect
from tests.access.conftest import KINDS, PostgresServer
from tests.access.store import rows

from shipsight.access.audit.store.tables import LINEAGE
from shipsight.access.store import metadata, open_database
from shipsight.access.store.database import _make_engine
from shipsight.access.store.migrating import IDENTITIES, Lineage, downgrade, newest_revision, revision_of, upgrade
from shipsight.errors import EnvironmentLackError


def revisions() -> list[str]:
    """All revisions, the first one first."""
    with as_file(files("shipsight.access.store") / "migrations") as folder:
        return [one.revision for one in ScriptDirectory(str(folder)).walk_revisions()][::-1]


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a database of each kind is that has nothing."""
    if request.param == "sqlite":
        return str(tmp_path / "empty.db")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.make_database()


@pytest.fixture
def engine(empty_url: str) -> Iterator[Engine]:
    made = _make_engine(empty_url)
    yield made
    made.dispose()


def snapshot(engine: Engine) -> dict[str, set[tuple[tuple[str, str], ...]]]:
    with engine.connect() as connection:
        return rows.read(connection, rows.reflect(connection))


def test_rows_survive_every_revision_forwards_and_back(engine: Engine) -> None:
    walked = revisions()
    assert walked[-1] == newest_revision()
    before: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for revision in walked:
        upgrade(engine, revision)
        assert revision_of(engine) == revision
        rows.common(before, snapshot(engine))
        with engine.begin() as connection:
            rows.fill(connection, rows.reflect(connection))
        before = snapshot(engine)
        assert all(before.values())
    for revision in [*walked[-2::-1], "base"]:
        downgrade(engine, revision)
        after = snapshot(engine) if revision != "base" else {}
        rows.common(before, after)
        before = after
    assert inspect(engine).get_table_names() == ["alembic_version"]
    upgrade(engine)
    assert revision_of(engine) == walked[-1]


def test_newest_tables_are_those_that_the_code_describes(engine: Engine) -> None:
    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_changing_a_table_keeps_the_rows_that_point_to_it(engine: Engine) -> None:
    """SQLite copies and drops a table that is changed; what would go with its rows must not."""

    from alembic.operations import Operations
    from sqlalchemy import Column, Text

    from shipsight.access.store.migrating import _run

    upgrade(engine)
    with engine.begin() as connection:
        rows.fill(connection, rows.reflect(connection))
    before = snapshot(engine)

    def change(config: object) -> None:
        connection = config.attributes["connection"]  # type: ignore[attr-defined]
        operations = Operations(MigrationContext.configure(connection))
        copies = "always" if connection.dialect.name == "sqlite" else "never"
        with operations.batch_alter_table("users", recreate=copies) as batch:
            batch.add_column(Column("nickname", Text))

    _run(engine, change, IDENTITIES)
    after = snapshot(engine)
    rows.common(before, after)
    assert len(after["sessions"]) == len(before["sessions"])
    with engine.begin() as connection:
        found = rows.reflect(connection)
        connection.execute(found.tables["users"].delete())
    assert snapshot(engine)["sessions"] == set()  # links hold again afterwards


def test_revision_that_fails_leaves_everything_as_it_was(engine: Engine) -> None:
    from shipsight.access.store.migrating import _run

    upgrade(engine)
    with engine.begin() as connection:
        rows.fill(connection, rows.reflect(connection))
    before = snapshot(engine)

    def break_off(config: object) -> None:
        connection = config.attributes["connection"]  # type: ignore[attr-defined]
        connection.exec_driver_sql("DELETE FROM sessions")
        connection.exec_driver_sql("DROP TABLE sessions")
        raise RuntimeError("power is gone")

    with pytest.raises(RuntimeError):
        _run(engine, break_off, IDENTITIES)
    assert snapshot(engine) == before


def test_database_of_another_version_is_refused(empty_url: str, engine: Engine) -> None:
    with pytest.raises(EnvironmentLackError, match="another version"):
        open_database(empty_url, migrate=False)
    upgrade(engine)
    open_database(empty_url, migrate=False).close()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(EnvironmentLackError, match="another version"):
        open_database(empty_url, migrate=False)
    with pytest.raises(EnvironmentLackError, match="another version"):
        open_database(empty_url)


def test_servers_that_start_together_make_the_tables_once(empty_url: str) -> None:
    code = "import sys; from shipsight.access.store import open_database; open_database(sys.argv[1]).close()"
    started = [subprocess.Popen([sys.executable, "-c", code, empty_url], stderr=subprocess.PIPE) for _ in range(3)]
    for one in started:
        _, told = one.communicate(timeout=240)
        assert one.returncode == 0, told.decode()
    database = open_database(empty_url, migrate=False)
    with database.read() as connection:
        assert rows.reflect(connection).tables.keys() == metadata.tables.keys()
    database.close()


@pytest.mark.parametrize("lineage", [IDENTITIES, LINEAGE], ids=["identities", "audit"])
def test_newest_version_is_the_last_step_there_is(lineage: Lineage) -> None:
    with as_file(files(lineage.package) / "migrations") as folder:
        assert ScriptDirectory(str(folder)).get_heads() == [newest_revision(lineage)]


def test_tables_that_are_as_they_should_be_are_opened_without_alembic(tmp_path: Path) -> None:
    path = tmp_path / "access.db"
    open_database(str(path)).close()
    code = (
        "import sys; from shipsight.access.store import open_database; open_database(sys.argv[1]).close();"
        "sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=60)
