# SPDX-License-Identifier: Apache-2.0
"""`shipsight alerts`, as people type it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Answer
from tests.monitor.alerts.receivers import KEY, Trust, make_trust, secret, webhook

from shipsight.cli import main


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return make_trust(tmp_path_factory.mktemp("trust") / "certificates")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Answer:
    capsys.readouterr()
    code = 0
    try:
        main(["alerts", *map(str, arguments)])
    except SystemExit as left:
        code = int(left.code or 0)
    told = capsys.readouterr()
    return Answer(code, told.out, told.err)


def write(folder: Path, *receivers: dict[str, Any]) -> Path:
    path = folder / "alerts.yaml"
    path.write_text(json.dumps({"schema": 1, "receivers": list(receivers)}))
    return path


def hook(folder: Path, url: str, trust: Trust, name: str = "ops") -> dict[str, Any]:
    key = secret(folder, KEY, "hook.key")
    return {"kind": "webhook", "name": name, "url": url, "key_file": str(key), "ca_file": str(trust.ca)}


def mail(folder: Path) -> dict[str, Any]:
    return {
        "kind": "email",
        "name": "duty",
        "host": "mail.example.com",
        "from": "a@example.com",
        "to": ["b@example.com"],
        "user": "ops",
        "password_file": str(secret(folder, "p", "password")),
    }


def test_check_shows_receivers_and_no_token_and_sends_nothing(
    tmp_path: Path, trust: Trust, capsys: pytest.CaptureFixture[str]
) -> None:
    with webhook(trust) as server:
        url = secret(tmp_path, "https://chat.example/T0KEN", "url")
        chat = {"kind": "webhook", "name": "chat", "url_file": str(url), "body": "text"}
        told = write(tmp_path, hook(tmp_path, server.url.replace("alerts", "T0KEN"), trust), mail(tmp_path), chat)
        answer = run(capsys, "check", "--settings", told, "--json")
        shown = run(capsys, "check", "--settings", told)
    assert (answer.code, shown.code, server.asked) == (0, 0, [])
    assert [(one["name"], one["kind"], one["secured"]) for one in answer.json["receivers"]] == [
        ("ops", "webhook", "TLS, signature"),
        ("duty", "email", "TLS (starttls), login"),
        ("chat", "webhook", "TLS"),
    ]
    assert answer.json["receivers"][1]["to"] == "b@example.com by mail.example.com:587"
    assert "T0KEN" not in answer.out + shown.out
    assert "fits" in shown.out


@pytest.mark.parametrize(("mode", "code"), [(0o600, 0), (0o644, 3)])
def test_check_refuses_a_secret_that_others_may_read(
    tmp_path: Path, trust: Trust, capsys: pytest.CaptureFixture[str], mode: int, code: int
) -> None:
    told = write(tmp_path, hook(tmp_path, "https://localhost/", trust))
    (tmp_path / "hook.key").chmod(mode)
    assert run(capsys, "check", "--settings", told).code == code


def test_check_refuses_settings_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run(capsys, "check", "--settings", write(tmp_path), "--json")
    assert answer.code == 2
    assert answer.json["error"]["code"] == "usage"


def test_test_sends_a_message_to_every_receiver(
    tmp_path: Path, trust: Trust, capsys: pytest.CaptureFixture[str]
) -> None:
    with webhook(trust) as one, webhook(trust) as other:
        told = write(tmp_path, hook(tmp_path, one.url, trust), hook(tmp_path, other.url, trust, "other"))
        answer = run(capsys, "test", "--settings", told, "--json")
        assert answer.code == 0
        assert answer.json == {"receivers": [{"name": name, "sent": True, "error": None} for name in ("ops", "other")]}
        other.answers = [404]
        shown = run(capsys, "test", "--settings", told)
    assert shown.code == 1
    assert "404" in shown.out
    assert (len(one.asked), len(other.asked)) == (2, 2)
