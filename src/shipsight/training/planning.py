# SPDX-License-Identifier: Apache-2.0
"""Which channels a network can do without: how many each part keeps so that a target is met at the least cost.

A unit is a set of channels that have to go together (what is added, halved or passed on is as wide as what it comes from). What its
channels cost in accuracy is measured by others (`_sensitivity`); here it is only weighed against the multiply-adds that go with
them. Pure: knows nothing of networks. Stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import UsageError

__all__ = ["LEAST_SHARE", "Layer", "Plan", "Unit", "multiply_adds", "normalized", "plan_channels"]

LEAST_SHARE = 0.375
"""Of a unit's channels at least so many stay: what is measured of a half says little of what is left of an eighth."""


@dataclass(frozen=True)
class Unit:
    """Channels that have to go together.

    Attributes:
        name: of the layer that makes them, for people.
        channels: how many there are.
        multiple: of which what is kept has to be one.
        importance: one share a channel, highest last; they sum to 1. Several parts of the same width are averaged.
        sensitivity: what it cost to do without half of them, in whatever the losses of all units are measured in.
    """

    name: str
    channels: int
    multiple: int
    importance: tuple[float, ...]
    sensitivity: float = 1.0

    def least(self) -> int:
        """Returns the fewest channels that it can keep."""
        wanted = max(self.multiple, int(np.ceil(self.channels * LEAST_SHARE)))
        return min(-(-wanted // self.multiple) * self.multiple, self.channels)

    def counts(self) -> list[int]:
        """Returns what it can keep, most first."""
        highest = self.channels // self.multiple * self.multiple
        fewer = range(highest, self.least() - 1, -self.multiple)
        return [self.channels, *(count for count in fewer if count < self.channels)]

    def cost(self, kept: int) -> float:
        """Returns the expected loss of keeping so many: the share of importance that goes, weighed by what half of it cost."""
        removed = np.cumsum((0.0, *self.importance))
        half = removed[self.channels // 2]
        share = removed[self.channels - kept]
        # What is lost grows faster than what is removed: the last channels carry what the others gave up.
        return float(self.sensitivity * (share / half) ** 2) if half > 0 else 0.0


@dataclass(frozen=True)
class Layer:
    """A convolution or a linear layer, as a cost.

    Attributes:
        name: of it.
        scale: multiply-adds of one input and one output channel.
        inputs: `(unit, times)`: whose channels it reads, and how often.
        fixed_inputs: channels it reads whatever is pruned.
        output: the unit of its output, None for an output that stays.
        fixed_outputs: channels of an output that stays.
        is_depthwise: whether each channel is made of one.
    """

    name: str
    scale: float
    inputs: tuple[tuple[int, float], ...]
    fixed_inputs: int
    output: int | None
    fixed_outputs: int
    is_depthwise: bool = False

    def multiply_adds(self, kept: Sequence[int]) -> float:
        """Returns its multiply-adds where each unit keeps so many channels."""
        outputs = self.fixed_outputs if self.output is None else kept[self.output]
        if self.is_depthwise:
            return self.scale * outputs
        return self.scale * outputs * (self.fixed_inputs + sum(kept[unit] * times for unit, times in self.inputs))


@dataclass(frozen=True)
class Plan:
    """How many channels each unit keeps.

    Attributes:
        kept: by unit, in their order.
        share: of the multiply-adds that are left.
        cost: expected loss, in the measure of the sensitivities.
    """

    kept: tuple[int, ...]
    share: float
    cost: float


def multiply_adds(layers: Sequence[Layer], kept: Sequence[int]) -> float:
    """Returns the multiply-adds of all layers for one image."""
    return sum(layer.multiply_adds(kept) for layer in layers)


def plan_channels(units: Sequence[Unit], layers: Sequence[Layer], *, share: float) -> Plan:
    """Chooses how many channels each unit keeps: always the step next that costs least for what it saves.

    Args:
        units: of a network.
        layers: of it.
        share: of the multiply-adds that may be left, between 0 and 1.

    Raises:
        UsageError: no choice is so small.
    """
    if not 0 < share <= 1:
        raise UsageError("not a share", where="share", expected="above 0, at most 1", got=share)
    whole = multiply_adds(layers, [unit.channels for unit in units])
    ladders = [unit.counts() for unit in units]
    costs = [[unit.cost(count) for count in ladder] for unit, ladder in zip(units, ladders, strict=True)]
    touched = _touched(units, layers)
    steps = [0] * len(units)
    kept = [unit.channels for unit in units]
    left = whole
    while left > share * whole:
        best, saved = None, 0.0
        rate = np.inf
        for place, ladder in enumerate(ladders):
            if steps[place] + 1 == len(ladder):
                continue
            before = sum(layer.multiply_adds(kept) for layer in touched[place])
            held, kept[place] = kept[place], ladder[steps[place] + 1]
            saving = before - sum(layer.multiply_adds(kept) for layer in touched[place])
            kept[place] = held
            price = costs[place][steps[place] + 1] - costs[place][steps[place]]
            if saving > 0 and price / saving < rate:
                best, saved, rate = place, saving, price / saving
        if best is None:
            raise UsageError(
                "no network of these layers is so small",
                where="share",
                expected=f"{left / whole:.3f} or more",
                got=share,
            )
        steps[best] += 1
        kept[best] = ladders[best][steps[best]]
        left -= saved
    cost = sum(costs[place][step] for place, step in enumerate(steps))
    return Plan(tuple(kept), left / whole, cost)


def _touched(units: Sequence[Unit], layers: Sequence[Layer]) -> Mapping[int, list[Layer]]:
    found: dict[int, list[Layer]] = {place: [] for place in range(len(units))}
    for layer in layers:
        for place in {unit for unit, _ in layer.inputs} | ({layer.output} if layer.output is not None else set()):
            found[place].append(layer)
    return found


def normalized(importance: NDArray[np.floating]) -> tuple[float, ...]:
    """Returns importance as a unit takes it: sorted, summing to 1."""
    ordered = np.sort(np.asarray(importance, np.float64))
    total = ordered.sum()
    return tuple((ordered / total if total > 0 else np.full(len(ordered), 1 / len(ordered))).tolist())
