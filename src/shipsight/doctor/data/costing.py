# SPDX-License-Identifier: Apache-2.0
"""What a change of the images costs: golden images are changed in the same way, and the model's answers compared. Private.

Truth is what the model finds, with confidence, in the unchanged golden image. The share that it no longer finds in the changed
one (same class, IoU 0.5 and more, score not below half of the threshold), and what it finds too much, is the loss; its interval is a
bootstrap over the golden images. Both sides are counted as in `proof.matching`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.data.eye import Eye, Look
from shipsight.doctor.data.shifts import Moved
from shipsight.proof.matching import Found, MatchCriteria, match

__all__ = ["Cost", "Golden", "pick", "pool", "price"]

Image = NDArray[np.uint8]
_IOU = 0.5
_DRAWS = 1000
_CONFIDENCE = 0.9


@dataclass(frozen=True)
class Cost:
    """Share of the model's answers that a change costs.

    Attributes:
        value: 0 to 1.
        low: lower end of the 90 % interval.
        high: upper end.
        images: golden images it was measured on.
        answers: confident predictions on both sides that were compared.
    """

    value: float
    low: float
    high: float
    images: int
    answers: int


@dataclass(frozen=True, eq=False)
class Golden:
    """Golden images and what the model makes of them.

    Attributes:
        images: (H, W, 3) uint8 RGB each.
        looks: of each.
        conf: score from which on a prediction is confident.
        are_real: whether they are the user's images, not drawn scenes.
    """

    images: tuple[Image, ...]
    looks: tuple[Look, ...]
    conf: float
    are_real: bool


def price(golden: Golden, change: Callable[[Image], Moved], eye: Eye) -> tuple[Cost | None, NDArray[np.float64] | None]:
    """Measures what a change costs.

    Returns:
        The cost, None where the golden images hold fewer than four answers; and the mean (D,) move of the features.
    """
    # A partner may fall to half of the threshold: what hovers around it is no loss.
    criteria = MatchCriteria(conf=golden.conf, iou=_IOU, score=1.0)
    counts, moves = [], []
    for image, look in zip(golden.images, golden.looks, strict=True):
        moved = change(image)
        changed = eye.look(moved.image_rgb)
        report = match([_placed(Found.of(look.predictions), moved)], [Found.of(changed.predictions)], criteria)
        counts.append((report.confident, report.matched))
        if look.vector is not None and changed.vector is not None:
            moves.append(changed.vector - look.vector)
    cost = pool(np.array(counts, dtype=np.float64))
    return cost, (np.mean(moves, axis=0) if moves else None)


def _placed(found: Found, moved: Moved) -> Found:
    corners = found.corners_xy @ moved.affine[:, :2].T + moved.affine[:, 2]
    return Found(found.class_ids, found.scores, corners.astype(np.float32))


def pool(counts: NDArray[np.float64], *, seed: int = 0) -> Cost | None:
    """Pools (images, 2) confident and matched answers into a cost with its interval; None for fewer than four answers."""
    total = counts.sum(axis=0)
    if len(counts) == 0 or total[0] < 4:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(counts), size=(_DRAWS, len(counts)))
    sums = counts[drawn].sum(axis=1)
    losses = 1 - sums[:, 1] / np.maximum(sums[:, 0], 1)
    low, high = np.quantile(losses, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Cost(float(1 - total[1] / total[0]), float(low), float(high), len(counts), int(total[0]))


def pick(images: Sequence[Image], looks: Sequence[Look], conf: float, *, are_real: bool) -> Golden:
    """Returns the golden images on which the model answers something with confidence."""
    kept = [at for at, look in enumerate(looks) if look.best_score >= conf]
    return Golden(tuple(images[at] for at in kept), tuple(looks[at] for at in kept), conf, are_real)
