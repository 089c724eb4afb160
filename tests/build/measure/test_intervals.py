# SPDX-License-Identifier: Apache-2.0
"""Paired bootstrap: right on average, fast, repeatable."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.build.measure import (
    Accuracy,
    Interval,
    Labels,
    Outcome,
    Sample,
    compare,
    evaluate,
    outcome,
    pooled_interval,
)
from shipsight.build.measure.average_precision import mean_average_precision
from shipsight.build.measure.matching import MatchTable
from shipsight.errors import CorruptError, UsageError
from shipsight.model import ImagePredictions, Task

NAMES = ("a", "b", "c", "d", "e")
MakeSamples = Callable[..., list[Sample]]
MakePredictions = Callable[..., list[ImagePredictions]]


def measure(samples: list[Sample], predictions: list[ImagePredictions]) -> Accuracy:
    return evaluate(predictions, samples, task=Task.DETECT, class_names=NAMES)


def test_weights_equal_copies_of_images(box_samples: MakeSamples, perturbed_boxes: MakePredictions) -> None:
    samples = box_samples(10)
    predictions = perturbed_boxes(samples, seed=1)
    weights = np.array([2, 0, 1, 3, 1, 0, 0, 1, 1, 1])
    copies = np.repeat(np.arange(10), weights)
    # Equal scores of different images are taken in image order, so copies must stand together as weights do.
    repeated = measure([samples[i] for i in copies], [predictions[i] for i in copies])
    table = measure(samples, predictions).table
    assert table is not None
    values = mean_average_precision(table, weights[None].astype(float))[0]
    assert values.mean() == pytest.approx(repeated.map50_95, abs=1e-9)
    assert values[0] == pytest.approx(repeated.map50, abs=1e-9)


def test_ignored_predictions_do_not_count_when_resampled() -> None:
    matched = np.tile(np.array([False, True, False, True]), (10, 1))
    ignored = np.tile(np.array([True, False, False, False]), (10, 1))
    table = MatchTable(
        np.array([0, 0, 1, 1], np.int32), np.zeros(4, np.int32), np.array([0.9, 0.8, 0.7, 0.6]),
        matched, ignored, np.array([[1], [1]], np.int32),
    )  # fmt: skip
    value = mean_average_precision(table, np.ones((1, 2)))[0, 0]
    # Right, wrong, right: precision 1 up to recall 0.5 (51 points), 2/3 beyond (50 points).
    assert value == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_interval_holds_the_difference_and_is_repeatable(
    box_samples: MakeSamples, perturbed_boxes: MakePredictions
) -> None:
    samples = box_samples(30)
    good = measure(samples, perturbed_boxes(samples, seed=1, noise=0.02))
    bad = measure(samples, perturbed_boxes(samples, seed=2, noise=0.15))
    interval = compare(good, bad)
    assert interval.value == pytest.approx(good.value - bad.value)
    assert 0 < interval.low < interval.value < interval.high
    assert compare(good, bad) == interval
    assert compare(good, bad, seed=1) != interval
    back = compare(bad, good)
    assert (back.low, back.high) == pytest.approx((-interval.high, -interval.low))
    same = compare(good, good)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_pairing_narrows_the_interval(box_samples: MakeSamples, perturbed_boxes: MakePredictions) -> None:
    samples = box_samples(30)
    predictions = perturbed_boxes(samples, seed=1)
    a = measure(samples, predictions)
    # Nearly the same model: a few boxes less. Its mAP by itself varies by several points between resamples.
    b = measure(samples, [one.select(one.scores > 0.3) for one in predictions])
    paired = compare(a, b)
    assert a.table is not None
    weights = np.random.default_rng(0).multinomial(30, np.full(30, 1 / 30), size=300).astype(float)
    alone = mean_average_precision(a.table, weights).mean(axis=1)
    assert paired.high - paired.low < 0.5 * (np.percentile(alone, 97.5) - np.percentile(alone, 2.5))


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
    samples = [Sample(Path(f"{i}"), Labels(np.array([0]), np.zeros((1, 4)))) for i in range(100)]

    def classify(hits: np.ndarray) -> Accuracy:
        rows = [np.array([hit, 1 - hit], np.float32) for hit in hits]
        images = [ImagePredictions(None, 8, 8, ("x", "y"), *nothing, probabilities=row) for row in rows]
        return evaluate(images, samples, task=Task.CLASSIFY, class_names=("x", "y"))

    for _ in range(100):
        a, b = classify(rng.random(100) < 0.9), classify(rng.random(100) < 0.8)
        interval = compare(a, b, resamples=300)
        covered += interval.low <= 0.1 <= interval.high
    # 95 expected; a binomial of 100 stays above 86 in 99.9 % of cases, and the seed is fixed.
    assert covered >= 87


def test_pooled_interval_is_the_mean_over_sets(box_samples: MakeSamples, perturbed_boxes: MakePredictions) -> None:
    pairs = []
    for seed in range(2):
        samples = box_samples(15, seed=seed)
        pairs.append(
            (measure(samples, perturbed_boxes(samples, seed=1)), measure(samples, perturbed_boxes(samples, seed=2)))
        )
    pooled = pooled_interval(pairs)
    first, second = (compare(a, b) for a, b in pairs)
    assert pooled.value == pytest.approx((first.value + second.value) / 2)
    assert pooled.high - pooled.low < max(first.high - first.low, second.high - second.low)


def test_different_images_or_lost_matches_are_refused(
    box_samples: MakeSamples, perturbed_boxes: MakePredictions
) -> None:
    samples = box_samples(4)
    a = measure(samples, perturbed_boxes(samples, seed=1))
    others = box_samples(4, seed=5)
    with pytest.raises(UsageError, match="same labels"):
        compare(a, measure(others, perturbed_boxes(others, seed=1)))
    with pytest.raises(UsageError, match="same images"):
        compare(a, replace(a, sources=("z", *a.sources[1:])))
    with pytest.raises(UsageError, match="no matches"):
        compare(replace(a, table=None), replace(a, table=None))
    with pytest.raises(UsageError, match="too few resamples"):
        compare(a, a, resamples=10)
    with pytest.raises(UsageError, match="nothing to compare"):
        pooled_interval([])


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.floats(-0.5, 0.5))
def test_outcome_is_told_by_the_bounds(value: float, below: float, above: float, limit: float) -> None:
    interval = Interval(value, value - below, value + above)
    expected = Outcome.UNDECIDED
    if value + above <= limit:
        expected = Outcome.PASSED
    elif value - below > limit:
        expected = Outcome.FAILED
    assert outcome(interval, limit) is expected
    assert Interval.from_dict(interval.to_dict()) == interval


def test_outcome_at_the_limit_itself_passes() -> None:
    assert outcome(Interval(0.01, 0.01, 0.01), 0.01) is Outcome.PASSED
    for broken in ({"value": 1, "low": 0}, {"value": "x", "low": 0, "high": 1}):
        with pytest.raises(CorruptError):
            Interval.from_dict(broken)


def test_thousand_resamples_of_eighty_classes_take_seconds() -> None:
    rng = np.random.default_rng(0)
    images, labels_each, predictions_each = 64, 8, 300
    count = images * predictions_each
    matched = np.sort(rng.random((10, count)) < labels_each / predictions_each, axis=0)[::-1]
    table = MatchTable(
        np.repeat(np.arange(images, dtype=np.int32), predictions_each), rng.integers(0, 80, count, dtype=np.int32),
        rng.random(count), matched, np.zeros_like(matched), rng.integers(0, 2, (images, 80), dtype=np.int32),
    )  # fmt: skip
    weights = rng.multinomial(images, np.full(images, 1 / images), size=1000).astype(float)
    begin = time.process_time()
    values = mean_average_precision(table, weights)
    seconds = time.process_time() - begin
    assert values.shape == (1000, 10)
    assert seconds < 5.0, "0.8 s were measured for both sides of a comparison; the machine may be busy"
