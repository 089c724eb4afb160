# SPDX-License-Identifier: Apache-2.0
"""Turns of those who wait in one queue: shares, order, who is refused first."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.errors import OverloadedError
from shipsight.serve.scheduler import Scheduler
from shipsight.serve.turns import Turns, has_room

SOON_S = 30.0


def far() -> float:
    return time.monotonic() + 600


class Gate:
    """A job that runs until it is let go."""

    def __init__(self) -> None:
        self.begun, self.released = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.released.wait(SOON_S)


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=80))
def test_each_owners_jobs_come_once_and_in_order(owners: list[str | None]) -> None:
    turns: Turns[tuple[str | None, int]] = Turns()
    for number, owner in enumerate(owners):
        turns.add(owner, (owner, number))
    assert len(turns) == len(list(turns)) == len(owners)
    taken = []
    while turns:
        owner, number = turns.take(1.0)
        turns.end(owner, 0.0)
        taken.append((owner, number))
    for owner in set(owners):
        assert [one for one in taken if one[0] == owner] == [
            (owner, number) for number, one in enumerate(owners) if one == owner
        ]
    assert not turns._owners, "nothing is kept of who has no job"


@given(
    costs=st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 1.0), min_size=2),
    running=st.integers(1, 4),
)
def test_owners_who_wait_get_the_same_time_whatever_a_job_costs(costs: dict[str, float], running: int) -> None:
    turns: Turns[str] = Turns()
    for owner in costs:
        for _ in range(300):
            turns.add(owner, owner)
    spent: Counter[str] = Counter()
    begun: list[str] = []
    while all(turns.waiting(owner) for owner in costs):
        begun.append(turns.take(0.1))
        if len(begun) == running:
            owner = begun.pop(0)
            turns.end(owner, costs[owner] - 0.1)
            spent[owner] += costs[owner]  # type: ignore[assignment]
    most = max(costs.values())
    assert max(spent[one] for one in costs) - min(spent[one] for one in costs) <= (running + 1) * (most + 0.1)


def test_newcomer_waits_for_one_job_of_each_other() -> None:
    turns: Turns[str] = Turns()
    for owner in "ab":
        for _ in range(50):
            turns.add(owner, owner)
    for _ in range(10):
        turns.end(turns.take(1.0), 0.0)
    assert turns.before("new") == 2
    assert turns.before("a") == 45 + 45
    turns.add("new", "new")
    assert "new" in [turns.take(1.0) for _ in range(3)]


def test_who_was_away_brings_no_time_along() -> None:
    turns: Turns[str] = Turns()
    for _ in range(100):
        turns.add("busy", "busy")
    turns.add("away", "away")
    for _ in range(50):
        turns.end(turns.take(1.0), 0.0)
    for _ in range(40):
        turns.add("away", "away")
    taken = Counter()
    for _ in range(40):
        owner = turns.take(1.0)
        taken[owner] += 1
        turns.end(owner, 0.0)
    assert abs(taken["busy"] - taken["away"]) <= 1


@given(st.integers(1, 400), st.lists(st.integers(0, 3), max_size=900))
def test_something_is_left_for_a_newcomer_unless_very_many_flood(most: int, asking: list[int]) -> None:
    held: Counter[int] = Counter()
    for one in asking:
        total = sum(held.values())
        if total < most and has_room(held[one], total, most):
            held[one] += 1
    total = sum(held.values())
    assert total <= most
    if most >= 64:
        assert has_room(0, total, most)
        assert total < most
    if len(asking) >= most and len(set(asking)) == 1:
        assert total >= 8 * most // 9, "who is alone may have nearly all"


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(1)
    yield made
    made.close()


def test_in_one_models_queue_a_flood_does_not_delay_another_principal(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("m")
    order: list[str] = []
    gate = Gate()
    jobs = [scheduler.submit(lane, gate, deadline_s=far(), owner="flood")]
    assert gate.begun.wait(SOON_S)
    jobs += [scheduler.submit(lane, lambda: order.append("flood"), deadline_s=far(), owner="flood") for _ in range(50)]
    jobs += [scheduler.submit(lane, lambda: order.append("other"), deadline_s=far(), owner="other") for _ in range(3)]
    gate.released.set()
    for job in jobs:
        job.result(SOON_S)
    assert order.index("other") <= 1
    assert [place for place, one in enumerate(order) if one == "other"][-1] <= 6


def test_who_floods_is_refused_first(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("m")
    scheduler.submit(lane, lambda: time.sleep(0.1), deadline_s=far()).result(SOON_S)
    gate = Gate()
    jobs = [scheduler.submit(lane, gate, deadline_s=far(), owner="flood")]
    assert gate.begun.wait(SOON_S)
    # By now a job is taken to need 0.1 s: nineteen more fit into two seconds.
    jobs += [scheduler.submit(lane, lambda: None, deadline_s=time.monotonic() + 2, owner="flood") for _ in range(15)]
    jobs += [scheduler.submit(lane, lambda: None, deadline_s=far(), owner="flood") for _ in range(10)]
    with pytest.raises(OverloadedError, match="too late") as refused:
        scheduler.submit(lane, lambda: None, deadline_s=time.monotonic() + 2, owner="flood")
    assert refused.value.retry_after_s >= 1
    jobs += [scheduler.submit(lane, lambda: None, deadline_s=time.monotonic() + 2, owner="other") for _ in range(3)]
    gate.released.set()
    for job in jobs:
        job.result(SOON_S)


def test_a_full_queue_keeps_room_for_a_newcomer() -> None:
    scheduler = Scheduler(1, most_waiting=90)
    lane = scheduler.open_lane("m")
    gate = Gate()
    scheduler.submit(lane, gate, deadline_s=far(), owner="flood")
    assert gate.begun.wait(SOON_S)
    for _ in range(80):
        scheduler.submit(lane, lambda: None, deadline_s=far(), owner="flood")
    with pytest.raises(OverloadedError):
        scheduler.submit(lane, lambda: None, deadline_s=far(), owner="flood")
    scheduler.submit(lane, lambda: None, deadline_s=far(), owner="other")
    # Who is not told apart has the whole queue, as on a server that knows nobody.
    for _ in range(9):
        scheduler.submit(lane, lambda: None, deadline_s=far())
    with pytest.raises(OverloadedError):
        scheduler.submit(lane, lambda: None, deadline_s=far())
    gate.released.set()
    scheduler.close()


def test_cancelled_and_expired_jobs_cost_their_owner_nothing(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("m")
    gate = Gate()
    scheduler.submit(lane, gate, deadline_s=far(), owner="a")
    assert gate.begun.wait(SOON_S)
    for _ in range(5):
        scheduler.submit(lane, lambda: None, deadline_s=far(), owner="b").cancel()
    late = scheduler.submit(lane, lambda: None, deadline_s=time.monotonic() + 0.01, owner="c")
    last = scheduler.submit(lane, lambda: 5, deadline_s=far(), owner="b")
    time.sleep(0.05)
    gate.released.set()
    assert last.result(SOON_S) == 5
    assert late.exception(SOON_S) is not None
    until = time.monotonic() + SOON_S
    while not scheduler.is_idle(lane):
        assert time.monotonic() < until
        time.sleep(0.005)
    assert not lane.queue._owners
