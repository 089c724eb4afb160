# SPDX-License-Identifier: Apache-2.0
"""A database, opened: both kinds behave alike, also between processes."""

from __future__ import annotations

import contextlib
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.access.conftest import PostgresServer

from shipsight.access.store import Database, grow_revision, open_database, read_revision
from shipsight.access.store.database import _make_engine
from shipsight.errors import EnvironmentLackError, UsageError

GROW = """
import sys
from shipsight.access.store import grow_revision, open_database
database = open_database(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with database.write() as connection:
        grow_revision(connection)
database.close()
"""


def revision(database: Database) -> int:
    with database.read() as connection:
        return read_revision(connection)


def test_revision_grows_with_each_change(database: Database) -> None:
    assert revision(database) == 0
    for _ in range(3):
        with database.write() as connection:
            grow_revision(connection)
    assert revision(database) == 3


def test_processes_that_write_at_once_wait_for_each_other(database_url: str, database: Database) -> None:
    """What is read and written in one transaction is right: no change of another's is lost."""
    started = [
        subprocess.Popen([sys.executable, "-c", GROW, database_url, "25"], stderr=subprocess.PIPE) for _ in range(3)
    ]
    for one in started:
        _, told = one.communicate(timeout=240)
        assert one.returncode == 0, told.decode()
    assert revision(database) == 75


def test_threads_that_write_at_once_wait_for_each_other(database: Database) -> None:
    def grow() -> None:
        for _ in range(5):
            with database.write() as connection:
                grow_revision(connection)

    threads = [threading.Thread(target=grow) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert revision(database) == 30


def test_nothing_is_kept_of_a_block_that_fails(database: Database) -> None:
    writes = database.writes

    def fail() -> None:
        with database.write() as connection:
            grow_revision(connection)
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert revision(database) == 0
    assert database.writes == writes
    with database.write() as connection:
        grow_revision(connection)
    assert revision(database) == 1
    assert database.writes != writes


def test_reader_sees_nothing_of_a_change_before_its_end(database: Database) -> None:
    with database.write() as connection:
        grow_revision(connection)
        assert revision(database) == 0
    assert revision(database) == 1


def test_reading_does_not_wait_for_whoever_writes(database: Database) -> None:
    with database.write() as connection:
        grow_revision(connection)
        seen: list[int] = []
        reader = threading.Thread(target=lambda: seen.append(revision(database)))
        reader.start()
        reader.join(30)
        assert seen == [0]


def test_reader_sees_everything_as_it_is_at_one_moment(database: Database) -> None:
    """What is decided on several tables is decided on one state of them."""
    with database.read() as connection:
        assert read_revision(connection) == 0
        with database.write() as other:
            grow_revision(other)
        assert read_revision(connection) == 0
    assert revision(database) == 1


def test_reader_changes_nothing(database: Database) -> None:
    with contextlib.suppress(DBAPIError), database.read() as connection:
        grow_revision(connection)
    assert revision(database) == 0


def test_links_between_tables_hold(database: Database) -> None:
    with database.write() as connection:
        connection.execute(
            text(
                "INSERT INTO users (id, name, display_name, is_disabled, webauthn_handle, created_at) "
                "VALUES ('1', 'ada', 'Ada', false, :handle, 0)"
            ),
            {"handle": b"1"},
        )
        connection.execute(text("INSERT INTO recovery_codes (id, user_id, code_hash) VALUES ('2', '1', 'x')"))
    with database.write() as connection:
        connection.execute(text("DELETE FROM users"))
    with database.read() as connection:
        assert connection.execute(text("SELECT count(*) FROM recovery_codes")).scalar() == 0


def test_file_of_sqlite_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "access.db"
    database = open_database(str(path))
    with database.write() as connection:
        grow_revision(connection)
    for one in path.parent.iterdir():
        assert stat.S_IMODE(one.stat().st_mode) == 0o600, one
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    database.close()


def test_postgresql_that_ends_a_connection_is_said_to_give_no_answer(postgres_server: PostgresServer) -> None:
    url = postgres_server.make_database()
    database = open_database(url)

    def cut() -> None:
        with database.read() as connection:
            mine = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            killer = _make_engine(url)
            with killer.begin() as other:
                other.execute(text("SELECT pg_terminate_backend(:mine)"), {"mine": mine})
            killer.dispose()
            connection.execute(text("SELECT 1"))

    with pytest.raises(EnvironmentLackError, match="does not answer"):
        cut()
    assert revision(database) == 0  # and the next one gets a connection that lives
    database.close()


def test_server_that_is_not_there_gives_no_answer(tmp_path: Path) -> None:
    url = f"postgresql://ada:hidden@/access?unix_sock={tmp_path}/.s.PGSQL.5432"
    with pytest.raises(EnvironmentLackError) as refused:
        open_database(url)
    assert "hidden" not in str(refused.value)


@pytest.mark.parametrize("url", ["mysql://ada@db/access", "sqlite://", "postgresql", "://"])
def test_what_is_no_database_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if "://" not in url:
        open_database(url).close()  # a path like any other
        assert (tmp_path / url).is_file()
        return
    with pytest.raises(UsageError):
        open_database(url)


def test_file_that_is_no_database_gives_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "access.db"
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(EnvironmentLackError, match="does not answer"):
        open_database(str(path))
