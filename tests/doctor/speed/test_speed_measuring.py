# SPDX-License-Identifier: Apache-2.0
"""What lies under the figures of speed: intervals, what the kernel and servers write, and how a graph's work is counted."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.doctor.speed.case import Encoded, SpeedCase
from shipsight.doctor.speed.collecting.machine import CpuTimes, read_clock_share, read_throttle_events
from shipsight.doctor.speed.collecting.profile import run_stages
from shipsight.doctor.speed.collecting.roofline import count_work
from shipsight.doctor.speed.collecting.server import read_server_timing
from shipsight.doctor.speed.collecting.warmup import _steady_after
from shipsight.doctor.speed.racing import cycle, median_interval, race, race_once
from shipsight.errors import InternalError
from shipsight.model.bundle import open_bundle
from shipsight.predictor import load


class Clock:
    """A clock that calls move."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def costs(self, *seconds: float) -> Callable[[], None]:
        turns = itertools.cycle(seconds)

        def call() -> None:
            self.now_s += next(turns)

        return call


@given(st.lists(st.floats(0.01, 100), min_size=6, max_size=40))
def test_interval_of_a_median_holds_it_and_does_not_depend_on_order(values: list[float]) -> None:
    found = median_interval(values)
    assert min(values) <= found.low <= found.value <= found.high <= max(values)
    assert median_interval(values[::-1]) == found
    assert found.value == pytest.approx(float(np.median(values)))


def test_interval_of_a_median_holds_the_truth_in_95_of_100_samples() -> None:
    random = np.random.default_rng(7)
    inside = 0
    for _ in range(400):
        found = median_interval(random.lognormal(0.0, 0.5, 15).tolist())
        inside += found.low <= 1.0 <= found.high
    assert inside >= 370  # 95 % of 400 less three standard deviations of a binomial


def test_interval_needs_six_values() -> None:
    with pytest.raises(InternalError, match="too few rounds"):
        median_interval([1.0] * 5)


def test_race_says_how_many_times_faster_a_way_is() -> None:
    clock = Clock()
    found = race({"now": clock.costs(0.030), "other": clock.costs(0.010)}, seconds=5.0, clock=clock)
    assert found.values["now"] == pytest.approx(30.0)
    assert found.gains["other"].value == pytest.approx(3.0)
    assert found.gains["other"].low == pytest.approx(3.0)


@pytest.mark.parametrize("seconds", [0.5, 5.0, 60.0])
def test_race_keeps_to_its_time_but_for_the_least_rounds(seconds: float) -> None:
    clock = Clock()
    found = race({"now": clock.costs(0.030), "other": clock.costs(0.060)}, seconds=seconds, clock=clock)
    least_s = 6 * 2 * 0.09 + 3 * 0.09
    assert found.rounds >= 6
    assert clock.now_s <= max(least_s, seconds + 3 * 0.09) + 0.01


def test_race_of_starts_runs_each_seven_times() -> None:
    clock = Clock()
    found = race_once({"anew": clock.costs(0.6), "kept": clock.costs(0.9, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2)}, clock=clock)
    assert found.gains["kept"].low == pytest.approx(3.0)
    assert clock.now_s == pytest.approx(7 * 0.6 + 0.9 + 6 * 0.2)


def test_cycle_calls_each_in_turn() -> None:
    seen: list[int] = []
    step = cycle([lambda number=number: seen.append(number) for number in range(3)])
    for _ in range(5):
        step()
    assert seen == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("times_s", "after"),
    [
        ([1.0] * 30, 0),
        ([9.0, 5.0, *[1.0] * 30], 2),
        ([1.0] * 8, 0),
    ],
    ids=["at once", "after two", "few runs"],
)
def test_steady_begins_where_the_times_are_as_at_the_end(times_s: list[float], after: int) -> None:
    assert _steady_after(times_s) == after


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("queue;dur=0.05, decode;dur=1.50, infer;dur=9", {"queue": 0.05, "decode": 1.5, "infer": 9.0}),
        ('cache;desc="hit, or so", db;dur=53', {"db": 53.0}),
        ("total", {}),
        ("", {}),
        ("a;dur=1e9999,b;dur=-1", {}),
        ('total;desc="all";dur=5;x=1', {"total": 5.0}),
    ],
)
def test_server_timing_is_read(text: str, stages: dict[str, float]) -> None:
    assert read_server_timing(text) == stages


@given(st.text(max_size=200))
def test_server_timing_of_any_text_is_read_without_failing(text: str) -> None:
    assert all(value >= 0 for value in read_server_timing(text).values())


def test_cpu_times_are_those_of_all_cores() -> None:
    text = "cpu  70 1 10 300 2 3 4 50 5 0\ncpu0 1 1 1 1 1 1 1 1 0 0\nintr 5\n"
    assert CpuTimes.read(text) == CpuTimes(busy=88, stolen=50, whole=440)
    assert CpuTimes.read("intr 5\n") is None
    assert CpuTimes.read("cpu  1 2 3\n") is None


def test_clock_and_heat_are_read_where_the_system_tells_them(tmp_path: Path) -> None:
    assert read_clock_share(tmp_path) is None
    assert read_throttle_events(tmp_path) is None
    for number, now in enumerate((1_000_000, 3_000_000)):
        folder = tmp_path / f"cpu{number}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{now}\n")
        (folder / "cpuinfo_max_freq").write_text("4000000\n")
        heat = tmp_path / f"cpu{number}" / "thermal_throttle"
        heat.mkdir()
        (heat / "core_throttle_count").write_text("3\n")
    assert read_clock_share(tmp_path) == pytest.approx(0.5)
    assert read_throttle_events(tmp_path) == 6


def test_work_of_a_graph_is_counted() -> None:
    ops = openvino.opset13
    image = ops.parameter([1, 3, 8, 8], np.float32)
    plain = ops.convolution(image, ops.constant(np.ones((4, 3, 3, 3), np.float32)), [1, 1], [1, 1], [1, 1], [1, 1])
    by_channel = ops.group_convolution(
        plain, ops.constant(np.ones((4, 1, 1, 3, 3), np.float32)), [1, 1], [1, 1], [1, 1], [1, 1]
    )
    flat = ops.reshape(by_channel, ops.constant(np.array([1, 256])), False)
    product = ops.matmul(flat, ops.constant(np.ones((256, 10), np.float32)), False, False)
    gflop, megabytes = count_work(openvino.Model([product], [image]), 4)
    flop = 2 * (4 * 64 * 27 + 4 * 64 * 9 + 10 * 256)
    numbers = (192 + 108 + 256) + (256 + 36 + 256) + (256 + 2560 + 10)
    assert gflop == pytest.approx(flop / 1e9)
    assert megabytes == pytest.approx(4 * numbers / 1e6)


def test_stages_are_timed_in_order_and_answer_as_the_predictor(digits_bundle: Path, tmp_path: Path) -> None:
    case = SpeedCase(open_bundle(digits_bundle), open_bundle(digits_bundle).default_variant)
    path = tmp_path / "a.jpg"
    path.write_bytes(case.encoded[0].content)
    with load(digits_bundle) as predictor:
        stages = run_stages(predictor, Encoded(path.read_bytes(), path), clock=itertools.count().__next__)
        assert stages == dict.fromkeys(["read", "decode", "prepare", "infer", "postprocess", "serialise"], 1)
        assert "read" not in run_stages(predictor, case.encoded[0])


def test_images_are_chosen_by_the_seed(digits_bundle: Path, tmp_path: Path) -> None:
    paths = []
    for number in range(40):
        path = tmp_path / f"{number:02d}.jpg"
        path.write_bytes(bytes([number]))
        paths.append(path)
    bundle = open_bundle(digits_bundle)

    def chosen(seed: int) -> list[bytes]:
        case = SpeedCase(bundle, bundle.default_variant, tuple(paths), seed=seed)
        return [one.content for one in case.encoded]

    assert chosen(0) == chosen(0)
    assert chosen(0) != chosen(1)
    assert len(set(chosen(0))) == 16
