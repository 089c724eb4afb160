# SPDX-License-Identifier: Apache-2.0
"""Mistakes that can be undone: turned, mirrored, inverted, red and blue swapped. Undone on production images, the model is surer. Private.

No label and no statistic of training is needed: the same images are looked at as they are and corrected, pair by pair. A model that
does not care (round cells, turned) shows nothing, and rightly: there the mistake costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.data.eye import Eye
from shipsight.doctor.data.shifts import Kind, Moved

__all__ = [
    "LEAST_GAIN",
    "MISTAKES",
    "QUARTER",
    "QUARTERS",
    "SWAP_GAIN",
    "Correction",
    "Mistake",
    "choose",
    "try_corrections",
]

Image = NDArray[np.uint8]
LEAST_GAIN = 0.05
"""Gain in the mean of the three best scores. Six false corrections of ten images each lose 0.1 to 0.5 on coco128; on round cells, turned, they
gain or lose up to 0.03."""
SWAP_GAIN = 0.015
"""The same for red and blue, where their means moved against each other as an exchange would move them."""
_DRAWS = 1000
_FIRST = 4


@dataclass(frozen=True, eq=False)
class Mistake:
    """Something that was done to the images and can be undone.

    Attributes:
        name: stable.
        rule: id of the rule that tells of it.
        tell: what was done, in words.
        undo: production image -> as it should be.
        do: golden image -> as it came to be, and where its points went.
    """

    name: str
    rule: str
    tell: str
    undo: Callable[[Image], Image]
    do: Callable[[Image], Moved]


@dataclass(frozen=True)
class Correction:
    """How a correction fared.

    Attributes:
        mistake: name of what it undoes.
        gain: in the model's confidence, mean over the images.
        low: lower end of its 98 % interval; -1 where the first images spoke against it.
        high: upper end.
        before: confidence as the images are.
        images: number of pairs.
    """

    mistake: str
    gain: float
    low: float
    high: float
    before: float
    images: int

    @property
    def is_refuted(self) -> bool:
        """Whether the model is clearly less sure with it: by as much as the gain that would prove it, beyond chance."""
        return self.gain <= -LEAST_GAIN and self.high < 0


def _turned(quarters: int) -> Mistake:
    def undo(image: Image) -> Image:
        return np.ascontiguousarray(np.rot90(image, quarters))

    def do(image: Image) -> Moved:
        height, width = image.shape[:2]
        affines = {
            1: [[0, -1, height], [1, 0, 0]],  # what one turn to the left undoes is one to the right
            2: [[-1, 0, width], [0, -1, height]],
            3: [[0, 1, 0], [-1, 0, width]],
        }
        return Moved(np.ascontiguousarray(np.rot90(image, -quarters)), np.array(affines[quarters], dtype=np.float64))

    return Mistake(f"turned-{quarters * 90}", "orientation-ignored", f"turned by {quarters * 90} degrees", undo, do)


def _upside_down(image: Image) -> Image:
    return np.ascontiguousarray(image[::-1])


def _pixels(change: Callable[[Image], Image]) -> Callable[[Image], Moved]:
    return lambda image: Moved(change(image), np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))


def _invert(image: Image) -> Image:
    return 255 - image


def _swap(image: Image) -> Image:
    return np.ascontiguousarray(image[..., ::-1])


MISTAKES: Mapping[str, Mistake] = {
    one.name: one
    for one in (
        _turned(1),
        _turned(2),
        _turned(3),
        Mistake(
            "mirrored",
            "orientation-ignored",
            "mirrored upside down",
            _upside_down,
            lambda image: Moved(_upside_down(image), np.array([[1.0, 0, 0], [0, -1.0, image.shape[0]]])),
        ),
        Mistake("inverted", "colours-inverted", "inverted: light is dark and dark is light", _invert, _pixels(_invert)),
        Mistake("swapped", "images-channels-swapped", "written with red and blue exchanged", _swap, _pixels(_swap)),
    )
}

QUARTERS = ("turned-90", "turned-270")
"""Corrections of images that lie on a side."""
QUARTER = Kind(
    "quarter",
    ("orientation-ignored", "orientation-ignored"),
    (1.0,),
    {"aspect": 0},
    lambda image, strength: MISTAKES[QUARTERS[0]].do(image) if strength else image,
    lambda strength: "a quarter turn, which exchanges width and height,",
    is_whole=True,
)
"""A turn as a cause of what is measured: it explains widths that are training's heights, where the model does not care how its objects lie."""


def try_corrections(
    images: Sequence[Image],
    eye: Eye,
    tick: Callable[[], None] = lambda: None,
    *,
    names: Sequence[str] = tuple(MISTAKES),
) -> tuple[Correction, ...]:
    """Tries corrections, every one or those named, on images: (H, W, 3) uint8 RGB each."""
    before = np.array([eye.look(image).confidence for image in images])
    tick()
    found = []
    for name in names:
        mistake = MISTAKES[name]
        after = [eye.look(mistake.undo(image)).confidence for image in images[:_FIRST]]
        if np.mean(after - before[:_FIRST]) > 0:  # what makes the first ones worse is not tried on the others
            after += [eye.look(mistake.undo(image)).confidence for image in images[_FIRST:]]
        gains = np.array(after) - before[: len(after)]
        drawn = np.random.default_rng(0).integers(0, len(gains), size=(_DRAWS, len(gains)))
        low, high = (float(one) for one in np.quantile(gains[drawn].mean(axis=1), [0.01, 0.99]))
        if len(after) < len(images):
            low = -1.0
        found.append(Correction(name, float(gains.mean()), low, high, float(before.mean()), len(gains)))
        tick()
    return tuple(found)


def choose(corrections: Sequence[Correction], least: float = LEAST_GAIN) -> Correction | None:
    """Returns the correction that makes the model surer, beyond chance and by enough; None where none does."""
    sure = [one for one in corrections if one.low > 0 and one.gain >= least]
    return max(sure, key=lambda one: one.gain, default=None)
