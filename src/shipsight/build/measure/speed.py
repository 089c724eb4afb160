# SPDX-License-Identifier: Apache-2.0
"""Speed, memory and size of a variant on this machine.

What for: the figures beside a variant's accuracy. Leaves to others: the clockwork (`timing`), which machine this is
(`proof`), what a prediction consists of (the caller's `predict_one`). Invariants: latency is measured at batch 1 with
nothing else in flight; cold start and memory come from a fresh process of its own. Stable.
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
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure.timing import Clock, Latency, Percentiles, measure_latency, measure_throughput
from shipsight.engines.contract import EngineOptions, EngineSession
from shipsight.errors import CorruptError, InternalError, LimitError, UsageError
from shipsight.model import Card, Variant

__all__ = ["ColdStart", "Speed", "measure_cold_start", "measure_size_mb", "measure_speed"]

_COLD_START_LIMIT_S = 300.0
_ANSWER_MARK = "shipsight-cold-start "


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
        is_steady: whether times had become steady before they were counted, for latency and engine alike.
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
    open_session: Callable[[EngineOptions], EngineSession],
    predict_one: Callable[[EngineSession], object],
    *,
    tensor: NDArray[Any] | None = None,
    threads: int | None = None,
    device: str = "cpu",
    requests: int | None = None,
    max_runs: int = 300,
    max_seconds: float = 15.0,
    counted_runs: int = 100,
    throughput_seconds: float = 3.0,
    clock: Clock = time.perf_counter,
) -> Speed:
    """Measures latency and throughput of a variant.

    Args:
        open_session: opens the variant; called twice, for latency and for throughput.
        predict_one: one prediction, from a decoded image; called from several threads for the throughput.
        tensor: what the engine alone is timed with, of the session's input; None (default) for seeded noise.
        threads: of the engine, None (default) leaves the choice to it.
        device: that the engine runs on.
        requests: predictions in flight for the throughput, None (default) for one a core, at least 2.
        max_runs: most warm-up runs.
        max_seconds: longest warm-up in seconds.
        counted_runs: runs that are counted.
        throughput_seconds: how long throughput is measured.
        clock: monotonic seconds.

    Returns:
        The speed, without cold start, memory and size.
    """

    def time_call(call: Callable[[], object]) -> Latency:
        return measure_latency(call, max_runs=max_runs, max_seconds=max_seconds, counted_runs=counted_runs, clock=clock)

    with open_session(EngineOptions(device=device, threads=threads)) as session:
        fed = _noise(session) if tensor is None else tensor
        engine = time_call(lambda: session.infer(fed))
        whole = time_call(lambda: predict_one(session))
    count = max(2, _core_count()) if requests is None else requests
    with open_session(EngineOptions(device=device, threads=threads, requests=count)) as session:
        throughput = measure_throughput(
            lambda: predict_one(session), in_flight=count, seconds=throughput_seconds, clock=clock
        )
    return Speed(
        latency_ms=whole.ms,
        engine_ms=engine.ms,
        throughput_ips=throughput,
        requests=count,
        threads=threads,
        is_steady=engine.is_steady and whole.is_steady,
        warmup_runs=whole.warmup_runs,
        counted_runs=whole.counted_runs,
    )


def _noise(session: EngineSession) -> NDArray[Any]:
    """Returns seeded noise in the range of the session's input: 0 to 255, or 0 to 1 for floats."""
    levels = np.random.default_rng(0).integers(0, 256, size=session.input.shape)
    dtype = np.dtype(session.input.dtype)
    return levels.astype(dtype) if dtype.kind in "ui" else (levels / 255).astype(dtype)


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
