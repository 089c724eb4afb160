# SPDX-License-Identifier: Apache-2.0
"""State, verification and reviews of the audit log over HTTP: who may, one at a time, sign-off by somebody whom it does not name."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from tests.serve.audited import AuditedApp, audited
from tests.serve.gated import Headers

from shipsight.access import SERVER, Action, EventKind, Grant, Outcome, Role
from shipsight.access.audit.checkpoint import VerifierKey, open_checkpoint, open_note
from shipsight.access.audit.witnesses import Witnesses, parse_copy
from shipsight.access.store import grow_revision
from shipsight.access.store.tables import sessions
from shipsight.serve.auditing import Audited, open_audited
from shipsight.serve.http.audit import AUDIT_ROUTES

NOTE = {"note": "Looked at each of them.\nThe burst was a colleague's new keyboard."}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[AuditedApp]:
    with audited(tmp_path) as made:
        yield made


def burst(app: AuditedApp, who: str = "person:ada", times: int = 40) -> datetime:
    """Failed sign-ins that a review finds, one a second, of somebody who is known; returns when they began."""
    begin = app.app.gate.now()
    app.record(actor=who, at=begin)
    for number in range(times):
        app.record(actor=who, outcome=Outcome.REFUSED, why="unauthenticated", at=begin + timedelta(seconds=number))
    app.log.checkpoint()
    return begin


def reviewed(app: AuditedApp, **more: Any) -> dict[str, Any]:
    told: dict[str, Any] = app.told("reviews", method="POST", body={}, **more)
    return told


# --- who may ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grants", [("admin",), ("operator", "deployer", "viewer"), ("admin", "deployer")])
def test_who_changes_anything_reads_nothing(app: AuditedApp, grants: tuple[str, ...]) -> None:
    """ASVS 16.4.2."""
    app.record(details={"secret": "told to auditors"})
    who = app.app.person("changer", *grants)
    for route in AUDIT_ROUTES:
        body = None if route.method == "GET" else {}
        answered = app.ask(re.sub(r"{\w+}", "0", route.path), who, method=route.method, body=body)
        assert answered.status == 403, route.path
        assert b"told to auditors" not in answered.body


def test_auditor_changes_nothing_in_the_log(app: AuditedApp) -> None:
    """ASVS 16.4.2: there is no way to, and what they do adds nothing but that they did it."""
    burst(app)
    before = [(one.seq, one.event) for one in app.log.entries()]
    for method in ("PUT", "PATCH", "DELETE", "POST"):
        for path in ("records", "records/0", "state", "checkpoint"):
            assert app.ask(path, method=method, body={}).status == 405
    reviewed(app)
    app.told("verify", method="POST", body={})
    after = list(app.log.entries())
    assert [(one.seq, one.event) for one in after[: len(before)]] == before
    assert {one.event.kind for one in after[len(before) :]} <= {EventKind.AUDIT_READ, EventKind.REVIEW_MADE}


def test_reviewing_needs_its_own_action_and_a_fresh_proof(app: AuditedApp) -> None:
    """ASVS 7.5.3."""
    burst(app)
    made = reviewed(app)["review"]["id"]
    app.app.access.directory.apply_role(SERVER, Role("reader", frozenset({Action.AUDIT_READ})))
    reader = app.app.person("reader", "reader")
    for path, body in (("reviews", {}), (f"reviews/{made}/sign-off", NOTE)):
        assert app.ask(path, reader, method="POST", body=body).status == 403
        without_token = {name: one for name, one in app.auditor.items() if name != "x-csrf-token"}
        assert app.ask(path, without_token, method="POST", body=body).status == 403
    assert app.ask(f"reviews/{made}", reader).status == 200
    make_stale(app, "auditor")
    for path, body in (("reviews", {}), (f"reviews/{made}/sign-off", NOTE)):
        answered = app.ask(path, method="POST", body=body)
        assert (answered.status, answered.json()["error"]["code"]) == (401, "step-up")
    assert app.ask(f"reviews/{made}").status == 200
    assert app.of(EventKind.REVIEW_SIGNED) == []


def make_stale(app: AuditedApp, name: str) -> None:
    access = app.app.access
    user = access.directory.user(name)
    with access.database.write() as connection:
        long_ago = access.now() - timedelta(minutes=10)
        connection.execute(update(sessions).where(sessions.c.user_id == user.id).values(proved_at=long_ago))
        grow_revision(connection)


def test_server_without_a_log_says_so(app: AuditedApp) -> None:
    app.app.gate.audited = None
    for path in ("records", "state", "reviews", "checkpoint"):
        assert app.ask(path).status == 404


# --- state, checkpoint, verification ----------------------------------------------------------------------------------


def test_state_tells_length_checkpoint_and_next_review(app: AuditedApp) -> None:
    app.record(at=app.app.gate.now())
    app.log.checkpoint()
    app.record(at=app.app.gate.now())
    told = app.told("state")
    assert told["size"] == app.log.size
    assert (told["tail"], told["checkpoint"]["size"]) == (1, app.log.size - 1)
    assert (told["buffered"], told["lost"], told["degraded"], told["last_error"]) == (0, 0, False, None)
    assert (told["verified"], told["verifying"], told["copies"]) == (None, False, [])
    assert told["review"]["overdue_s"] == 0
    assert VerifierKey.parse(told["key"]) == app.log.key


def test_state_tells_an_overdue_review(app: AuditedApp, tmp_path: Path) -> None:
    app.record(at=app.app.gate.now())
    later = app.app.gate.now() + timedelta(days=10)
    app.app.gate.audited = open_audited(app.log, tmp_path / "audit.key", now=lambda: later)
    assert app.told("state")["review"]["overdue_s"] == pytest.approx(86400, abs=60)
    assert app.told("reviews")["due"]["overdue_s"] == pytest.approx(86400, abs=60)


def test_checkpoint_is_the_newest_and_verifies(app: AuditedApp) -> None:
    app.record()
    signed = app.log.checkpoint()
    answered = app.ask("checkpoint")
    assert answered.headers["content-type"] == "text/plain; charset=utf-8"
    opened = open_checkpoint(answered.body.decode(), [app.log.key], origin=app.log.origin)
    assert (opened.size, opened.root) == (signed.size, signed.root)


def test_log_is_verified_and_the_state_tells_it(app: AuditedApp) -> None:
    app.record()
    told = app.told("verify", method="POST", body={})
    assert (told["status"], told["findings"], told["by"]) == ("ok", [], "person:auditor")
    assert told["covered"] == told["size"] == app.log.size
    assert app.told("state")["verified"] == told


def test_changed_entry_is_found_and_told(app: AuditedApp, tmp_path: Path) -> None:
    burst(app)
    with sqlite3.connect(tmp_path / "audit.db") as other:
        other.execute("UPDATE audit_records SET actor = '\"person:eve\"' WHERE seq = 5")
    told = app.told("verify", method="POST", body={})
    assert told["status"] == "failed"
    assert 5 in [one["seq"] for one in told["findings"]]
    report = reviewed(app)["report"]
    assert report["chain"]["status"] == "failed"
    assert [one["severity"] for one in report["findings"]][:1] == ["alarm"]


def test_log_is_verified_one_at_a_time(app: AuditedApp) -> None:
    audited_log, begun, go_on = app.app.gate.audited, threading.Event(), threading.Event()
    assert audited_log is not None

    def verify(signed: Any, told: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return audited_log._verify(signed, told)

    app.app.gate.audited = Audited(app.log, lambda: audited_log.reviews, verify=verify, now=app.app.gate.now)

    async def run() -> list[tuple[int, str]]:
        def ask(path: str) -> Any:
            headers = {**app.auditor, "content-type": "application/json"}
            return asyncio.ensure_future(app.app.ask("POST", f"/v1/audit/{path}", headers, b"{}"))

        first = ask("verify")
        await asyncio.to_thread(begun.wait, 30)
        answered = [await ask("verify"), await ask("reviews")]
        state = await app.app.ask("GET", "/v1/audit/state", app.auditor)
        assert state.json()["verifying"] is True
        go_on.set()
        answered.append(await first)
        answered.append(await ask("verify"))
        return [(one.status, one.headers.get("retry-after", "")) for one in answered]

    assert asyncio.run(run()) == [(503, "1"), (503, "1"), (200, ""), (200, "")]
    assert app.told("state")["verifying"] is False


def test_server_that_leaves_does_not_wait_for_the_end_of_a_verification(app: AuditedApp) -> None:
    burst(app)
    assert app.app.gate.audited is not None
    app.app.gate.audited.close()
    for path in ("verify", "reviews"):
        assert app.ask(path, method="POST", body={}).status == 503
    assert app.told("state")["verified"] is None


# --- reviews ----------------------------------------------------------------------------------------------------------


def test_review_is_made_listed_read_and_signed_off(app: AuditedApp) -> None:
    burst(app)
    made = reviewed(app)
    state, report = made["review"], made["report"]
    assert report["chain"]["status"] == "ok"
    (finding,) = [one for one in report["findings"] if "person:ada" in one["who"]]
    assert finding["seqs"]
    assert finding["advice"]
    assert (state["signed"], made["names_me"], report["made_by"]) == ([], False, "person:auditor")
    assert state["digest"] in open_note(made["note"], [app.log.key]).text
    assert app.told(f"reviews/{state['id']}") == made
    assert app.told("reviews")["reviews"] == [state]
    signed = app.told(f"reviews/{state['id']}/sign-off", method="POST", body=NOTE)["review"]
    assert [(one["who"], one["note"]) for one in signed["signed"]] == [("person:auditor", NOTE["note"])]
    assert signed["signed_by_me"] is True
    (event,) = app.of(EventKind.REVIEW_SIGNED)
    assert (event.actor, event.subject, event.address) == ("person:auditor", f"review:{state['id']}", "192.0.2.1")
    assert event.details["digest"] == state["digest"]
    assert app.ask(f"reviews/{state['id']}/sign-off", method="POST", body=NOTE).status == 409


def test_whoever_a_finding_names_does_not_sign_it_off(app: AuditedApp) -> None:
    burst(app, "person:auditor")
    made = reviewed(app)
    assert made["names_me"] is True
    refused = app.ask(f"reviews/{made['review']['id']}/sign-off", method="POST", body=NOTE)
    assert (refused.status, refused.json()["error"]["code"]) == (403, "forbidden")
    assert "another auditor" in refused.json()["error"]["hint"]
    assert app.of(EventKind.REVIEW_SIGNED) == []
    other = app.app.person("other", "auditor")
    assert app.told(f"reviews/{made['review']['id']}", who=other)["names_me"] is False
    signed = app.told(f"reviews/{made['review']['id']}/sign-off", who=other, method="POST", body=NOTE)["review"]
    assert [one["who"] for one in signed["signed"]] == ["person:other"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"note": ""},
        {"note": "  \n "},
        {"note": "x" * 1001},
        {"note": "a\x1b[2J"},
        {"note": "a", "who": "person:eve"},
    ],
)
def test_sign_off_without_a_readable_note_is_refused(app: AuditedApp, body: dict[str, Any]) -> None:
    burst(app)
    made = reviewed(app)["review"]["id"]
    assert app.ask(f"reviews/{made}/sign-off", method="POST", body=body).status == 400
    assert app.of(EventKind.REVIEW_SIGNED) == []


def test_review_of_before_a_rotation_of_the_key_is_read_and_signed_off_after_it(app: AuditedApp) -> None:
    burst(app)
    before = reviewed(app)["review"]["id"]
    app.log.rotate_key(actor="server:this server")
    assert app.told(f"reviews/{before}")["review"]["id"] == before
    signed = app.told(f"reviews/{before}/sign-off", method="POST", body=NOTE)["review"]
    assert [one["who"] for one in signed["signed"]] == ["person:auditor"]
    after = reviewed(app)
    assert after["report"]["chain"]["status"] == "ok"
    assert after["review"]["digest"] in open_note(after["note"], [app.log.key]).text
    assert app.told("verify", method="POST", body={})["status"] == "ok"


def test_second_places_are_told(app: AuditedApp, tmp_path: Path) -> None:
    app.record()
    signed = app.log.checkpoint()
    copy = tmp_path / "copies"
    places = Witnesses([parse_copy(f"file:{copy}"), parse_copy(f"file:{tmp_path}/no/where")], app.log.consistency)
    app.app.gate.audited = open_audited(app.log, tmp_path / "audit.key", copies=lambda: places.states)
    places.offer(signed)
    until = time.monotonic() + 20
    while (told := app.told("state")["copies"])[0]["size"] == 0 or told[1]["error"] is None:
        assert time.monotonic() < until, told
        time.sleep(0.05)
    places.close(0.1)
    assert (told[0]["place"], told[0]["size"], told[0]["error"]) == (f"file:{copy}", signed.size, None)
    assert (told[1]["size"], told[1]["waiting"], told[1]["refusing"]) == (0, True, False)
    assert signed.text.rstrip() in copy.read_text(encoding="utf-8")


def test_review_of_a_period_and_of_nothing(app: AuditedApp) -> None:
    begin = burst(app)
    span = {
        "since": f"{begin + timedelta(seconds=10):%FT%T.%fZ}",
        "until": f"{begin + timedelta(seconds=20):%FT%T.%fZ}",
    }
    assert app.told("reviews", method="POST", body=span)["report"]["entries"] == 10
    for wrong in (
        {"since": "2026-03-02T00:00:00Z", "until": "2026-03-01T00:00:00Z"},
        {"since": "2099-01-01T00:00:00Z"},
        {"since": "2026-03-01"},
        {"since": 3},
    ):
        assert app.ask("reviews", method="POST", body=wrong).status == 400, wrong


def test_review_that_there_is_not_is_not_found(app: AuditedApp) -> None:
    for name in ("20260301-00000000", "..%2f..%2fetc%2fpasswd", "x", "review:1"):
        assert app.ask(f"reviews/{name}").status == 404, name
        assert app.ask(f"reviews/{name}/sign-off", method="POST", body=NOTE).status == 404, name


def test_changed_report_is_not_shown_and_not_signed_off(app: AuditedApp, tmp_path: Path) -> None:
    burst(app)
    made = reviewed(app)["review"]["id"]
    (file,) = tmp_path.glob("audit.reviews/*.json")
    told = json.loads(file.read_bytes())
    told["findings"] = []
    file.write_text(json.dumps(told, sort_keys=True, indent=1) + "\n", encoding="ascii")
    for answered in (
        app.ask(f"reviews/{made}"),
        app.ask(f"reviews/{made}?format=html"),
        app.ask(f"reviews/{made}/sign-off", method="POST", body=NOTE),
    ):
        assert answered.status == 422
        assert str(tmp_path).encode() not in answered.body
    assert app.of(EventKind.REVIEW_SIGNED) == []


def test_report_as_a_page_runs_nothing(app: AuditedApp) -> None:
    """ASVS 3.4.3: its own style is named by its digest, everything else is shut."""
    burst(app, "person:<script>alert(1)</script>")
    made = reviewed(app)["review"]["id"]
    by_address, by_header = app.ask(f"reviews/{made}?format=html"), app.ask(f"reviews/{made}", accept="text/html")
    assert by_address.body == by_header.body
    page = by_address.body.decode()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    policy = by_address.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert re.search(r"style-src 'sha256-[A-Za-z0-9+/]{43}='", policy)
    assert "unsafe" not in policy
    assert policy.endswith("sandbox")


def test_reading_a_report_is_recorded(app: AuditedApp) -> None:
    burst(app)
    made = reviewed(app)["review"]["id"]
    app.told(f"reviews/{made}")
    app.told(f"reviews/{made}")
    app.told("reviews")
    told = [(one.details["what"], one.subject) for one in app.of(EventKind.AUDIT_READ)]
    assert told == [("review", f"review:{made}"), ("reviews", None)]


def test_key_of_a_service_reads_and_reviews_nothing(app: AuditedApp) -> None:
    burst(app)
    machine: Headers = app.app.key("robot", "viewer", "operator", "deployer")
    for route in AUDIT_ROUTES:
        body = None if route.method == "GET" else {}
        assert app.ask(re.sub(r"{\w+}", "0", route.path), machine, method=route.method, body=body).status == 403
    with pytest.raises(Exception, match="people"):
        app.app.access.keys.add(SERVER, "auditing", grants=[Grant("auditor")])
