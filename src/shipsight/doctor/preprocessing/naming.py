# SPDX-License-Identifier: Apache-2.0
"""From the numbers that a tensor's levels were scaled with to the name of what was done. Pure. Private to the room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shipsight.doctor.preprocessing.chain import Values

__all__ = ["Scaling", "name_scaling", "scalings"]

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_VIDEO = (219 / 255, 16.0)
_SLACK_GAIN = 0.012
_SLACK_LEVELS = 1.5
"""What rounding, decoders and low contrast leave of a fitted line: factors agree to 1 %, offsets to a level and a half."""


@dataclass(frozen=True)
class Scaling:
    """A way of scaling levels that is known by name.

    Attributes:
        rules: ids of the rules that name it; empty for what the card asks.
        words: what was done.
        values: the numbers.
    """

    rules: tuple[str, ...]
    words: str
    values: Values


def scalings(expected: Values) -> list[Scaling]:
    """Returns all that are known, what is expected first, then the commonest."""
    found = [Scaling((), "as the card asks", expected)]
    for one in _plain():
        if not any(_same(one.values, other.values) for other in found):
            found.append(one)
    videos = []
    for one in found:
        for words, gain, offset in (
            ("levels of video, 16 to 235", *_VIDEO),
            ("levels taken for those of video and spread", 1 / _VIDEO[0], -16 / _VIDEO[0]),
        ):
            gains = np.array(one.values.gain)
            values = Values(_three(gains * gain), _three(gains * offset + one.values.offset))
            joined = words if not one.rules else f"{words}; {one.words}"
            videos.append(Scaling((*one.rules, "video-range"), joined, values))
    return found + videos


def _plain() -> Iterator[Scaling]:
    mean, std = np.array(_MEAN), np.array(_STD)
    yield Scaling(("scale-missing",), "levels from 0 to 255, not divided", _values(1.0, 0.0))
    yield Scaling(("scale-twice",), "divided by 255 twice", _values(1 / 255**2, 0.0))
    yield Scaling(("range-minus-one",), "scaled to -1 and 1", _values(2 / 255, -1.0))
    for order, words in ((slice(None), ""), (slice(None, None, -1), ", in the order blue, green, red")):
        m, s = mean[order], std[order]
        id_ = ("normalized-imagenet",)
        yield Scaling(id_, f"less ImageNet's mean, divided by its deviation{words}", _values(1 / 255 / s, -m / s))
        yield Scaling(id_, f"less ImageNet's mean{words}", _values(1 / 255, -m))
        yield Scaling(id_, f"less ImageNet's mean in levels{words}", _values(1.0, -255 * m))
        yield Scaling(id_, f"ImageNet's mean and deviation, not divided by 255{words}", _values(1 / s, -m / s))
        yield Scaling(
            id_,
            f"divided by 255, then ImageNet's mean and deviation in levels{words}",
            _values(1 / 255 / (255 * s), -m / s),
        )
    yield Scaling(("values-differ",), "divided by 255 and nothing else", _values(1 / 255, 0.0))
    yield Scaling(("values-differ",), "divided by 256", _values(1 / 256, 0.0))
    yield Scaling(("values-differ",), "levels inverted", _values(-1 / 255, 1.0))


def _values(gain: object, offset: object) -> Values:
    return Values(_three(gain), _three(offset))


def _three(values: object) -> tuple[float, float, float]:
    first, second, third = np.broadcast_to(np.asarray(values, dtype=np.float64), 3).tolist()
    return first, second, third


def name_scaling(found: Values, expected: Values) -> Scaling:
    """Returns the known scaling that fitted numbers mean, else one that says the numbers."""
    known = scalings(expected)
    near = [one for one in known if _distance(found, one.values) <= 1]
    if near:
        # Dividing by 256 lies within what is let pass of 255: what is expected stands where it is near enough.
        if near[0] is known[0]:
            return near[0]
        return min(near, key=lambda one: (len(one.rules), _distance(found, one.values)))
    for one in known:
        shift = (np.array(found.offset) - one.values.offset) / np.array(one.values.gain)
        if _distance(Values(found.gain, one.values.offset), one.values) <= 1 and np.ptp(shift) < 2 * _SLACK_LEVELS:
            rules = tuple(dict.fromkeys((*one.rules, "values-differ")))
            words = f"{one.words}, and {shift.mean():+.1f} levels added"
            return Scaling(rules, words, Values(one.values.gain, found.offset))
    gains, offsets = (", ".join(f"{value:.4g}" for value in values) for values in (found.gain, found.offset))
    return Scaling(("values-differ",), f"multiplied by {gains}, and {offsets} added", found)


def _distance(found: Values, known: Values) -> float:
    """Returns how far numbers lie from those that are known: 1 where it is just let pass."""
    gain, other = np.array(found.gain), np.array(known.gain)
    factor = float(np.abs(gain / other - 1).max()) / _SLACK_GAIN
    # At both ends: what a factor is off by, an offset makes good in the middle.
    middle = np.abs((gain - other) * 128 + (np.array(found.offset) - known.offset)) / np.abs(other)
    return max(factor, float(middle.max()) / _SLACK_LEVELS)


def _same(one: Values, other: Values) -> bool:
    return bool(np.allclose(one.gain, other.gain, rtol=1e-4) and np.allclose(one.offset, other.offset, atol=1e-4))
