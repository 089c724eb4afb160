# SPDX-License-Identifier: Apache-2.0
"""Speed, memory and size of a variant on this machine.

What for: the figures beside a variant's accuracy. Leaves to others: the clockwork (`timing`), which machine this is
(`proof`), what a prediction consists of (the caller's `predict_one`). Invariants: latency is measured at batch 1 with
nothing else in flight, and variants that are measured together take turns, so that other load on the machine falls on
all of them alike; engine time is that of the very runs that latency is of; cold start and memory come from a fresh
process of its own. Stable.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure.timing import Clock, Percentiles, alternate, measure_throughput, warm_up
from shipsight.engines.contract import EngineOptions, EngineSession, PrecisionReport
from shipsight.errors import CorruptError, InternalError, LimitError, UsageError
from shipsight.model import Card, Variant

__all__ = ["ColdStart", "Speed", "SpeedSubject", "measure_cold_start", "measure_size_mb", "measure_speed"]

_COLD_START_LIMIT_S = 300.0
_ANSWER_MARK = "shipsight-cold-start "
_ROUNDS = 10


@dataclass(frozen=True, eq=False)
class SpeedSubject:
    """Something whose speed is measured.

    Attributes:
        open_session: opens it; called twice, for latency and for throughput.
        predict_one: one prediction, from a decoded image to predictions, with one inference; called from several
            threads for the throughput.
    """

    open_session: Callable[[EngineOptions], EngineSession]
    predict_one: Callable[[EngineSession], object]


@dataclass(frozen=True)
class ColdStart:
    """A fresh process that opens a variant and predicts once.

    Attributes:
        wall_ms: from starting the process to the first prediction, imports included; median of the runs.
        memory_mb: largest resident memory of the process in 10^6 bytes, over the runs.
    """

    wall_ms: float
    memory_mb: float


@dataclass(frozen=True)
class Speed:
    """How fast a variant is on this machine.

    Attributes:
        latency_ms: from decoded image to predictions, batch 1, nothing else in flight.
        engine_ms: of it, the engine alone.
        throughput_ips: images per second, decoded image to predictions, with `requests` in flight.
        requests: predictions in flight for the throughput.
        threads: of the engine, None where the engine chose.
        is_steady: whether times had become steady before they were counted.
        warmup_runs: runs before latency was counted.
        counted_runs: runs that the latency is of.
        cold_start_ms: from starting a process to the first prediction, None where not measured.
        memory_mb: largest resident memory of that process in 10^6 bytes, None where not measured.
        size_mb: of the variant's files in 10^6 bytes, None where not measured.
    """

    latency_ms: Percentiles
    engine_ms: Percentiles
    throughput_ips: float
    requests: int
    threads: int | None
    is_steady: bool
    warmup_runs: int
    counted_runs: int
    cold_start_ms: float | None = None
    memory_mb: float | None = None
    size_mb: float | None = None

    def with_cold_start(self, cold_start: ColdStart) -> Speed:
        """Returns the speed with cold start and memory filled in."""
        return replace(self, cold_start_ms=cold_start.wall_ms, memory_mb=cold_start.memory_mb)

    def to_dict(self) -> dict[str, Any]:
        """Returns all figures as plain values."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**data, "latency_ms": self.latency_ms.to_dict(), "engine_ms": self.engine_ms.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Speed:
        """Reads what `to_dict` returned.

        Raises:
            CorruptError: a key is unknown or missing, or a value does not fit.
        """
        if not isinstance(data, Mapping) or set(data) != set(cls.__dataclass_fields__):
            got = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
            expected = sorted(cls.__dataclass_fields__)
            raise CorruptError("keys of a speed do not fit", where="measurements", expected=expected, got=got)
        try:
            return cls(
                latency_ms=Percentiles.from_dict(data["latency_ms"]),
                engine_ms=Percentiles.from_dict(data["engine_ms"]),
                throughput_ips=float(data["throughput_ips"]),
                requests=int(data["requests"]),
                threads=None if data["threads"] is None else int(data["threads"]),
                is_steady=bool(data["is_steady"]),
                warmup_runs=int(data["warmup_runs"]),
                counted_runs=int(data["counted_runs"]),
                cold_start_ms=_optional(data["cold_start_ms"]),
                memory_mb=_optional(data["memory_mb"]),
                size_mb=_optional(data["size_mb"]),
            )
        except (TypeError, ValueError) as error:
            raise CorruptError("a value of a speed does not fit", where="measurements", got=error) from error


def _optional(value: Any) -> float | None:  # noqa: ANN401 - read from JSON
    return None if value is None else float(value)


def measure_speed(
    subjects: Mapping[str, SpeedSubject],
    *,
    threads: int | None = None,
    device: str = "cpu",
    requests: int | None = None,
    max_runs: int = 300,
    max_seconds: float = 15.0,
    counted_runs: int = 100,
    counted_seconds: float = 10.0,
    throughput_seconds: float = 3.0,
    clock: Clock = time.perf_counter,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Speed]:
    """Measures latency, in alternating rounds, and throughput of several variants.

    All are open at once while latency is measured.

    Args:
        subjects: by name.
        threads: of the engine, None (default) leaves the choice to it.
        device: that the engine runs on.
        requests: predictions in flight for the throughput, None (default) for one a core, at least 2.
        max_runs: most warm-up runs.
        max_seconds: longest warm-up in seconds.
        counted_runs: runs of each that are counted, in ten rounds; 10 and more.
        counted_seconds: how long the counted runs of the slowest may take: all are given fewer runs where it would take
            longer, though never fewer than 10.
        throughput_seconds: how long throughput is measured.
        clock: monotonic seconds.
        on_progress: called with parts done and parts in all.

    Returns:
        The speed of each, without cold start, memory and size.

    Raises:
        UsageError: there is no subject, or too few runs.
    """
    if not subjects or counted_runs < _ROUNDS:
        raise UsageError("nothing to time", where="measure_speed", got=f"{len(subjects)} and {counted_runs} runs")
    tell = on_progress or (lambda done, total: None)
    parts = 2 * len(subjects) + _ROUNDS
    count = max(2, _core_count()) if requests is None else requests
    with contextlib.ExitStack() as stack:
        opened: dict[str, _Stopwatch] = {}
        for name, subject in subjects.items():
            session = subject.open_session(EngineOptions(device=device, threads=threads))
            opened[name] = _Stopwatch(stack.enter_context(session), clock)
        calls = {name: partial(subject.predict_one, opened[name]) for name, subject in subjects.items()}
        warmed = {}
        for name, call in calls.items():
            warmed[name] = warm_up(call, max_runs=max_runs, max_seconds=max_seconds, clock=clock)
            tell(len(warmed), parts)
        slowest_s = max(one.median_s for one in warmed.values())
        runs = counted_runs if slowest_s <= 0 else min(counted_runs, int(counted_seconds / slowest_s))
        runs = max(1, runs // _ROUNDS)
        taken = alternate(
            calls,
            rounds=_ROUNDS,
            runs=runs,
            warmup_runs=0,
            clock=clock,
            on_round=lambda done, _: tell(len(subjects) + done, parts),
        )
        engine_ms = {name: Percentiles.of(watch.last(_ROUNDS, runs)) for name, watch in opened.items()}
    found = {}
    for name, subject in subjects.items():
        with subject.open_session(EngineOptions(device=device, threads=threads, requests=count)) as session:
            throughput = measure_throughput(
                partial(subject.predict_one, session), in_flight=count, seconds=throughput_seconds, clock=clock
            )
        found[name] = Speed(
            latency_ms=taken.latency(name),
            engine_ms=engine_ms[name],
            throughput_ips=throughput,
            requests=count,
            threads=threads,
            is_steady=warmed[name].is_steady,
            warmup_runs=warmed[name].runs,
            counted_runs=_ROUNDS * runs,
        )
        tell(len(subjects) + _ROUNDS + len(found), parts)
    return found


class _Stopwatch(EngineSession):
    """A session whose inferences are timed."""

    def __init__(self, session: EngineSession, clock: Clock) -> None:
        self.input, self.outputs = session.input, session.outputs
        self._session, self._clock = session, clock
        self._times_s: list[float] = []

    def infer(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        begin = self._clock()
        outputs = self._session.infer(tensor)
        self._times_s.append(self._clock() - begin)
        return outputs

    def last(self, rounds: int, runs: int) -> list[float]:
        """Returns the seconds of the last rounds, each of one uncounted run and `runs` counted ones."""
        times = np.asarray(self._times_s[-rounds * (runs + 1) :]).reshape(rounds, runs + 1)
        return [float(value) for value in times[:, 1:].ravel()]

    def precision(self) -> PrecisionReport:
        return self._session.precision()

    def close(self) -> None:
        self._session.close()


def _core_count() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure_size_mb(files: Iterable[Path]) -> float:
    """Returns the size of files in 10^6 bytes."""
    return sum(file.stat().st_size for file in files) / 1e6


def measure_cold_start(
    folder: Path,
    variant: Variant,
    card: Card,
    image: Path,
    *,
    options: EngineOptions | None = None,
    runs: int = 3,
    clock: Clock = time.perf_counter,
) -> ColdStart:
    """Starts fresh processes that import, open a variant and predict one image.

    Args:
        folder: with the variant's files.
        variant: of an engine that `engines.get_engine` knows.
        card: of the model.
        image: to predict.
        options: how the variant is opened, its cache folder included; None (default) for the defaults.
        runs: processes, 1 and more; the median counts.
        clock: monotonic seconds.

    Raises:
        UsageError: `runs` is below 1.
        LimitError: a process took longer than 300 s.
        InternalError: a process failed; its last words are in the message.
    """
    if runs < 1:
        raise UsageError("too few runs", where="runs", expected="1 or more", got=runs)
    options = EngineOptions() if options is None else options
    request = {
        "folder": str(folder),
        "variant": variant.to_dict(),
        "card": card.to_dict(),
        "image": str(image),
        "device": options.device,
        "threads": options.threads,
        "cache_dir": None if options.cache_dir is None else str(options.cache_dir),
    }
    found = [_start_cold(json.dumps(request), clock) for _ in range(runs)]
    return ColdStart(wall_ms=median(one.wall_ms for one in found), memory_mb=max(one.memory_mb for one in found))


def _start_cold(request: str, clock: Clock) -> ColdStart:
    # The child is run by its path: as a module it would import this whole package, which serving does not. Option -P
    # keeps its folder out of the import path.
    command = [sys.executable, "-P", str(Path(__file__).with_name("_cold_start.py"))]
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        begin = clock()
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            timer = threading.Timer(_COLD_START_LIMIT_S, process.kill)
            timer.start()
            try:
                # An early exit closes the pipe; its status and last words are reported below.
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(request)
                    process.stdin.close()
                # Read as it comes, so that what the process spends on leaving is not part of the start.
                answer = next((line for line in process.stdout if line.startswith(_ANSWER_MARK)), None)
                wall_s = clock() - begin
                process.stdout.read()
                status = process.wait()
                timed_out = timer.finished.is_set()
            finally:
                timer.cancel()
        errors.seek(0)
        last_words = " ".join(errors.read().split())[-500:]
    if timed_out:
        raise LimitError("a fresh process took too long", where="cold start", expected=f"{_COLD_START_LIMIT_S:g} s")
    if status != 0 or answer is None:
        raise InternalError("a fresh process failed to predict", where="cold start", got=last_words or f"exit {status}")
    memory_mb = json.loads(answer.removeprefix(_ANSWER_MARK))["memory_mb"]
    return ColdStart(wall_ms=wall_s * 1000.0, memory_mb=float(memory_mb))
