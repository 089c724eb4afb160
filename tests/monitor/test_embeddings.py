# SPDX-License-Identifier: Apache-2.0
"""Vectors join the one test of all features: its level stands, changes that no number shows are found, and a state holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.monitor.test_watching import FAST, Scene, ticking

from shipsight.errors import UsageError
from shipsight.monitor import Monitor
from shipsight.monitor.features import EMBEDDING
from shipsight.monitor.permuting import compare


class View:
    """Vectors around a middle, of which a few directions vary most."""

    def __init__(self, seed: int = 0, size: int = 64) -> None:
        self.draw = np.random.default_rng(seed)
        self.spread = 1 / np.sqrt(np.arange(1, size + 1))
        self.moved = 0.0

    def many(self, count: int, moved: float = 0.0) -> np.ndarray:
        return (self.draw.normal(moved, 1, (count, len(self.spread))) * self.spread) + 5

    def __call__(self, image_rgb: np.ndarray) -> np.ndarray:
        assert image_rgb.ndim == 3
        return self.many(1, self.moved)[0]


def judged(first: np.ndarray, second: np.ndarray, seed: int = 0) -> tuple[float, float]:
    found = compare({EMBEDDING: first}, {EMBEDDING: second}, vectors=(EMBEDDING,), seed=seed)[EMBEDDING]
    return found.p_value, found.effect


def test_chance_is_what_it_is_said_to_be() -> None:
    p_values = []
    for seed in range(120):
        view = View(seed)
        p_values.append(judged(view.many(60), view.many(40), seed)[0])
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("moved", [0.3, 0.6, 0.9])
def test_the_effect_is_half_of_the_deviations_that_vectors_moved(moved: float) -> None:
    view = View(1)
    p_value, effect = judged(view.many(600), view.many(400, moved))
    assert p_value < 0.001
    assert effect == pytest.approx(moved / 2, rel=0.25)


def test_one_number_is_judged_by_the_energy_distance_of_the_literature() -> None:
    draw = np.random.default_rng(3)
    first, second = draw.normal(0, 1, 500), draw.normal(1.2, 1, 700)
    between = np.abs(first[:, None] - second).mean()
    wanted = np.sqrt(stats.energy_distance(first, second) ** 2 / (2 * between))
    assert judged(first[:, None], second[:, None])[1] == pytest.approx(wanted, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), place=st.floats(-1e4, 1e4), scale=st.floats(1e-3, 1e3))
def test_order_place_and_scale_do_not_matter(seed: int, place: float, scale: float) -> None:
    view = View(seed, size=5)
    first, second = view.many(30), view.many(20, 0.5)
    p_value, effect = judged(first, second)
    # Of other rows dealt with the same seed only chance differs.
    again = judged(
        view.draw.permutation(first) * scale + place * scale, view.draw.permutation(second) * scale + place * scale
    )
    assert again[1] == pytest.approx(effect, abs=0.01)
    assert again[0] == pytest.approx(p_value, abs=0.06)


def test_vectors_that_are_all_one_are_no_drift() -> None:
    same = np.ones((30, 8))
    assert judged(same, same[:20]) == (1.0, 0.0)


def made(view: View | None, state_file: Path | None = None) -> Monitor:
    return Monitor("animals/v1", FAST, state_file, clock=ticking, embed=view)


def feed(monitor: Monitor, scene: Scene, count: int) -> None:
    for _ in range(count):
        monitor.observe(scene.image(), scene.answer())


def test_what_only_the_model_sees_is_found_and_survives_a_restart(tmp_path: Path) -> None:
    view, scene, file = View(), Scene(), tmp_path / "monitor.json"
    monitor = made(view, file)
    while not monitor.report().is_learned:
        feed(monitor, scene, 1)
    step = monitor.report().spacing
    while monitor.report().windows < 1:
        feed(monitor, scene, step)
    assert EMBEDDING in {one.feature for one in monitor.report().drifts}
    assert monitor.report().alarms == ()
    view.moved = 1.0
    feed(monitor, scene, 3)
    monitor.save()
    monitor = made(view, file)
    while monitor.report().windows < 2:
        feed(monitor, scene, 1)
    (alarm,) = monitor.report().alarms
    assert (alarm.feature, alarm.images) == (EMBEDDING, 40)
    assert isinstance(alarm.here, float)
    assert isinstance(alarm.before, float)
    assert alarm.here > alarm.before
    told = next(one for one in monitor.signals() if one.name == "drift-embedding")
    assert told.is_firing
    assert "The model sees something else" in told.what
    assert not any(one.feature == EMBEDDING for one in monitor.report().trends)


def test_a_reference_without_vectors_is_compared_without(tmp_path: Path) -> None:
    scene, file = Scene(), tmp_path / "monitor.json"
    monitor = made(None, file)
    while not monitor.report().is_learned:
        feed(monitor, scene, 1)
    monitor = made(View(), file)
    while not monitor.report().windows:
        feed(monitor, scene, 1)
    assert EMBEDDING not in {one.feature for one in monitor.report().drifts}
    assert "brightness" in {one.feature for one in monitor.report().drifts}


def test_vectors_of_another_size_are_refused_and_broken_ones_counted() -> None:
    scene = Scene()
    monitor = made(View(size=8))
    feed(monitor, scene, 5)
    monitor.embed = View(size=9)
    with pytest.raises(UsageError, match="vectors of one size"):
        feed(monitor, scene, 1)
    monitor.embed = lambda image: np.full(8, np.nan)
    feed(monitor, scene, 2)
    assert monitor.report().unreadable == 2
