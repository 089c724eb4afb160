# SPDX-License-Identifier: Apache-2.0
"""The bytes of a record: one form for one event, and no second reading of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.access.audit.logs import BEGAN, predicted, signed_in

from shipsight.access import Event, EventKind, Outcome
from shipsight.access.audit.record import FIELDS, Row, canonical, clean, commit, parse_record, prepare, read_entry
from shipsight.access.events import note_client
from shipsight.errors import CorruptError

ALL_TEXTS = st.text(st.characters(exclude_categories=()), max_size=60)  # halves of pairs and controls, too
plain = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | ALL_TEXTS
events = st.builds(
    Event,
    at=st.datetimes(timezones=st.just(UTC)),
    kind=st.sampled_from(EventKind),
    outcome=st.sampled_from(Outcome),
    actor=ALL_TEXTS,
    subject=st.none() | ALL_TEXTS,
    why=st.none() | ALL_TEXTS,
    factor=st.none() | ALL_TEXTS,
    address=st.none() | ALL_TEXTS,
    details=st.dictionaries(ALL_TEXTS, plain | st.lists(ALL_TEXTS, max_size=3), max_size=3),
)


def write(event: Event, *, seq: int = 3, server: str = "one") -> Row:
    made = prepare(event)
    told = canonical(clean(server))
    text = made.write(
        seq=seq, log="ab" * 16, prev="cd" * 32, server=told, written="2026-03-01T08:00:00.000000Z", is_back=False
    )
    return Row(seq, text, made.values, made.salts, None, made.at, made.kind, made.outcome, told)


def expected(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, int):
        return value if abs(value) < 2**53 else str(value)
    return [clean(one) for one in value] if isinstance(value, list) else clean(value)


@given(events, ALL_TEXTS.filter(bool))
def test_event_is_read_as_it_was_written(event: Event, server: str) -> None:
    entry = read_entry(write(event, server=server))
    got = entry.event
    assert (entry.seq, entry.server, got.at, got.kind, got.outcome) == (
        3,
        clean(server),
        event.at,
        event.kind,
        event.outcome,
    )
    assert got.actor == clean(event.actor)
    for name in ("subject", "why", "factor"):
        value = getattr(event, name)
        assert getattr(got, name) == (None if value is None else clean(value))
    assert (got.address or None) == (clean(event.address) if event.address else None)
    assert got.details == {clean(name): expected(one) for name, one in event.details.items()}


@given(events)
def test_record_is_printable_ascii_in_its_one_form(event: Event) -> None:
    row = write(event)
    texts = [row.record, *(one for one in row.values if one is not None)]
    for text in texts:
        assert all(" " <= letter <= "~" for letter in text)
        assert canonical(json.loads(text)) == text
    parse_record(row.record)


@given(events)
def test_record_holds_commitments_and_no_personal_value(event: Event) -> None:
    row = write(event)
    told = json.loads(row.record)
    for place, name in enumerate(FIELDS):
        value, salt = row.values[place], row.salts[place * 16 : place * 16 + 16]
        assert told[name] == (None if value is None else commit(salt, value))


def test_two_records_of_one_event_do_not_show_that_they_are_about_the_same_person() -> None:
    one, two = json.loads(write(signed_in()).record), json.loads(write(signed_in()).record)
    assert {name: one[name] == two[name] for name in FIELDS} == {
        "actor": False, "address": False, "details": False, "subject": True,
    }  # fmt: skip


RECORD = write(predicted()).record
ESCAPED = write(Event(BEGAN, EventKind.REFUSED, Outcome.REFUSED, "nobody", why='a "b" \N{SNOWMAN}')).record
AMBIGUOUS = {
    "decimal for a whole number": (RECORD, '"seq":3,', '"seq":3.0,'),
    "exponent": (RECORD, '"seq":3,', '"seq":3e0,'),
    "zero before a number": (RECORD, '"seq":3,', '"seq":03,'),
    "minus zero": (RECORD, '"seq":3,', '"seq":-0,'),
    "blank": (RECORD, '"seq":3,', '"seq": 3,'),
    "keys in another order": (RECORD, '"seq":3,"server":"one"', '"server":"one","seq":3'),
    "key twice": (RECORD, '"seq":3,', '"seq":3,"seq":4,'),
    "another key": (RECORD, '"v":1', '"u":1,"v":1'),
    "letter escaped": (RECORD, '"server":"one"', '"server":"\\u006fne"'),
    "letter in UTF-8": (RECORD, '"server":"one"', '"server":"\N{LATIN SMALL LETTER O WITH DIAERESIS}ne"'),
    "composed and decomposed": (ESCAPED, "\\u2603", "\\u2603\N{COMBINING ACUTE ACCENT}"),
    "capital hexadecimal": (ESCAPED, "\\u2603", "\\u260A".replace("0A", "0A")),
    "solidus escaped": (ESCAPED, "\\u2603", "\\/"),
    "half of a pair with its other half": (
        ESCAPED,
        "\\u2603",
        "\\ud83d\\u0064"[:6] + "\\ude00".upper().replace("\\U", "\\u"),
    ),
    "another version": (RECORD, '"v":1', '"v":2'),
    "capital hash": (RECORD, "cd" * 32, "CD" * 32),
    "end of line": (RECORD, "}", "}\n"),
    "true for a number": (RECORD, '"v":1', '"v":true'),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_record_written_in_another_way_is_refused(case: str) -> None:
    record, before, after = AMBIGUOUS[case]
    assert before in record
    parse_record(record)
    with pytest.raises(CorruptError):
        parse_record(record.replace(before, after))


@given(st.data())
def test_record_with_any_byte_changed_is_refused_or_says_something_else(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(RECORD) - 1))
    letter = data.draw(st.characters(min_codepoint=0, max_codepoint=255).filter(lambda one: one != RECORD[at]))
    changed = RECORD[:at] + letter + RECORD[at + 1 :]
    try:
        told = parse_record(changed)
    except CorruptError:
        return
    assert told != parse_record(RECORD)


def test_composed_and_decomposed_forms_of_a_name_stay_two_names() -> None:
    names = ["\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"]
    assert [read_entry(write(signed_in(one))).event.actor for one in names] == [f"person:{one}" for one in names]


def test_text_that_is_too_long_is_cut_and_says_so() -> None:
    row = write(signed_in(details={"browser": "x" * 1_000_000}))
    assert len(row.values[2] or "") < 5000
    assert "1000000 characters, SHA-256 " in str(read_entry(row).event.details["browser"])


def test_list_that_is_too_long_is_cut_and_says_so() -> None:
    row = write(signed_in(details={"names": [str(one) for one in range(5000)]}))
    names = read_entry(row).event.details["names"]
    assert isinstance(names, list)
    assert (len(names), names[-1]) == (1001, "and 4000 more")


def test_line_ends_in_texts_from_outside_begin_no_line_of_their_own() -> None:
    hostile = 'ada\r\n{"seq":0}\x1b[2J\u2028\u202e</script>'
    row = write(signed_in(hostile, details={hostile: hostile}))
    assert all(len(one.splitlines()) == 1 for one in (row.record, *(one for one in row.values if one is not None)))
    assert read_entry(row).event.actor == f"person:{hostile}"


def test_entry_without_address_does_not_take_that_of_who_reads_it() -> None:
    row = write(signed_in(address=None))
    note_client("198.51.100.1")
    try:
        assert read_entry(row).event.address is None
    finally:
        note_client(None)


def test_time_without_a_zone_is_taken_for_utc() -> None:
    event = Event(datetime(2026, 1, 2, 3, 4, 5), EventKind.STARTED, Outcome.DONE, "server:one")  # noqa: DTZ001 - the case
    assert read_entry(write(event)).event.at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
