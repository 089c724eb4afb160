# SPDX-License-Identifier: Apache-2.0
"""Where the audit log is when no option says so: one place for a server and for the commands beside it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from shipsight.cli.audit_place import audit_beside, audit_key_path, audit_place, server_name
from shipsight.cli.serve_audit import read_audit
from shipsight.errors import UsageError


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SHIPSIGHT_AUDIT", "SHIPSIGHT_AUDIT_KEY", "SHIPSIGHT_SERVER_NAME", "SHIPSIGHT_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_the_log_is_beside_the_identities(tmp_path: Path) -> None:
    assert audit_place() == str(tmp_path / "shipsight" / "access.audit.db")
    assert audit_place(database="/x/access.db") == "/x/access.audit.db"
    assert audit_place(database="sqlite:////x/people.sqlite") == "/x/people.audit.db"
    assert audit_place(database="/x/people") == "/x/people.audit.db"
    assert audit_key_path(None, "/x/access.audit.db") == Path("/x/access.audit.key")


def test_postgresql_holds_both_and_the_key_is_the_users(tmp_path: Path) -> None:
    url = "postgresql://ada@db/vision"
    assert audit_beside(url) == url
    assert audit_key_path(None, url) == tmp_path / "shipsight" / "audit.key"


def test_options_come_before_variables_and_these_before_the_usual_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SHIPSIGHT_AUDIT", "named.db")
    monkeypatch.setenv("SHIPSIGHT_AUDIT_KEY", "named.key")
    monkeypatch.setenv("SHIPSIGHT_SERVER_NAME", "east")
    assert audit_place() == str(tmp_path / "named.db")
    assert audit_place("given.db") == str(tmp_path / "given.db")
    assert audit_key_path(None, "/x/a.db") == tmp_path / "named.key"
    assert audit_key_path(Path("given.key"), "/x/a.db") == tmp_path / "given.key"
    assert (server_name(), server_name("west")) == ("east", "west")


def test_log_beside_the_identities_that_is_not_named_is_told_of(tmp_path: Path) -> None:
    database, beside = str(tmp_path / "access.db"), tmp_path / "access.audit.db"
    options: dict[str, Any] = {"copies": None, "every": 1, "seconds": 1.0, "predictions": False, "server": None}

    def left(given: str | None) -> str | None:
        return read_audit(given, database=database, key=None, port=8000, **options).off_at

    assert left("off") is None
    beside.write_bytes(b"")
    assert left("off") == left(str(tmp_path / "other.db")) == left("postgresql://db/x") == str(beside)
    assert left(None) is left(str(beside)) is None


@pytest.mark.parametrize("how", ["option", "variable"])
def test_off_is_no_place(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "variable":
        monkeypatch.setenv("SHIPSIGHT_AUDIT", "off")
    assert audit_place("off" if how == "option" else None) is None


def test_a_server_is_called_by_its_machine_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "edge_7.example")
    assert server_name(port=8000) == "edge-7.example:8000"
    assert server_name(port=0) == "edge-7.example"
    monkeypatch.setattr(socket, "gethostname", lambda: "-")
    assert server_name() == "server"


def test_nobody_at_home_has_to_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    with pytest.raises(UsageError):
        audit_place()
    with pytest.raises(UsageError):
        audit_key_path(None, "postgresql://ada@db/vision")
