# SPDX-License-Identifier: Apache-2.0
"""How many cores this process's control group allows, and how often it was stopped for that: versions 1 and 2 of Linux.

Leaves to others: what follows from it. Invariants: reads only, and a system without control groups has no limit. A limit holds for
all groups below, so the lowest on the way up counts. Stable. Sources: cgroups(7); Linux `cgroup-v2.rst` (cpu.max, cpu.stat) and
`sched-bwc.rst` (cpu.cfs_quota_us, cpu.stat).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["ControlGroup", "read_control_group"]


@dataclass(frozen=True)
class ControlGroup:
    """What limits this process.

    Attributes:
        version: 1 or 2, 0 where none limits it.
        limit_cores: cores that are allowed, None for no limit.
        periods: periods in which the group ran.
        throttled_periods: those of them in which it was stopped.
        throttled_s: seconds for which it was stopped, of all cores together.
    """

    version: int = 0
    limit_cores: float | None = None
    periods: int = 0
    throttled_periods: int = 0
    throttled_s: float = 0.0

    @property
    def throttled_share(self) -> float | None:
        """Share of the periods in which it was stopped, None before the first."""
        return self.throttled_periods / self.periods if self.periods else None

    def since(self, earlier: ControlGroup) -> ControlGroup:
        """Returns the same limit, with what was counted after an earlier look."""
        return replace(
            self,
            periods=self.periods - earlier.periods,
            throttled_periods=self.throttled_periods - earlier.throttled_periods,
            throttled_s=self.throttled_s - earlier.throttled_s,
        )


def read_control_group(root: Path = Path("/")) -> ControlGroup:
    """Returns the lowest limit that holds for this process.

    Args:
        root: of the file system.
    """
    found = [one for folder in _folders(root) if (one := _read_group(folder)) is not None]
    return min(found, key=lambda one: one.limit_cores or 0.0, default=ControlGroup())


def _folders(root: Path) -> Iterator[Path]:
    """Yields the folders of this process's groups and of all above them.

    In a container the path is that outside, while the container sees its own group at the top: paths that are not there are passed over.
    """
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            places = [mounts, mounts / "unified"]
        elif "cpu" in controllers.split(","):
            places = [mounts / controllers, mounts / "cpu"]
        else:
            continue
        steps = [step for step in path.split("/") if step not in ("", "..")]
        for place in places:
            for count in range(len(steps), -1, -1):
                yield place.joinpath(*steps[:count])


def _read_group(folder: Path) -> ControlGroup | None:
    """Returns what a group allows, None where it sets no limit."""
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    version = 2
    if not quota:
        quota, period = (_read(folder / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
        version = 1
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    told = dict(line.split() for line in _read(folder / "cpu.stat").splitlines() if len(line.split()) == 2)
    stopped_s = int(told.get("throttled_usec", 0)) / 1e6 + int(told.get("throttled_time", 0)) / 1e9
    return ControlGroup(
        version, int(quota) / int(period), int(told.get("nr_periods", 0)), int(told.get("nr_throttled", 0)), stopped_s
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""  # this system has none
