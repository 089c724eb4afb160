# SPDX-License-Identifier: Apache-2.0
"""Signals, settings and times for tests of alerts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shipsight.monitor.alerts import AlertSettings, Webhook
from shipsight.monitor.signal import Signal

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
FIRES = Signal(
    name="drift-brightness",
    severity="warning",
    what="Images are darker than those of the training.",
    evidence="Median brightness 61 against 118, 400 images, p < 0.001.",
    remedy="Look at the lamp of the camera.",
    is_firing=True,
    value=0.42,
    threshold=0.1,
    subject="gate/openvino-int8-640",
)
QUIET = replace(FIRES, is_firing=False, value=0.03, evidence="Median brightness 117 against 118.")
NOWHERE = Webhook(name="nobody", url="http://localhost:9/", key_file=Path("/nonexistent"))


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def settings(*receivers: Any, **told: Any) -> AlertSettings:
    return AlertSettings(receivers=receivers or (NOWHERE,), **{"for_s": 0, "resolve_s": 60, "repeat_s": 3600, **told})
