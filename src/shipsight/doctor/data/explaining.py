# SPDX-License-Identifier: Apache-2.0
"""Which change explains what deviates: one cause rather than its many symptoms. Pure.

Darker images have less contrast, less sharpness and less noise as well. So no measure is a cause of its own: each kind of change, and
each pair of them, is asked how well it accounts for all deviations at once, at the strength that fits best, and the plainest that
accounts for them is the cause. What every strength does to every measure was measured on golden images (`effects`); between
strengths it is taken as straight, and the effects of two changes as adding up on the measures' scales. Private.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.data.deviations import Deviation
from shipsight.doctor.data.shifts import Kind
from shipsight.doctor.data.training import SCALES
from shipsight.proof.image_measures import measure_image

__all__ = ["Cause", "Effect", "Explanation", "candidates", "explain", "measure_effect"]

FloatArray = NDArray[np.float64]
_STEPS = 33
_MODEL_ERROR = 0.12
"""Share by which the effect on golden images may differ from that on others; a tenth was measured between halves of coco128."""
_PER_PARAMETER = 6.0
"""What a fitted number must improve the misfit by: a number without meaning gains 1 on average, the best of fifty about 6."""
_PER_CAUSE = 12.0
"""What a second cause must improve it by beyond that."""
_LEAST_SHARE = 0.5
"""Share of the misfit that an explanation must account for; below, the images are others, not the same ones changed."""


@dataclass(frozen=True)
class Cause:
    """A change that explains deviations.

    Attributes:
        kind: of change.
        strength: that fits best.
        share: part of all misfit that it accounts for, 0 to 1; of a pair, what would be lost without it.
    """

    kind: Kind
    strength: float
    share: float

    @property
    def rule(self) -> str:
        """Id of the rule that tells of it."""
        return self.kind.rules[0 if self.strength < 0 else 1]


@dataclass(frozen=True, eq=False)
class Effect:
    """What a kind of change does to the measures.

    Attributes:
        kind: of change.
        strengths: (S,) rising, 0 among them.
        moves: (S, M) change of each measure on its scale.
    """

    kind: Kind
    strengths: FloatArray
    moves: FloatArray

    def fine(self) -> tuple[FloatArray, FloatArray]:
        """Returns strengths in small steps on the sides that were measured, and the moves there."""
        if self.kind.is_whole:
            return self.strengths, self.moves
        places = np.linspace(0, len(self.strengths) - 1, (len(self.strengths) - 1) * 6 + 1)
        strengths = np.interp(places, np.arange(len(self.strengths)), self.strengths)
        moves = np.stack([np.interp(strengths, self.strengths, column) for column in self.moves.T], axis=1)
        return strengths, moves


@dataclass(frozen=True)
class Explanation:
    """How deviations came about.

    Attributes:
        causes: none, one or two; the one that accounts for more first.
        before: misfit without them: squared deviations over their errors, summed.
        after: with them.
    """

    causes: tuple[Cause, ...]
    before: float
    after: float

    @property
    def share(self) -> float:
        """Share of the misfit that is accounted for."""
        return 1 - self.after / self.before if self.before > 0 else 1.0


def candidates(deviations: Sequence[Deviation], kinds: Sequence[Kind]) -> list[tuple[Kind, tuple[float, ...]]]:
    """Returns the kinds of change that could have moved what deviates clearly, with the strengths of the right sign."""
    signs = {one.measure: float(np.sign(one.shift)) for one in deviations if one.is_clear}
    found = []
    for kind in kinds:
        fitting = tuple(
            strength
            for strength in kind.ladder
            if any(
                measure in signs
                and (way == 0 or signs[measure] == way * (np.sign(strength) if min(kind.ladder) < 0 else 1))
                for measure, way in kind.needs.items()
            )
        )
        if fitting:
            found.append((kind, fitting))
    return found


def measure_effect(
    kind: Kind,
    strengths: Sequence[float],
    images: Sequence[NDArray[np.uint8]],
    measures: Sequence[str],
    *,
    jpeg_quality: float | None = None,
    tick: Callable[[], None] = lambda: None,
) -> Effect:
    """Measures what a kind of change does to images.

    Args:
        kind: of change.
        strengths: to try.
        images: (H, W, 3) uint8 RGB, unchanged.
        measures: whose moves are wanted, in order.
        jpeg_quality: median of the training images' files; None where they are not JPEG.
        tick: called after every strength.
    """
    before = [_scaled(measure_image(image), measures) for image in images]
    moves = []
    for strength in strengths:
        after = [_scaled(measure_image(kind.apply(image, strength).image_rgb), measures) for image in images]
        move = np.mean([late - early for late, early in zip(after, before, strict=True)], axis=0)
        if kind.name == "jpeg" and "jpeg_quality" in measures and jpeg_quality is not None:
            forward = SCALES["jpeg_quality"].forward
            move[list(measures).index("jpeg_quality")] = float(forward(100 - strength) - forward(jpeg_quality))
        moves.append(move)
        tick()
    rising = np.array([*strengths, 0.0])
    order = np.argsort(rising)
    table = np.array([*moves, np.zeros(len(measures))])
    return Effect(kind, rising[order], table[order])


def _scaled(measured: Mapping[str, float], measures: Sequence[str]) -> FloatArray:
    return np.array([float(SCALES[name].forward(measured[name])) if name in measured else 0.0 for name in measures])


def explain(deviations: Sequence[Deviation], effects: Sequence[Effect]) -> Explanation:
    """Finds the plainest explanation.

    Args:
        deviations: of all measures, clear or not, in the order of the effects' columns.
        effects: of the kinds that come into question.
    """
    shifts = np.array([one.shift for one in deviations])
    # A third of what matters is added to each error, or a measure without spread would decide everything.
    noise = np.array([one.error**2 + (SCALES[one.measure].least / 3) ** 2 for one in deviations])
    before = float(np.sum(shifts**2 / noise))
    tables = [(effect.kind, *effect.fine()) for effect in effects]
    best: tuple[float, float, tuple[tuple[Kind, float], ...]] = (before, before, ())
    singles: dict[str, float] = {}
    for kind, strengths, moves in tables:
        misfit = _misfit(shifts, noise, moves, np.abs(moves))
        at = int(np.argmin(misfit))
        singles[kind.name] = float(misfit[at])
        penalised = float(misfit[at]) + _PER_PARAMETER * kind.parameters
        if penalised < best[0]:
            best = (penalised, float(misfit[at]), ((kind, float(strengths[at])),))
    for (kind, strengths, moves), (other, others, further) in combinations(tables, 2):
        if set(kind.rules) & set(other.rules):
            continue
        both = moves[:, None] + further[None]
        misfit = _misfit(shifts, noise, both, np.abs(moves)[:, None] + np.abs(further)[None])
        first, second = np.unravel_index(int(np.argmin(misfit)), misfit.shape)
        value = float(misfit[first, second])
        penalised = value + _PER_PARAMETER * (kind.parameters + other.parameters) + _PER_CAUSE
        if penalised < best[0]:
            best = (penalised, value, ((kind, float(strengths[first])), (other, float(others[second]))))
    return _settle(best[1], best[2], before, singles)


def _misfit(shifts: FloatArray, noise: FloatArray, moves: FloatArray, sizes: FloatArray) -> FloatArray:
    result: FloatArray = ((shifts - moves) ** 2 / (noise + (_MODEL_ERROR * sizes) ** 2)).sum(axis=-1)
    return result


def _settle(
    after: float, chosen: tuple[tuple[Kind, float], ...], before: float, singles: Mapping[str, float]
) -> Explanation:
    if not chosen or after > (1 - _LEAST_SHARE) * before:
        return Explanation((), before, before)
    if len(chosen) == 1:
        kind, strength = chosen[0]
        return Explanation((Cause(kind, strength, 1 - after / before),), before, after)
    causes = []
    for (kind, strength), (other, _) in (chosen, chosen[::-1]):
        causes.append(Cause(kind, strength, max(0.0, (singles[other.name] - after) / before)))
    causes = [one for one in causes if one.strength != 0]
    return Explanation(tuple(sorted(causes, key=lambda one: -one.share)), before, after)
