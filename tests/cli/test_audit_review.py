# SPDX-License-Identifier: Apache-2.0
"""`shipsight audit review`, as people type it, over a real log."""

from __future__ import annotations

import hashlib
import os
import pwd
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Answer

from shipsight.access import Event, EventKind, Outcome
from shipsight.access.audit.log import AuditLog
from shipsight.cli import main

ME = f"server:{pwd.getpwuid(os.geteuid()).pw_name}"


class Place:
    """A log of one's own, and the command line on it, in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self.key, self._capsys = folder / "access.audit.db", folder / "access.audit.key", capsys

    def tell(self, *events: tuple[EventKind, str, str | None, dict[str, Any]], at: datetime | None = None) -> None:
        now = at or datetime.now(UTC)
        with AuditLog.open(str(self.path), key=self.key, server="vision-1", now=lambda: now) as log:
            for kind, actor, subject, details in events:
                log.record(Event(now, kind, Outcome.DONE, actor, subject=subject, details=details))

    def run(self, *arguments: object) -> Answer:
        self._capsys.readouterr()
        code = 0
        try:
            main(["audit", "review", *map(str, arguments), "--audit", str(self.path)])
        except SystemExit as left:
            code = int(left.code or 0)
        told = self._capsys.readouterr()
        return Answer(code, told.out, told.err)

    def json(self, *arguments: object, code: int = 0) -> Any:
        answer = self.run(*arguments, "--json")
        assert answer.code == code, answer.err
        return answer.json


OWN_GRANT = (EventKind.GRANTS_CHANGED, "person:ada", "user:ada", {"before": [], "after": ["admin"]})
INVITED = (EventKind.INVITED, "person:ada", "person:ben", {})


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    made = Place(tmp_path, capsys)
    made.tell(INVITED)
    return made


def test_review_is_made_signed_off_and_listed(place: Place) -> None:
    made = place.run()
    assert made.code == 0, made.err
    assert "log ok" in made.out
    assert "no findings" in made.out
    (listed,) = place.json("--list")["reviews"]
    assert listed["made_by"] == ME
    assert listed["signed"] == []
    told = place.run("--sign-off", listed["id"], "--note", "nothing of it is odd")
    assert told.code == 0, told.err
    assert "the next review is due" in told.out
    (listed,) = place.json("--list")["reviews"]
    assert [(one["who"], one["note"]) for one in listed["signed"]] == [(ME, "nothing of it is odd")]
    assert "signed off" in place.run("--show", listed["id"]).out


def test_review_exits_with_one_and_says_what_to_do_when_there_is_an_alarm(place: Place) -> None:
    place.tell(OWN_GRANT)
    answer = place.run()
    assert answer.code == 1
    assert "alarm  person:ada changed their own grants" in answer.out
    assert "own-grant" in answer.out
    assert "Stop the server" in answer.out
    assert "--sign-off" in answer.out


def test_report_is_written_where_it_is_asked_for(place: Place, tmp_path: Path) -> None:
    place.tell(OWN_GRANT)
    told = place.json("--out", tmp_path / "reports", code=1)
    assert sorted(Path(one).suffix for one in told["files"]) == [".html", ".json", ".note"]
    report = next(Path(one) for one in told["files"] if one.endswith(".json"))
    assert hashlib.sha256(report.read_bytes()).hexdigest() == told["review"]["digest"]
    assert told["review"]["digest"] in report.with_suffix(".note").read_text()
    assert "own grants" in report.with_suffix(".html").read_text()


def test_changed_log_is_the_first_finding(place: Place) -> None:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(place.path)) as connection:
        changed = connection.execute(
            "UPDATE audit_records SET actor = replace(actor, 'ada', 'eve') WHERE actor LIKE '%ada%'"
        )
        assert changed.rowcount == 1
        connection.commit()
    told = place.json(code=1)
    assert told["review"]["chain"]["status"] == "failed"
    assert told["review"]["findings"][0]["rule"] == "chain"


def test_check_says_by_its_exit_code_whether_a_review_is_overdue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(tmp_path, capsys)
    place.tell(INVITED, at=datetime.now(UTC) - timedelta(days=12))
    late = place.run("--check")
    assert late.code == 1
    assert "overdue" in late.out
    told = place.json("--check", code=1)["due"]
    assert told["overdue_s"] == pytest.approx(3 * 86400, abs=120)
    review = place.json()["review"]["id"]
    assert place.run("--sign-off", review, "--note", "late, but looked at").code == 0
    assert place.run("--check").code == 0


def test_who_is_concerned_cannot_sign_off(place: Place) -> None:
    place.tell((EventKind.GRANTS_CHANGED, ME, ME, {"before": [], "after": ["admin"]}))
    review = place.json(code=1)["review"]["id"]
    answer = place.run("--sign-off", review, "--note", "it was me")
    assert answer.code == 1
    assert "does not sign it off" in answer.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--list", "--check"),
        ("--sign-off", "20260101-00000000"),
        ("--note", "x"),
        ("--list", "--since", "7d"),
        ("--since", "yesterday-ish"),
        ("--since", "1d", "--until", "2d"),
        ("--show", "20260101-00000000"),
    ],
)
def test_wrong_use_is_told(place: Place, arguments: tuple[str, ...]) -> None:
    answer = place.run(*arguments)
    assert answer.code == 2
    assert answer.err


def test_hostile_texts_do_nothing_to_the_terminal(place: Place) -> None:
    evil = "\x1b[2J\r\n\u202e[red]x[/]"
    place.tell((EventKind.GRANTS_CHANGED, f"person:{evil}", f"user:{evil}", {"before": [], "after": ["admin"]}))
    answer = place.run()
    assert "own grants" in answer.out
    assert not {"\x1b", "\r", "\u202e"} & set(answer.out)
    assert "[red]x[/]" in answer.out
