# SPDX-License-Identifier: Apache-2.0
"""Entries of the audit log over HTTP: filters, pages, exports, what reading leaves behind, texts that strangers put there."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serve.audited import AT, HOSTILE, AuditedApp, audited

from shipsight.access import Event, EventKind, Outcome
from shipsight.access.audit import Entry
from shipsight.errors import AuditError
from shipsight.serve.http.audit_records import csv_row, safe_cell

KINDS = (EventKind.SIGN_IN, EventKind.GRANTS_CHANGED, EventKind.EXPORTED, EventKind.REFUSED)
ACTORS, SUBJECTS, ADDRESSES = (
    ("person:ada", "person:bob", "key:ci.0123"),
    (None, "model:cups"),
    ("192.0.2.1", "2001:db8::1"),
)
ENTRIES = 60
ACCEPTS = {"csv": "text/csv", "jsonl": "application/jsonl"}
# Who asks, and what is recorded of the asking, is later than all of these.
MADE = urlencode({"until": (AT + timedelta(days=1)).isoformat()})


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditedApp]:
    """A log with entries of all sorts."""
    with audited(tmp_path_factory.mktemp("records")) as made:
        for number in range(ENTRIES):
            made.record(
                KINDS[number % 4],
                at=AT + timedelta(minutes=number),
                outcome=Outcome.REFUSED if number % 5 == 0 else Outcome.DONE,
                actor=ACTORS[number % 3],
                subject=SUBJECTS[number % 2],
                address=ADDRESSES[number % 7 % 2],
                details={"note": f"Number {number}", "count": number},
            )
        made.log.checkpoint()  # those that may be late are there, too
        yield made


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditedApp]:
    """A log of its own."""
    with audited(tmp_path_factory.mktemp("fresh")) as made:
        yield made


def numbers(told: dict[str, Any]) -> list[int]:
    return [one["seq"] for one in told["records"]]


def made_entries(app: AuditedApp) -> list[Entry]:
    return list(app.log.entries(until=AT + timedelta(days=1)))


# --- filters and pages ------------------------------------------------------------------------------------------------


def test_entries_come_the_newest_first(app: AuditedApp) -> None:
    told = app.told(f"records?{MADE}")
    assert numbers(told) == [one.seq for one in reversed(made_entries(app))]
    newest = told["records"][0]
    assert newest["details"] == {"count": 59, "note": "Number 59"}
    assert (newest["at"], newest["server"], newest["erased_by"]) == ("2026-03-01T12:59:00.000000Z", "test", None)


MINUTE = timedelta(minutes=1)
FITS: dict[str, tuple[dict[str, str], Any]] = {
    "since": ({"since": "2026-03-01T12:30:00Z"}, lambda one: one.at >= AT + 30 * MINUTE),
    "until": ({"until": "2026-03-01T13:30:00+01:00"}, lambda one: one.at < AT + 30 * MINUTE),
    "kind": ({"kind": "sign-in,exported"}, lambda one: one.kind in (EventKind.SIGN_IN, EventKind.EXPORTED)),
    "outcome": ({"outcome": "refused"}, lambda one: one.outcome is Outcome.REFUSED),
    "actor": ({"actor": "person:bob"}, lambda one: one.actor == "person:bob"),
    "subject": ({"subject": "model:cups"}, lambda one: one.subject == "model:cups"),
    "address": ({"address": "2001:db8::1"}, lambda one: one.address == "2001:db8::1"),
    "text": ({"text": "nUMBER 1"}, lambda one: str(one.details.get("note", "")).startswith("Number 1")),
    "server": ({"server": "test"}, lambda one: True),
    "another server": ({"server": "elsewhere"}, lambda one: False),
    "several": (
        {"actor": "person:ada", "outcome": "done", "kind": "sign-in"},
        lambda one: (one.actor, one.outcome, one.kind) == ("person:ada", Outcome.DONE, EventKind.SIGN_IN),
    ),
}


@pytest.mark.parametrize("which", FITS)
def test_filter_shows_what_fits_and_nothing_else(app: AuditedApp, which: str) -> None:
    asked, fits = FITS[which]
    query = urlencode({"until": (AT + timedelta(days=1)).isoformat(), **asked})
    wanted = [one.seq for one in made_entries(app) if fits(one.event)]
    assert numbers(app.told(f"records?{query}")) == wanted[::-1]
    assert [one["seq"] for one in lines(app, query)] == wanted


def test_numbers_choose_a_part(app: AuditedApp) -> None:
    assert numbers(app.told("records?first=10&last=13")) == [13, 12, 11, 10]
    assert numbers(app.told("records?first=10&last=9")) == []
    assert numbers(app.told("records?last=2&before=2")) == [1, 0]
    assert numbers(app.told("records?before=0")) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, ENTRIES + 5), which=st.sampled_from(sorted(FITS)))
def test_pages_of_any_length_hold_each_entry_once_in_order(app: AuditedApp, limit: int, which: str) -> None:
    asked = {"until": (AT + timedelta(days=1)).isoformat(), **FITS[which][0]}
    whole, found, before = numbers(app.told(f"records?{urlencode(asked)}")), [], None
    while True:
        more = {} if before is None else {"before": before}
        told = app.told(f"records?{urlencode({**asked, 'limit': limit, **more})}")
        assert len(told["records"]) <= limit
        found += numbers(told)
        before = told["before"]
        if before is None:
            break
    assert found == whole


def test_search_for_a_text_ends_after_some_entries_and_goes_on_there(
    fresh: AuditedApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shipsight.serve.http.audit_records._MOST_SEARCHED", 10)
    for number in range(40):
        fresh.record(details={"note": "needle" if number == 3 else "hay"})
    found, steps, before = [], 0, ""
    while True:
        told = fresh.told(f"records?text=needle&kind=sign-in{before}")
        found, steps = found + told["records"], steps + 1
        if told["before"] is None:
            break
        before = f"&before={told['before']}"
    assert [one["details"]["note"] for one in found] == ["needle"]
    assert steps >= 4
    assert [one["details"]["note"] for one in lines(fresh, "text=needle&kind=sign-in")] == ["needle"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=501", "limit=ten", "limit=1&limit=2", "limit=%D9%A1", "first=-1", "first=1e3", "last=99999999999999999999",
        "since=2026-03-01", "since=2026-03-01T12:00:00", "since=yesterday", "kind=", "kind=sign-in,nothing", "outcome=DONE",
        "actor=", "actor=%00", "text=" + "a" * 1001, "who=ada", "before=x", "format=xml", "format=csv&before=3", "format=csv&limit=3",
        "since=9999-99-99T00:00:00Z", "since=0001-01-01T00:00:00%2B14:00",
    ],
)  # fmt: skip
def test_query_that_does_not_fit_is_refused_and_nothing_is_shown(app: AuditedApp, query: str) -> None:
    answered = app.ask(f"records?{query}")
    assert (answered.status, answered.json()["error"]["code"]) == (400, "usage")


def test_single_entry_is_told_and_one_that_there_is_not_is_not(app: AuditedApp) -> None:
    wanted = made_entries(app)[7]
    assert app.told(f"records/{wanted.seq}")["record"]["details"] == dict(wanted.event.details)
    assert app.ask("records/999999").status == 404
    for wrong in ("-1", "1.0", "x", "%D9%A1", "9" * 40):
        assert app.ask(f"records/{wrong}").status == 400, wrong


def test_answers_are_kept_by_no_cache(app: AuditedApp) -> None:
    for path in ("records", "records/0", "state", "checkpoint", "records?nothing", "records/999999", "reviews"):
        assert app.ask(path).headers["cache-control"] == "no-store", path


# --- what reading leaves behind ---------------------------------------------------------------------------------------


def test_reading_is_recorded_once_for_each_person_and_filter(fresh: AuditedApp) -> None:
    other = fresh.app.person("other", "auditor")
    for _ in range(3):
        fresh.told("records?actor=person:ada")
        fresh.told("records?actor=person:ada&limit=2")
        fresh.told("records?actor=person:ada&limit=2&before=1")
    (first,) = fresh.of(EventKind.AUDIT_READ)
    assert (first.actor, first.address) == ("person:auditor", "192.0.2.1")
    assert first.details == {"what": "entries", "filter": "actor=person:ada"}
    fresh.told("records")
    fresh.told("records", who=other)
    fresh.told("records/0")
    fresh.told("records/1")
    fresh.told("records/1")
    told = [(one.actor, one.details["what"], one.subject) for one in fresh.of(EventKind.AUDIT_READ)[1:]]
    assert told == [
        ("person:auditor", "entries", None),
        ("person:other", "entries", None),
        ("person:auditor", "entry", "entry:0"),
        ("person:auditor", "entry", "entry:1"),
    ]


def test_reading_is_recorded_anew_in_the_next_hour(fresh: AuditedApp, monkeypatch: pytest.MonkeyPatch) -> None:
    now = fresh.app.gate.now
    fresh.told("records")
    fresh.told("records")
    monkeypatch.setattr(fresh.app.gate, "now", lambda: now() + timedelta(hours=1))
    fresh.told("records")
    assert len(fresh.of(EventKind.AUDIT_READ)) == 2


class Full:
    """A place for events that takes none."""

    def record(self, event: Event) -> None:
        raise AuditError("the audit log cannot be written", got="No space left on device")


@pytest.mark.parametrize("path", ["records", "records/0", "records?format=csv", "records?format=jsonl", "reviews"])
def test_what_reads_is_shown_nothing_where_that_cannot_be_recorded(fresh: AuditedApp, path: str) -> None:
    """ASVS 16.5.3."""
    fresh.app.gate.events = Full()
    answered = fresh.ask(path)
    assert (answered.status, answered.json()["error"]["code"]) == (503, "audit-unavailable")


# --- exports ----------------------------------------------------------------------------------------------------------


def lines(app: AuditedApp, query: str) -> list[dict[str, Any]]:
    """What an export as JSON lines holds."""
    answered = app.ask(f"records?{query}", accept="application/jsonl")
    assert answered.status == 200, answered.body
    assert answered.body.isascii()
    assert answered.body == b"" or answered.body.endswith(b"\n")
    return [json.loads(line) for line in answered.body.splitlines()]


def table(app: AuditedApp, query: str) -> list[dict[str, str]]:
    """What an export as CSV holds, as a spreadsheet reads it."""
    answered = app.ask(f"records?{query}", accept="text/html;q=0.5, text/csv")
    assert (answered.status, answered.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    return list(csv.DictReader(io.StringIO(answered.body.decode("utf-8-sig"), newline="")))


def test_export_holds_all_that_fits_the_oldest_first(app: AuditedApp) -> None:
    whole = made_entries(app)
    exported = lines(app, MADE)
    assert [one["seq"] for one in exported] == [one.seq for one in whole]
    assert [one["details"] for one in exported] == [dict(one.event.details) for one in whole]
    rows = table(app, MADE)
    assert [int(one["seq"]) for one in rows] == [one.seq for one in whole]
    assert json.loads(rows[5]["details"]) == dict(whole[5].event.details)


@pytest.mark.parametrize("wanted", ["csv", "jsonl"])
def test_export_is_asked_for_by_accept_or_in_the_address(app: AuditedApp, wanted: str) -> None:
    by_address = app.ask(f"records?format={wanted}&{MADE}")
    by_header = app.ask(f"records?{MADE}", accept=ACCEPTS[wanted])
    assert by_address.body == by_header.body
    for one in (by_address, by_header):
        assert one.headers["content-disposition"].startswith('attachment; filename="audit-')
        assert one.headers["content-disposition"].endswith(f'.{wanted}"')
        assert one.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("wanted", ["csv", "jsonl"])
def test_export_in_many_pieces_is_whole(fresh: AuditedApp, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setattr("shipsight.serve.http.audit_records._CHUNK_CHARACTERS", 700)
    monkeypatch.setattr("shipsight.serve.http.audit_records._MOST_SEARCHED", 7)
    for number in range(50):
        fresh.record(details={"note": "x" * (number * 17)})
    found = lines(fresh, "kind=sign-in") if wanted == "jsonl" else table(fresh, "kind=sign-in")
    seqs = [int(one["seq"]) for one in found]
    assert seqs == [one.seq for one in fresh.log.entries(kinds=(EventKind.SIGN_IN,))]
    assert len(seqs) == 50


def test_export_is_recorded_before_the_first_byte_and_ends_there(fresh: AuditedApp) -> None:
    fresh.record()
    exported = lines(fresh, "")
    (told,) = fresh.of(EventKind.EXPORTED)
    assert told.actor == "person:auditor"
    assert (told.subject, told.details["what"], told.details["format"]) == ("audit-log", "entries", "jsonl")
    assert "exported" not in {one["kind"] for one in exported}
    assert told.details["before"] == exported[-1]["seq"] + 1
    lines(fresh, "actor=person:ada")
    assert fresh.of(EventKind.EXPORTED)[1].details["filter"] == "actor=person:ada"


def test_head_of_an_export_takes_nothing_away(fresh: AuditedApp) -> None:
    answered = fresh.ask("records?format=csv", method="HEAD")
    assert (answered.status, answered.body) == (200, b"")
    assert fresh.of(EventKind.EXPORTED) == []


# --- texts of strangers -----------------------------------------------------------------------------------------------


def is_harmless(text: str) -> bool:
    """Whether nothing in a text moves a cursor, breaks a line, is invisible or turns text around."""
    return not any(unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for one in text)


@pytest.mark.parametrize("which", HOSTILE)
def test_injected_text_stays_a_text_in_every_answer(fresh: AuditedApp, which: str) -> None:
    """ASVS 16.4.1; notes on attacks 3.5."""
    hostile = HOSTILE[which]
    fresh.record(
        actor=f"person:{hostile}", subject=hostile, address=hostile, details={"agent": hostile, "of": [hostile]}
    )
    count = fresh.log.size
    page = fresh.ask("records?kind=sign-in")
    (entry,) = page.json()["records"]
    assert entry["details"] == {"agent": hostile, "of": [hostile]}
    assert entry["subject"] == entry["address"] == hostile
    assert page.body.isascii()
    assert not any(code in page.body for code in (b"\x1b", b"\r", b"\n", b"\x07", b"\x00"))
    (line,) = lines(fresh, "kind=sign-in")
    assert line["details"] == {"agent": hostile, "of": [hostile]}
    (row,) = table(fresh, "kind=sign-in")
    assert all(is_harmless(cell) for cell in row.values())
    assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for cell in row.values())
    # It made no entry but its own; the others are of who asked.
    assert {one.event.kind for one in fresh.log.entries(first=count)} == {EventKind.AUDIT_READ, EventKind.EXPORTED}


def test_agent_of_a_megabyte_is_cut_in_a_page_and_costs_others_nothing(fresh: AuditedApp) -> None:
    fresh.record(details={"agent": "M" * 2**20, "list": ["k" * 3000] * 3})
    answered = fresh.ask("records?kind=sign-in")
    (entry,) = answered.json()["records"]
    assert entry["cut"] == ["details.agent", "details.list"]
    assert entry["details"]["agent"] == "M" * 1000
    assert len(answered.body) < 8000
    whole = fresh.told(f"records/{entry['seq']}")["record"]
    assert whole["details"]["agent"].startswith("M" * 4000)
    assert "1048576 characters" in whole["details"]["agent"]
    assert all(len(cell) < 32_767 for cell in table(fresh, "kind=sign-in")[0].values())


@pytest.mark.parametrize(
    "formula",
    [
        "=1+1",
        "+1",
        "-1+1|cmd",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "  =1",
        "\uff1d1",
        "\uff0b1",
        "\uff0d1",
        "\uff201",
        '=cmd|" /C calc"!A0',
    ],
)
def test_cell_begins_no_formula(formula: str) -> None:
    """ASVS 1.2.10."""
    assert safe_cell(formula)[0] in ("'", "\\")
    event = Event(AT, EventKind.SIGN_IN, Outcome.DONE, formula, subject=formula, address=formula, details={})
    assert [one for one in csv_row(Entry(0, formula, event)) if one.lstrip().startswith(("=", "+", "-", "@"))] == []


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(), max_size=60))
def test_any_text_is_harmless_as_a_cell_and_keeps_what_is_printable(text: str) -> None:
    cell = safe_cell(text)
    assert is_harmless(cell)
    assert not cell.lstrip().startswith(("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    if text.isprintable():
        assert cell in (text, f"'{text}")
