# SPDX-License-Identifier: Apache-2.0
"""The expected cost of a build: what the steps sum up to is what was planned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.build.schedule import Schedule, Stage

COUNTS = st.integers(0, 2000)


def schedule(sizes_hw: list[tuple[int, int]], report: int = 64, quantized: int = 2) -> Schedule:
    return Schedule(
        sizes_hw, engines=2, floats=4, quantized=quantized, calibration=50, guard=20, report=report, training=64
    )


@given(st.lists(st.sampled_from([320, 384, 640]), min_size=1, max_size=3, unique=True), COUNTS, st.integers(0, 3))
def test_the_total_is_the_sum_of_the_steps_a_build_takes(sizes: list[int], report: int, quantized: int) -> None:
    plan = schedule([(size, size) for size in sizes], report, quantized)
    steps = [Stage.OPEN, Stage.GOLDEN, Stage.STATISTICS, Stage.WRITE] + [Stage.SOURCE] * (report > 0)
    taken = sum(plan.cost(stage) for stage in steps) + (4 + quantized) * plan.cost(Stage.RECORD)
    for size_hw in plan.sizes_hw:
        of_size = [Stage.EXPORT, Stage.SPEED] + [Stage.FORM] * 2 + [Stage.FLOAT] * 4
        of_size += [Stage.INT8] * (2 if quantized else 0) + [Stage.ACCURACY] * ((4 + quantized) if report else 0)
        taken += sum(plan.cost(stage, size_hw) for stage in of_size)
    assert plan.total == pytest.approx(taken)


def test_smaller_sizes_cost_less() -> None:
    plan = schedule([(640, 640), (320, 320)])
    assert plan.cost(Stage.SPEED, (320, 320)) < plan.cost(Stage.SPEED, (640, 640))
    assert plan.cost(Stage.SPEED) == plan.cost(Stage.SPEED, (640, 640))
