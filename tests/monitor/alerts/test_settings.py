# SPDX-License-Identifier: Apache-2.0
"""Alert settings: what they say, and that whatever they should not say is refused by its name."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from shipsight.errors import UsageError
from shipsight.monitor.alerts import AlertSettings, Email, Webhook, read_settings
from shipsight.monitor.alerts.settings import BodyForm, Tls

REPOSITORY = Path(__file__).resolve().parents[3]
HOOK: dict[str, Any] = {"kind": "webhook", "name": "ops", "url": "https://hooks.example.com/a", "key_file": "hook.key"}
MAIL: dict[str, Any] = {
    "kind": "email",
    "name": "duty",
    "host": "mail.example.com",
    "from": "shipsight@example.com",
    "to": ["ops@example.com"],
}


def read(folder: Path, told: object) -> AlertSettings:
    path = folder / "alerts.yaml"
    path.write_text(told if isinstance(told, str) else json.dumps(told), encoding="utf-8")
    return read_settings(path)


def refusal(folder: Path, told: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(folder, told)
    assert str(folder / "alerts.yaml") in str(caught.value.where)
    return caught.value


def example() -> str:
    page = (REPOSITORY / "docs" / "formats" / "alert-settings.md").read_text(encoding="utf-8")
    return page.partition("```yaml\n")[2].partition("```")[0]


def test_documented_example_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, example())
    assert found == AlertSettings(
        signals=("drift-*", "accuracy-*"),
        least_severity="warning",
        for_s=600,
        resolve_s=600,
        repeat_s=14400,
        group=True,
        receivers=(
            Webhook(
                name="ops",
                url="https://hooks.example.com/shipsight",
                key_file=Path("/etc/shipsight/webhook.key"),
                ca_file=Path("/etc/shipsight/ca.pem"),
            ),
            Webhook(name="chat", url_file=Path("/etc/shipsight/chat.url"), body=BodyForm.TEXT),
            Email(
                name="duty",
                host="mail.example.com",
                tls=Tls.STARTTLS,
                user="shipsight",
                password_file=Path("/etc/shipsight/mail.password"),
                sender="shipsight@example.com",
                to=("ops@example.com", "night@example.com"),
            ),
        ),
    )


def test_page_lists_every_key_with_its_default() -> None:
    page = (REPOSITORY / "docs" / "formats" / "alert-settings.md").read_text(encoding="utf-8")
    for kind, title in ((AlertSettings, "## All"), (Webhook, "## Webhooks"), (Email, "## E-mail")):
        section = page.partition(f"{title}\n")[2].partition("\n## ")[0]
        cells = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
        rows = {name.strip(" `"): default.strip() for name, default in cells}
        known = {"from" if one.name == "sender" else one.name: one.default for one in fields(kind)}
        assert rows.keys() - {"schema", "kind"} == set(known)
        for name, default in known.items():
            written = rows[name]
            if default is MISSING:
                assert written == "", name
            elif isinstance(default, bool):
                assert written == f"`{str(default).lower()}`", name
            elif isinstance(default, int | float | str):
                shown = f"{default:g}" if isinstance(default, float) else default
                assert written == f"`{shown}`", name


def test_defaults_are_those_of_the_page(tmp_path: Path) -> None:
    found = read(tmp_path, {"schema": 1, "receivers": [HOOK, MAIL]})
    assert (found.signals, found.least_severity, found.group) == (("*",), "warning", True)
    assert (found.for_s, found.resolve_s, found.repeat_s) == (300, 300, 14400)
    assert [type(one) for one in found.receivers] == [Webhook, Email]


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ({"signal": ["a"]}, "alerts.yaml"),
        ({"schema": 2}, "alerts.yaml"),
        ({"schema": None}, "alerts.yaml"),
        ({"signals": []}, "signals"),
        ({"signals": "drift-*"}, "signals"),
        ({"signals": ["drift [a]"]}, "signals"),
        ({"least_severity": "fatal"}, "least_severity"),
        ({"for_s": -1}, "for_s"),
        ({"for_s": True}, "for_s"),
        ({"for_s": "5m"}, "for_s"),
        ({"resolve_s": 0}, "resolve_s"),
        ({"repeat_s": 59}, "repeat_s"),
        ({"repeat_s": 120, "resolve_s": 121}, "resolve_s"),
        ({"group": "yes please"}, "group"),
        ({"receivers": []}, "receivers"),
        ({"receivers": {}}, "alerts.yaml"),
        ({"receivers": [HOOK, HOOK]}, "receivers"),
        ({"receivers": [{**HOOK, "name": str(number)} for number in range(17)]}, "receivers"),
        ({"receivers": ["ops"]}, "kind"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(tmp_path: Path, told: dict[str, Any], where: str) -> None:
    whole = {"schema": 1, "receivers": [HOOK], **told}
    assert where in str(refusal(tmp_path, whole).where)


@pytest.mark.parametrize(
    "text", ["", "[]", "schema: 1", "a: &a 1\nb: *a", "schema: 1\nschema: 1", "\x00", "#" * 70_000]
)
def test_file_that_holds_no_settings_is_refused(tmp_path: Path, text: str) -> None:
    refusal(tmp_path, text)


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="read"):
        read_settings(tmp_path / "absent.yaml")


WEBHOOKS = [
    ({"url": "http://hooks.example.com/"}, "url"),
    ({"url": "http://10.0.0.7/"}, "url"),
    ({"url": "ftp://hooks.example.com/"}, "url"),
    ({"url": "https://user:secret@hooks.example.com/"}, "url"),
    ({"url": "https://hooks.example.com/#a"}, "url"),
    ({"url": "https://hooks.example.com:0/"}, "url"),
    ({"url": "https://hooks.example.com:70000/"}, "url"),
    ({"url": "https://hooks.example.com/a b"}, "url"),
    ({"url": "https://hooks.example.com/\r\nX: y"}, "url"),
    ({"url": "https:///a"}, "url"),
    ({"url": 3}, "url"),
    ({"url": None}, "url"),
    ({"url_file": "a"}, "url"),
    ({"key_file": None}, "key_file"),
    ({"key_file": 3}, "key_file"),
    ({"key": "a" * 32}, "receivers"),
    ({"password": "a"}, "receivers"),
    ({"body": "xml"}, "body"),
    ({"timeout_s": 0}, "timeout_s"),
    ({"timeout_s": 121}, "timeout_s"),
    ({"name": "Ops\n"}, "name"),
    ({"name": ""}, "name"),
    ({"kind": "pager"}, "kind"),
]


@pytest.mark.parametrize(("told", "where"), WEBHOOKS)
def test_webhook_that_does_not_fit_is_refused_by_name(tmp_path: Path, told: dict[str, Any], where: str) -> None:
    error = refusal(tmp_path, {"schema": 1, "receivers": [{**HOOK, **told}]})
    assert where in str(error.where)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.7:8443/alerts?team=vision",
        "https://[fd00::1]/",
        "http://localhost:9093/",
        "http://127.0.0.1/",
        "http://[::1]:80/a",
    ],
)
def test_private_addresses_are_the_operators_choice(tmp_path: Path, url: str) -> None:
    [found] = read(tmp_path, {"schema": 1, "receivers": [{**HOOK, "url": url}]}).receivers
    assert isinstance(found, Webhook)
    assert found.url == url


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ({"host": "mail example"}, "host"),
        ({"host": "-mail"}, "host"),
        ({"host": "mail\r\nQUIT"}, "host"),
        ({"port": 0}, "port"),
        ({"port": 25.5}, "port"),
        ({"from": "Ops <ops@example.com>"}, "from"),
        ({"from": "ops@example.com\nBcc: a@b.c"}, "from"),
        ({"from": "ops"}, "from"),
        ({"to": []}, "to"),
        ({"to": "ops@example.com"}, "to"),
        ({"to": ["ops@example.com, thief@example.com"]}, "to"),
        ({"to": ["ops@example.com"] * 21}, "to"),
        ({"tls": "none"}, "tls"),
        ({"plain": True}, "plain"),
        ({"plain": "yes please", "host": "localhost"}, "plain"),
        ({"user": "ops"}, "user"),
        ({"password_file": "a"}, "user"),
        ({"user": "öps", "password_file": "a"}, "user"),
        ({"user": "a\nb", "password_file": "a"}, "user"),
        ({"password": "geheim"}, "receivers"),
        ({"sender": "a@b.c"}, "receivers"),
    ],
)
def test_mail_that_does_not_fit_is_refused_by_name(tmp_path: Path, told: dict[str, Any], where: str) -> None:
    error = refusal(tmp_path, {"schema": 1, "receivers": [{**MAIL, **told}]})
    assert where in str(error.where)
    assert "geheim" not in str(error)


@pytest.mark.parametrize("missing", ["name", "host", "from", "to"])
def test_mail_without_what_it_needs_is_refused(tmp_path: Path, missing: str) -> None:
    told = {name: value for name, value in MAIL.items() if name != missing}
    assert refusal(tmp_path, {"schema": 1, "receivers": [told]}).expected == missing


@pytest.mark.parametrize(
    ("told", "port"),
    [({}, 587), ({"tls": "implicit"}, 465), ({"plain": True, "host": "localhost"}, 25), ({"port": 2525}, 2525)],
    ids=["starttls", "implicit", "plain", "said"],
)
def test_port_is_the_usual_one_of_its_transport(tmp_path: Path, told: dict[str, Any], port: int) -> None:
    [found] = read(tmp_path, {"schema": 1, "receivers": [{**MAIL, **told}]}).receivers
    assert isinstance(found, Email)
    assert found.port_number == port
