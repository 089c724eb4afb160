# SPDX-License-Identifier: Apache-2.0
"""The test of all features at once is right where nothing changed, and sees what did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shipsight.monitor.drift import LEAST_ROWS
from shipsight.monitor.permuting import compare, spacing


def features(draw: np.random.Generator, count: int, *, shift: float = 0.0, memory: float = 0.0) -> dict[str, Any]:
    """Four numbers that hang together, of which one has only five values, and counts of three classes."""
    noise = draw.normal(size=(count, 4))
    for row in range(1, count):
        noise[row] = memory * noise[row - 1] + noise[row] * np.sqrt(1 - memory**2)
    return {
        "a": noise[:, 0] + shift,
        "b": noise[:, 0] + noise[:, 1],
        "c": noise[:, 2],
        "coarse": np.round(noise[:, 3]).clip(-2, 2),
        "classes": draw.poisson((2.0, 0.5, 0.01), size=(count, 3)).astype(float),
    }


def inside(hits: int, trials: int, rate: float) -> bool:
    """Whether a rate is compatible with what was seen; wrong once in a million."""
    return float(stats.binomtest(hits, trials, rate).pvalue) > 1e-6


@pytest.mark.parametrize(
    ("first", "second"),
    [(12, 12), pytest.param(60, 25, marks=pytest.mark.slow), pytest.param(30, 80, marks=pytest.mark.slow)],
)
def test_nothing_changed_is_an_alarm_as_often_as_asked_for(first: int, second: int) -> None:
    draw = np.random.default_rng(first)
    least = []
    for seed in range(300):
        found = compare(features(draw, first), features(draw, second), seed=seed)
        least.append(min(one.p_family for one in found.values()))
    for level in (0.05, 0.2, 0.5):
        assert inside(sum(p <= level for p in least), len(least), level), level


@pytest.mark.slow  # many streams
def test_rows_with_memory_are_taken_so_far_apart_that_the_rate_stays() -> None:
    draw = np.random.default_rng(3)
    near, apart = 0, 0
    for seed in range(150):
        before, after = features(draw, 1400, memory=0.8), features(draw, 1000, memory=0.8)
        step = spacing(before)
        few = [{name: values[:200:2] for name, values in side.items()} for side in (before, after)]
        thin = [{name: values[::step] for name, values in side.items()} for side in (before, after)]
        near += min(one.p_family for one in compare(few[0], few[1], seed=seed).values()) <= 0.05
        apart += min(one.p_family for one in compare(thin[0], thin[1], seed=seed).values()) <= 0.05
    assert not inside(near, 150, 0.05)
    assert inside(apart, 150, 0.05)


def test_images_without_memory_all_count() -> None:
    draw = np.random.default_rng(0)
    assert [spacing(features(draw, 300)) for _ in range(20)].count(1) >= 18
    assert spacing({"still": np.ones(300)}) == 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), mixing=st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter_to_effects(seed: int, mixing: Any) -> None:
    draw = np.random.default_rng(seed)
    first, second = features(draw, 40), features(draw, 30, shift=1.0)
    order = list(range(30))
    mixing.shuffle(order)
    mixed = {name: values[order] for name, values in second.items()}
    before, after = compare(first, second), compare(first, mixed)
    assert {name: one.effect for name, one in before.items()} == pytest.approx(
        {name: one.effect for name, one in after.items()}
    )


@pytest.mark.parametrize(("first", "second"), [(20, 30), (100, 40)])
def test_distances_and_chances_of_one_number_are_those_of_scipy(first: int, second: int) -> None:
    draw = np.random.default_rng(9)
    for shift in (0.0, 0.4, 0.8):
        a, b = draw.normal(size=first), draw.normal(size=second) + shift
        mine = compare({"a": a}, {"a": b})["a"]
        theirs = stats.ks_2samp(a, b, method="exact")
        assert mine.effect == pytest.approx(theirs.statistic)
        assert mine.p_value == pytest.approx(theirs.pvalue, abs=0.05)
        assert mine.p_family >= mine.p_value - 1e-9


def test_what_changed_is_named_and_what_did_not_is_not() -> None:
    draw = np.random.default_rng(4)
    found = compare(features(draw, 200), features(draw, 100, shift=1.0))
    assert found["a"].p_family < 0.01
    assert found["a"].effect > 0.3
    assert found["c"].p_family > 0.05


def test_a_new_class_and_another_mix_are_seen() -> None:
    draw = np.random.default_rng(5)
    usual = draw.poisson((2.0, 0.5, 0.0), size=(200, 3)).astype(float)
    new = draw.poisson((2.0, 0.5, 0.3), size=(100, 3)).astype(float)
    other = draw.poisson((1.0, 1.5, 0.0), size=(100, 3)).astype(float)
    came = compare({"classes": usual}, {"classes": new})["classes"]
    assert came.p_family < 0.01
    assert came.effect == pytest.approx(0.26, abs=0.1)
    mixed = compare({"classes": usual}, {"classes": other})["classes"]
    assert mixed.p_family < 0.01
    assert mixed.effect == pytest.approx(0.4, abs=0.08)


def test_few_rows_tell_nothing() -> None:
    draw = np.random.default_rng(6)
    assert compare(features(draw, LEAST_ROWS - 1), features(draw, 100)) == {}
    assert compare(features(draw, 100), features(draw, LEAST_ROWS - 1)) == {}


@pytest.mark.parametrize("count", [1, 17, 40])
def test_the_least_chance_that_can_be_told_does_not_grow_with_the_number_of_features(count: int) -> None:
    draw = np.random.default_rng(7)
    first, second = ({f"f{place}": draw.normal(size=rows) for place in range(count)} for rows in (300, 100))
    found = compare(first, {**second, "f0": second["f0"] + 50})
    assert found["f0"].p_family == pytest.approx(1 / 2000)


@pytest.mark.parametrize(("own_level", "memory"), [(0.0, 0.9), (1.0, 0.97)])
def test_cameras_that_take_turns_do_not_hide_what_each_remembers(own_level: float, memory: float) -> None:
    draw, cameras, steps = np.random.default_rng(8), 4, []
    for _ in range(20):
        levels, state = own_level * draw.normal(size=(cameras, 5)), draw.normal(size=(cameras, 5))
        stream = np.empty((600, 5))
        for place in range(len(stream)):
            at = place % cameras
            state[at] = memory * state[at] + draw.normal(size=5) * np.sqrt(1 - memory**2)
            stream[place] = state[at] + levels[at]
        steps.append(spacing({str(column): stream[:, column] for column in range(5)}))
    assert sum(step >= 5 for step in steps) >= 18
    for step in steps:
        assert {place % cameras for place in range(0, 600, step)} == set(range(cameras))
