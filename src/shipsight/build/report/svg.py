# SPDX-License-Identifier: Apache-2.0
"""Writes SVG elements with every text and attribute escaped, and chooses round axis marks. Private to the room."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape, quoteattr

__all__ = ["element", "log_ticks", "nice_ticks", "text_width"]


def element(name: str, *children: str, text: str | None = None, **attributes: object) -> str:
    """Returns one element.

    Args:
        name: of the element.
        *children: elements already written by this function.
        text: text content, escaped here.
        **attributes: `_` in a name becomes `-`, a trailing `_` is dropped; None is left out, floats get two decimals.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}={quoteattr(_number(value))}"
        for key, value in attributes.items()
        if value is not None
    )
    body = "".join(children) + (escape(text) if text is not None else "")
    return f"<{name}{written}>{body}</{name}>" if body else f"<{name}{written}/>"


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about `count` round values from at most `low` to at least `high`."""
    span = max(high - low, 1e-9)
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = min((factor * power for factor in (1, 2, 2.5, 5, 10)), key=lambda value: abs(value - raw))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns values 1, 2, 5 times a power of ten that lie within the range, or its ends where there are too few."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**exponent for exponent in exponents for factor in (1, 2, 3, 5, 7)]
    return [value for value in found if low <= value <= high] or [low, high]


def text_width(text: str, size: float) -> float:
    """Estimates the width of a text in pixels: what a renderer will draw is not known here, so it errs upwards."""
    return sum(0.36 if letter in "il.,-:|' " else 0.86 if letter in "mwMW" else 0.6 for letter in text) * size
