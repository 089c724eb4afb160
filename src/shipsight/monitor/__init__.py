# SPDX-License-Identifier: Apache-2.0
"""Watching a model in production: drift against what came first, alerts, recordings by policy. Knows no HTTP. Stable.

    monitor = Monitor("digits/openvino-int8-256", state_file=Path("monitor.json"))
    monitor.observe(image_rgb, predictions)
    print(monitor.report().alarms)

Names are loaded when they are asked for: reading a policy needs no NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shipsight.monitor.drift import Drift, Estimate, MonitorSettings
    from shipsight.monitor.signal import Signal
    from shipsight.monitor.watching import Monitor, MonitorReport, Phase

__all__ = ["Drift", "Estimate", "Monitor", "MonitorReport", "MonitorSettings", "Phase", "Signal"]

_HOMES = {
    "Drift": "drift",
    "Estimate": "drift",
    "MonitorSettings": "drift",
    "Signal": "signal",
    "Monitor": "watching",
    "MonitorReport": "watching",
    "Phase": "watching",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the room exports
    if name not in _HOMES:
        raise AttributeError(f"module 'shipsight.monitor' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"shipsight.monitor.{_HOMES[name]}"), name)
