# SPDX-License-Identifier: Apache-2.0
"""Watches the machine while the model runs. Private to the room.

Sources: proc(5) (`/proc/stat`, `/proc/self/task`), Linux `cpufreq` user guide (scaling_cur_freq, cpuinfo_max_freq), x86 `thermal_throttle`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.environment.collecting import collect_environment
from shipsight.doctor.environment.evidence import Timing
from shipsight.doctor.speed.case import SpeedCase
from shipsight.doctor.speed.collecting.profile import run_stages
from shipsight.doctor.speed.machine import MachineEvidence
from shipsight.doctor.speed.racing import race
from shipsight.engines import EngineOptions
from shipsight.predictor import Predictor
from shipsight.proof.control_group import read_control_group

__all__ = ["CpuTimes", "collect_machine", "read_clock_share", "read_throttle_events"]

_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class CpuTimes:
    """What `/proc/stat` counts over all cores, in ticks since the start.

    Attributes:
        busy: in processes and the kernel.
        stolen: by the hypervisor.
        whole: all, idle time included.
    """

    busy: int
    stolen: int
    whole: int

    @classmethod
    def read(cls, text: str) -> CpuTimes | None:
        """Reads the line of all cores; None where there is none."""
        for line in text.splitlines():
            name, *values = line.split()
            if name == "cpu" and len(values) >= 8 and all(one.isdigit() for one in values):
                user, nice, system, idle, waiting, interrupts, soft, stolen = map(int, values[:8])
                busy = user + nice + system + interrupts + soft
                return cls(busy, stolen, busy + idle + waiting + stolen)
        return None


def collect_machine(case: SpeedCase, seconds: float, progress: Progress) -> MachineEvidence:
    """Collects the evidence of a case.

    Args:
        case: what is examined.
        seconds: that watching may take, roughly.
        progress: is told of parts.

    Raises:
        ShipsightError: the variant cannot be opened.
    """
    environment = collect_environment(Case(case.bundle, case.variant, threads=case.threads), progress)
    known: dict[str, Any] = {one.name: getattr(environment, one.name) for one in fields(environment)}
    group = read_control_group()
    seen = _watch(case, seconds * 0.6)
    stopped = read_control_group().since(group)
    progress.part(2, 3)
    if stopped.periods:
        known["throttled_share"] = stopped.throttled_share  # of our own run, not since the group began
    limit, cores = environment.limit_cores, environment.cores
    if limit is not None and limit < min(case.threads or cores, cores):
        known["limit_timing"] = _time_limit(case, max(1, int(limit)), seconds * 0.4)
    return MachineEvidence(**known, **seen)


def _watch(case: SpeedCase, seconds: float) -> Mapping[str, Any]:
    """Runs the model, and says what the machine did meanwhile."""
    with Predictor(case.open(EngineOptions(threads=case.threads)), case.card, case.variant) as predictor:
        run_stages(predictor, case.encoded[0])
        before, own_before, events_before = _read_times(), _own_s(), read_throttle_events()
        begin = time.monotonic()
        runs = 0
        while time.monotonic() - begin < seconds or runs < 5:
            run_stages(predictor, case.encoded[runs % len(case.encoded)])
            runs += 1
        clock_share, threads = read_clock_share(), _count_threads()
        window_s = time.monotonic() - begin
        after, own_s, events = _read_times(), _own_s() - own_before, read_throttle_events()
    logical = os.cpu_count() or 1
    stolen_share = others_share = None
    if before is not None and after is not None and after.whole > before.whole:
        whole = after.whole - before.whole
        stolen_share = (after.stolen - before.stolen) / whole
        others_share = max(0.0, (after.busy - before.busy) / whole - own_s / (window_s * logical))
    return {
        "logical_cores": logical,
        "window_s": window_s,
        "stolen_share": stolen_share,
        "others_share": others_share,
        "clock_share": clock_share,
        "throttle_events": None if events is None or events_before is None else events - events_before,
        "process_threads": threads,
    }


def _time_limit(case: SpeedCase, threads: int, seconds: float) -> Timing:
    """Times the model with as many threads as the engine takes and with as many as cores are allowed."""
    with (
        Predictor(case.open(EngineOptions(threads=case.threads)), case.card, case.variant) as now,
        Predictor(case.open(EngineOptions(threads=threads)), case.card, case.variant) as fewer,
    ):
        image = case.encoded[0]
        ways = {"now": lambda: run_stages(now, image), "fewer": lambda: run_stages(fewer, image)}
        found = race(ways, seconds=seconds, clock=time.perf_counter)
    return Timing(found.values["now"], found.values["fewer"], found.rounds)


def read_clock_share(cpus: Path = _CPUS) -> float | None:
    """Returns the mean clock of the cores over the highest they may have, None where the system does not tell."""
    shares = []
    for folder in cpus.glob("cpu[0-9]*/cpufreq"):
        now, most = _number(folder / "scaling_cur_freq"), _number(folder / "cpuinfo_max_freq")
        if now and most:
            shares.append(now / most)
    return sum(shares) / len(shares) if shares else None


def read_throttle_events(cpus: Path = _CPUS) -> int | None:
    """Returns how often a core was slowed for its heat since the start, None where the system does not tell."""
    counts = [_number(one) for one in cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    return sum(one for one in counts if one is not None) if counts else None


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None  # this system has none, or does not show it
    return int(text) if text.isdigit() else None


def _read_times() -> CpuTimes | None:
    try:
        return CpuTimes.read(Path("/proc/stat").read_text(encoding="ascii"))
    except OSError:
        return None  # no Linux


def _own_s() -> float:
    used = os.times()
    return used.user + used.system


def _count_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names alone
    except OSError:
        return 0  # no Linux
