# SPDX-License-Identifier: Apache-2.0
"""Precision from scores: its interval holds what labels show as often as said, where scores mean what they meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shipsight.model import ImagePredictions
from shipsight.monitor import Monitor, MonitorSettings
from shipsight.monitor.accuracy import estimate
from shipsight.proof import Calibration, calibrate


class World:
    """Images with any number of predictions; what an image has of its own makes all of them right more or less often."""

    def __init__(self, seed: int, *, own: float = 0.8) -> None:
        self.draw, self.own = np.random.default_rng(seed), own

    def images(self, count: int, *, top: float = 1.0, truth: float = 1.0) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Returns the scores of each image, and which are right; `top` lowers scores, `truth` the chance alone."""
        scores, right = [], []
        for size in self.draw.poisson(6, count):
            drawn = self.draw.uniform(0.25, top, size)
            odds = np.log(drawn / (1 - drawn * 0.999)) + self.own * self.draw.normal()
            scores.append(drawn)
            right.append(self.draw.random(size) < truth / (1 + np.exp(-odds)))
        return scores, right

    def calibration(self, count: int) -> Calibration:
        scores, right = self.images(count)
        image = np.repeat(np.arange(count), [len(one) for one in scores])
        found = calibrate(image, np.concatenate(scores), np.concatenate(right), images=count, conf=0.25)
        assert found is not None
        return found


@pytest.mark.parametrize("count", [40, 150])
def test_the_interval_holds_what_labels_show_as_often_as_said(count: int) -> None:
    held = 0
    for seed in range(150):
        world = World(seed)
        calibration = world.calibration(count)
        scores, right = world.images(100, top=0.8)
        found = estimate(calibration, [one.tolist() for one in scores], seed=seed)
        assert found is not None
        held += found.low <= np.concatenate(right).mean() <= found.high
    assert stats.binomtest(held, 150, 0.95).pvalue > 1e-3


def test_a_window_that_scores_lower_is_estimated_lower_and_alarms() -> None:
    world = World(1)
    calibration = world.calibration(400)
    usual = estimate(calibration, [one.tolist() for one in world.images(200)[0]])
    lower = estimate(calibration, [one.tolist() for one in world.images(200, top=0.5)[0]])
    assert usual is not None
    assert lower is not None
    assert usual.low < calibration.precision < usual.high
    assert not usual.is_alarm
    assert lower.high < usual.low
    assert lower.is_alarm


def test_a_model_that_is_sure_and_wrong_is_not_found_out() -> None:
    world = World(2)
    scores, right = world.images(200, truth=0.5)
    found = estimate(world.calibration(400), [one.tolist() for one in scores])
    assert found is not None
    assert np.concatenate(right).mean() < found.low
    assert not found.is_alarm


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), mixing=st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(seed: int, mixing: object) -> None:
    world = World(seed)
    calibration, scores = world.calibration(60), [one.tolist() for one in world.images(40)[0]]
    mixed = list(scores)
    mixing.shuffle(mixed)  # type: ignore[attr-defined]
    assert estimate(calibration, scores) == estimate(calibration, mixed)


def test_few_predictions_are_no_estimate_and_those_below_the_threshold_do_not_count() -> None:
    calibration = World(3).calibration(60)
    assert estimate(calibration, [[0.9] * 29]) is None
    assert estimate(calibration, [[0.9] * 29 + [0.2] * 500]) is None
    found = estimate(calibration, [[0.9] * 30])
    assert found is not None
    assert found.predictions == 30
    assert 0 <= found.low <= found.value <= found.high <= 1


def answer(scores: np.ndarray) -> ImagePredictions:
    ids = np.zeros(len(scores), np.int64)
    boxes = np.tile(np.array([4, 4, 20, 20], np.float32), (len(scores), 1))
    return ImagePredictions(None, 64, 48, ("a",), ids, scores.astype(np.float32), boxes_xyxy=boxes)


def test_a_monitor_tells_it_after_each_window_and_over_restarts(tmp_path: Path) -> None:
    world, file = World(4), tmp_path / "monitor.json"
    options = MonitorSettings(reference=60, window=40, most_per_s=1e6)
    calibration, now = world.calibration(300), iter(range(10**6))

    def made(known: Calibration | None = calibration) -> Monitor:
        return Monitor("a/b", options, file, clock=lambda: float(next(now)), calibration=known)

    def feed(monitor: Monitor, count: int, top: float) -> None:
        for scores in world.images(count, top=top)[0]:
            image = world.draw.normal(120, 20, (48, 64, 3)).clip(0, 255).astype(np.uint8)
            monitor.observe(image, answer(scores))

    monitor = made()
    while not monitor.report().is_learned:
        feed(monitor, 1, 1.0)
    assert (monitor.report().accuracy, monitor.report().not_estimated) == (None, "no window was compared")
    step = monitor.report().spacing
    feed(monitor, 20 * step, 0.5)
    monitor.save()
    monitor = made()
    while monitor.report().windows == 0:
        feed(monitor, 1, 0.5)
    report = monitor.report()
    assert report.accuracy is not None
    assert (report.accuracy.images, report.accuracy.is_alarm, report.not_estimated) == (40, True, None)
    told = next(one for one in monitor.signals() if one.name == "accuracy-precision")
    assert told.is_firing
    assert "no labels" in told.evidence
    assert "images differ" not in told.evidence
    assert made().report().accuracy == report.accuracy
    dark = made()
    while dark.report().windows == 1:
        dark.observe(np.full((48, 64, 3), 20, np.uint8), answer(world.images(1, top=0.5)[0][0]))
    told = next(one for one in dark.signals() if one.name == "accuracy-precision")
    assert "images differ from the reference, too" in told.evidence
    file.unlink()
    plain = made(None)
    feed(plain, 200, 1.0)
    assert plain.report().accuracy is None
    assert "holds none" in str(plain.report().not_estimated)
    assert not any(one.name.startswith("accuracy") for one in plain.signals())
