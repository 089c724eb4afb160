# SPDX-License-Identifier: Apache-2.0
"""Which channels stay: the target is met, widths fit the hardware, and what matters least goes first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.errors import UsageError
from shipsight.training.planning import Layer, Unit, multiply_adds, normalized, plan_channels


def chain(widths: list[int], multiple: int, seed: int) -> tuple[list[Unit], list[Layer]]:
    """A network whose layers read each other, 3 channels in and 10 out."""
    draw = np.random.default_rng(seed)
    units = [
        Unit(f"layer{place}", width, multiple, normalized(draw.exponential(size=width)), float(draw.exponential()))
        for place, width in enumerate(widths)
    ]
    layers = []
    for place in range(len(widths) + 1):
        inputs = () if place == 0 else ((place - 1, 1.0),)
        output = place if place < len(widths) else None
        layers.append(Layer(f"layer{place}", 9.0, inputs, 3 if place == 0 else 0, output, 10 if output is None else 0))
    return units, layers


widths = st.lists(st.integers(8, 20).map(lambda number: number * 8), min_size=1, max_size=6)


@given(widths, st.sampled_from([1, 8, 16]), st.floats(0.55, 1.0), st.integers(0, 99))
def test_the_target_is_met_with_widths_that_fit(widths: list[int], multiple: int, share: float, seed: int) -> None:
    units, layers = chain(widths, multiple, seed)
    plan = plan_channels(units, layers, share=share)
    whole = multiply_adds(layers, [unit.channels for unit in units])
    assert multiply_adds(layers, plan.kept) <= share * whole * (1 + 1e-9)
    assert plan.share == pytest.approx(multiply_adds(layers, plan.kept) / whole)
    for unit, kept in zip(units, plan.kept, strict=True):
        assert kept == unit.channels or kept % multiple == 0
        assert unit.least() <= kept <= unit.channels


@given(widths, st.floats(0.55, 0.9), st.floats(0.55, 0.9), st.integers(0, 99))
def test_a_smaller_network_is_part_of_a_larger_one_and_costs_more(
    widths: list[int], one: float, other: float, seed: int
) -> None:
    units, layers = chain(widths, 8, seed)
    small, large = (plan_channels(units, layers, share=share) for share in sorted((one, other)))
    assert all(few <= many for few, many in zip(small.kept, large.kept, strict=True))
    assert small.cost >= large.cost - 1e-12


@given(st.integers(0, 99))
def test_of_two_alike_what_matters_more_keeps_more(seed: int) -> None:
    draw = np.random.default_rng(seed)
    importance = normalized(draw.exponential(size=64))
    layers = [
        Layer("first", 9.0, (), 3, 0, 0),
        Layer("second", 9.0, (), 3, 1, 0),
        Layer("out", 1.0, ((0, 1.0), (1, 1.0)), 0, None, 10),
    ]
    units = [Unit("first", 64, 8, importance, 5.0), Unit("second", 64, 8, importance, 0.5)]
    kept = plan_channels(units, layers, share=0.6).kept
    assert kept[0] > kept[1]


def test_depthwise_layers_cost_by_channel_and_repeated_inputs_count_each_time() -> None:
    assert Layer("depthwise", 9.0, ((0, 1.0),), 0, 0, 0, is_depthwise=True).multiply_adds([7]) == 63
    assert Layer("pooled four times", 1.0, ((0, 4.0),), 0, None, 5).multiply_adds([10]) == 200


def test_what_cannot_be_is_named() -> None:
    units, layers = chain([64], 16, 0)
    with pytest.raises(UsageError, match="so small"):
        plan_channels(units, layers, share=0.01)
    with pytest.raises(UsageError, match="share"):
        plan_channels(units, layers, share=0.0)


def test_channels_that_say_nothing_weigh_the_same() -> None:
    assert normalized(np.zeros(4)) == (0.25, 0.25, 0.25, 0.25)
