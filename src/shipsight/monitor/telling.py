# SPDX-License-Identifier: Apache-2.0
"""Drift in words: what, evidence, what to do. Pure. Private to the room."""

from __future__ import annotations

from collections.abc import Mapping

from shipsight.monitor.drift import Drift
from shipsight.monitor.features import ANSWERS, CLASSES
from shipsight.monitor.signal import Signal

__all__ = ["tell"]

_REMEDIES: Mapping[str, str] = {
    "brightness": "Look at light and exposure of the camera.",
    "contrast": "Look at the lens (dirt, fog) and at the camera's picture profile.",
    "sharpness": "Look at focus and lens, and whether frames are enlarged before they are sent.",
    "noise": "Look at gain and light.",
    "width": "Look whether the camera or its stream was changed.",
    "height": "Look whether the camera or its stream was changed.",
    "aspect": "Look whether the camera was turned, or images are stretched.",
}
_COLOURS = "Look at white balance and light."
_OTHERS = "Look at recorded samples, label some of them, and measure: `shipsight doctor accuracy BUNDLE --images DIR --labels`."


def tell(drift: Drift, subject: str, window: int, least: float, error: float) -> Signal:
    """Returns a feature's signal.

    Args:
        drift: of the latest window.
        subject: model/variant.
        window: images in it.
        least: effect that matters.
        error: share of windows in which chance names any feature.
    """
    word = drift.feature.replace("_", " ")
    if drift.feature == CLASSES:
        moved = f"most: {drift.here}, {drift.before}"
        what = "The mix of classes is another than in the reference."
    else:
        moved = f"median {drift.here:.4g}, {drift.before:.4g} in the reference"
        thing = "Answers differ" if drift.feature in ANSWERS else "Images differ"
        what = f"{thing} from the reference in {word}."
    chance = "under 1 in 1,000" if drift.p_family < 0.001 else f"{drift.p_family:.3f}"
    return Signal(
        name=f"drift-{drift.feature.replace('_', '-')}",
        severity="warning",
        what=what,
        evidence=f"{moved}; {window} images; effect {drift.effect:.2f} (matters from {least:g}); chance of as much in any feature "
        f"without a change {chance} (alarm from {error:g})",
        remedy=_REMEDIES.get(drift.feature, _OTHERS if drift.feature in (*ANSWERS, CLASSES) else _COLOURS),
        is_firing=drift.is_alarm,
        value=drift.effect,
        threshold=least,
        subject=subject,
    )
