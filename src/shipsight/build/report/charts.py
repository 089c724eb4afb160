# SPDX-License-Identifier: Apache-2.0
"""Small charts of the report: histograms and bars, as SVG without text that a table does not also say.

Leaves to others: axes with labels (`pareto`) and the page. Private to the room.
"""

from __future__ import annotations

from collections.abc import Sequence

from shipsight.build.report.svg import element

__all__ = ["bar_pair_svg", "bar_svg", "histogram_svg"]


def histogram_svg(counts: Sequence[float], *, label: str, width: int = 220, height: int = 64) -> str:
    """Draws a histogram without axes; the caller writes the ends of its range beside it.

    Args:
        counts: of each bin, 0 and more.
        label: what it shows, for those who cannot see it.
        width: in pixels.
        height: in pixels.
    """
    most = max(counts, default=0) or 1
    step = width / max(len(counts), 1)
    bars = [
        element(
            "rect",
            x=index * step + 0.5,
            y=height - 1 - count / most * (height - 4),
            width=max(step - 1, 0.5),
            height=max(count / most * (height - 4), 0.0),
        )
        for index, count in enumerate(counts)
        if count > 0
    ]
    ground = element("line", x1=0, x2=width, y1=height - 0.5, y2=height - 0.5)
    return element(
        "svg",
        *bars,
        ground,
        viewBox=f"0 0 {width} {height}",
        class_="histogram",
        role="img",
        aria_label=label,
        preserveAspectRatio="none",
    )


def bar_svg(value: float, kind: str = "") -> str:
    """Draws one bar of a value in [0, 1]."""
    return element(
        "svg",
        element("rect", x=0, y=0, width=100, height=8, class_="track"),
        element("rect", x=0, y=0, width=min(max(value, 0.0), 1.0) * 100, height=8, class_=f"value {kind}".strip()),
        viewBox="0 0 100 8",
        class_="bar",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def bar_pair_svg(first: float, second: float) -> str:
    """Draws two bars of values in [0, 1], one above the other: source, then variant."""
    return element(
        "svg",
        element("rect", x=0, y=0, width=min(max(first, 0.0), 1.0) * 100, height=5, class_="first"),
        element("rect", x=0, y=7, width=min(max(second, 0.0), 1.0) * 100, height=5, class_="second"),
        viewBox="0 0 100 12",
        class_="bar pair",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
