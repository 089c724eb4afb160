# SPDX-License-Identifier: Apache-2.0
"""Drift in words: what, evidence, what to do. Pure. Private to the room."""

from __future__ import annotations

from collections.abc import Mapping

from shipsight.monitor.drift import Drift, Estimate
from shipsight.monitor.features import ANSWERS, CLASSES, EMBEDDING
from shipsight.monitor.signal import Signal

__all__ = ["tell", "tell_estimate", "tell_trend"]

_REMEDIES: Mapping[str, str] = {
    "brightness": "Look at light and exposure of the camera.",
    "contrast": "Look at the lens (dirt, fog) and at the camera's picture profile.",
    "sharpness": "Look at focus and lens, and whether frames are enlarged before they are sent.",
    "noise": "Look at gain and light.",
    "width": "Look whether the camera or its stream was changed.",
    "height": "Look whether the camera or its stream was changed.",
    "embedding": "Look at recorded samples: the model sees other things in images, or sees them otherwise. Label some, and measure: "
    "`shipsight doctor accuracy BUNDLE --images DIR --labels`.",
    "aspect": "Look whether the camera was turned, or images are stretched.",
}
_COLOURS = "Look at white balance and light."
_OTHERS = "Look at recorded samples, label some of them, and measure: `shipsight doctor accuracy BUNDLE --images DIR --labels`."


def tell(drift: Drift, subject: str, least: float, error: float) -> Signal:
    """Returns a feature's signal.

    Args:
        drift: of the latest window.
        subject: model/variant.
        least: effect that matters.
        error: share of windows in which chance names any feature.
    """
    word = drift.feature.replace("_", " ")
    if drift.feature == CLASSES:
        moved = f"most: {drift.here}, {drift.before}"
        what = "The mix of classes is another than in the reference."
    elif drift.feature == EMBEDDING:
        moved = f"median distance from the middle of the reference {drift.here:.4g}, {drift.before:.4g} in it"
        what = "The model sees something else in images than in the reference."
    else:
        moved = f"median {drift.here:.4g}, {drift.before:.4g} in the reference"
        thing = "Answers differ" if drift.feature in ANSWERS else "Images differ"
        what = f"{thing} from the reference in {word}."
    chance = _chance(drift)
    return Signal(
        name=f"drift-{drift.feature.replace('_', '-')}",
        severity="warning",
        what=what,
        evidence=f"{moved}; {drift.images} images; effect {drift.effect:.2f} (matters from {least:g}); chance of as much in any feature "
        f"without a change {chance} (alarm from {error:g})",
        remedy=_remedy(drift.feature),
        is_firing=drift.is_alarm,
        value=drift.effect,
        threshold=least,
        subject=subject,
    )


def tell_trend(trend: Drift, subject: str, least: float, error: float) -> Signal:
    """Returns the signal of a number that moved slowly or a little.

    Args:
        trend: of the number.
        subject: model/variant.
        least: distance of its mean rank from a half that matters.
        error: share of looks in which chance names any number.
    """
    word = trend.feature.replace("_", " ")
    thing = "Answers have" if trend.feature in ANSWERS else "Images have"
    return Signal(
        name=f"trend-{trend.feature.replace('_', '-')}",
        severity="warning",
        what=f"{thing} another {word} than in the reference for a while.",
        evidence=f"like {trend.here:.4g} there, where the median is {trend.before:.4g}; {trend.images} images since it last changed; mean rank "
        f"{trend.effect:.2f} from a half (matters from {least:g}); chance of as much in any number without a change {_chance(trend)} (alarm from {error:g})",
        remedy=_remedy(trend.feature),
        is_firing=trend.is_alarm,
        value=trend.effect,
        threshold=least,
        subject=subject,
    )


def _chance(drift: Drift) -> str:
    return "under 1 in 1,000" if drift.p_family < 0.001 else f"{drift.p_family:.3f}"


def _remedy(feature: str) -> str:
    return _REMEDIES.get(feature, _OTHERS if feature in (*ANSWERS, CLASSES) else _COLOURS)


def tell_estimate(estimate: Estimate, subject: str, *, is_shifted: bool) -> Signal:
    """Returns the signal of the precision that scores promise.

    Args:
        estimate: of the latest window.
        subject: model/variant.
        is_shifted: whether the images of that window differ from the reference.
    """
    doubt = "; images differ from the reference, too: scores may no longer mean what they meant" if is_shifted else ""
    return Signal(
        name="accuracy-precision",
        severity="warning",
        what="Scores promise a lower precision than was measured on labelled images.",
        evidence=f"estimated {estimate.value:.3f} (95 % interval {estimate.low:.3f} to {estimate.high:.3f}), {estimate.measured:.3f} measured at "
        f"the build; {estimate.predictions} predictions from {estimate.conf:.3f} on in {estimate.images} images, no labels{doubt}",
        remedy=_OTHERS,
        is_firing=estimate.is_alarm,
        value=estimate.value,
        threshold=estimate.measured,
        subject=subject,
    )
