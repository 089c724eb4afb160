# SPDX-License-Identifier: Apache-2.0
"""Rules about people, rights and hours: each finds its case, and leaves alone what looks like it and is not."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from tests.access.review.stream import ELSEWHERE, OFFICE, Stream
from tests.conftest import REPOSITORY

from shipsight.access import EventKind
from shipsight.access.review import RULES, Severity


@pytest.fixture
def stream() -> Stream:
    return Stream().with_usual_past()


def give(
    stream: Stream, day: float, hour: float, whom: str, before: list[str], after: list[str], who: str = "person:ada"
) -> None:
    at = stream.at(day, hour)
    stream.tell(at, EventKind.GRANTS_CHANGED, who, subject=f"user:{whom}", before=before, after=after, address=OFFICE)


def reset(stream: Stream, day: float, hour: float, whom: str) -> None:
    at = stream.at(day, hour)
    stream.tell(at, EventKind.FACTOR_REMOVED, "person:ada", subject=f"person:{whom}", factor="totp", address=OFFICE)


def test_reset_followed_by_rights_is_an_alarm(stream: Stream) -> None:
    reset(stream, 0, 10, "ben")
    give(stream, 3, 10, "ben", ["viewer"], ["viewer", "deployer"])
    (finding,) = stream.found("reset-then-change")
    assert finding.severity is Severity.ALARM
    assert set(finding.who) == {"person:ben", "person:ada"}
    assert finding.count == 2


def test_reset_long_before_rights_is_not_found(stream: Stream) -> None:
    reset(stream, -7, 10, "ben")
    give(stream, 3, 10, "ben", ["viewer"], ["viewer", "deployer"])
    assert stream.found("reset-then-change") == []


def test_reset_then_act_from_a_new_network_is_an_alarm(stream: Stream) -> None:
    reset(stream, 0, 10, "ben")
    stream.sign_in(stream.at(1, 9), "person:ben", ELSEWHERE, "password")
    stream.tell(stream.at(1, 10), EventKind.EXPORTED, "person:ben", subject="model:digits", address=ELSEWHERE)
    assert stream.found("reset-then-change")[0].severity is Severity.ALARM


def test_lost_telephone_is_not_found_when_work_goes_on_as_it_was(stream: Stream) -> None:
    for day in range(-50, 0, 5):
        stream.tell(stream.at(day, 10), EventKind.DATA_READ, "person:ben", subject="model:digits", address=OFFICE)
    reset(stream, 0, 10, "ben")
    stream.sign_in(stream.at(1, 9), "person:ben", OFFICE, "password")
    stream.tell(stream.at(1, 10), EventKind.DATA_READ, "person:ben", subject="model:digits", address=OFFICE)
    assert stream.found("reset-then-change") == []
    assert len(stream.noted("reset-then-change")) == 1


def test_recovery_code_from_a_new_network_counts_as_a_reset(stream: Stream) -> None:
    stream.sign_in(stream.at(1, 9), "person:ben", ELSEWHERE, "password+recovery")
    stream.tell(stream.at(1, 10), EventKind.EXPORTED, "person:ben", subject="model:digits", address=ELSEWHERE)
    assert stream.found("reset-then-change")[0].severity is Severity.ALARM


def test_own_grant_is_an_alarm(stream: Stream) -> None:
    give(stream, 1, 10, "ada", ["viewer"], ["admin"])
    assert stream.found("own-grant")[0].severity is Severity.ALARM


@pytest.mark.parametrize(("roles", "is_found"), [(["admin"], True), (["auditor"], True), (["deployer@a-*"], False)])
def test_strong_grant_is_found_when_it_gives_power(stream: Stream, roles: list[str], is_found: bool) -> None:
    give(stream, 1, 10, "ben", ["viewer"], ["viewer", *roles])
    assert bool(stream.found("strong-grant")) is is_found


def test_strong_grant_is_found_when_a_role_of_their_own_exports(stream: Stream) -> None:
    actions = ["data.export", "models.read"]
    stream.tell(
        stream.at(-9), EventKind.ROLE_CHANGED, "person:ada", subject="role:exporter", before=None, after=actions
    )
    give(stream, 1, 10, "ben", [], ["exporter"])
    assert stream.found("strong-grant")[0].numbers["rights"] == "data.export"


def test_strong_grant_is_found_when_a_role_is_given_more(stream: Stream) -> None:
    told = {"subject": "role:helper", "before": ["models.read"], "after": ["models.read", "keys.release"]}
    stream.tell(stream.at(1), EventKind.ROLE_CHANGED, "person:ada", **told)  # type: ignore[arg-type]
    assert len(stream.found("strong-grant")) == 1


def test_given_used_and_taken_back_is_an_alarm(stream: Stream) -> None:
    give(stream, 1, 10, "ben", ["viewer"], ["viewer", "exporter"])
    stream.tell(stream.at(1, 11), EventKind.EXPORTED, "person:ben", subject="model:digits", address=OFFICE)
    give(stream, 1, 12, "ben", ["viewer", "exporter"], ["viewer"])
    (finding,) = stream.found("given-and-taken")
    assert finding.severity is Severity.ALARM
    assert finding.numbers["acts"] == 1


def test_mistake_that_is_put_right_is_a_note(stream: Stream) -> None:
    give(stream, 1, 10, "ben", ["viewer"], ["viewer", "operator"])
    give(stream, 1, 10.1, "ben", ["viewer", "operator"], ["viewer"])
    assert stream.found("given-and-taken") == []
    assert len(stream.noted("given-and-taken")) == 1


def test_first_administration_is_found_once(stream: Stream) -> None:
    for day in (1, 2, 3):
        stream.tell(stream.at(day, 10), EventKind.INVITED, "person:ben", subject="person:dan", address=OFFICE)
    (finding,) = stream.found("first-administration")
    assert finding.who == ("person:ben",)


def test_administrator_of_long_standing_is_not_found(stream: Stream) -> None:
    stream.tell(stream.at(1, 10), EventKind.INVITED, "person:ada", subject="person:dan", address=OFFICE)
    assert stream.found("first-administration") == []


def test_young_account_is_found_when_it_exports(stream: Stream) -> None:
    stream.tell(stream.at(1, 10), EventKind.USER_ADDED, "person:ada", subject="person:eve", address=OFFICE)
    stream.tell(stream.at(1, 12), EventKind.EXPORTED, "person:eve", subject="model:digits", address=OFFICE)
    (finding,) = stream.found("young-account")
    assert set(finding.who) == {"person:eve", "person:ada"}
    assert finding.numbers["hours"] == 2


def test_new_colleague_is_not_found_when_they_begin_after_some_days(stream: Stream) -> None:
    stream.tell(stream.at(1, 10), EventKind.USER_ADDED, "person:ada", subject="person:eve", address=OFFICE)
    stream.tell(stream.at(4, 10.5), EventKind.EXPORTED, "person:eve", subject="model:digits", address=OFFICE)
    assert stream.found("young-account") == []


def test_removals_are_found_when_one_shuts_out_many(stream: Stream) -> None:
    for number in range(5):
        at = stream.at(1, 10) + timedelta(minutes=number)
        stream.tell(
            at, EventKind.USER_CHANGED, "person:ada", subject=f"person:{number}", is_disabled=True, address=OFFICE
        )
    (finding,) = stream.found("removals")
    assert finding.numbers["people"] == 5


def test_removals_are_not_found_when_people_are_let_in_again(stream: Stream) -> None:
    for number in range(9):
        at = stream.at(1, 10) + timedelta(minutes=number)
        stream.tell(at, EventKind.USER_CHANGED, "person:ada", subject=f"person:{number}", is_disabled=False)
    assert stream.found("removals") == []


@pytest.mark.parametrize(("hour", "is_found"), [(3, True), (22, True), (9.5, False), (17, False)])
def test_administration_is_found_at_hours_when_nobody_is_there(stream: Stream, hour: float, is_found: bool) -> None:
    stream.tell(stream.at(4, hour), EventKind.INVITED, "person:ada", subject="person:ben", address=OFFICE)
    assert bool(stream.found("off-hours")) is is_found


def test_key_release_at_night_is_an_alarm(stream: Stream) -> None:
    stream.tell(stream.at(4, 3), EventKind.KEY_RELEASED, "person:ada", subject="model:digits", address=OFFICE)
    assert stream.found("off-hours")[0].severity is Severity.ALARM


def test_hours_are_each_persons_own_when_somebody_works_at_night() -> None:
    stream = Stream()
    for day in range(-60, 0):
        stream.sign_in(stream.at(day, 2), "person:night")
        stream.tell(stream.at(day, 4), EventKind.INVITED, "person:night", subject="person:x", address=OFFICE)
    stream.tell(stream.at(1, 3), EventKind.INVITED, "person:night", subject="person:x", address=OFFICE)
    assert stream.found("off-hours") == []


def test_hours_bear_summer_time() -> None:
    stream = Stream()
    for day in range(-60, 0):
        stream.sign_in(stream.at(day, 8), "person:ada")
        stream.tell(stream.at(day, 16), EventKind.INVITED, "person:ada", subject="person:x", address=OFFICE)
    stream.tell(stream.at(1, 7), EventKind.INVITED, "person:ada", subject="person:x", address=OFFICE)
    assert stream.found("off-hours") == []


def test_day_of_the_week_is_found_when_somebody_is_never_there_on_it() -> None:
    stream = Stream(past_days=90).with_usual_past()
    sunday = next(day for day in range(7) if stream.at(day).weekday() == 6)
    stream.tell(stream.at(sunday, 10), EventKind.INVITED, "person:ada", subject="person:ben", address=OFFICE)
    assert len(stream.found("off-hours")) == 1


def test_administrator_who_resets_others_is_looked_at_for_what_was_reset_of_them(stream: Stream) -> None:
    stream.sign_in(stream.at(1, 9), "person:ada", ELSEWHERE, "password+recovery")
    stream.tell(stream.at(2, 10), EventKind.INVITED, "person:ada", subject="person:ben", address=ELSEWHERE)
    assert stream.found("reset-then-change")[0].severity is Severity.ALARM


def test_every_rule_is_told_in_the_documentation() -> None:
    page = (REPOSITORY / "docs" / "security" / "audit-review.md").read_text(encoding="utf-8")
    codes = [rule.code for rule in RULES]
    assert len(set(codes)) == len(codes)
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == {*codes, "chain"}
    for rule in RULES:
        assert rule.title
        assert rule.why
        assert rule.advice
