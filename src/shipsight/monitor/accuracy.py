# SPDX-License-Identifier: Apache-2.0
"""Precision of images without labels, from their scores, with its error. Pure.

Each prediction counts with the chance that one of its score was right on the labelled images of the proof. The interval holds
two errors: those chances come from so many images (they are drawn anew, whole images, by bootstrap), and what is right in
the window varies by chance, as much as images of the proof did around their chances.

It is right where a score means what it meant on the labelled images, and wrong where it does not: a model that is sure of what
it never saw is not found out. Recall is not estimated: what was not found has no score.

Leaves to others: counting by score (`proof.calibration`). Invariants: the order of images does not matter; the same counts
and seed give the same interval. Private to the room. Sources: D. Guillory and others, "Predicting with Confidence on Unseen
Distributions", ICCV 2021 (average confidence, where it fails); A. C. Davison and D. V. Hinkley, "Bootstrap Methods and their
Application", 1997, sections 2.4 and 3.8 (whole clusters).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shipsight.monitor.drift import Estimate
from shipsight.proof.calibration import Calibration

__all__ = ["LEAST_PREDICTIONS", "estimate"]

LEAST_PREDICTIONS = 30
"""Predictions in a window below which nothing is estimated."""
_DRAWS = 999
_LEVEL = 0.95
_LEAST_LOSS = 0.05  # of precision that matters, beyond the interval


def estimate(calibration: Calibration, scores: Sequence[Sequence[float]], *, seed: int = 0) -> Estimate | None:
    """Estimates the precision that labels of a window would show.

    Args:
        calibration: of the variant.
        scores: of each image of the window, 0 to 1; those below the calibration's threshold do not count.
        seed: of the 999 draws.

    Returns:
        The estimate; None where fewer than 30 predictions count.
    """
    counts = np.sum([calibration.count(np.array(one)) for one in scores], axis=0, dtype=np.float64)
    predictions = int(counts.sum())
    if predictions < LEAST_PREDICTIONS:
        return None
    found, right = calibration.found.astype(np.float64), calibration.right.astype(np.float64)
    images, overall = len(found), calibration.precision
    draw = np.random.default_rng(seed)
    times = draw.multinomial(images, np.full(images, 1 / images), size=_DRAWS).astype(np.float64)
    chances = _chances(found.sum(axis=0), right.sum(axis=0), overall)
    drawn = _chances(times @ found, times @ right, overall)
    # What images were right beyond their chances; the chances were fitted to them, which took as many degrees of freedom.
    beyond = (right - found * chances).sum(axis=1) * np.sqrt(images / max(images - found.shape[1], 1))
    noise = beyond[draw.integers(0, images, (_DRAWS, len(scores)))].sum(axis=1)
    # Images of the window may hold more or fewer predictions than those of the proof.
    noise *= np.sqrt(predictions / (len(scores) * found.sum() / images))
    likely = np.clip((drawn @ counts + noise) / predictions, 0, 1)
    low, high = (float(np.quantile(likely, at)) for at in ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2))
    value = float(chances @ counts / predictions)
    return Estimate(
        value=value,
        low=min(low, value),
        high=max(high, value),
        measured=overall,
        conf=calibration.conf,
        images=len(scores),
        predictions=predictions,
        is_alarm=max(high, value) < overall - _LEAST_LOSS,
    )


def _chances(found: np.ndarray, right: np.ndarray, overall: float) -> np.ndarray:
    # As if one more were there: a range that no drawn image fills is as good as all.
    chances: np.ndarray = (right + overall) / (found + 1)
    return chances
