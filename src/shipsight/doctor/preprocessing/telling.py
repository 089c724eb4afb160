# SPDX-License-Identifier: Apache-2.0
"""From a chain to words: which steps differ from what is asked, by which rule, and what an image cannot show. Pure. Private to the room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from shipsight.doctor.preprocessing.chain import Chain, Three
from shipsight.doctor.preprocessing.naming import Scaling
from shipsight.model import InputContract

__all__ = ["StepTold", "differing_steps", "sure", "untold"]

_PAD_SLACK = 2.5
"""Levels that the padding may be off: rounding of named values, and JPEG of nothing."""
_PLACES = {
    "centre": "in the middle",
    "centre-late": "in the middle, the odd pixel at the left and above",
    "top-left": "at the left and above",
    "bottom-right": "at the right and below",
}
_WAYS = {
    "linear": "linear",
    "nearest": "nearest pixel",
    "area": "mean over areas",
    "cubic": "cubic",
    "lanczos": "Lanczos",
    "antialiased": "linear and smoothed, as Pillow does",
    "corners": "linear with the corners aligned",
    "offset": "linear without the half pixel",
}
_UNTOLD = {
    "fit": "Stretching, cropping and padding come out the same for an image of this shape",
    "interpolation": "Some interpolations come out the same for an image of this size",
    "channels": "Red and blue cannot be told apart in an image without colours",
    "mirrored": "A symmetrical image does not show whether it was mirrored",
}


@dataclass(frozen=True)
class StepTold:
    """A step that differs.

    Attributes:
        step: of the chain: its field.
        rule: that tells it.
        words: what was done, against what is asked.
        alone: the expected chain with this step alone changed; None where the model cannot be fed that.
        figures: more numbers, by stable keys.
    """

    step: str
    rule: str
    words: str
    alone: Chain | None
    figures: tuple[tuple[str, float], ...] = ()


def differing_steps(
    found: Chain, expected: Chain, scaling: Scaling | None, pad: Three | None, contract: InputContract
) -> list[StepTold]:
    """Returns the steps of a chain that differ from what is asked, in the order in which they are done."""
    told: list[StepTold] = []
    # What costs are measured on is what the model takes.
    plain = replace(expected, layout="nchw")

    def tell(step: str, rule: str, words: str, *figures: tuple[str, float], alone: bool = True) -> None:
        changed = plain.with_step(step, getattr(found, step)) if alone else None
        told.append(StepTold(step, rule, words, changed, figures))

    if found.layout != expected.layout:
        words = (
            f"The tensor is {found.layout.upper()}"
            if found.layout in ("nchw", "nhwc")
            else f"The tensor was {found.layout}"
        )
        tell(
            "layout",
            "layout-swapped",
            f"{words}, {expected.layout.upper()} is asked",
            alone=found.layout not in ("nchw", "nhwc"),
        )
    if found.size_hw != expected.size_hw:
        told.append(_size(found, expected, contract))
    if found.turned != expected.turned:
        tell(
            "turned",
            "orientation-ignored-by-pipeline",
            "The image lies as its file holds it, and the file asks to turn it",
        )
    if found.mirrored:
        tell("mirrored", "mirrored", "Left and right are exchanged")
    if found.gamma != 1.0:
        tell("gamma", "gamma-differs", f"Levels were raised to the power of {found.gamma:.2f}", ("gamma", found.gamma))
    if found.fit != expected.fit:
        rule = {"stretch": "stretched", "crop": "cropped", "letterbox": "letterboxed"}[found.fit]
        tell("fit", rule, f"The image was fitted by {found.fit}, {expected.fit} is asked")
    is_same_fit = found.fit == expected.fit
    if is_same_fit and found.place != expected.place:
        tell("place", "padding-place", f"The image stands {_PLACES[found.place]}, {_PLACES[expected.place]} is asked")
    if is_same_fit and found.rounding != expected.rounding:
        tell("rounding", "rounding-differs", f"Sides were rounded {found.rounding}, {expected.rounding} is asked")
    if found.interpolation != expected.interpolation:
        words = f"Pixels were interpolated {_WAYS[found.interpolation]}, {_WAYS[expected.interpolation]} is asked"
        tell("interpolation", "interpolation-differs", words)
    if found.channels != expected.channels:
        rule = "grey-input" if found.channels == "grey" else "channels-swapped"
        tell("channels", rule, f"The channels hold {found.channels}, {expected.channels} is asked")
    if scaling is not None:
        for rule in scaling.rules:
            figures = (("gain", scaling.values.gain[0]), ("offset", scaling.values.offset[0]))
            tell("values", rule, f"Values are {scaling.words}", *figures)
    if pad is not None and max(abs(one - other) for one, other in zip(pad, expected.pad, strict=True)) > _PAD_SLACK:
        levels = f"{pad[0]:.0f}" if max(pad) - min(pad) < 1 else ", ".join(f"{one:.0f}" for one in pad)
        tell(
            "pad",
            "padding-value",
            f"The padding has level {levels}, {expected.pad[0]:.0f} is asked",
            ("pad_level", pad[0]),
        )
    return told


def _size(found: Chain, expected: Chain, contract: InputContract) -> StepTold:
    height, width = found.size_hw
    asked_height, asked_width = expected.size_hw
    is_least = (
        found.fit in ("letterbox", "stretch")
        and max(height / asked_height, width / asked_width) == 1
        and all(side % contract.stride == 0 for side in found.size_hw)
    )
    rule = "rectangular-letterbox" if is_least else "size-wrong"
    words = f"The input is {width}x{height} px, {asked_width}x{asked_height} is asked"
    return StepTold("size_hw", rule, words, None, (("height", float(height)), ("width", float(width))))


def sure(left: float, rival: float, *, noise: float = 0.15) -> float:
    """Returns how sure a step is, 0 to 1: from what is left with it and with the next likely instead, in the same unit."""
    return max(0.0, min(1.0, 1 - (left + noise) / (rival + noise)))


def untold(same: Sequence[str], found: Chain, expected: Chain, *, has_padding: bool) -> tuple[str, ...]:
    """Returns sentences of what could not be told apart, and why."""
    told = [f"{_UNTOLD[step]}: give another one to tell." for step in same if step in _UNTOLD]
    if expected.fit == "letterbox" and not has_padding and found.fit == "letterbox":
        told.append("There is no padding in this image's input: neither its level nor its place can be told.")
    return tuple(told)
