# SPDX-License-Identifier: Apache-2.0
"""Trends: small and slow changes are found that windows miss, at the level asked for, and go on over restarts."""

from __future__ import annotations

import numpy as np
import pytest

from shipsight.monitor.drift import MonitorSettings
from shipsight.monitor.permuting import compare
from shipsight.monitor.trends import Trends

NAMES = ("brightness", "contrast", "objects", "side")
SETTINGS = MonitorSettings()


def reference(seed: int, count: int = 300) -> dict[str, np.ndarray]:
    return stretch(seed, count, 0.0)


def stretch(seed: int, count: int, shift: float) -> dict[str, np.ndarray]:
    """Rows of four numbers, one with ties, one constant; the first is moved by so many standard deviations."""
    draw = np.random.default_rng(seed)
    return {
        "brightness": draw.normal(120 + 20 * shift, 20, count),
        "contrast": draw.gamma(2, 10, count),
        "objects": draw.poisson(3, count).astype(np.float64),
        "side": np.full(count, 640.0),
    }


def feed(trends: Trends, rows: dict[str, np.ndarray]) -> None:
    for place in range(len(rows["side"])):
        trends.add({name: float(values[place]) for name, values in rows.items()})


def alarms(trends: Trends) -> list[str]:
    return [one.feature for one in trends.found() if one.is_alarm]


def test_a_shift_that_a_window_does_not_show_is_found_and_its_size_is_told() -> None:
    found, in_windows = 0, 0
    for seed in range(20):
        trends = Trends(reference(seed), SETTINGS)
        rows = stretch(1000 + seed, 800, 0.4)
        feed(trends, rows)
        found += alarms(trends) == ["brightness"]
        window = {name: values[-100:] for name, values in rows.items()}
        one = compare(reference(seed), window, seed=seed)["brightness"]
        in_windows += one.p_family <= SETTINGS.error and one.effect >= SETTINGS.least_effect
    assert found >= 18
    assert found > in_windows + 5


def test_without_a_change_hardly_any_stream_alarms() -> None:
    wrong = 0
    for seed in range(200):
        trends = Trends(reference(seed), SETTINGS)
        feed(trends, stretch(5000 + seed, 300, 0.0))
        wrong += bool(alarms(trends))
    assert wrong <= 6  # 2 are asked for; 7 and more have a chance of 0.4 %


def test_the_level_holds_where_every_effect_matters() -> None:
    wrong, settings = 0, MonitorSettings(error=0.05, least_trend=0.0)
    for seed in range(200):
        trends = Trends(reference(seed), settings)
        feed(trends, stretch(5000 + seed, 100, 0.0))
        wrong += bool(alarms(trends))
    assert wrong <= 17  # 10 are asked for; 18 and more have a chance of 1 %


def test_after_a_change_and_back_again_it_is_quiet() -> None:
    trends = Trends(reference(1), SETTINGS)
    feed(trends, stretch(2, 300, 0.0))
    assert alarms(trends) == []
    feed(trends, stretch(3, 300, 1.5))
    assert alarms(trends) == ["brightness"]
    feed(trends, stretch(4, 400, 0.0))
    assert alarms(trends) == []


@pytest.mark.parametrize("cut", [0, 1, 37, 250])
def test_what_is_kept_goes_on_as_if_nothing_had_been(cut: int) -> None:
    whole, rows = Trends(reference(1), SETTINGS), stretch(2, 400, 0.4)
    feed(whole, rows)
    first = Trends(reference(1), SETTINGS)
    feed(first, {name: values[:cut] for name, values in rows.items()})
    again = Trends(reference(1), SETTINGS, first.kept())
    feed(again, {name: values[cut:] for name, values in rows.items()})
    assert [one.feature for one in again.found()] == [one.feature for one in whole.found()]
    for one, other in zip(again.found(), whole.found(), strict=True):
        assert one.effect == pytest.approx(other.effect, abs=0.02)


def test_few_images_tell_nothing_and_a_constant_moves_where_it_is_another() -> None:
    trends = Trends(reference(1), SETTINGS)
    rows = stretch(2, 200, 0.0)
    feed(trends, {name: values[:29] for name, values in rows.items()})
    assert trends.found() == ()
    feed(trends, {**rows, "side": np.full(200, 320.0)})
    assert "side" in alarms(trends)
