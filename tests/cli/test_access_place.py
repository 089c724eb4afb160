# SPDX-License-Identifier: Apache-2.0
"""Where identities are kept when nothing says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipsight.cli.access_place import default_database, default_secrets_key
from shipsight.errors import UsageError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHIPSIGHT_DATABASE", "SHIPSIGHT_SECRETS_KEY", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ada")


def test_database_is_the_variables_before_the_state_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_database() == "/home/ada/.local/state/shipsight/access.db"
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_database() == "/state/shipsight/access.db"
    monkeypatch.setenv("SHIPSIGHT_DATABASE", "postgresql://ada@db/access")
    assert default_database() == "postgresql://ada@db/access"


@pytest.mark.parametrize(
    ("database", "key"),
    [
        ("/srv/access.db", "/srv/access.key"),
        ("sqlite:////srv/access.db", "/srv/access.key"),
        ("sqlite:////srv/access.db?mode=ro", "/srv/access.key"),
        ("postgresql://ada@db/access", "/home/ada/.local/state/shipsight/access.key"),
    ],
)
def test_key_is_beside_a_file_and_in_the_state_folder_otherwise(database: str, key: str) -> None:
    assert default_secrets_key(database) == Path(key)


def test_key_is_the_variables_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIPSIGHT_SECRETS_KEY", "/run/secrets/access")
    assert default_secrets_key("/srv/access.db") == Path("/run/secrets/access")


def test_where_nobody_is_at_home_an_option_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    with pytest.raises(UsageError, match="--database"):
        default_database()
