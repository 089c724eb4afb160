# SPDX-License-Identifier: Apache-2.0
"""Turns are far enough apart, even in the long run, and keep step with no camera."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from shipsight.monitor.spreading import gap, places, share


def test_shares_are_spread_evenly_and_always_the_same() -> None:
    drawn = np.array([share(number) for number in range(10_000)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert np.histogram(drawn, 10, (0, 1))[0] == pytest.approx(np.full(10, 1000), abs=150)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.05
    assert share(7) == share(7)


def test_every_image_is_taken_at_a_step_of_one() -> None:
    assert places(1, 20) == list(range(20))
    assert places(3, 0) == []


@pytest.mark.parametrize("step", [2, 3, 5, 12])
@pytest.mark.parametrize("cameras", [2, 3, 4, 5, 6, 12])
def test_cameras_that_take_turns_are_all_taken_alike(step: int, cameras: int) -> None:
    taken = places(step, 400 * step)
    assert min(np.diff(taken)) == step
    counts = Counter(place % cameras for place in taken)
    assert set(counts) == set(range(cameras))
    assert min(counts.values()) > 0.3 * len(taken) / cameras


def test_gaps_are_those_of_places() -> None:
    taken = places(5, 100)
    assert [gap(5, number) for number in range(1, len(taken))] == list(np.diff(taken))
