# SPDX-License-Identifier: Apache-2.0
"""Databases of both kinds, real ones; a clock that is set; events that are kept."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pg8000.native
import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url

from shipsight.access import Event, EventKind
from shipsight.access.store import Database, metadata, open_database

KINDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.slow))


@dataclass
class Clock:
    """Time that passes when it is told to."""

    time: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def pass_s(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@dataclass
class KeptEvents:
    """A sink that keeps what it is told, and fails where it is told to."""

    kept: list[Event] = field(default_factory=list)
    fails: bool = False

    def record(self, event: Event) -> None:
        if self.fails:
            raise OSError("no space left for events")
        self.kept.append(event)

    def of(self, kind: EventKind) -> list[Event]:
        return [event for event in self.kept if event.kind is kind]


class PostgresServer:
    """A server of PostgreSQL on a unix socket; with `settings` of its own, such as `port=...`, elsewhere, too."""

    def __init__(self, folder: Path, settings: Sequence[str] = (), *, port: int = 5432) -> None:
        self._folder = folder
        self._socket = f"{folder}/.s.PGSQL.{port}"
        self._numbers = itertools.count(1)
        self._as_other = as_other_user(folder)
        binaries = binaries_of_postgres()
        data = folder / "data"
        made = subprocess.run(
            [*self._as_other, binaries / "initdb", "--auth=trust", "--username=shipsight", "--no-sync",
             "--encoding=UTF8", "--locale=C.UTF-8", f"--pgdata={data}"],
            check=False, capture_output=True, text=True, cwd="/",
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        self._log = (folder / "log").open("wb")
        settings = (
            "listen_addresses=", f"unix_socket_directories={folder}", "fsync=off", "max_connections=60",
            f"port={port}", *settings,
        )  # fmt: skip
        options = [word for one in settings for word in ("-c", one)]
        self._process = subprocess.Popen(
            [*self._as_other, binaries / "postgres", "-D", data, *options],
            stdout=self._log, stderr=self._log, cwd="/",
        )  # fmt: skip
        self._wait()

    def url(self, name: str) -> str:
        return f"postgresql://shipsight@/{name}?unix_sock={self._socket}"

    def make_database(self) -> str:
        """Makes an empty database, and returns its URL."""
        name = f"access_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def stop(self) -> None:
        # Fast: it ends all connections.
        subprocess.run([*self._as_other, "kill", "-INT", str(self._process.pid)], check=False, cwd="/")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def run(self, text: str) -> Any:
        """Runs a statement as who may do everything."""
        connection = pg8000.native.Connection("shipsight", database="postgres", unix_sock=self._socket)
        try:
            return connection.run(text)
        finally:
            connection.close()

    def _wait(self) -> None:
        until = time.monotonic() + 60
        while True:
            try:
                self.run("SELECT 1")
            except (pg8000.native.InterfaceError, pg8000.native.DatabaseError):
                if self._process.poll() is not None or time.monotonic() > until:
                    pytest.fail((self._folder / "log").read_text())
                time.sleep(0.05)
            else:
                return


def binaries_of_postgres() -> Path:
    """Returns the folder of PostgreSQL's programs; Debian keeps them out of the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    found = debian[-1] if debian else shutil.which("postgres")
    if found is None:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    return Path(found).parent


def as_other_user(folder: Path) -> list[str]:
    """Returns how to start a program as somebody else, where we are root: PostgreSQL refuses to run as that; theirs is the folder."""
    # A server whose tests were killed ends, too.
    command = ["setpriv", "--pdeathsig=INT"]
    if os.geteuid() != 0:
        return command
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "nobody")
    return [*command, "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


def quick_folder() -> str:
    """Returns where files are kept that need not last: in memory where there is room, since databases wait for the disk otherwise."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30:
        return str(memory)
    return tempfile.gettempdir()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """PostgreSQL, started once, as late as it is needed."""
    binaries_of_postgres()
    # Not in pytest's folder: others than its owner may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="shipsight-pg-", dir=quick_folder()))
    server: PostgresServer | None = None
    try:
        server = PostgresServer(folder)
        yield server
    finally:
        if server is not None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _sqlite_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of SQLite that has all tables, to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "access.db"
    open_database(str(path)).close()
    return path


@pytest.fixture(scope="session")
def _postgres_tables(postgres_server: PostgresServer) -> Iterator[tuple[str, Engine]]:
    """A database of PostgreSQL that has all tables, and what empties it: to make one for each test takes seconds on a busy disk."""
    url = postgres_server.make_database()
    open_database(url).close()
    engine = create_engine(make_url(url).set(drivername="postgresql+pg8000"))
    yield url, engine
    engine.dispose()


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a database of each kind is that has all tables and no rows; for what opens it more than once."""
    if request.param == "sqlite":
        with tempfile.TemporaryDirectory(prefix="shipsight-access-", dir=quick_folder()) as folder:
            shutil.copy(request.getfixturevalue("_sqlite_tables"), f"{folder}/access.db")
            yield f"sqlite:///{folder}/access.db"
        return
    url: str
    url, engine = request.getfixturevalue("_postgres_tables")
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
    yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open database of each kind, without rows."""
    opened = open_database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def events() -> KeptEvents:
    return KeptEvents()
