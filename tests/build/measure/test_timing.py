# SPDX-License-Identifier: Apache-2.0
"""Timing against a clock that the test drives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from shipsight.build.measure import Percentiles, alternate, measure_throughput, warm_up
from shipsight.build.measure.timing import is_steady
from shipsight.errors import CorruptError, UsageError


class Machine:
    """A clock, and calls that take as long as they are told."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.calls = 0

    def clock(self) -> float:
        return self.now_s

    def taking(self, times_s: Iterator[float]) -> Callable[[], None]:
        def call() -> None:
            self.calls += 1
            self.now_s += next(times_s)

        return call


def forever(*start: float, then: float) -> Iterator[float]:
    yield from start
    while True:
        yield then


def test_warm_up_ends_when_the_last_twenty_runs_are_steady() -> None:
    machine = Machine()
    found = warm_up(machine.taking(forever(*[0.1] * 7, then=0.01)), clock=machine.clock)
    # Two slow runs among twenty are outliers: neither the medians nor the middle half see them.
    assert found.is_steady
    assert 20 <= found.runs <= 27
    assert found.median_s == pytest.approx(0.01)


def test_what_keeps_getting_slower_is_not_steady() -> None:
    machine = Machine()
    assert not warm_up(machine.taking(0.001 * 1.02**i for i in range(10**6)), clock=machine.clock).is_steady


def test_warm_up_ends_after_300_runs_or_15_seconds() -> None:
    machine = Machine()
    found = warm_up(machine.taking(0.001 if i % 2 else 0.002 for i in range(10**6)), clock=machine.clock)
    assert (found.is_steady, found.runs, machine.calls) == (False, 300, 300)
    machine = Machine()
    found = warm_up(machine.taking(forever(then=2.0)), clock=machine.clock)
    assert (found.is_steady, found.runs) == (False, 8)
    machine = Machine()
    found = warm_up(machine.taking(forever(then=20.0)), clock=machine.clock)
    assert (found.is_steady, found.runs, found.median_s) == (False, 1, 20.0)


def test_steady_needs_twenty_runs() -> None:
    assert not is_steady([1.0] * 19)
    assert is_steady([1.0] * 20)
    assert is_steady([9.0] * 5 + [1.0] * 20)
    assert not is_steady([1.0] * 10 + [1.06] * 10)
    assert is_steady([1.0] * 19 + [50.0]), "one outlier is no drift"


def test_percentiles_are_in_milliseconds() -> None:
    found = Percentiles.of([i / 1000 for i in range(101)])
    assert (found.p50, found.p95, found.p99) == pytest.approx((50.0, 95.0, 99.0))
    assert Percentiles.from_dict(found.to_dict()) == found
    for broken in ({"p50": 1}, {"p50": "x", "p95": 1, "p99": 1}):
        with pytest.raises(CorruptError):
            Percentiles.from_dict(broken)


def test_throughput_keeps_as_many_calls_in_flight_as_asked() -> None:
    lock = threading.Lock()
    inside, most = 0, 0
    begun = threading.Barrier(4)
    met = threading.local()

    def call() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        if not hasattr(met, "once"):
            met.once = True
            begun.wait(timeout=30)  # passes only if four calls are inside at once
        time.sleep(0.01)
        with lock:
            inside -= 1

    per_second = measure_throughput(call, in_flight=4, seconds=0.4)
    assert most == 4
    assert 4 / 0.4 < per_second <= 4 / 0.01


def test_throughput_hands_on_what_a_call_raised() -> None:
    def call() -> None:
        raise ValueError("broken engine")

    with pytest.raises(ValueError, match="broken engine"):
        measure_throughput(call, in_flight=3, seconds=0.1)


def test_alternation_compares_within_rounds() -> None:
    machine = Machine()
    # The machine gets slower from round to round; the ratio of the two calls stays.
    slow_down = [1.0]

    def make(seconds: float) -> Callable[[], None]:
        def call() -> None:
            slow_down[0] *= 1.01
            machine.now_s += seconds * slow_down[0]

        return call

    found = alternate({"base": make(0.02), "fast": make(0.01)}, rounds=20, runs=3, clock=machine.clock)
    assert found.speedup("fast") == pytest.approx(2.0, rel=0.05)
    assert found.speedup("base", over="fast") == pytest.approx(0.5, rel=0.05)
    assert found.speedup("base") == 1.0
    data = found.to_dict()
    assert (data["rounds"], data["runs_a_round"], list(data["calls"])) == (20, 3, ["base", "fast"])
    assert found.latency("base").p50 > found.latency("fast").p50


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: warm_up(int, max_runs=0),
        lambda: measure_throughput(int, in_flight=0),
        lambda: alternate({}),
        lambda: alternate({"a": int}, rounds=0),
    ],
)
def test_wrong_use_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        wrong()
