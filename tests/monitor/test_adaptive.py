# SPDX-License-Identifier: Apache-2.0
"""The adaptive window: holds what belongs together, forgets what came before a change, and stays small."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.monitor.adaptive import AdaptiveWindow

ERROR = 0.002


def fed(values: object, error: float = ERROR) -> tuple[AdaptiveWindow, list[int]]:
    window, cuts = AdaptiveWindow(error), []
    for place, value in enumerate(np.asarray(values, np.float64)):
        if window.add(float(value)):
            cuts.append(place)
    return window, cuts


@given(st.lists(st.floats(0, 1), max_size=300))
@settings(max_examples=50)
def test_it_holds_the_latest_values_and_their_mean(values: list[float]) -> None:
    window, _ = fed(values)
    latest = values[len(values) - len(window) :]
    assert sum(count for count, _, _ in window.buckets) == len(latest)
    if latest:
        assert window.mean == pytest.approx(np.mean(latest))
    sums = [(total, squares) for _, total, squares in window.buckets]
    assert sum(total for total, _ in sums) == pytest.approx(np.sum(latest))
    assert sum(squares for _, squares in sums) == pytest.approx(np.sum(np.square(latest)))


@given(st.integers(1, 3000))
@settings(max_examples=25)
def test_sizes_are_powers_of_two_and_fall_and_few_are_alike(count: int) -> None:
    window, _ = fed([0.5] * count)
    sizes = [one[0] for one in window.buckets]
    assert sum(sizes) == count
    assert sizes == sorted(sizes, reverse=True)
    assert all(size & (size - 1) == 0 for size in sizes)
    assert max(sizes.count(size) for size in sizes) <= 5
    assert len(sizes) <= 5 * (count.bit_length() + 1)


@pytest.mark.parametrize(("before", "behind", "latest"), [(0.3, 0.7, 60), (0.4, 0.6, 250), (0.2, 0.25, None)])
def test_a_change_is_found_the_sooner_the_larger_and_what_came_before_is_forgotten(
    before: float, behind: float, latest: int | None
) -> None:
    delays = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        values = np.concatenate(
            [draw.uniform(before - 0.2, before + 0.2, 600), draw.uniform(behind - 0.2, behind + 0.2, 600)]
        )
        window, cuts = fed(values)
        assert not [one for one in cuts if one < 600]
        delays.append(cuts[0] - 600 if cuts else 600)
        if latest is not None:
            assert window.mean == pytest.approx(behind, abs=0.03)
            assert len(window) < 700
    if latest is not None:
        assert np.median(delays) <= latest


def test_streams_without_a_change_are_cut_no_more_often_than_asked_for() -> None:
    # At one look in 500 chance may cut; the bound is wider than chance is.
    looks, cuts = 0, 0
    for seed in range(60):
        found = fed(np.random.default_rng(seed).random(800), error=0.01)[1]
        looks, cuts = looks + 100, cuts + len(found)
    assert cuts <= 0.01 * looks
    assert cuts <= 6  # far less, in fact


def test_a_look_at_every_border_gives_what_buckets_give() -> None:
    """Without sums, on all that is held: borders between single values are a superset of those between buckets."""
    for seed in range(30):
        draw = np.random.default_rng(seed)
        values = np.concatenate(
            [draw.random(int(draw.integers(20, 80))) * 0.5, 0.4 + 0.5 * draw.random(int(draw.integers(20, 80)))]
        )
        cuts = fed(values, error=0.05)[1]
        if cuts:
            first = cuts[0] + 1
            assert _has_border(values[:first], 0.05)


def _has_border(values: np.ndarray, error: float) -> bool:
    count, variance = len(values), float(values.var())
    chance = np.log(2 * np.log(count) / error)
    for place in range(10, count - 9):
        shorter = 1 / (1 / place + 1 / (count - place))
        bound = np.sqrt(2 / shorter * variance * chance) + 2 / (3 * shorter) * chance
        if abs(values[:place].mean() - values[place:].mean()) > bound:
            return True
    return False
