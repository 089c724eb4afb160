# SPDX-License-Identifier: Apache-2.0
"""Predictions are counted by score and image, and read back as they were."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.errors import CorruptError
from shipsight.proof import Calibration, calibrate


def made(seed: int = 0, count: int = 600, images: int = 60) -> Calibration:
    draw = np.random.default_rng(seed)
    scores = draw.uniform(0.1, 1, count)
    found = calibrate(draw.integers(0, images, count), scores, draw.random(count) < scores, images=images, conf=0.25)
    assert found is not None
    return found


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(300, 2000), levels=st.integers(1, 50))
def test_every_prediction_from_the_threshold_on_is_counted_once(seed: int, count: int, levels: int) -> None:
    draw = np.random.default_rng(seed)
    scores = (np.round(draw.uniform(0, 1, count) * levels) / levels).astype(np.float32)
    image, right = draw.integers(0, 40, count), draw.random(count) < 0.7
    found = calibrate(image, scores, right, images=40, conf=0.3)
    if found is None:
        assert (scores >= 0.3).sum() < 100 or len(set(image[scores >= 0.3])) < 20
        return
    kept = scores >= 0.3
    assert found.found.sum(axis=1).tolist() == np.bincount(image[kept], minlength=40).tolist()
    assert found.right.sum() == (kept & right).sum()
    assert found.precision == pytest.approx(right[kept].mean())
    assert (np.diff(found.edges) > 0).all()
    assert found.count(scores).tolist() == found.found.sum(axis=0).tolist()


def test_ranges_hold_about_as_many_each_and_tell_the_chance() -> None:
    found = made(count=8000)
    each = found.found.sum(axis=0)
    assert len(each) == 10
    assert each.min() > 0.8 * each.mean()
    middles = (found.edges[1:] + found.edges[:-1]) / 2
    assert found.right.sum(axis=0) / each == pytest.approx(middles, abs=0.06)


@pytest.mark.parametrize(
    ("count", "images", "conf"), [(99, 50, 0.0), (500, 19, 0.0), (500, 50, 0.99), (500, 50, 1.0), (0, 50, 0.0)]
)
def test_too_little_is_no_calibration(count: int, images: int, conf: float) -> None:
    draw = np.random.default_rng(0)
    image = np.arange(count) % images
    assert calibrate(image, draw.random(count), np.ones(count, bool), images=images, conf=conf) is None


def test_it_is_read_back_as_it_was_written() -> None:
    one = made()
    again = Calibration.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again.to_dict() == one.to_dict()
    assert again.conf == 0.25


@pytest.mark.parametrize(
    "change",
    [
        {"edges": [0.5, 0.2, 1.0]},
        {"edges": [0.5]},
        {"edges": "no"},
        {"found": [[1, 2]]},
        {"right": [[10**6]]},
        {"found": [], "right": []},
        {"more": 1},
    ],
    ids=["falling", "one edge", "text", "another shape", "more right than found", "no images", "unknown key"],
)
def test_what_is_no_calibration_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CorruptError, match="not a calibration"):
        Calibration.from_dict({**made().to_dict(), **change})
    with pytest.raises(CorruptError, match="not a calibration"):
        Calibration.from_dict([])
