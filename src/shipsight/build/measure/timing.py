# SPDX-License-Identifier: Apache-2.0
"""How long a call takes, once it is warm: latency, throughput, and several calls compared fairly.

What for: the timing under every speed figure. Leaves to others: what is timed (`speed`). Invariants: clocks are
monotonic and passed in; warm-up is never counted; what did not become steady says so. Stable.

Steady means: the medians of the last ten runs and of the ten before differ by at most 5 %, and the middle half of these
twenty lies within 25 % of their median.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import CorruptError, UsageError

__all__ = ["Alternation", "Clock", "Percentiles", "WarmUp", "alternate", "measure_throughput", "warm_up"]

Clock = Callable[[], float]
"""Monotonic seconds."""

_WINDOW = 10
_MEDIAN_TOLERANCE = 0.05
_SPREAD_TOLERANCE = 0.25


@dataclass(frozen=True)
class Percentiles:
    """Times of a call in milliseconds.

    Attributes:
        p50: median.
        p95: 95 of 100 calls are faster.
        p99: 99 of 100 calls are faster.
    """

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, times_s: Sequence[float]) -> Percentiles:
        """Makes percentiles of times in seconds, one and more."""
        p50, p95, p99 = (np.percentile(np.asarray(times_s), [50, 95, 99]) * 1000.0).tolist()
        return cls(p50, p95, p99)

    def to_dict(self) -> dict[str, float]:
        """Returns `p50`, `p95` and `p99` in milliseconds."""
        return {"p50": self.p50, "p95": self.p95, "p99": self.p99}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Percentiles:
        """Reads what `to_dict` returned.

        Raises:
            CorruptError: a key is unknown or missing, or a value is not a number.
        """
        if not isinstance(data, Mapping) or set(data) != {"p50", "p95", "p99"}:
            raise CorruptError("keys of percentiles do not fit", where="latency", expected="p50, p95, p99")
        try:
            return cls(float(data["p50"]), float(data["p95"]), float(data["p99"]))
        except (TypeError, ValueError) as error:
            raise CorruptError("a percentile is not a number", where="latency", got=error) from error


@dataclass(frozen=True)
class WarmUp:
    """How warming up went.

    Attributes:
        is_steady: whether it ended because the times had become steady.
        runs: how many there were.
        median_s: of the last ten runs, or of all where there were fewer.
    """

    is_steady: bool
    runs: int
    median_s: float


def is_steady(times_s: Sequence[float]) -> bool:
    """Returns whether the last twenty times are steady, as the module's docstring defines it."""
    if len(times_s) < 2 * _WINDOW:
        return False
    before, after = np.asarray(times_s[-2 * _WINDOW : -_WINDOW]), np.asarray(times_s[-_WINDOW:])
    both = np.concatenate([before, after])
    low, middle, high = np.percentile(both, [25, 50, 75])
    drift = abs(float(np.median(after)) - float(np.median(before)))
    return bool(drift <= _MEDIAN_TOLERANCE * np.median(before) and high - low <= _SPREAD_TOLERANCE * middle)


def warm_up(
    call: Callable[[], object], *, max_runs: int = 300, max_seconds: float = 15.0, clock: Clock = time.perf_counter
) -> WarmUp:
    """Calls until the times are steady.

    Args:
        call: what is timed.
        max_runs: most runs, 1 and more.
        max_seconds: longest time in seconds.
        clock: monotonic seconds.

    Raises:
        UsageError: the number of runs is too small.
    """
    if max_runs < 1:
        raise UsageError("too few runs", where="warm_up", expected="1 or more", got=max_runs)
    times: list[float] = []
    begin = clock()
    steady = False
    while not times or (len(times) < max_runs and not steady and clock() - begin < max_seconds):
        times.append(_time(call, clock))
        steady = is_steady(times)
    return WarmUp(steady, len(times), float(np.median(times[-_WINDOW:])))


def _time(call: Callable[[], object], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start


def measure_throughput(
    call: Callable[[], object], *, in_flight: int, seconds: float = 3.0, clock: Clock = time.perf_counter
) -> float:
    """Returns calls per second with several in flight.

    Each of `in_flight` threads calls again as soon as its last call returned, until the time is over; the calls that
    then still run are waited for and counted, and so is their time. One call a thread warms up first.

    Args:
        call: may run in several threads at once.
        in_flight: threads, 1 to 256.
        seconds: how long calls are started.
        clock: monotonic seconds.

    Raises:
        UsageError: `in_flight` is out of range.
        Exception: what `call` raised.
    """
    if not 1 <= in_flight <= 256:
        raise UsageError("calls in flight out of range", where="in_flight", expected="1 to 256", got=in_flight)
    counts = [0] * in_flight
    failures: list[BaseException] = []
    begin, end = clock(), float("-inf")

    def start() -> None:
        nonlocal begin, end
        begin = clock()
        end = begin + seconds

    # Time starts inside the barrier, before any thread is let go: no call is counted that began earlier.
    ready = threading.Barrier(in_flight, action=start)

    def work(index: int) -> None:
        try:
            call()
            ready.wait()
            while clock() < end:
                call()
                counts[index] += 1
        except threading.BrokenBarrierError:
            return
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failures.append(error)
            ready.abort()

    workers = [threading.Thread(target=work, args=(i,), name=f"shipsight-throughput-{i}") for i in range(in_flight)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return sum(counts) / max(clock() - begin, 1e-9)


@dataclass(frozen=True, eq=False)
class Alternation:
    """Times of several calls that took turns.

    Attributes:
        names: of the calls; the first is what the others are compared with.
        times_s: (calls, rounds, runs) seconds.
    """

    names: tuple[str, ...]
    times_s: NDArray[np.float64]

    def latency(self, name: str) -> Percentiles:
        """Returns the percentiles of all runs of a call."""
        return Percentiles.of(self.times_s[self.names.index(name)].ravel().tolist())

    @property
    def medians_ms(self) -> dict[str, float]:
        """Median over rounds of each call's median of a round, in milliseconds."""
        medians = np.median(np.median(self.times_s, axis=2), axis=1) * 1000.0
        return dict(zip(self.names, medians.tolist(), strict=True))

    def speedup(self, name: str, *, over: str | None = None) -> float:
        """Returns how many times faster a call is than another: the median over rounds of the ratio in a round.

        Args:
            name: of the call.
            over: of the other, None (default) for the first.
        """
        rounds = np.median(self.times_s, axis=2)
        base = 0 if over is None else self.names.index(over)
        return float(np.median(rounds[base] / rounds[self.names.index(name)]))

    def to_dict(self) -> dict[str, Any]:
        """Returns rounds, runs a round, and per call `median_ms`, `latency_ms` and `speedup` over the first."""
        return {
            "rounds": self.times_s.shape[1],
            "runs_a_round": self.times_s.shape[2],
            "calls": {
                name: {
                    "median_ms": median,
                    "latency_ms": self.latency(name).to_dict(),
                    "speedup": self.speedup(name),
                }
                for name, median in self.medians_ms.items()
            },
        }


def alternate(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 10,
    runs: int = 5,
    warmup_runs: int = 5,
    clock: Clock = time.perf_counter,
    on_round: Callable[[int, int], None] | None = None,
) -> Alternation:
    """Times several calls in turns, so that what else the machine does falls on all of them alike.

    Every round runs each call `runs` times; the next round begins with the next call. After each change of call one
    run goes uncounted: it finds caches that the other call has filled.

    Args:
        calls: name -> call; the first is what the others are compared with.
        rounds: 1 and more.
        runs: counted runs of a call in a round, 1 and more.
        warmup_runs: runs of each call before the first round.
        clock: monotonic seconds.
        on_round: called with rounds done and rounds in all.

    Raises:
        UsageError: there are no calls, or a number is too small.
    """
    if not calls or rounds < 1 or runs < 1 or warmup_runs < 0:
        raise UsageError("nothing to time", where="alternate", got=f"{len(calls)} calls, {rounds} rounds, {runs} runs")
    names = tuple(calls)
    times = np.zeros((len(names), rounds, runs))
    for call in calls.values():
        for _ in range(warmup_runs):
            call()
    for turn in range(rounds):
        for offset in range(len(names)):
            index = (turn + offset) % len(names)
            call = calls[names[index]]
            call()
            for run in range(runs):
                times[index, turn, run] = _time(call, clock)
        if on_round is not None:
            on_round(turn + 1, rounds)
    return Alternation(names, times)
