# SPDX-License-Identifier: Apache-2.0
"""Several ways to do the same, timed in turns: how much faster one is, with the interval that is known.

The ratio is taken round by round, so that what else the machine does falls on both alike; its median has an interval that holds
whatever the distribution (the sign test's). Leaves to others: what a gain means. Private to the room.

Source: Conover, "Practical Nonparametric Statistics", 1999, section 3.2 (interval for a quantile).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shipsight.build.measure import Interval, alternate, measure_throughput
from shipsight.build.measure.timing import Clock
from shipsight.errors import InternalError

__all__ = [
    "WORTH",
    "Call",
    "Race",
    "cycle",
    "is_worth",
    "median_interval",
    "race",
    "race_once",
    "race_throughput",
    "times",
]

Call = Callable[[], object]

WORTH = 1.1
"""Least gain that is told, and its interval's lower bound must reach it: medians of the same session, timed in turns, differed by up to 0.06."""

_LEAST_ROUNDS, _MOST_ROUNDS = 6, 15  # with fewer than 6 no interval of 95 % exists
_MOST_RUNS = 5
_TAIL = 0.025


@dataclass(frozen=True)
class Race:
    """How several ways compare.

    Attributes:
        values: by name of the way: the median in milliseconds, or calls per second.
        gains: by name of each way but the first: how many times faster than the first it is, above 1 for faster.
        rounds: in which they took turns.
    """

    values: Mapping[str, float]
    gains: Mapping[str, Interval]
    rounds: int


def median_interval(values: Sequence[float]) -> Interval:
    """Returns the median of values with its 95 % interval, whatever their distribution.

    Args:
        values: 6 and more, each drawn alike.

    Raises:
        InternalError: there are fewer.
    """
    ordered, count = sorted(values), len(values)
    cut, below = 0, 0.5**count
    while below <= _TAIL:
        cut += 1
        below += math.comb(count, cut) * 0.5**count
    if cut == 0:
        raise InternalError("too few rounds for an interval", expected=_LEAST_ROUNDS, got=count)
    return Interval(float(np.median(ordered)), float(ordered[cut - 1]), float(ordered[count - cut]))


def race(calls: Mapping[str, Call], *, seconds: float, clock: Clock) -> Race:
    """Times ways in turns, two and more; the first is what the others are compared with.

    Args:
        calls: name -> way.
        seconds: that it may take, roughly; six rounds are made in any case.
        clock: monotonic seconds.
    """
    once_s = sum(_time_once(call, clock) for call in calls.values())
    if seconds < 2 * _LEAST_ROUNDS * once_s:
        return race_once(calls, clock=clock)
    # A run after each change goes uncounted.
    runs = max(1, min(_MOST_RUNS, int(seconds / max(_LEAST_ROUNDS * once_s, 1e-9)) - 1))
    rounds = min(_MOST_ROUNDS, max(_LEAST_ROUNDS, int(seconds / max((runs + 1) * once_s, 1e-9))))
    taken = alternate(calls, rounds=rounds, runs=runs, warmup_runs=1, clock=clock)
    by_round = np.median(taken.times_s, axis=2)
    gains = {
        name: median_interval((by_round[0] / by_round[at]).tolist()) for at, name in enumerate(taken.names) if at > 0
    }
    return Race(taken.medians_ms, gains, rounds)


def race_once(calls: Mapping[str, Call], *, clock: Clock) -> Race:
    """Times ways that cost seconds, such as a start: six rounds of one run each, and none uncounted but the very first.

    Args:
        calls: name -> way; the first is what the others are compared with.
        clock: monotonic seconds.
    """
    names = list(calls)
    taken_s = np.zeros((len(names), _LEAST_ROUNDS))
    for call in calls.values():
        call()
    for turn in range(_LEAST_ROUNDS):
        for offset in range(len(names)):
            at = (turn + offset) % len(names)
            begin = clock()
            calls[names[at]]()
            taken_s[at, turn] = clock() - begin
    gains = {name: median_interval((taken_s[0] / taken_s[at]).tolist()) for at, name in enumerate(names) if at > 0}
    values = dict(zip(names, (np.median(taken_s, axis=1) * 1e3).tolist(), strict=True))
    return Race(values, gains, _LEAST_ROUNDS)


def race_throughput(ways: Mapping[str, tuple[Call, int]], *, seconds: float, clock: Clock) -> Race:
    """Measures calls per second in turns; the first is what the others are compared with.

    Args:
        ways: name -> call, and how many are in flight.
        seconds: that it may take, roughly.
        clock: monotonic seconds.
    """
    slice_s = max(0.15, seconds / (_LEAST_ROUNDS * len(ways)))
    names = list(ways)
    rates = np.zeros((len(names), _LEAST_ROUNDS))
    for turn in range(_LEAST_ROUNDS):
        for offset in range(len(names)):
            at = (turn + offset) % len(names)
            call, in_flight = ways[names[at]]
            rates[at, turn] = measure_throughput(call, in_flight=in_flight, seconds=slice_s, clock=clock)
    gains = {name: median_interval((rates[at] / rates[0]).tolist()) for at, name in enumerate(names) if at > 0}
    values = dict(zip(names, np.median(rates, axis=1).tolist(), strict=True))
    return Race(values, gains, _LEAST_ROUNDS)


def is_worth(gain: Interval, least: float = WORTH) -> bool:
    """Tells whether a gain is sure to reach what is worth telling."""
    return gain.low >= least


def times(gain: Interval) -> str:
    """Writes a gain: `1.62 times (1.48 to 1.71)`."""
    return f"{gain.value:.2f} times ({gain.low:.2f} to {gain.high:.2f})"


def cycle(calls: Sequence[Call]) -> Call:
    """Returns a way that makes one call after another, and begins again; for one thread."""
    at = -1

    def step() -> object:
        nonlocal at
        at = (at + 1) % len(calls)
        return calls[at]()

    return step


def _time_once(call: Call, clock: Clock) -> float:
    call()
    begin = clock()
    call()
    return clock() - begin
