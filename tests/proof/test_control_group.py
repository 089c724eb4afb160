# SPDX-License-Identifier: Apache-2.0
"""Limits of control groups, read from files as both versions of Linux write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from shipsight.proof.control_group import ControlGroup, read_control_group

V1 = "12:cpuset:/\n4:cpu,cpuacct:/docker/ab12\n1:name=systemd:/docker/ab12\n0::/\n"
V1_STAT = "nr_periods 400\nnr_throttled 100\nthrottled_time 2500000000\n"
V2_STAT = "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 200\nnr_throttled 150\nthrottled_usec 3000000\n"


def lay(root: Path, group: str, files: Mapping[str, str]) -> Path:
    """Lays out files of the kernel's: `/proc/self/cgroup` and what stands below `/sys/fs/cgroup`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_version_2_says_its_limit_and_how_often_it_was_stopped(tmp_path: Path) -> None:
    files = {"system.slice/model.service/cpu.max": "150000 100000\n", "system.slice/model.service/cpu.stat": V2_STAT}
    found = read_control_group(lay(tmp_path, "0::/system.slice/model.service\n", files))
    assert found == ControlGroup(2, 1.5, 200, 150, 3.0)
    assert found.throttled_share == 0.75


def test_version_1_says_its_limit_and_how_often_it_was_stopped(tmp_path: Path) -> None:
    place = "cpu,cpuacct/docker/ab12"
    files = {
        f"{place}/cpu.cfs_quota_us": "200000\n",
        f"{place}/cpu.cfs_period_us": "100000\n",
        f"{place}/cpu.stat": V1_STAT,
    }
    assert read_control_group(lay(tmp_path, V1, files)) == ControlGroup(1, 2.0, 400, 100, 2.5)


def test_container_that_sees_its_own_group_at_the_top_has_its_limit(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n", "cpu/cpu.stat": V1_STAT}
    assert read_control_group(lay(tmp_path, V1, files)).limit_cores == 0.5


def test_limit_of_a_group_above_counts_when_it_is_lower(tmp_path: Path) -> None:
    files = {"a/cpu.max": "100000 100000\n", "a/b/cpu.max": "400000 100000\n", "a/b/c/cpu.max": "max 100000\n"}
    assert read_control_group(lay(tmp_path, "0::/a/b/c\n", files)).limit_cores == 1.0


@pytest.mark.parametrize(
    ("group", "files"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}),
        ("", {}),
        ("0::/../../etc\n", {}),
        ("nonsense\n", {"cpu.max": "100000 100000\n"}),
        ("0::/\n", {"cpu.max": "100000 0\n"}),
    ],
    ids=["no limit", "no limit in version 1", "no groups", "a path upwards", "nonsense", "a period of nothing"],
)
def test_nothing_limits_when_nothing_says_so(tmp_path: Path, group: str, files: Mapping[str, str]) -> None:
    found = read_control_group(lay(tmp_path, group, files))
    assert found == ControlGroup()
    assert found.throttled_share is None


def test_what_happened_since_is_the_difference() -> None:
    found = ControlGroup(2, 1.0, 30, 12, 2.5).since(ControlGroup(2, 1.0, 10, 2, 0.5))
    assert found == ControlGroup(2, 1.0, 20, 10, 2.0)
    assert found.throttled_share == 0.5
