# SPDX-License-Identifier: Apache-2.0
"""How numbers are written in a report: few digits, one unit, a dash where nothing was measured. Private to the room."""

from __future__ import annotations

import math
from typing import TypeGuard

__all__ = ["MISSING", "accuracy", "interval", "megabytes", "milliseconds", "plain", "rate", "share", "signed"]

MISSING = "\u2013"
_MINUS = "\u2212"


def _usable(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def accuracy(value: object) -> str:
    """Writes an accuracy in [0, 1] with three decimals."""
    return f"{value:.3f}" if _usable(value) else MISSING


def signed(value: object, digits: int = 4) -> str:
    """Writes a difference with its sign; a rounded zero has none."""
    if not _usable(value):
        return MISSING
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{_MINUS if value < 0 else '+'}{text}"


def milliseconds(value: object) -> str:
    """Writes a time with three significant digits."""
    if not _usable(value):
        return MISSING
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def megabytes(value: object) -> str:
    """Writes a size."""
    return MISSING if not _usable(value) else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def rate(value: object) -> str:
    """Writes images per second."""
    return MISSING if not _usable(value) else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def share(value: object) -> str:
    """Writes a fraction as a percentage."""
    if not _usable(value):
        return MISSING
    return f"{value:.0%}" if value in (0, 1) else f"{value:.1%}"


def interval(drop: object) -> str:
    """Writes a paired interval of a drop as change of accuracy, for example `-0.004 (-0.012 to +0.003)`."""
    if not isinstance(drop, dict) or not _usable(drop.get("value")):
        return MISSING
    point = signed(-drop["value"], 3)
    if not (_usable(drop.get("low")) and _usable(drop.get("high"))):
        return point
    return f"{point} ({signed(-drop['high'], 3)} to {signed(-drop['low'], 3)})"


def plain(value: object) -> str:
    """Writes any scalar or list for a table of facts."""
    if value is None or value == "":
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or MISSING
    return str(value)
