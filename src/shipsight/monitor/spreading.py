# SPDX-License-Identifier: Apache-2.0
"""Turns that keep step with nothing: which of many images are taken, so that cameras in turn are all seen. Pure.

Every n-th image of cameras that take turns may be one camera's alone. Distances therefore vary, as by chance and yet the same
after a restart: a function of the number of the turn. Private to the room. Source: G. Steele, D. Lea and C. Flood, "Fast
Splittable Pseudorandom Number Generators", OOPSLA 2014 (the mixing function of SplitMix64).
"""

from __future__ import annotations

__all__ = ["gap", "places", "share"]

_MASK = 2**64 - 1


def share(number: int) -> float:
    """Returns 0 to below 1 for the n-th turn, as if drawn evenly."""
    mixed = number * 0x9E3779B97F4A7C15 & _MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
    return ((mixed ^ mixed >> 31) >> 11) / 2**53


def gap(step: int, number: int) -> int:
    """Returns how far behind the n-th image that is taken the next one is: `step`, or one more.

    Args:
        step: images, 1 and more; every image is taken at 1.
        number: of the turn.
    """
    return step if step == 1 else step + (share(number) < 0.5)


def places(step: int, count: int) -> list[int]:
    """Returns which of so many images are taken, at least `step` apart."""
    found, place = [], 0
    while place < count:
        found.append(place)
        place += gap(step, len(found))
    return found
