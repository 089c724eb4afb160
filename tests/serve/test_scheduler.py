# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: fairness, deadlines, cancelling, closing. Jobs wait on events, so that nothing depends on speed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.errors import DeadlineError, NotReadyError, OverloadedError, UsageError
from shipsight.serve.scheduler import LaneClosedError, Scheduler

SOON_S = 30.0


class Gate:
    """A job that tells when it began and runs until it is let go."""

    def __init__(self) -> None:
        self.begun, self.released = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.released.wait(SOON_S)
        return "done"


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(1)
    yield made
    made.close()


def far() -> float:
    return time.monotonic() + 600


def test_a_job_is_run_and_its_result_or_error_handed_back(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("a")
    assert scheduler.submit(lane, lambda: 7, deadline_s=far()).result(SOON_S) == 7

    def fail() -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        scheduler.submit(lane, fail, deadline_s=far()).result(SOON_S)
    assert scheduler.submit(lane, lambda: 8, deadline_s=far()).result(SOON_S) == 8, "the thread lives on"


def test_one_lanes_flood_does_not_delay_another(scheduler: Scheduler) -> None:
    flood, other = scheduler.open_lane("flood"), scheduler.open_lane("other")
    order: list[str] = []
    gate = Gate()
    first = scheduler.submit(flood, gate, deadline_s=far())
    assert gate.begun.wait(SOON_S)
    jobs = [
        scheduler.submit(flood, lambda: order.append("flood") or time.sleep(0.002), deadline_s=far()) for _ in range(20)
    ]
    jobs.append(scheduler.submit(other, lambda: order.append("other"), deadline_s=far()))
    gate.released.set()
    for job in [first, *jobs]:
        job.result(SOON_S)
    assert order[0] == "other", "it had been served least, though twenty came before it"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(1, 4))
def test_every_job_runs_exactly_once_and_in_its_lanes_order(names: list[str], threads: int) -> None:
    scheduler = Scheduler(threads)
    lanes = {name: scheduler.open_lane(name) for name in "abc"}
    seen: dict[str, list[int]] = {name: [] for name in "abc"}
    lock = threading.Lock()

    def job(name: str, number: int) -> Callable[[], None]:
        def run() -> None:
            with lock:
                seen[name].append(number)

        return run

    futures = [scheduler.submit(lanes[name], job(name, number), deadline_s=far()) for number, name in enumerate(names)]
    for future in futures:
        future.result(SOON_S)
    scheduler.close()
    for name, numbers in seen.items():
        expected = [number for number, one in enumerate(names) if one == name]
        assert numbers == expected if threads == 1 else sorted(numbers) == expected


def test_what_would_come_too_late_is_refused_at_once(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("a")
    scheduler.submit(lane, lambda: time.sleep(0.1), deadline_s=far()).result(SOON_S)
    gate = Gate()
    running = scheduler.submit(lane, gate, deadline_s=far())
    assert gate.begun.wait(SOON_S)
    waiting = [scheduler.submit(lane, lambda: None, deadline_s=far()) for _ in range(20)]
    assert scheduler.load(lane).wait_s > 1.5
    begin = time.monotonic()
    with pytest.raises(OverloadedError, match=r"within 1 s.*Ask again in [1-9]") as refused:
        scheduler.submit(lane, lambda: None, deadline_s=time.monotonic() + 1)
    assert refused.value.retry_after_s >= 1
    assert time.monotonic() - begin < 0.5
    gate.released.set()
    for job in [running, *waiting]:
        job.result(SOON_S)


def test_what_expired_in_the_queue_is_not_run(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("a")
    gate, ran = Gate(), []
    running = scheduler.submit(lane, gate, deadline_s=far())
    assert gate.begun.wait(SOON_S)
    late = scheduler.submit(lane, lambda: ran.append(1), deadline_s=time.monotonic() + 0.05)
    time.sleep(0.1)
    gate.released.set()
    running.result(SOON_S)
    with pytest.raises(DeadlineError):
        late.result(SOON_S)
    assert not ran


def test_what_was_cancelled_in_the_queue_is_not_run(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("a")
    gate, ran = Gate(), []
    running = scheduler.submit(lane, gate, deadline_s=far())
    assert gate.begun.wait(SOON_S)
    gone = scheduler.submit(lane, lambda: ran.append(1), deadline_s=far())
    last = scheduler.submit(lane, lambda: ran.append(2), deadline_s=far())
    assert gone.cancel()
    gate.released.set()
    running.result(SOON_S)
    last.result(SOON_S)
    assert ran == [2]


def test_a_lane_that_closes_ends_what_it_has_and_takes_no_more(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("a")
    gate = Gate()
    running = scheduler.submit(lane, gate, deadline_s=far())
    waiting = scheduler.submit(lane, lambda: 5, deadline_s=far())
    assert gate.begun.wait(SOON_S)
    closer = threading.Thread(target=scheduler.close_lane, args=(lane,))
    closer.start()
    while lane.is_open:
        time.sleep(0.001)
    with pytest.raises(LaneClosedError):
        scheduler.submit(lane, lambda: None, deadline_s=far())
    assert closer.is_alive()
    gate.released.set()
    assert (running.result(SOON_S), waiting.result(SOON_S)) == ("done", 5)
    closer.join(SOON_S)
    assert not closer.is_alive()


def test_a_scheduler_that_closes_refuses_what_waits() -> None:
    scheduler = Scheduler(1)
    lane = scheduler.open_lane("a")
    gate = Gate()
    running = scheduler.submit(lane, gate, deadline_s=far())
    assert gate.begun.wait(SOON_S)
    waiting = scheduler.submit(lane, lambda: None, deadline_s=far())
    closer = threading.Thread(target=scheduler.close)
    closer.start()
    with pytest.raises(NotReadyError):
        waiting.result(SOON_S)
    gate.released.set()
    closer.join(SOON_S)
    assert running.result(SOON_S) == "done"


def test_a_lone_job_is_told_apart_from_one_in_company(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("a")
    assert scheduler.submit(lane, scheduler.is_alone, deadline_s=far()).result(SOON_S)
    gate = Gate()
    running = scheduler.submit(lane, gate, deadline_s=far())
    assert gate.begun.wait(SOON_S)
    scheduler.submit(lane, lambda: None, deadline_s=far())
    assert not scheduler.is_alone()
    gate.released.set()
    running.result(SOON_S)


def test_too_few_threads_are_refused() -> None:
    with pytest.raises(UsageError):
        Scheduler(0)


def test_a_lane_that_was_borrowed_closes_once_it_is_given_back(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("a")
    with scheduler.borrow(lane):
        assert not scheduler.is_idle(lane)
        assert not scheduler.is_busy(), "nobody waits for a thread"
        closing = threading.Thread(target=scheduler.close_lane, args=(lane,))
        closing.start()
        closing.join(0.1)
        assert closing.is_alive()
    closing.join(SOON_S)
    assert not closing.is_alive()
    with pytest.raises(LaneClosedError), scheduler.borrow(lane):
        pass


def test_a_closed_lane_still_tells_what_it_carries(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("a")
    assert scheduler.submit(lane, lambda: 1, deadline_s=far()).result(SOON_S) == 1
    scheduler.close_lane(lane)
    assert scheduler.load(lane).wait_s == 0.0


def test_a_model_that_was_slow_once_is_asked_again(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("a")
    scheduler.submit(lane, lambda: time.sleep(0.5), deadline_s=far()).result(SOON_S)
    assert (scheduler.load(lane).service_s or 0) > 0.4
    # Refused, it would be refused for ever: no job would show that it is quick again.
    for _ in range(3):
        scheduler.submit(lane, lambda: None, deadline_s=time.monotonic() + 0.4).result(SOON_S)


def test_failures_do_not_count_as_service_times(scheduler: Scheduler) -> None:
    lane = scheduler.open_lane("a")
    scheduler.submit(lane, lambda: None, deadline_s=far()).result(SOON_S)
    before = scheduler.load(lane).service_s

    def fail() -> None:
        time.sleep(0.2)
        raise UsageError("no")

    with pytest.raises(UsageError):
        scheduler.submit(lane, fail, deadline_s=far()).result(SOON_S)
    assert scheduler.load(lane).service_s == before


def test_a_lane_that_hangs_keeps_no_thread_from_another_when_each_has_its_own() -> None:
    scheduler = Scheduler(2, own_threads=True)
    hanging, other = scheduler.open_lane("hanging"), scheduler.open_lane("other")
    gates = [Gate() for _ in range(4)]
    held = [scheduler.submit(hanging, gate, deadline_s=far()) for gate in gates]
    assert gates[0].begun.wait(SOON_S)
    assert gates[1].begun.wait(SOON_S)
    for number in range(5):
        assert scheduler.submit(other, lambda number=number: number, deadline_s=far()).result(SOON_S) == number
    assert scheduler.load(hanging).running == 2
    for gate in gates:
        gate.released.set()
    for one in held:
        one.result(SOON_S)
    before = threading.active_count()
    scheduler.close_lane(hanging)
    until = time.monotonic() + SOON_S
    while threading.active_count() > before - 2:
        assert time.monotonic() < until, "its threads end with it"
        time.sleep(0.01)
    scheduler.close()


@pytest.mark.parametrize("own_threads", [False, True], ids=["shared", "own"])
def test_a_lane_whose_jobs_are_not_wanted_any_more_closes(*, own_threads: bool) -> None:
    scheduler = Scheduler(1, own_threads=own_threads)
    try:
        for _ in range(50):
            lane, gate = scheduler.open_lane("a"), Gate()
            running = scheduler.submit(lane, gate, deadline_s=far())
            assert gate.begun.wait(SOON_S)
            unwanted = [scheduler.submit(lane, lambda: None, deadline_s=far()) for _ in range(3)]
            closing = threading.Thread(target=scheduler.close_lane, args=(lane,), daemon=True)
            closing.start()
            for one in unwanted:
                assert one.cancel()
            gate.released.set()
            running.result(SOON_S)
            closing.join(SOON_S)
            assert not closing.is_alive(), "nothing is left of the lane's work"
    finally:
        scheduler.close()


def test_a_job_begins_at_once_while_a_lane_waits_to_close() -> None:
    scheduler = Scheduler(2)
    leaving, other = scheduler.open_lane("leaving"), scheduler.open_lane("other")
    gate = Gate()
    scheduler.submit(leaving, gate, deadline_s=far())
    assert gate.begun.wait(SOON_S)
    closing = [threading.Thread(target=scheduler.close_lane, args=(leaving,), daemon=True) for _ in range(5)]
    for one in closing:
        one.start()
    time.sleep(0.05)
    try:
        for number in range(20):
            # Sooner than the one that is running ends: whoever waits for that is not who is told of a job.
            assert scheduler.submit(other, lambda number=number: number, deadline_s=far()).result(SOON_S / 3) == number
    finally:
        gate.released.set()
        for one in closing:
            one.join(SOON_S)
        scheduler.close()
