# SPDX-License-Identifier: Apache-2.0
"""Logs on both kinds of database, made once and copied."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.access.audit.logs import Place, make_log
from tests.access.conftest import KINDS, PostgresServer, quick_folder

from shipsight.access.audit.following import newest_path

_numbers = itertools.count(1)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder where the disk is not waited for."""
    with tempfile.TemporaryDirectory(prefix="shipsight-audit-", dir=quick_folder()) as made:
        yield Path(made)


@pytest.fixture(scope="session")
def whole_log() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="shipsight-audit-", dir=quick_folder()) as made:
        make_log(f"{made}/log.db", Path(made) / "log.key")
        yield Path(made)


@pytest.fixture(scope="session")
def _postgres_log(postgres_server: PostgresServer) -> Iterator[tuple[PostgresServer, str, Path]]:
    with tempfile.TemporaryDirectory(prefix="shipsight-audit-", dir=quick_folder()) as made:
        url = postgres_server.make_database()
        make_log(url, Path(made) / "log.key")
        yield postgres_server, url.partition("@/")[2].partition("?")[0], Path(made) / "log.key"


@pytest.fixture(params=KINDS)
def empty(request: pytest.FixtureRequest, folder: Path) -> Place:
    """Where nothing is yet."""
    if request.param == "sqlite":
        return Place(str(folder / "log.db"), folder / "log.key")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return Place(server.make_database(), folder / "log.key")


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, folder: Path) -> Place:
    """A log of 33 entries, whole, that may be changed."""
    if request.param == "sqlite":
        made: Path = request.getfixturevalue("whole_log")
        for name in ("log.db", "log.key", "log.key.newest"):
            shutil.copy(made / name, folder / name)
        return Place(str(folder / "log.db"), folder / "log.key")
    server, template, key = request.getfixturevalue("_postgres_log")
    name = f"audit_{next(_numbers)}"
    server.run(f"CREATE DATABASE {name} TEMPLATE {template}")
    shutil.copy(key, folder / "log.key")
    shutil.copy(newest_path(key), folder / "log.key.newest")
    return Place(server.url(name), folder / "log.key")
