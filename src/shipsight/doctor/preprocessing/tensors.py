# SPDX-License-Identifier: Apache-2.0
"""Finds the chain that made a tensor of an image: by what scaling cannot change first, step by step after. Pure. Private to the room.

How: whatever was done to values and colours, each channel of the tensor is a line of the levels of the image, and the padding is
constant. So layouts and places are compared by what such lines leave. Then one step after another is exchanged, the lines fitted anew
each time, until nothing gets better; last, the lines are named and the tensor is made again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.preprocessing.chain import (
    ALTERNATIVES,
    Chain,
    Photo,
    Values,
    render,
    to_levels,
    to_values,
    with_channels,
)
from shipsight.doctor.preprocessing.naming import Scaling, name_scaling
from shipsight.doctor.preprocessing.reading_tensor import as_images
from shipsight.vision import import_cv2

__all__ = ["Solved", "Trial", "solve"]

FloatImage = NDArray[np.float32]

_BEAM = 4
_SMALL = 80
_LEAST_GAIN = 0.15
"""Levels that a step has to win before it is taken for another than is asked: decoders and rounding differ by 0.1."""
_LEAST_SHARE = 0.15
"""Share of what is left, likewise."""
_SAMPLE = 60_000
"""Pixels that a line is fitted to: every so manieth row."""
_GAMMAS = np.exp(np.linspace(np.log(0.25), np.log(4.0), 113))
_COMMON_GAMMAS = (2.2, 1 / 2.2, 2.4, 1 / 2.4, 1.8, 1 / 1.8, 2.0, 0.5)


@dataclass(frozen=True, eq=False)
class Trial:
    """A chain held against a tensor, its values fitted.

    Attributes:
        chain: with fitted values.
        residual: mean levels of 255 that are left.
        explained: share of the tensor's variance that it explains, 0 to 1.
    """

    chain: Chain
    residual: float
    explained: float


@dataclass(frozen=True, eq=False)
class Solved:
    """The chain that was found.

    Attributes:
        chain: with the values that its scaling is known by.
        scaling: the name of it.
        explained: share of the tensor's variance, 0 to 1: near 0 where it is another image's.
        before: mean levels that the expected chain is off.
        mean: that this chain is off, its values as named.
        high: 99th percentile.
        worst: largest.
        rivals: step -> what is left at best when that step is as expected (or, where it is, another).
        same: steps that make no difference for this image: they cannot be told.
        found: (h, w, 3) float32, the tensor in levels of the chain.
        expected: (h, w, 3) float32, what is asked, in levels.
        pad: levels of the padding, None where there is none.
    """

    chain: Chain
    scaling: Scaling
    explained: float
    before: float
    mean: float
    high: float
    worst: float
    rivals: dict[str, float]
    same: tuple[str, ...]
    found: FloatImage
    expected: FloatImage
    pad: tuple[float, float, float] | None


def solve(tensor: NDArray[Any], photo: Photo, expected: Chain) -> Solved:
    """Finds the chain.

    Args:
        tensor: (C, H, W), (H, W, C) or (H, W) of one image.
        photo: the image.
        expected: what the card asks, with the layout that the variant takes.
    """
    begun = [(image, _try(image, photo, chain)) for image, chain in _begin(tensor, photo, expected)]
    least = min(trial.residual for _, trial in begun)
    # What is far behind at full size does not catch up by an interpolation.
    near = [(image, trial) for image, trial in begun if trial.residual <= 1.5 * least + 0.5]
    target, best = min(
        ((image, _descend(image, photo, trial, expected)) for image, trial in near),
        key=lambda one: one[1].residual + _penalty(one[1].chain, expected),
    )
    return _tell(tensor, target, photo, best, expected)


def _begin(tensor: NDArray[Any], photo: Photo, expected: Chain) -> list[tuple[FloatImage, Chain]]:
    """Returns the layouts and places that explain most at a small size, with their images."""
    ranked: list[tuple[float, int, FloatImage, Chain]] = []
    for layout, image in as_images(tensor):
        start = replace(expected, size_hw=(image.shape[0], image.shape[1]), layout=layout)
        for chain in _places(start, photo, expected):
            trial = _try(image, photo, chain, small=True)
            loss = 1 - trial.explained + (0.002 if layout != expected.layout else 0) + 0.002 * _differs(chain, expected)
            ranked.append((loss, len(ranked), image, chain))
    ranked.sort(key=lambda one: one[:2])
    kept = [one for one in ranked[:_BEAM] if one[0] < ranked[0][0] * 3 + 0.05]
    return [(image, chain) for _, _, image, chain in kept]


def _places(start: Chain, photo: Photo, expected: Chain) -> Iterator[Chain]:
    turns = (True,) if photo.stored is photo.upright else (True, False)
    for turned in turns:
        for mirrored in (False, True):
            chain = replace(start, turned=turned, mirrored=mirrored)
            for fit in ALTERNATIVES["fit"]:
                places = (expected.place, "centre", "top-left", "bottom-right") if fit == "letterbox" else ("centre",)
                for place in dict.fromkeys(places):
                    yield replace(chain, fit=fit, place=place)


def _descend(target: FloatImage, photo: Photo, best: Trial, expected: Chain) -> Trial:
    for _ in range(4):
        before = best
        for step, value in _steps(photo, expected):
            if getattr(best.chain, step) == value:
                continue
            other = _try(target, photo, best.chain.with_step(step, value))
            best = _better(best, other, expected)
        best = _with_gamma(target, photo, best, expected)
        if best is before:
            break
    # Which pixels are met is decided by two steps: one that is wrong may hide what is right of the other.
    for rounding, interpolation in itertools.product(ALTERNATIVES["rounding"], ALTERNATIVES["interpolation"]):
        both = best.chain.with_step("rounding", rounding).with_step("interpolation", interpolation)
        if both != best.chain:
            best = _better(best, _try(target, photo, both), expected)
    return best


def _steps(photo: Photo, expected: Chain) -> Iterator[tuple[str, Any]]:
    for step, values in ALTERNATIVES.items():
        if step == "turned" and photo.stored is photo.upright:
            continue
        # What is expected comes first, and so stands where others do as well.
        for value in sorted(values, key=lambda one: one != getattr(expected, step)):
            yield step, value


def _better(best: Trial, other: Trial, expected: Chain) -> Trial:
    ours, theirs = _penalty(best.chain, expected), _penalty(other.chain, expected)
    if theirs <= ours:
        return other if other.residual + theirs < best.residual + ours - 1e-6 else best
    gain = best.residual - other.residual
    return other if gain > max(_LEAST_GAIN, _LEAST_SHARE * best.residual) else best


def _penalty(chain: Chain, expected: Chain) -> float:
    return 0.1 * _differs(chain, expected)


def _differs(chain: Chain, expected: Chain) -> int:
    return sum(getattr(chain, step) != getattr(expected, step) for step in (*ALTERNATIVES, "gamma"))


def _try(target: FloatImage, photo: Photo, chain: Chain, *, small: bool = False) -> Trial:
    """Fits a line from levels to values for each channel, and says what is left."""
    rendered = render(photo, chain)
    top, left, height, width = rendered.window
    levels = with_channels(rendered.content, chain.channels)
    inside = target[top : top + height, left : left + width]
    outside = np.ones(target.shape[:2], np.bool_)
    outside[top : top + height, left : left + width] = False
    if small:
        return _try_small(target, levels, inside, outside, chain)
    step = max(1, height * width // _SAMPLE)
    x, y = (one[step // 2 :: step].reshape(-1, 3).astype(np.float64) for one in (levels, inside))
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    centred_x, centred_y = x - mean_x, y - mean_y
    var_x, var_y = (centred_x**2).mean(axis=0), (centred_y**2).mean(axis=0)
    gain = (centred_x * centred_y).mean(axis=0) / np.maximum(var_x, 1e-9)
    # What a line leaves, in levels: had the tensor the spread of the levels. A gain near 0 would make anything large.
    unit = np.maximum(np.abs(gain), np.sqrt(var_y / np.maximum(var_x, 1e-9)) * 0.2) + 1e-12
    left_over = np.abs(centred_y - gain * centred_x) / unit
    total = float(left_over.mean()) * (height * width) / target[..., 0].size
    if outside.any():
        pads = target[outside].astype(np.float64)
        total += float((np.abs(pads - np.median(pads, axis=0)) / unit).mean()) * len(pads) / target[..., 0].size
    gain = np.where(np.abs(gain) < 1e-12, 1e-12, gain)
    offset = mean_y - gain * mean_x
    explained = 1 - float(((centred_y - gain * centred_x) ** 2).sum() / max(float((centred_y**2).sum()), 1e-12))
    values = Values(_three(gain), _three(offset))
    return Trial(replace(chain, values=values), total, explained)


def _try_small(
    target: FloatImage, levels: FloatImage, inside: FloatImage, outside: NDArray[np.bool_], chain: Chain
) -> Trial:
    """Explains each channel by a plane over red, green and blue, thumbnails of the content for both, and the padding by a constant."""
    cv2 = import_cv2()
    x, y = (
        np.asarray(cv2.resize(np.ascontiguousarray(one), (_SMALL, _SMALL), interpolation=cv2.INTER_AREA))
        .reshape(-1, 3)
        .astype(np.float64)
        for one in (levels, inside)
    )
    terms = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    steady = 1e-6 * np.eye(4) * len(x)  # a grey image's three channels are one
    plane = np.linalg.solve(terms.T @ terms + steady, terms.T @ y)
    rest = ((y - terms @ plane) ** 2).mean() * inside[..., 0].size
    spread = ((y - y.mean(axis=0)) ** 2).mean() * inside[..., 0].size
    if outside.any():
        pads = target[outside]
        rest += float(((pads - np.median(pads, axis=0)) ** 2).mean()) * len(pads)
        spread += float(((pads - pads.mean(axis=0)) ** 2).mean()) * len(pads)
    return Trial(chain, 0.0, 1 - float(rest / max(spread, 1e-12)))


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    first, second, third = values.tolist()
    return first, second, third


def _with_gamma(target: FloatImage, photo: Photo, best: Trial, expected: Chain) -> Trial:
    """Bends the line where that leaves less: the exponent is read off the mean value at each level, then tried."""
    if best.explained < 0.5:
        return best
    plain = replace(best.chain, gamma=1.0)
    rendered = render(photo, plain)
    top, left, height, width = rendered.window
    x = with_channels(rendered.content, plain.channels).astype(np.uint8).reshape(-1, 3)
    y = target[top : top + height, left : left + width].reshape(-1, 3)
    losses = np.zeros(len(_GAMMAS))
    for channel in range(3):
        counts = np.bincount(x[:, channel], minlength=256)
        sums = np.bincount(x[:, channel], weights=y[:, channel], minlength=256)
        there = counts > 0
        weights, means = counts[there].astype(np.float64), sums[there] / counts[there]
        levels = np.flatnonzero(there) / 255
        losses += [_line_loss(levels**gamma, means, weights) for gamma in _GAMMAS]
    gamma = float(_GAMMAS[int(losses.argmin())])
    # Grey is mixed after the power, not before: what is read off a grey curve lies beside it.
    common = [one for one in _COMMON_GAMMAS if abs(np.log(one / gamma)) < 0.25]
    for one in (*common, round(gamma, 2)):
        if abs(np.log(one)) > 0.04 and one != best.chain.gamma:
            best = _better(best, _try(target, photo, replace(best.chain, gamma=one)), expected)
    return best


def _line_loss(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Returns the share of the variance that a weighted line leaves."""
    total = weights.sum()
    x, y = x - (weights * x).sum() / total, y - (weights * y).sum() / total
    both, own, whole = (weights * x * y).sum(), (weights * x * x).sum(), (weights * y * y).sum()
    return float(1 - both**2 / max(own * whole, 1e-18))


def _tell(tensor: NDArray[Any], target: FloatImage, photo: Photo, best: Trial, expected: Chain) -> Solved:
    scaling = name_scaling(best.chain.values, expected.values)
    values = scaling.values
    pad = _padding(target, photo, best.chain, values)
    chain = replace(best.chain, values=values, pad=pad or expected.pad)
    made = to_values(to_levels(render(photo, chain), chain), values)
    off = np.abs(target - made) / np.abs(values.gains)
    asked = to_levels(render(photo, expected), expected)
    rivals, same = _rivals(target, photo, best, expected)
    return Solved(
        chain=chain,
        scaling=scaling,
        explained=best.explained,
        before=_before(tensor, to_values(asked, expected.values), expected),
        mean=float(off.mean()),
        high=float(np.quantile(off, 0.99)),
        worst=float(off.max()),
        rivals=rivals,
        same=same,
        found=(target - values.offsets) / values.gains,
        expected=asked,
        pad=pad,
    )


def _before(tensor: NDArray[Any], made: FloatImage, expected: Chain) -> float:
    """Returns how far the tensor is from what is asked, in levels; 255 where its shape is another."""
    asked = made if expected.layout == "nhwc" else made.transpose(2, 0, 1)
    if tensor.shape != asked.shape:
        return 255.0
    gain = expected.values.gains
    unit = gain if expected.layout == "nhwc" else gain[:, None, None]
    return float(min((np.abs(tensor.astype(np.float64) - asked) / np.abs(unit)).mean(), 1e9))


def _padding(target: FloatImage, photo: Photo, chain: Chain, values: Values) -> tuple[float, float, float] | None:
    top, left, height, width = render(photo, chain).window
    outside = np.ones(target.shape[:2], np.bool_)
    outside[top : top + height, left : left + width] = False
    if not outside.any():
        return None
    middle: NDArray[np.float64] = np.median(target[outside], axis=0).astype(np.float64)
    levels: NDArray[np.float64] = (middle - values.offset) / values.gain
    return _three(np.round(levels, 1))


def _rivals(target: FloatImage, photo: Photo, best: Trial, expected: Chain) -> tuple[dict[str, float], tuple[str, ...]]:
    """Returns for each step what the nearest other choice leaves, and the steps whose choices all come out the same."""
    rivals: dict[str, float] = {}
    same: list[str] = []
    here = render(photo, best.chain)
    content = with_channels(here.content, best.chain.channels)
    for step, values in ALTERNATIVES.items():
        if step == "turned" and photo.stored is photo.upright:
            continue
        is_as_asked = getattr(best.chain, step) == getattr(expected, step)
        others = (
            [one for one in values if one != getattr(best.chain, step)] if is_as_asked else [getattr(expected, step)]
        )
        trials = [best.chain.with_step(step, one) for one in others]
        rivals[step] = min(_try(target, photo, one).residual for one in trials)
        if is_as_asked and any(_is_same(render(photo, one), here, one, content) for one in trials):
            same.append(step)
    if best.chain.gamma != 1.0:
        rivals["gamma"] = _try(target, photo, replace(best.chain, gamma=1.0)).residual
    return rivals, tuple(same)


def _is_same(other: Any, here: Any, chain: Chain, content: FloatImage) -> bool:  # noqa: ANN401 - Rendered
    if other.window != here.window or other.content.shape != here.content.shape:
        return False
    return float(np.abs(with_channels(other.content, chain.channels) - content).mean()) < 0.05
