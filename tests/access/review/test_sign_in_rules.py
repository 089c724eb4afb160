# SPDX-License-Identifier: Apache-2.0
"""Rules about signing in: each finds its case, and leaves alone what looks like it and is not."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.access.review.stream import ELSEWHERE, HOME, OFFICE, Stream

from shipsight.access import EventKind
from shipsight.access.review import Severity


@pytest.fixture
def stream() -> Stream:
    return Stream().with_usual_past(people=[f"user{number}" for number in range(30)] + ["ada"])


def test_burst_is_found_when_one_account_fails_ten_times_in_an_hour(stream: Stream) -> None:
    for number in range(10):
        stream.fail(stream.at(1, 3) + timedelta(minutes=5 * number), "person:user3")
    (finding,) = stream.found("sign-in-burst")
    assert finding.who == ("person:user3",)
    assert finding.count == 10
    assert finding.numbers["failures"] == 10


def test_burst_counts_tries_that_came_too_early(stream: Stream) -> None:
    for number in range(12):
        at, why = stream.at(1, 3) + timedelta(minutes=number), "rate-limit"
        stream.tell(at, EventKind.LIMITED, "person:user3", why=why, factor="password", address=ELSEWHERE)
    assert len(stream.found("sign-in-burst")) == 1


def test_burst_is_found_when_guesses_take_days(stream: Stream) -> None:
    for number in range(40):
        stream.fail(stream.at(1) + timedelta(hours=2 * number), "person:user3", f"203.0.{number}.1")
    (finding,) = stream.found("sign-in-burst")
    assert finding.numbers["networks"] == 40


def test_burst_is_an_alarm_when_there_are_a_hundred(stream: Stream) -> None:
    for number in range(120):
        stream.fail(stream.at(1) + timedelta(minutes=number), "person:user3")
    assert stream.found("sign-in-burst")[0].severity is Severity.ALARM


def test_burst_on_a_name_that_nobody_has_is_a_note(stream: Stream) -> None:
    for number in range(50):
        stream.fail(stream.at(1) + timedelta(minutes=number), "person:root")
    assert stream.found("sign-in-burst") == []
    assert len(stream.noted("sign-in-burst")) == 1


def test_burst_is_not_found_when_somebody_mistypes_and_remembers(stream: Stream) -> None:
    for number in range(6):
        stream.fail(stream.at(1, 8) + timedelta(minutes=number), "person:user3", OFFICE)
    stream.sign_in(stream.at(1, 9), "person:user3")
    assert [one.rule for one in stream.reviewed().findings if one.rule.startswith("sign-in")] == []


def test_spray_is_found_when_accounts_fail_from_one_network(stream: Stream) -> None:
    for number in range(6):
        stream.fail(stream.at(2) + timedelta(minutes=number), f"person:user{number}")
    findings = stream.found("sign-in-spray")
    assert any(set(one.who) >= {"person:user1", "person:user4"} for one in findings)


def test_spray_is_found_when_each_account_fails_from_somewhere_else(stream: Stream) -> None:
    for number in range(9):
        stream.fail(stream.at(2) + timedelta(minutes=number), f"person:user{number}", f"203.{number}.113.9")
    assert len(stream.found("sign-in-spray")) == 1


def test_spray_is_not_found_when_a_robot_tries_names_that_nobody_has(stream: Stream) -> None:
    for day in range(7):
        for number, name in enumerate(("root", "admin", "test", "oracle", "guest", "demo", "info")):
            stream.fail(stream.at(day) + timedelta(seconds=number), f"person:{name}", f"203.0.{day}.9")
    assert [one.rule for one in stream.reviewed().findings if one.rule.startswith("sign-in")] == []


def test_spray_is_not_found_when_an_office_mistypes_after_a_holiday(stream: Stream) -> None:
    for number in range(30):
        stream.fail(stream.at(0, 8) + timedelta(seconds=number * 20), f"person:user{number}", OFFICE)
        stream.sign_in(stream.at(0, 8) + timedelta(seconds=number * 20 + 15), f"person:user{number}")
    assert stream.found("sign-in-spray") == []


def test_guessed_password_is_found_when_success_comes_from_a_new_network(stream: Stream) -> None:
    for number in range(6):
        stream.fail(stream.at(1, 3) + timedelta(minutes=number), "person:user3")
    stream.sign_in(stream.at(1, 4), "person:user3", ELSEWHERE, "password")
    (finding,) = stream.found("sign-in-guessed")
    assert finding.severity is Severity.ALARM
    assert finding.count == 7


def test_guessed_password_is_not_found_when_it_is_the_persons_own_network(stream: Stream) -> None:
    for number in range(8):
        stream.fail(stream.at(1, 8) + timedelta(minutes=number), "person:user3", OFFICE)
    stream.sign_in(stream.at(1, 9), "person:user3", OFFICE)
    assert stream.found("sign-in-guessed") == []


def test_stolen_session_is_found_when_somebody_acts_where_they_did_not_sign_in(stream: Stream) -> None:
    stream.sign_in(stream.at(1, 8), "person:ada")
    stream.tell(stream.at(1, 9), EventKind.ALLOWED, "person:ada", subject="model:digits", address=ELSEWHERE)
    (finding,) = stream.found("act-from-elsewhere")
    assert finding.severity is Severity.ALARM
    assert finding.numbers["network"] == "203.0.113.0/24"


def test_sensitive_act_from_elsewhere_is_found(stream: Stream) -> None:
    stream.sign_in(stream.at(1, 8), "person:ada", ELSEWHERE)
    stream.tell(stream.at(1, 9), EventKind.INVITED, "person:ada", subject="person:user1", address=ELSEWHERE)
    (finding,) = stream.found("act-from-elsewhere")
    assert finding.severity is Severity.WARNING


def test_harmless_act_from_elsewhere_is_not_found(stream: Stream) -> None:
    stream.sign_in(stream.at(1, 8), "person:ada", ELSEWHERE)
    stream.tell(stream.at(1, 9), EventKind.ALLOWED, "person:ada", subject="model:digits", address=ELSEWHERE)
    assert stream.found("act-from-elsewhere") == []


def test_sensitive_act_from_where_colleagues_are_is_not_found(stream: Stream) -> None:
    stream.sign_in(stream.at(-3, 9), "person:user1", HOME)
    stream.sign_in(stream.at(1, 8), "person:ada", HOME)
    stream.tell(stream.at(1, 9), EventKind.INVITED, "person:ada", subject="person:user1", address=HOME)
    assert stream.found("act-from-elsewhere") == []


def test_cloned_passkey_is_an_alarm(stream: Stream) -> None:
    stream.tell(stream.at(1), EventKind.REFUSED, "person:user1", why="passkey-cloned", factor="passkey")
    assert stream.found("passkey-cloned")[0].severity is Severity.ALARM


def test_usual_week_has_no_finding(stream: Stream) -> None:
    for day in range(5):
        for number in range(30):
            for hour in (8.2, 11.1, 15.4):
                stream.sign_in(stream.at(day, hour), f"person:user{number}")
    stream.tell(stream.at(-1, 12), EventKind.REVIEW_SIGNED, "person:eve", subject="review:1", address=OFFICE)
    assert stream.reviewed(days=5).findings == ()
