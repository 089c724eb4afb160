# SPDX-License-Identifier: Apache-2.0
"""What the commands on identities promise: groups, records of what they do, no change undone unseen, backups that open."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Answer, shipsight
from tests.conftest import REPOSITORY

from shipsight.access.directory import Directory, User
from shipsight.access.permissions import Grant

pytestmark = pytest.mark.slow  # each command is a process of its own


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHIPSIGHT_SECRETS_KEY", "SHIPSIGHT_BACKUP_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SHIPSIGHT_DATABASE", str(tmp_path / "access.db"))
    monkeypatch.chdir(tmp_path)


def done(*arguments: object) -> Answer:
    answer = shipsight(*arguments)
    assert answer.code == 0, answer.err
    return answer


def events(answer: Answer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.err.splitlines()]


def test_each_act_is_recorded_on_standard_error_and_answers_stay_whole(tmp_path: Path) -> None:
    """ASVS 16.2.1, 16.3.3: who, what, to whom, when; an event a line, as a server tells it."""
    me = f"server:{pwd.getpwuid(os.geteuid()).pw_name}"
    secret = tmp_path / "secret"
    secret.write_text("correct horse battery")
    acts = {
        ("user", "add", "ada", "--grant", "admin"): ("user-added", "person:ada"),
        ("user", "add", "bob"): ("user-added", "person:bob"),
        ("user", "grant", "bob", "viewer"): ("grants-changed", "user:bob"),
        ("group", "grant", "/crew", "viewer"): ("grants-changed", "group:/crew"),
        ("user", "disable", "bob"): ("user-changed", "person:bob"),
        ("key", "add", "ci", "--grant", "predictor"): ("key-added", None),
        ("backup", "create", "identities.backup", "--passphrase-file", secret): ("backed-up", None),
        ("user", "remove", "bob"): ("user-removed", "person:bob"),
    }
    for act, (kind, subject) in acts.items():
        answer = done(*act, "--json")
        assert isinstance(answer.json, dict), "nothing else is printed there"
        (told,) = events(answer)
        assert (told["event"], told["actor"], told["outcome"]) == (kind, me, "done"), act
        assert subject is None or told["subject"] == subject
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", told["time"])
    assert shipsight("user", "list", "--json").err == "", "who only reads does nothing"
    refused = shipsight("user", "remove", "ada", "--json")
    assert refused.code == 1
    assert "user-removed" not in refused.err, "what was not done is not told as done"


def test_record_holds_no_code_and_no_key() -> None:
    """ASVS 16.2.5."""
    invited = done("user", "add", "ada", "--json")
    made = done("key", "add", "ci", "--grant", "viewer", "--json")
    assert invited.json["code"] not in invited.err
    assert made.json["secret"][21:] not in made.err


def test_groups_are_granted_listed_and_emptied() -> None:
    done("user", "add", "ada", "--grant", "admin")
    assert done("group", "list").out == "no group holds a grant\n"
    told = done("group", "grant", "/team-a/operators", "operator@team-a-*", "viewer", "--json").json
    assert told == {"group": {"name": "/team-a/operators", "grants": ["operator@team-a-*", "viewer"]}}
    assert done("group", "grant", "/team-a/operators", "--take", "viewer", "--json").json["group"]["grants"] == [
        "operator@team-a-*"
    ]
    assert "/team-a/operators" in done("group", "list").out
    assert done("group", "list", "--json").json == {
        "groups": [{"name": "/team-a/operators", "grants": ["operator@team-a-*"]}]
    }
    assert "holds no grant" in done("group", "grant", "/team-a/operators", "--replace").out
    assert done("group", "list", "--json").json == {"groups": []}
    for wrong in (("grant", "crew"), ("grant", "crew", "nonesuch"), ("grant", "crew", "--take", "viewer"),
                  ("grant", "", "viewer")):  # fmt: skip
        assert shipsight("group", *wrong).code == 2, wrong


@pytest.mark.parametrize("kind", ["user", "group"])
def test_grants_that_a_server_changed_meanwhile_are_not_undone(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from shipsight.access import SERVER
    from shipsight.cli import main

    done("user", "add", "bob", "--grant", "viewer", "--grant", "predictor")
    done("group", "grant", "bob", "viewer", "predictor")
    read = Directory.grants

    def read_and_wait(self: Directory, kind: str, holder_id: str) -> tuple[Grant, ...]:
        found = read(self, kind, holder_id)
        monkeypatch.setattr(Directory, "grants", read)
        self.set_grants(SERVER, kind, holder_id, [Grant("viewer")])  # what a server does meanwhile
        return found

    monkeypatch.setattr(Directory, "grants", read_and_wait)
    with pytest.raises(SystemExit) as left:
        main([kind, "grant", "bob", "operator", "--json"])
    assert left.value.code == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "conflict"
    listed = done(kind, "list", "--json").json[f"{kind}s"]
    assert [one["grants"] for one in listed] == [["viewer"]]


def test_person_who_is_added_meanwhile_does_not_disturb_a_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from shipsight.access import SERVER
    from shipsight.cli import main

    done("user", "add", "ada")
    read = Directory.users

    def read_and_add(self: Directory) -> list[User]:
        found = read(self)
        self.add_user(SERVER, f"more-{len(found)}")
        return found

    monkeypatch.setattr(Directory, "users", read_and_add)
    with pytest.raises(SystemExit) as left:
        main(["user", "list"])
    assert left.value.code == 0
    assert "ada" in capsys.readouterr().out


def test_passphrase_that_is_no_text_is_refused_by_its_name(tmp_path: Path) -> None:
    done("user", "add", "ada")
    secret = tmp_path / "secret"
    secret.write_bytes(b"correct horse b\xe4ttery\n")
    answer = shipsight("backup", "create", "x", "--passphrase-file", secret, "--json")
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")
    assert "UTF-8" in answer.err
    assert not (tmp_path / "x").exists()


def test_damage_is_found_before_anybody_is_asked_for_a_passphrase(tmp_path: Path) -> None:
    """docs/formats/access-backup.md. Nobody is at a terminal here: who is asked would be refused for that."""
    done("user", "add", "ada")
    secret, file = tmp_path / "secret", tmp_path / "identities.backup"
    secret.write_text("correct horse battery")
    done("backup", "create", file, "--passphrase-file", secret)
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    for more in ((), ("--check",)):
        answer = shipsight("backup", "restore", file, "--force", "--json", *more)
        assert (answer.code, answer.json["error"]["code"]) == (2, "corrupt")


def test_key_file_is_made_as_the_page_says_and_opens(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "commands" / "backup.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^.*openssl rand.*$", page, re.MULTILINE)
    subprocess.run(["bash", "-c", f"umask 022; {line.strip()}"], check=True, cwd=tmp_path)
    done("user", "add", "ada")
    done("backup", "create", "identities.backup", "--key-file", "backup.key")
    (tmp_path / "backup.key").chmod(0o644)
    answer = shipsight("backup", "create", "other.backup", "--key-file", "backup.key")
    assert answer.code == 3
    assert "others may read" in answer.err
