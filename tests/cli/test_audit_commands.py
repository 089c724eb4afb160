# SPDX-License-Identifier: Apache-2.0
"""`shipsight audit`, as people type it: what it says, and what it leaves with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.access.audit.logs import BEGAN, Place, make_log, signed_in
from tests.access.audit.test_attacks import set_head
from tests.cli.conftest import Answer

from shipsight.access import Event, EventKind, Outcome
from shipsight.access.audit.following import newest_path
from shipsight.cli import main

HOSTILE = "eve\r\n\x1b[2J[bold]\u202e\u2028"


class Typed:
    """The command line on a log of one's own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.place, self._capsys = make_log(str(folder / "log.db"), folder / "log.key", entries=12), capsys

    def run(self, verb: str, *arguments: object) -> Answer:
        self._capsys.readouterr()
        code = 0
        try:
            main(["audit", verb, *map(str, arguments), "--audit", self.place.url])
        except SystemExit as left:
            code = int(left.code or 0)
        told = self._capsys.readouterr()
        return Answer(code, told.out, told.err)

    def json(self, verb: str, *arguments: object) -> Any:
        answer = self.run(verb, *arguments, "--json")
        assert answer.code == 0, answer.err
        return json.loads(answer.out)


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    for name in ("SHIPSIGHT_AUDIT", "SHIPSIGHT_AUDIT_KEY", "SHIPSIGHT_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Typed(tmp_path, capsys)


def test_verify_leaves_with_0_for_a_whole_log_and_says_what_was_not_compared(typed: Typed) -> None:
    answer = typed.run("verify")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("ok  shipsight/")
    assert "--witness" in answer.out
    told = typed.json("verify")
    assert (told["status"], told["tail"], told["findings"]) == ("ok", 0, [])


def test_verify_leaves_with_1_for_a_tail_and_says_what_to_do(typed: Typed) -> None:
    typed.place.run("DELETE FROM audit_checkpoints WHERE size > 12")
    newest_path(typed.place.key_path).unlink()
    answer = typed.run("verify")
    assert answer.code == 1
    assert "unverifiable tail" in answer.out
    assert "3 entries" in answer.out
    assert "shipsight audit checkpoint" in answer.out


def test_verify_compares_with_the_newest_checkpoint_beside_the_key(typed: Typed) -> None:
    typed.place.run("DELETE FROM audit_checkpoints WHERE size > 12", "DELETE FROM audit_records WHERE seq >= 12")
    set_head(typed.place, 12)
    cut, told = typed.run("verify", "--json"), json.loads(typed.run("verify", "--json").out)
    assert (cut.code, {one["code"] for one in told["findings"]}) == (1, {"log-cut"})
    # Who names a key has it compared with what they name themselves.
    assert json.loads(typed.run("verify", "--json", "--key", typed.place.key.text).out)["findings"] == []


def test_verify_leaves_with_1_for_a_changed_log_and_names_the_entry(typed: Typed) -> None:
    typed.place.run("UPDATE audit_records SET actor = :value WHERE seq = 4", value='"person:eve"')
    answer = typed.run("verify")
    assert answer.code == 1
    assert answer.out.startswith("failed")
    assert "value-changed" in answer.out
    answer = typed.run("verify", "--json")
    assert answer.code == 1
    assert [one["seq"] for one in json.loads(answer.out)["findings"]] == [4]


def test_verify_compares_with_checkpoints_that_lay_elsewhere(typed: Typed, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text(typed.run("checkpoint").out)
    assert typed.run("verify", "--checkpoints", kept).code == 0
    other = make_log(str(tmp_path / "other.db"), tmp_path / "other.key")
    answer = typed.run("verify", "--checkpoints", kept, "--key", other.key.text)
    assert answer.code == 1
    empty = tmp_path / "empty"
    empty.write_text("")
    assert typed.run("verify", "--checkpoints", empty).code == 2


def test_verb_without_a_log_leaves_with_3(typed: Typed, tmp_path: Path) -> None:
    typed.place = Place(str(tmp_path / "none.db"), tmp_path / "none.key")
    for verb in ("verify", "show", "checkpoint", "key", "rotate-key"):
        answer = typed.run(verb)
        assert (answer.code, "there is no audit log" in answer.err) == (3, True), verb
    assert not (tmp_path / "none.db").exists()


def test_show_gives_the_newest_first_and_filters(typed: Typed) -> None:
    lines = typed.run("show", "--limit", 3).out.splitlines()
    assert lines[0].split()[:3] == ["entry", "at", "(UTC)"]
    assert [line.split()[0] for line in lines[1:]] == ["14", "13", "12"]
    found = [
        json.loads(one)
        for one in typed.run("show", "--who", "person:ada", "--kind", "role-changed", "--json").out.splitlines()
    ]
    assert [one["subject"] for one in found] == ["role:9", "role:5", "role:1"]
    assert [
        json.loads(one)["seq"]
        for one in typed.run("show", "--number", "3-5", "--oldest-first", "--json").out.splitlines()
    ] == [3, 4, 5]
    assert typed.run("show", "--since", "1d").out.strip() == "no such entry"


@pytest.mark.parametrize(
    "arguments",
    [("--kind", "birthday"), ("--outcome", "perhaps"), ("--since", "yesterday"), ("--number", "x"), ("--limit", "-1")],
)
def test_show_refuses_what_it_does_not_know(typed: Typed, arguments: tuple[str, ...]) -> None:
    answer = typed.run("show", *arguments)
    assert answer.code == 2
    assert "expected" in answer.err


def test_texts_from_outside_can_do_nothing_to_a_terminal(typed: Typed) -> None:
    with typed.place.open() as log:
        log.record(signed_in(HOSTILE, details={HOSTILE: HOSTILE}))
    answer = typed.run("show", "--limit", 3)
    assert answer.code == 0
    assert "\x1b" not in answer.out
    assert "\u202e" not in answer.out
    assert "[bold]" in answer.out
    assert len(answer.out.splitlines()) == 4
    lines = typed.run("show", "--limit", 3, "--json").out.splitlines()
    assert len(lines) == 3
    assert [one["actor"] for one in map(json.loads, lines) if one["kind"] == "sign-in"] == [f"person:{HOSTILE}"]


def test_archive_is_written_and_verified_with_the_log_and_alone(typed: Typed, tmp_path: Path) -> None:
    out, words = tmp_path / "old.archive", tmp_path / "words"
    words.write_text("four words and more\n")
    told = typed.json("archive", "--until", "0m", "--out", out, "--passphrase-file", words)
    assert (told["first"], told["size"]) == (0, 15)
    assert typed.run("verify", "--archive", out, "--passphrase-file", words).code == 0
    assert typed.run("verify", "--archive", out, "--passphrase-file", words, "--archives-only").code == 0
    answer = typed.run("verify", "--archive", out)
    assert (answer.code, "is encrypted" in answer.err) == (2, True)
    assert typed.run("verify", "--archives-only").code == 2
    assert typed.run("archive", "--until", "0m", "--out", out).code == 2


def test_person_is_erased_and_archives_are_named(typed: Typed, tmp_path: Path) -> None:
    out = tmp_path / "old.archive"
    typed.json("archive", "--until", "0m", "--out", out)
    with typed.place.open(has_session=False) as log:
        log.record(Event(BEGAN, EventKind.SIGN_IN, Outcome.DONE, "person:user4"))
    answer = typed.run("erase", "user4")
    assert answer.code == 0
    assert "entries before 15 are in archives" in answer.err
    assert "1 values of 1 entries" in answer.out
    told = typed.json("erase", "user4", "--archive", out)
    assert told["erased"][0]["values"] >= 1
    assert b"person:user4" not in out.read_bytes()
    assert typed.run("verify", "--archive", out).code == 0
    assert typed.run("erase", "user4").code == 2
    nothing = typed.run("erase", "user0")
    assert (nothing.code, "give these with --archive" in nothing.err) == (2, True)


def test_key_is_printed_and_changed(typed: Typed) -> None:
    before = typed.run("key").out.strip()
    new = typed.run("rotate-key").out.strip()
    assert typed.run("key").out.strip() == new != before
    assert typed.run("verify", "--key", before).code == 0
    lost = typed.run("rotate-key", "--lost")
    assert "nobody trusts this key" in lost.err
    assert typed.run("verify", "--key", before).code == 1
    assert typed.run("verify").code == 0
    kinds = [json.loads(one)["kind"] for one in typed.run("show", "--limit", 2, "--json").out.splitlines()]
    assert kinds == ["audit-key-retired", "audit-key-added"]
