# SPDX-License-Identifier: Apache-2.0
"""`shipsight recordings`, as people type it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import simplejpeg
from tests.cli.conftest import Answer
from tests.monitor.recording.recordings import new_recording, relabelled, sampling

from shipsight.cli import main
from shipsight.monitor.recording import Store
from shipsight.monitor.recording.policy import Leaves, Policy, Redaction

REDACTED = replace(sampling(), leaves=Leaves.REDACTED_IMAGES, redaction=Redaction(("face",)))


class Room:
    """A state folder of one's own with recordings, and the command line on it, in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder / "shipsight" / "recordings", capsys

    def open(self, policy: Policy | None = None) -> Store:
        return Store(self.folder, key_file=self.folder.with_name("recordings.key"), policy=policy)

    def keep(self, *, policy: Policy = REDACTED, subject: str | None = None, count: int = 1) -> list[str]:
        store = self.open(policy)
        new = [new_recording(datetime.now(UTC), policy, subject=subject, seed=seed) for seed in range(count)]
        with store.writer():
            store.add(new)
        return [one.recording.label.id for one in new]

    def run(self, *arguments: object) -> Answer:
        self._capsys.readouterr()
        code = 0
        try:
            main(["recordings", *map(str, arguments)])
        except SystemExit as left:
            code = int(left.code or 0)
        told = self._capsys.readouterr()
        return Answer(code, told.out, told.err)

    def json(self, *arguments: object) -> Any:
        answer = self.run(*arguments, "--json")
        assert answer.code == 0, answer.err
        return answer.json


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Room:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for name in ("SHIPSIGHT_DATABASE", "SHIPSIGHT_AUDIT", "SHIPSIGHT_RECORDINGS", "SHIPSIGHT_RECORDINGS_KEY"):
        monkeypatch.delenv(name, raising=False)
    return Room(tmp_path, capsys)


def test_recordings_are_listed_and_shown(room: Room, tmp_path: Path) -> None:
    (name,) = room.keep(subject="ada")
    (listed,) = room.json("list")["recordings"]
    assert (listed["id"], listed["model"], listed["redacted"]) == (name, "gate", ["face"])
    assert name in room.run("list").out
    assert room.json("list", "--model", "door")["recordings"] == []
    image = tmp_path / "shown.jpg"
    shown = room.json("show", name, "--image", image)
    assert shown["predictions"]["predictions"][0]["class_name"] == "car"
    assert simplejpeg.decode_jpeg(image.read_bytes()).shape == (48, 64, 3)
    assert room.run("show", name, "--image", image).code == 2
    assert "car" in room.run("show", name).out


def test_names_from_outside_move_no_cursor_and_are_no_markup(room: Room) -> None:
    store = room.open(REDACTED)
    new = relabelled(new_recording(datetime.now(UTC), REDACTED), model="[red]gate\x1b[2J\u202e")
    with store.writer():
        store.add([new])
    for arguments in (("list",), ("show", new.recording.label.id)):
        out = room.run(*arguments).out
        assert "[red]gate\\x1b[2J\\u202e" in out
        assert "\x1b" not in out


def test_erasing_takes_one_of_its_ways(room: Room) -> None:
    room.keep()
    assert room.run("erase").code == 2
    assert room.run("erase", "--day", "2026-01-01", "--expired").code == 2
    assert room.json("erase", "--expired") == {"receipt": None}


def test_person_is_erased_by_name_or_from_standard_input(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = room.keep(subject="grace")
    room.keep(subject="ada", count=2)
    assert room.json("erase", "--subject", "ada")["records"] == 2
    assert [one["id"] for one in room.json("list")["recordings"]] == kept
    monkeypatch.setattr("sys.stdin", io.StringIO("grace\n"))
    answer = room.run("erase", "--subject", "-")
    assert answer.code == 0
    assert "grace" not in answer.out + answer.err
    assert room.json("list")["recordings"] == []


def test_day_and_single_recordings_are_erased(room: Room) -> None:
    one, other, last = room.keep(count=3)
    assert room.json("erase", "--recording", one, "--recording", other)["records"] == 2
    receipt = room.json("erase", "--day", f"{datetime.now(UTC):%Y-%m-%d}")
    assert receipt["records"] == 1
    assert receipt["receipt"].startswith("er-")
    assert last not in room.run("list").out


def test_backup_and_restore_bring_back_what_was_not_erased(room: Room, tmp_path: Path) -> None:
    room.keep(subject="ada")
    kept = room.keep(subject="grace")
    file = tmp_path / "recordings.backup"
    assert room.json("backup", file)["records"] == 2
    room.run("erase", "--subject", "ada")
    (room.folder / "index.db").unlink()
    answer = room.run("restore", file)
    assert answer.code == 3
    assert "--policy" in answer.err
    assert not (room.folder / "index.db").exists()
    policy = tmp_path / "policy.yaml"
    policy.write_text("schema: 1\n", encoding="utf-8")
    told = room.json("restore", file, "--policy", policy)
    assert (told["restored"], told["erased"]) == (1, 1)
    assert [one["id"] for one in room.json("list")["recordings"]] == kept


def test_key_is_rotated(room: Room) -> None:
    (name,) = room.keep()
    key = room.folder.with_name("recordings.key")
    before = key.read_text(encoding="ascii")
    assert room.json("rotate-key") == {"recordings_key": str(key), "keys": 1}
    assert key.read_text(encoding="ascii") != before
    assert room.json("show", name)["id"] == name


def test_export_lets_out_what_the_policy_does(room: Room, tmp_path: Path) -> None:
    (name,) = room.keep()
    out = tmp_path / "out"
    assert room.json("export", out) == {"out": str(out), "records": 1, "refused": 0, "gone": 0}
    assert {path.suffix for path in out.iterdir()} == {".json", ".jpg"}
    counts = tmp_path / "counts.json"
    room.json("export", counts, "--statistics")
    assert json.loads(counts.read_text(encoding="utf-8"))["recordings"] == 1
    room.open(sampling())
    answer = room.run("export", tmp_path / "more", "--json")
    assert answer.code == 1
    assert answer.json["error"]["code"] == "forbidden"
    assert name


def test_inventory_tells_readers_and_acts(room: Room, tmp_path: Path) -> None:
    (name,) = room.keep()
    main_code(room, "user", "add", "ada", "--grant", "operator@gate")
    room.run("show", name)
    page, file = tmp_path / "inventory.html", tmp_path / "inventory.json"
    assert room.run("inventory", "--out", page).code == 0
    told = room.json("inventory", "--out", file)
    assert json.loads(file.read_text(encoding="utf-8"))["recordings"] == 1
    assert told["readers"] == [{"who": "person:ada", "models": ["gate"], "may": []}]
    assert [one["what"] for one in told["acts"]] == ["inventory", "show"]
    assert "person:ada" in page.read_text(encoding="utf-8")
    assert room.run("inventory", "--out", tmp_path / "inventory.txt").code == 2


def main_code(room: Room, *arguments: str) -> None:
    with pytest.raises(SystemExit) as left:
        main([*arguments])
    assert not left.value.code


def test_what_is_done_is_in_the_audit_log_and_nothing_is_done_without_it(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = room.keep()
    monkeypatch.setenv("SHIPSIGHT_AUDIT", "/proc/none/audit.db")
    for arguments in (("list",), ("show", name), ("erase", "--recording", name), ("rotate-key",)):
        answer = room.run(*arguments, "--json")
        assert (answer.code, answer.json["error"]["code"]) == (3, "audit-unavailable"), arguments
    monkeypatch.delenv("SHIPSIGHT_AUDIT")
    assert [one["id"] for one in room.json("list")["recordings"]] == [name]


def test_no_recordings_is_said(room: Room) -> None:
    answer = room.run("list", "--json")
    assert (answer.code, answer.json["error"]["code"]) == (3, "environment")
    assert not room.folder.exists()


POLICY = """
schema: 1
mode: samples
purposes: [tests]
samples: {rate: 0.1}
residency: {region: eu}
redaction: {classes: ["3"]}
"""


def test_policy_is_checked_by_itself_by_a_model_and_in_a_place(room: Room, tmp_path: Path, digits_bundle: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY, encoding="utf-8")
    assert room.json("policy", "check", file)["checked"] == ["clauses"]
    (tmp_path / ".shipsight-region").write_text("eu\n", encoding="utf-8")
    told = room.json("policy", "check", file, "--bundle", digits_bundle, "--place", tmp_path)
    assert (told["checked"], told["region"]) == (["clauses", "classes", "place"], "eu")
    assert told["policy"]["samples"]["rate"] == 0.1
    file.write_text(POLICY.replace('"3"', "face"), encoding="utf-8")
    answer = room.run("policy", "check", file, "--bundle", digits_bundle)
    assert answer.code == 2
    assert "has no class to redact" in answer.err
    file.write_text(POLICY.replace("mode: samples", "mode: all"), encoding="utf-8")
    assert "mode" in room.run("policy", "check", file).err
