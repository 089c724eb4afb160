# SPDX-License-Identifier: Apache-2.0
"""How a monitor watches, and what it says of one feature. Pure. Stable."""

from __future__ import annotations

from dataclasses import dataclass

from shipsight.errors import UsageError

__all__ = ["LEAST_ROWS", "Drift", "Estimate", "MonitorSettings"]

LEAST_ROWS = 12
"""Images of either side below which nothing is compared."""


@dataclass(frozen=True, kw_only=True)
class MonitorSettings:
    """How a monitor watches.

    Attributes:
        reference: images that later ones are compared with, 12 to 5,000.
        window: images of one comparison, 12 to 5,000.
        error: share of windows in which chance alone may name any feature, above 0, 0.5 at most.
        least_effect: of a number, the least distance between the shares below any value that matters, 0 to 1; of the vectors, the least
            `Comparison.effect`.
        least_class_effect: of the classes, the least change of a share that matters: of the objects, or of the images that hold it; 0 to 1.
        least_trend: of a number's mean rank in the reference since it last changed, the least distance from a half that matters, 0 to 0.5.
        most_per_s: images looked at a second, at most; others cost nothing.
    """

    reference: int = 300
    window: int = 100
    error: float = 0.01
    least_effect: float = 0.2
    least_class_effect: float = 0.1
    least_trend: float = 0.08
    most_per_s: float = 2.0

    def __post_init__(self) -> None:
        ranges = {
            "reference": (LEAST_ROWS, 5000),
            "window": (LEAST_ROWS, 5000),
            # 1,999 deals tell no chance below 1 in 2,000.
            "error": (0.0005, 0.5),
            "least_effect": (0, 1),
            "least_class_effect": (0, 1),
            "least_trend": (0, 0.5),
            "most_per_s": (1e-6, 1e6),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise UsageError(
                    "a setting is out of range", where=name, expected=f"{low} to {high}", got=getattr(self, name)
                )


@dataclass(frozen=True)
class Drift:
    """One feature, in the latest window or since it last changed (a trend).

    Attributes:
        feature: of `MEASURES`, `ANSWERS`, `classes` or `embedding`.
        effect: how much it moved, 0 to 1 (`Comparison.effect`); of a trend, how far its mean rank in the reference is from a half, 0 to 0.5.
        p_family: chance that any feature shows as much where nothing changed.
        is_alarm: whether it is unlikely enough and large enough.
        here: median in the window; of a trend, what has that mean rank in the reference; of the vectors, their median distance from the middle
            of the reference; of the classes, the name of the class whose share changed most.
        before: median in the reference; of the classes, how that share changed.
        images: that it rests on, beside the reference.
    """

    feature: str
    effect: float
    p_family: float
    is_alarm: bool
    here: float | str
    before: float | str
    images: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Precision of the latest window, from its scores.

    Attributes:
        value: share of the predictions that are right, 0 to 1, where scores mean what they meant on the labelled images.
        low: lower end of the 95 % interval of what labels of these images would show.
        high: upper end.
        measured: on the labelled images.
        conf: score from which on predictions count.
        images: of the window.
        predictions: that count.
        is_alarm: whether the whole interval lies more than 0.05 below what was measured.
    """

    value: float
    low: float
    high: float
    measured: float
    conf: float
    images: int
    predictions: int
    is_alarm: bool
