# SPDX-License-Identifier: Apache-2.0
"""The guard's decisions, with quantization and measuring played by functions."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.build.measure.intervals import Interval, Outcome
from shipsight.build.optimize import (
    Attempt,
    FloatLayers,
    GuardEnd,
    GuardMeasurement,
    GuardResult,
    GuardSettings,
    GuardStep,
    LayerGroup,
    LayerMap,
    LayerRole,
    run_guard,
)
from shipsight.errors import UsageError


def group(name: str, role: LayerRole, weighted: int) -> LayerGroup:
    return LayerGroup(
        name=name, role=role, nodes=tuple(f"{name}/{i}" for i in range(max(weighted, 1))), weighted=weighted
    )


BODY = tuple(group(f"block {number}", LayerRole.BODY, 4) for number in range(1, 9))
LAYERS = LayerMap(
    groups=(
        *BODY[:4],
        group("attention", LayerRole.ATTENTION, 0),
        *BODY[4:],
        group("head-output", LayerRole.HEAD_OUTPUT, 6),
        group("decode", LayerRole.DECODE, 2),
    ),
    weighted=40,
)


def measurement(drop: float, integer: int = 40, latency_ms: float = 5.0, half: float = 0.004) -> GuardMeasurement:
    interval = Interval(value=drop, low=drop - half, high=drop + half)
    return GuardMeasurement(drop=interval, latency_ms=latency_ms, integer_convolutions=integer, convolutions=40)


def integers(floating: FloatLayers) -> int:
    return 40 - sum(one.weighted for one in floating.groups)


def drops_by(shares: dict[str, float], half: float = 0.004):  # a measure in which each group in int8 costs its share
    def measure(floating: FloatLayers) -> GuardMeasurement:
        drop = sum(share for name, share in shares.items() if name not in floating.names)
        return measurement(drop, integers(floating), half=half)

    return measure


def guard(measure, *, rank=lambda groups: groups, on_step=lambda step: None, **limits) -> GuardResult[FloatLayers]:
    attempt = Attempt(name="plain", quantize=lambda floating: floating)
    return run_guard([attempt], measure, layers=LAYERS, rank=rank, settings=GuardSettings(**limits), on_step=on_step)


def test_guard_takes_the_first_form_when_its_drop_fits():
    result = guard(lambda floating: measurement(0.002))
    assert result.end is GuardEnd.FITS
    assert len(result.steps) == 1
    assert result.float_layers == LAYERS.always_float
    assert result.steps[0].outcome is Outcome.PASSED


def test_guard_leaves_decoding_in_float_from_the_start():
    seen = []
    guard(lambda floating: seen.append(floating.names) or measurement(0.0))
    assert seen == [("decode",)]


def test_guard_returns_offenders_before_ranked_layers_when_the_drop_stays():
    result = guard(lambda floating: measurement(0.05, integers(floating)), rank=lambda groups: groups[::-1])
    returned = [step.returned for step in result.steps]
    assert returned[:5] == [(), ("head-output",), ("attention",), ("block 8",), ("block 7",)]


def test_guard_stops_at_the_offender_that_cost_the_accuracy():
    result = guard(drops_by({"head-output": 0.03, "block 3": 0.004}))
    assert result.end is GuardEnd.FITS
    assert result.float_layers is not None
    assert result.float_layers.names == ("decode", "head-output")


def test_guard_follows_the_measured_ranking_when_an_ordinary_block_is_the_offender():
    asked = []

    def rank(groups):
        asked.append([one.name for one in groups])
        return sorted(groups, key=lambda one: one.name != "block 6")

    result = guard(drops_by({"block 6": 0.2}), rank=rank)
    assert asked == [[one.name for one in BODY]]
    assert result.steps[-1].returned == ("block 6",)
    assert result.end is GuardEnd.FITS


def test_guard_does_not_ask_for_a_ranking_when_offenders_are_enough():
    def rank(groups):
        raise AssertionError("ranked without need")

    assert guard(drops_by({"attention": 0.1}), rank=rank).end is GuardEnd.FITS


def test_guard_returns_ever_more_layers_at_once_when_single_ones_do_not_help():
    result = guard(lambda floating: measurement(0.5, integers(floating)), min_integer_share=0.0)
    assert [len(step.returned) for step in result.steps] == [0, 1, 1, 1, 1, 2, 4]


def test_guard_gives_no_files_when_every_form_fails():
    result = guard(lambda floating: measurement(0.3, integers(floating)))
    assert result.files is None
    assert result.end is GuardEnd.TOO_INACCURATE
    assert all(step.outcome is Outcome.FAILED for step in result.steps)


def test_guard_stops_when_too_few_integers_are_left():
    result = guard(lambda floating: measurement(0.3, integers(floating)), min_integer_share=0.7)
    assert result.steps[-1].measurement.integer_share < 0.7
    assert all(step.measurement.integer_share >= 0.7 for step in result.steps[:-1])


def test_guard_keeps_the_best_undecided_form_when_none_fits():
    drops = iter((0.02, 0.013, 0.016, 0.018, 0.019, 0.02, 0.02))
    result = guard(lambda floating: measurement(next(drops), half=0.01), min_integer_share=0.0)
    assert result.end is GuardEnd.UNDECIDED
    assert result.step is not None
    assert result.step.number == 2
    assert result.step.outcome is Outcome.UNDECIDED


def test_guard_says_too_slow_when_an_accurate_form_is_not_faster_than_float():
    result = guard(lambda floating: measurement(0.0, latency_ms=9.0), float_latency_ms=9.0)
    assert result.files is None
    assert result.end is GuardEnd.TOO_SLOW
    assert not result.steps[0].is_faster


def test_guard_goes_on_to_the_next_attempt_when_the_first_is_slower_than_float():
    speeds = {"signed": 12.0, "unsigned": 6.0}
    attempts = [Attempt(name=name, quantize=lambda floating, name=name: name) for name in speeds]
    result = run_guard(
        attempts,
        lambda name: measurement(0.001, latency_ms=speeds[name]),
        layers=LAYERS,
        rank=lambda groups: groups,
        settings=GuardSettings(float_latency_ms=9.0),
    )
    assert result.files == "unsigned"
    assert [step.attempt for step in result.steps] == ["signed", "unsigned"]


def test_guard_gives_each_attempt_its_known_offenders_then_goes_on_with_the_one_that_lost_least_among_the_faster():
    def measure(form: tuple[str, FloatLayers]) -> GuardMeasurement:
        name, floating = form
        start = {"clamped": 0.2, "narrow": 0.03, "slow": 0.0}[name]
        fixed = "block 1" in floating.names
        return measurement(0.005 if fixed else start, integers(floating), latency_ms=12.0 if name == "slow" else 5.0)

    attempts = [
        Attempt(name=name, quantize=lambda floating, name=name: (name, floating))
        for name in ("clamped", "narrow", "slow")
    ]
    result = run_guard(attempts, measure, layers=LAYERS, rank=lambda g: g, settings=GuardSettings(float_latency_ms=9.0))
    assert [step.attempt for step in result.steps] == [*["clamped"] * 3, *["narrow"] * 3, "slow", "narrow"]
    assert [step.returned for step in result.steps[-3:]] == [("attention",), (), ("block 1",)]
    assert result.steps[-1].float_groups == ("decode", "head-output", "attention", "block 1")
    assert result.end is GuardEnd.FITS


def test_guard_takes_an_attempt_repaired_by_its_known_offenders_before_it_tries_another_way():
    def measure(form: tuple[str, FloatLayers]) -> GuardMeasurement:
        return measurement(0.005 if "head-output" in form[1].names else 0.02, integers(form[1]))

    attempts = [
        Attempt(name=name, quantize=lambda floating, name=name: (name, floating)) for name in ("fine", "coarse")
    ]
    result = run_guard(attempts, measure, layers=LAYERS, rank=lambda g: g, settings=GuardSettings())
    assert [(step.attempt, step.returned) for step in result.steps] == [("fine", ()), ("fine", ("head-output",))]


def test_guard_begins_an_attempt_with_what_it_spares():
    attempt = Attempt(name="plain", quantize=lambda floating: floating, spared=(LayerRole.HEAD_OUTPUT,))
    result = run_guard(
        [attempt],
        drops_by({"attention": 0.05, "block 2": 0.05}),
        layers=LAYERS,
        rank=lambda g: g,
        settings=GuardSettings(),
    )
    assert [step.returned for step in result.steps] == [(), ("attention",), ("block 1",), ("block 2",)]
    assert result.steps[0].float_groups == ("decode", "head-output")
    assert result.end is GuardEnd.FITS


def test_guard_tells_each_step_before_the_next_is_made():
    events: list[str] = []

    def quantize(floating: FloatLayers) -> FloatLayers:
        events.append("quantize")
        return floating

    run_guard(
        [Attempt(name="plain", quantize=quantize)],
        drops_by({"head-output": 0.05}),
        layers=LAYERS,
        rank=lambda groups: groups,
        on_step=lambda step: events.append(f"step {step.number}"),
    )
    assert events == ["quantize", "step 1", "quantize", "step 2"]


def test_guard_measures_no_more_than_it_may():
    result = guard(lambda floating: measurement(0.3), max_steps=3)
    assert len(result.steps) == 3


def test_step_reads_as_a_line_and_as_plain_values():
    step: GuardStep = guard(drops_by({"head-output": 0.0312})).steps[0]
    assert step.describe() == (
        "1. plain, start: drop +0.0312 [+0.0272, +0.0352] failed, 38 of 40 convolutions in int8 (95%), 5.0 ms"
    )
    assert json.loads(json.dumps(step.to_dict()))["int8_layers"] == [38, 40]


def test_guard_refuses_to_run_without_a_way_to_quantize():
    with pytest.raises(UsageError, match="way to quantize"):
        run_guard([], lambda files: measurement(0.0), layers=LAYERS, rank=lambda groups: groups)


@pytest.mark.parametrize(
    "limits",
    [{"max_drop": -0.1}, {"max_drop": 1.1}, {"min_integer_share": 2.0}, {"max_steps": 0}, {"float_latency_ms": 0.0}],
)
def test_settings_refuse_values_out_of_range(limits):
    with pytest.raises(UsageError):
        GuardSettings(**limits)


_MEASUREMENTS = st.builds(
    measurement,
    st.floats(-0.05, 0.3),
    st.integers(0, 40),
    st.floats(1.0, 20.0),
    st.floats(0.0, 0.05),
)


@settings(max_examples=200, deadline=None)
@given(
    measured=st.lists(_MEASUREMENTS, min_size=30, max_size=30),
    max_drop=st.floats(0.0, 0.1),
    floor=st.floats(0.0, 1.0),
    float_ms=st.none() | st.floats(1.0, 20.0),
    attempts=st.integers(1, 3),
)
def test_guard_never_returns_a_form_that_failed_is_slow_or_is_integer_in_name_only(
    measured, max_drop, floor, float_ms, attempts
):
    limits = GuardSettings(max_drop=max_drop, min_integer_share=floor, float_latency_ms=float_ms)
    feed = iter(measured)
    ways = [Attempt(name=f"way {number}", quantize=lambda floating: floating) for number in range(attempts)]
    result = run_guard(ways, lambda files: next(feed), layers=LAYERS, rank=lambda groups: groups, settings=limits)

    assert [step.number for step in result.steps] == list(range(1, len(result.steps) + 1))
    for way in ways:
        grown = [set(step.float_groups) for step in result.steps if step.attempt == way.name]
        assert all(before < after for before, after in itertools.pairwise(grown))
    if result.step is None:
        assert result.files is None
        assert result.end in (GuardEnd.TOO_INACCURATE, GuardEnd.TOO_SLOW)
        return
    chosen = result.step
    assert chosen.outcome is not Outcome.FAILED
    assert chosen.measurement.drop.low <= max_drop
    assert chosen.measurement.integer_share >= floor
    assert float_ms is None or chosen.measurement.latency_ms < float_ms
    assert (result.end is GuardEnd.FITS) == (chosen.measurement.drop.value <= max_drop)
    assert result.float_layers is not None
    assert result.float_layers.names == chosen.float_groups
