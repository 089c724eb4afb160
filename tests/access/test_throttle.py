# SPDX-License-Identifier: Apache-2.0
"""Guessing: how slow it is made, and whom that does not hurt."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from sqlalchemy import func, select
from tests.access.conftest import Clock

from shipsight.access.store import Database, open_database
from shipsight.access.store.tables import throttles
from shipsight.access.throttle import CODES, PASSWORDS, Pace, Throttle
from shipsight.errors import RateLimitError

YEAR_S = 365 * 86400


def taken(throttle: Throttle, pace: Pace, whom: str) -> float:
    """The seconds to wait, 0 where a try was taken."""
    try:
        throttle.take(pace, whom)
    except RateLimitError as error:
        return error.retry_after_s
    return 0.0


def guesses(throttle: Throttle, clock: Clock, pace: Pace, seconds: float) -> int:
    """How many tries somebody gets who comes back as soon as they are told they may."""
    count, begin = 0, clock()
    while (clock() - begin).total_seconds() < seconds:
        wait = taken(throttle, pace, "ada")
        if wait:
            clock.pass_s(wait)
        else:
            count += 1
    return count


@pytest.mark.parametrize(("pace", "most"), [(PASSWORDS, 8775), (CODES, 385)], ids=["passwords", "codes"])
def test_a2_year_without_a_pause_leaves_few_guesses(pace: Pace, most: int) -> None:
    """A2, ASVS 6.3.1: computed from the waits; the docs of the module say the same numbers."""
    failures, seconds = 0, 0.0
    while seconds < YEAR_S:
        failures += 1
        seconds += pace.wait_s(failures)
    assert failures == most


def test_a2_guessing_codes_for_a_year_succeeds_with_a_chance_below_two_in_a_thousand() -> None:
    """A2, ASVS 6.6.3: 10^6 codes, of which three are right at a time; guesses by whoever knows the password already."""
    failures, seconds = 0, 0.0
    while seconds < YEAR_S:
        failures += 1
        seconds += CODES.wait_s(failures)
    chance = 1 - (1 - 3e-6) ** failures
    assert chance < 0.002
    assert 10**6 / 3 / failures > 800  # years until the expected success


def test_a2_pausing_is_no_faster_than_going_on() -> None:
    """A2: whoever stops until all is forgotten, and begins again, gets no more tries a year."""
    for pace in (PASSWORDS, CODES):
        steady = YEAR_S / pace.longest_s
        for burst in range(1, 40):
            spent = sum(pace.wait_s(one) for one in range(1, burst + 1)) + pace.forgets_s
            assert burst * YEAR_S / spent <= 1.05 * steady, (pace, burst)


@pytest.mark.parametrize(("pace", "expected"), [(PASSWORDS, 39), (CODES, 21)], ids=["passwords", "codes"])
def test_a2_tries_of_a_day_are_as_many_as_computed(database: Database, clock: Clock, pace: Pace, expected: int) -> None:
    assert abs(guesses(Throttle(database, clock), clock, pace, 86400) - expected) <= 1


def test_a_refused_try_does_not_count(database: Database, clock: Clock) -> None:
    """A2: who hammers gains nothing, and makes the wait no longer."""
    throttle = Throttle(database, clock)
    for _ in range(8):
        while wait := taken(throttle, CODES, "ada"):
            clock.pass_s(wait)
    waits = [taken(throttle, CODES, "ada") for _ in range(50)]
    assert waits == [8.0] * 50


def test_a2_a_hundred_tries_at_once_are_counted_one_by_one(database: Database, clock: Clock) -> None:
    """A2: a try counts before it is made."""
    throttle, begin = Throttle(database, clock), threading.Barrier(16)

    def act(number: int) -> int:
        begin.wait()
        return sum(taken(throttle, CODES, "ada") == 0 for _ in range(6))

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(act, range(16))) == 5


def test_forgiven_tries_begin_anew(database: Database, clock: Clock) -> None:
    throttle = Throttle(database, clock)
    for _ in range(3):
        assert [taken(throttle, PASSWORDS, "ada") for _ in range(5)] == [0.0] * 5
        assert taken(throttle, PASSWORDS, "ada") == 1
        throttle.forgive(PASSWORDS, "ada")


def test_accounts_and_paces_are_counted_apart(database: Database, clock: Clock) -> None:
    throttle = Throttle(database, clock)
    for _ in range(5):
        throttle.take(CODES, "ada")
    assert taken(throttle, CODES, "ada") == 1
    assert taken(throttle, CODES, "grace") == 0
    assert taken(throttle, PASSWORDS, "ada") == 0


@pytest.mark.parametrize("back_s", [1, 3600, 400 * 86400])
def test_a2_wait_is_never_longer_than_it_should_be_when_the_clock_goes_back(
    database: Database, clock: Clock, back_s: float
) -> None:
    """A2: clock jump back."""
    throttle = Throttle(database, clock)
    for _ in range(8):
        while wait := taken(throttle, PASSWORDS, "ada"):
            clock.pass_s(wait)
    clock.pass_s(-back_s)
    wait = taken(throttle, PASSWORDS, "ada")
    assert 1 <= wait <= 8
    clock.pass_s(wait)
    assert taken(throttle, PASSWORDS, "ada") == 0


def test_failures_are_forgotten_after_a_day_without_a_try(database: Database, clock: Clock) -> None:
    throttle = Throttle(database, clock)
    guesses(throttle, clock, PASSWORDS, 7200)
    clock.pass_s(86401)
    assert [taken(throttle, PASSWORDS, "ada") for _ in range(5)] == [0.0] * 5


def test_counts_are_shared_by_processes_and_outlive_them(database_url: str, clock: Clock) -> None:
    for _ in range(5):
        with_own = open_database(database_url)
        Throttle(with_own, clock).take(CODES, "ada")
        with_own.close()
    with_own = open_database(database_url)
    assert taken(Throttle(with_own, clock), CODES, "ada") == 1
    with_own.close()


def test_names_that_nobody_has_do_not_fill_the_store(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shipsight.access import throttle as module

    monkeypatch.setattr(module, "_MOST_ROWS", 50)
    throttle = Throttle(database, clock)
    for _ in range(5):
        throttle.take(PASSWORDS, "ada")
    for number in range(400):
        throttle.take(PASSWORDS, f"nobody-{number}")
        clock.pass_s(120)
    with database.read() as connection:
        count = connection.execute(select(func.count()).select_from(throttles)).scalar_one()
    assert count <= 50


def test_a2_names_that_were_tried_often_do_not_fill_the_store_either(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A2: five tries at each of many names, at once: no row of them is old, or of few failures."""
    from shipsight.access import throttle as module

    monkeypatch.setattr(module, "_MOST_ROWS", 50)
    throttle, counts = Throttle(database, clock), []
    for number in range(120):
        for _ in range(5):
            throttle.take(PASSWORDS, f"nobody-{number}")
        with database.read() as connection:
            counts.append(connection.execute(select(func.count()).select_from(throttles)).scalar_one())
    assert max(counts) == 50
    assert sum(later < earlier for earlier, later in pairwise(counts)) <= 14, "each time a tenth goes at once"


def test_a2_names_that_nobody_has_end_no_count_of_codes(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A2: who guesses codes cannot begin anew by inventing names, at once or after an hour."""
    from shipsight.access import throttle as module

    monkeypatch.setattr(module, "_MOST_ROWS", 50)
    throttle = Throttle(database, clock)
    for _ in range(3):
        throttle.take(CODES, "account:ada")
    clock.pass_s(3601)
    for number in range(120):
        for _ in range(6):
            taken(throttle, PASSWORDS, f"nobody-{number}")
    assert [taken(throttle, CODES, "account:ada") for _ in range(3)] == [0.0, 0.0, 1.0]


def test_a2_a_name_loses_its_count_of_passwords_after_those_that_were_tried_less(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A2: new names, once each, rid none of its count."""
    from shipsight.access import throttle as module

    monkeypatch.setattr(module, "_MOST_ROWS", 50)
    throttle = Throttle(database, clock)
    for _ in range(5):
        throttle.take(PASSWORDS, "account:ada")
    assert taken(throttle, PASSWORDS, "account:ada") == 1.0
    for number in range(1000):
        throttle.take(PASSWORDS, f"nobody-{number}")
    assert taken(throttle, PASSWORDS, "account:ada") == 1.0


def test_name_of_any_form_is_counted(database: Database, clock: Clock) -> None:
    throttle = Throttle(database, clock)
    for whom in ("", "\ud800", "x" * 100_000, "a'; DROP TABLE users; --"):
        throttle.take(PASSWORDS, whom)
    with database.read() as connection:
        assert max(len(name) for name in connection.execute(select(throttles.c.name)).scalars()) < 80


def test_refusal_says_when_to_come_again(database: Database, clock: Clock) -> None:
    throttle = Throttle(database, clock)
    for _ in range(5):
        throttle.take(PASSWORDS, "ada")
    with pytest.raises(RateLimitError) as caught:
        throttle.take(PASSWORDS, "ada")
    assert caught.value.retry_after_s == 1
    assert "ada" not in str(caught.value)
