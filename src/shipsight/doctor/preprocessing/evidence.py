# SPDX-License-Identifier: Apache-2.0
"""What the detective knows: which steps of another pipeline differ, how sure that is, and what it could not tell. Pure. Stable."""

from __future__ import annotations

from dataclasses import dataclass

from shipsight.doctor.dataset.thresholds import Baked
from shipsight.doctor.finding import Picture

__all__ = ["Difference", "PreprocessingEvidence", "Residual"]


@dataclass(frozen=True)
class Difference:
    """One step that differs from what the card asks.

    Attributes:
        rule: id of the rule that tells it.
        words: what was done, against what is asked.
        certainty: that it is this and not the next likely, 0 to 1.
        lost: share of the answers that this step alone costs, 0 to 1; None where the model cannot be run with it.
        rival: residual, or share that disagrees, of the best explanation without it.
        figures: more numbers, by stable keys.
    """

    rule: str
    words: str
    certainty: float
    lost: float | None
    rival: float
    figures: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Residual:
    """What the chain found leaves unexplained.

    Attributes:
        before: of what the card asks: mean levels of 255 that a tensor is off, or share of the answers that disagree.
        mean: of the chain found, likewise.
        high: 99th percentile of the levels; 0 for predictions.
        worst: largest; 0 for predictions.
        is_explained: whether what is left is what decoders and rounding leave.
    """

    before: float
    mean: float
    high: float = 0.0
    worst: float = 0.0
    is_explained: bool = True


@dataclass(frozen=True, eq=False)
class PreprocessingEvidence:
    """What was collected.

    Attributes:
        is_tensor: whether tensors were given; else predictions.
        images: number of images that it rests on.
        differences: steps that differ.
        residual: what is left.
        not_told: what could not be told apart, sentences.
        pictures: expected beside found.
        baked: thresholds that the predictions hold to, None where they are what is usual.
        floor: least score that was taken for asked.
        most: most predictions of an image that were taken for asked.
        iou: overlap that was taken for asked.
    """

    is_tensor: bool
    images: int
    differences: tuple[Difference, ...]
    residual: Residual
    not_told: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    baked: Baked | None = None
    floor: float = 0.25
    most: int = 300
    iou: float = 0.7
