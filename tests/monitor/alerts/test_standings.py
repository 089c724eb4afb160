# SPDX-License-Identifier: Apache-2.0
"""When an alert is told, told again, and over: by the clock, whatever the order, however it flaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.monitor.alerts.signals import FIRES, QUIET, settings

from shipsight.monitor.alerts import AlertSettings, Key, Phase, Reason, Standing
from shipsight.monitor.alerts.standings import advance
from shipsight.monitor.signal import Signal

KEY = Key(FIRES.subject, FIRES.name)


class Course:
    """Evaluations one after the other."""

    def __init__(self, **told: Any) -> None:
        self.settings: AlertSettings = settings(**told)
        self.standings: dict[Key, Standing] = {}

    def at(self, now: float, *signals: Signal) -> list[str]:
        """Returns why alerts are told at that time."""
        self.standings, alerts = advance(self.standings, signals, now, self.settings)
        return [one.reason.value for one in alerts.values()]

    def phase(self) -> str | None:
        return self.standings[KEY].phase.value if KEY in self.standings else None


def test_alert_is_told_once_its_signal_has_fired_for_long_enough() -> None:
    course = Course(for_s=300)
    assert [course.at(now, FIRES) for now in (0, 150, 299)] == [[], [], []]
    assert course.phase() == "pending"
    assert course.at(300, FIRES) == ["new"]
    assert course.phase() == "firing"
    assert course.standings[KEY].since == 0


def test_signal_that_rests_in_between_begins_anew() -> None:
    course = Course(for_s=300)
    assert [course.at(now, one) for now, one in ((0, FIRES), (200, QUIET), (250, FIRES), (500, FIRES))] == [[]] * 4
    assert course.at(550, FIRES) == ["new"]


def test_alert_is_told_again_only_after_the_interval() -> None:
    course = Course(repeat_s=3600)
    told = {now: course.at(now, FIRES) for now in range(0, 7300, 60)}
    assert {now: reasons for now, reasons in told.items() if reasons} == {0: ["new"], 3600: ["again"], 7200: ["again"]}


def test_alert_is_told_at_once_when_it_becomes_worse_and_once_only() -> None:
    course = Course()
    worse = replace(FIRES, severity="error")
    told = [course.at(now, one) for now, one in enumerate((FIRES, worse, FIRES, worse, worse))]
    assert told == [["new"], ["worse"], [], [], []]


def test_alert_is_resolved_when_its_signal_was_quiet_for_long_enough_without_a_break() -> None:
    course = Course(resolve_s=60)
    course.at(0, FIRES)
    assert [course.at(now, one) for now, one in ((10, QUIET), (69, QUIET), (69.5, FIRES), (80, QUIET))] == [[]] * 4
    assert course.at(139, QUIET) == []
    assert course.at(140, QUIET) == ["quiet"]
    assert course.phase() == "resolved"
    assert course.at(200, QUIET) == []
    assert course.at(140 + 3600, QUIET) == []
    assert course.standings == {}


def test_alert_that_comes_back_is_told_at_once_and_takes_twice_as_long_to_be_resolved_each_time() -> None:
    course = Course(resolve_s=60, repeat_s=3600)
    now, waits = 0.0, []
    for _ in range(5):
        assert course.at(now, FIRES) == ["new"]
        begin = now = now + 1
        while not course.at(now, QUIET):
            now += 1
        waits.append(now - begin)
        now += 1
    assert waits == [60, 120, 240, 480, 960]


def test_alert_that_comes_back_after_a_long_time_is_a_new_one() -> None:
    course = Course(resolve_s=60, repeat_s=3600)
    for now in (0, 10_000, 20_000):
        assert course.at(now, FIRES) == ["new"]
        assert [course.at(now + more, QUIET) for more in (1, 61)] == [[], ["quiet"]]


def test_return_that_never_fired_for_long_enough_does_not_count_as_one() -> None:
    course = Course(for_s=30, resolve_s=60)
    course.at(0, FIRES)
    course.at(30, FIRES)
    assert [course.at(now, QUIET) for now in (31, 91)] == [[], ["quiet"]]
    for now in (100, 120, 140):
        assert (course.at(now, FIRES), course.at(now + 10, QUIET)) == ([], [])
    assert course.phase() == "resolved"
    assert course.standings[KEY].returns == 0


@given(
    half=st.integers(1, 4000),
    resolve_s=st.integers(1, 3600),
    repeat_s=st.integers(3600, 20_000),
)
def test_messages_stay_few_however_fast_a_signal_flaps(half: int, resolve_s: int, repeat_s: int) -> None:
    course = Course(resolve_s=resolve_s, repeat_s=repeat_s)
    end, step, told = 100_000, max(half // 3, 50), 0
    for now in range(0, end, step):
        told += len(course.at(now, FIRES if now // half % 2 == 0 else QUIET))
    doublings = math.ceil(math.log2(repeat_s / resolve_s)) + 1
    # Two an interval, as of an alert that comes and goes as slowly; and two for each time that the patience doubles.
    assert told <= 2 * (end / repeat_s + 1) + 2 * doublings


def test_signal_that_is_not_told_of_changes_nothing_and_at_last_ends_its_alert() -> None:
    course = Course(repeat_s=3600)
    course.at(0, FIRES)
    assert [course.at(now) for now in (60, 3599)] == [[], []]
    assert course.phase() == "firing"
    assert course.at(3600) == ["unseen"]
    assert course.phase() == "resolved"
    assert course.at(7200) == []
    assert course.standings == {}


def test_pending_alert_whose_signal_is_not_told_of_any_more_is_forgotten_in_silence() -> None:
    course = Course(for_s=300, repeat_s=3600)
    course.at(0, FIRES)
    assert (course.at(3599), course.phase()) == ([], "pending")
    assert (course.at(3600), course.phase()) == ([], None)


@pytest.mark.parametrize(
    ("told", "signal", "is_told"),
    [
        ({"signals": ("drift-*",)}, FIRES, True),
        ({"signals": ("accuracy-*", "drift-b?ightness")}, FIRES, True),
        ({"signals": ("drift",)}, FIRES, False),
        ({"least_severity": "error"}, FIRES, False),
        ({"least_severity": "error"}, replace(FIRES, severity="error"), True),
        ({"least_severity": "note"}, replace(FIRES, severity="note"), True),
        ({}, replace(FIRES, severity="note"), False),
    ],
    ids=["pattern", "second-pattern", "other-name", "too-slight", "as-bad", "note-wanted", "note"],
)
def test_only_what_the_settings_watch_becomes_an_alert(told: dict[str, Any], signal: Signal, is_told: bool) -> None:
    assert (Course(**told).at(0, signal) == ["new"]) is is_told


def test_alert_whose_signal_becomes_too_slight_is_resolved() -> None:
    course = Course(resolve_s=60)
    course.at(0, FIRES)
    slight = replace(FIRES, severity="note")
    assert [course.at(now, slight) for now in (10, 70)] == [[], ["quiet"]]


def test_clock_that_is_set_back_delays_and_loses_nothing() -> None:
    course = Course(for_s=300, repeat_s=3600)
    course.at(100_000, FIRES)
    assert [course.at(now, FIRES) for now in (50_000, 50_299)] == [[], []]
    assert course.at(50_300, FIRES) == ["new"]
    assert course.at(10, FIRES) == []
    assert course.at(3610, FIRES) == ["again"]


signals = st.builds(
    Signal,
    name=st.sampled_from(["drift-brightness", "drift-noise", "accuracy"]),
    severity=st.sampled_from(["error", "warning", "note"]),
    what=st.sampled_from(["a", "b"]),
    evidence=st.just("c"),
    remedy=st.just("d"),
    is_firing=st.booleans(),
    value=st.none() | st.floats(),
    threshold=st.none(),
    subject=st.sampled_from(["one/x", "two/x"]),
)
courses = st.lists(st.tuples(st.integers(1, 2000), st.lists(signals, max_size=8)), max_size=12)


@given(courses, st.randoms(use_true_random=False))
def test_order_of_signals_within_an_evaluation_does_not_matter(
    evaluations: Sequence[tuple[int, list[Signal]]], random: Any
) -> None:
    one, other = Course(for_s=500, resolve_s=500), Course(for_s=500, resolve_s=500)
    now = 0.0
    for step, told in evaluations:
        now += step
        mixed = list(told)
        random.shuffle(mixed)
        first = advance(one.standings, told, now, one.settings)
        second = advance(other.standings, mixed, now, other.settings)
        assert first == second
        assert list(first[1]) == list(second[1])
        one.standings, other.standings = first[0], second[0]


@given(courses)
def test_every_alert_that_is_told_begins_and_ends_in_turn(evaluations: Sequence[tuple[int, list[Signal]]]) -> None:
    course, open_now, now = Course(for_s=300, resolve_s=300), set[Key](), 0.0
    for step, told in evaluations:
        now += step
        course.standings, alerts = advance(course.standings, told, now, course.settings)
        for key, alert in alerts.items():
            assert (key in open_now) == (alert.reason is not Reason.NEW)
            (open_now.discard if alert.is_resolved else open_now.add)(key)
        assert open_now == {key for key, one in course.standings.items() if one.phase is Phase.FIRING}


@given(courses)
def test_state_survives_being_written_between_any_two_evaluations(
    evaluations: Sequence[tuple[int, list[Signal]]],
) -> None:
    course, now = Course(for_s=300), 0.0
    for step, told in evaluations:
        now += step
        course.at(now, *told)
        read = {key: Standing.from_state(one.to_state()) for key, one in course.standings.items()}
        assert read == course.standings
        course.standings = read
