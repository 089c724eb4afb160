# SPDX-License-Identifier: Apache-2.0
"""Drawings of speed: bars, the warm-up curve, gains with their intervals, the roofline. Pure. Private to the room."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from shipsight.build.measure import Interval
from shipsight.doctor.finding import Picture

__all__ = ["Roof", "draw_bars", "draw_curve", "draw_gains", "draw_roofline"]

_PLAIN, _MARKED, _MUTED = "#1565c0", "#c62828", "#607d8b"
_ROW, _LEFT, _WIDTH = 20, 190, 300
_LETTERS = 28

Roof = tuple[str, float]
"""What a roof is called, and its height in GFLOP/s."""


def draw_bars(rows: Sequence[tuple[str, float, str]], caption: str) -> Picture:
    """Draws one bar a row.

    Args:
        rows: name, value of 0 and more, and what is written behind the bar.
        caption: what is seen.
    """
    most = max((value for _, value, _ in rows), default=0.0) or 1.0
    parts = []
    for number, (name, value, text) in enumerate(rows):
        y, length = number * _ROW, max(_WIDTH * value / most, 1.0)
        parts.append(_text(_LEFT - 8, y + 14, _short(name), "end"))
        parts.append(f'<rect x="{_LEFT}" y="{y + 4}" width="{length:.1f}" height="13" fill="{_PLAIN}"/>')
        parts.append(_text(_LEFT + length + 6, y + 14, text))
    return Picture(caption, svg=_svg(parts, _LEFT + _WIDTH + 130, len(rows) * _ROW + 6))


def draw_curve(times_ms: Sequence[float], steady_after: int, caption: str) -> Picture:
    """Draws the time of each run, one dot each; those before it was steady are red. The scale is logarithmic."""
    left, width, height = 52, 480, 150
    low, high = math.log(min(times_ms) * 0.9), math.log(max(times_ms) * 1.1)

    def y(value_ms: float) -> float:
        return 10 + height * (1 - (math.log(value_ms) - low) / max(high - low, 1e-9))

    parts = [f'<rect x="{left}" y="10" width="{width}" height="{height}" fill="none" stroke="#bbb"/>']
    for number, one in enumerate(times_ms):
        x = left + width * (number + 0.5) / len(times_ms)
        colour = _MARKED if number < steady_after else _PLAIN
        parts.append(f'<circle cx="{x:.1f}" cy="{y(one):.1f}" r="2.6" fill="{colour}"/>')
    for value in sorted({min(times_ms), max(times_ms)}):
        parts.append(_text(left - 6, y(value) + 4, f"{value:.3g} ms", "end"))
    parts.append(_text(left, height + 28, "run 1"))
    parts.append(_text(left + width, height + 28, f"run {len(times_ms)}", "end"))
    return Picture(caption, svg=_svg(parts, left + width + 12, height + 38))


def draw_gains(rows: Sequence[tuple[str, Interval]], caption: str) -> Picture:
    """Draws how many times faster each way is, a dot on its interval; the line is as it is now."""
    most = max(max((one.high for _, one in rows), default=1.0), 1.2)
    least = min(min((one.low for _, one in rows), default=1.0), 0.8)

    def x(value: float) -> float:
        return _LEFT + _WIDTH * (value - least) / (most - least)

    bottom = len(rows) * _ROW + 4
    parts = [f'<line x1="{x(1):.1f}" y1="0" x2="{x(1):.1f}" y2="{bottom}" stroke="{_MUTED}" stroke-dasharray="3 3"/>']
    for number, (name, gain) in enumerate(rows):
        middle = number * _ROW + 10
        parts.append(_text(_LEFT - 8, middle + 4, _short(name), "end"))
        ends = f'x1="{x(gain.low):.1f}" y1="{middle}" x2="{x(gain.high):.1f}" y2="{middle}"'
        parts.append(f'<line {ends} stroke="{_PLAIN}" stroke-width="3"/>')
        parts.append(f'<circle cx="{x(gain.value):.1f}" cy="{middle}" r="5" fill="{_PLAIN}"/>')
        parts.append(_text(_LEFT + _WIDTH + 12, middle + 4, f"{gain.value:.2f} times"))
    parts.append(_text(x(1), bottom + 12, "as it is", "middle"))
    return Picture(caption, svg=_svg(parts, _LEFT + _WIDTH + 100, bottom + 20))


def draw_roofline(
    roofs: Sequence[Roof], bandwidth_gbs: float, *, intensity: float, reached_gflops: float, caption: str
) -> Picture:
    """Draws the roofs of a machine, and where a model stands under them; both scales are logarithmic.

    Args:
        roofs: what was measured in matrix products.
        bandwidth_gbs: measured, in 10^9 bytes a second.
        intensity: of the model, in FLOP a byte.
        reached_gflops: by the model.
        caption: what is seen.
    """
    left, width, height = 60, 460, 220
    top_gflops = max([reached_gflops, *(value for _, value in roofs)]) * 2.5
    low_x, high_x = min(intensity, 0.5) / 2, max(intensity, top_gflops / bandwidth_gbs) * 4
    low_y = min(reached_gflops, top_gflops / 100) / 2

    def x(value: float) -> float:
        return left + width * math.log(value / low_x) / math.log(high_x / low_x)

    def y(value: float) -> float:
        return 10 + height * (1 - math.log(max(value, low_y) / low_y) / math.log(top_gflops / low_y))

    parts = [f'<rect x="{left}" y="10" width="{width}" height="{height}" fill="none" stroke="#bbb"/>']
    for number, (name, value) in enumerate(roofs):
        corner = value / bandwidth_gbs
        begin = max(low_x, low_y / bandwidth_gbs)
        points = f"{x(begin):.1f},{y(begin * bandwidth_gbs):.1f} {x(corner):.1f},{y(value):.1f} {left + width},{y(value):.1f}"
        parts.append(f'<polyline points="{points}" fill="none" stroke="{_MUTED}" stroke-width="2"/>')
        # Side by side, since roofs may be near each other.
        place = left + width - 4 - 140 * number
        parts.append(_text(place, y(value) - 5, f"{name}: {value:.0f} GFLOP/s", "end", halo=True))
    parts.append(f'<circle cx="{x(intensity):.1f}" cy="{y(reached_gflops):.1f}" r="6" fill="{_MARKED}"/>')
    foot = 10 + height - 8
    ends = f'x1="{x(intensity):.1f}" y1="{y(reached_gflops):.1f}" x2="{x(intensity):.1f}" y2="{foot - 14:.1f}"'
    parts.append(f'<line {ends} stroke="{_MARKED}" stroke-dasharray="3 3"/>')
    parts.append(_text(x(intensity), foot, f"the model: {reached_gflops:.0f} GFLOP/s", "middle", halo=True))
    parts.append(_text(left + width / 2, height + 28, "FLOP a byte", "middle"))
    parts.append(_text(left + 6, 26, f"memory: {bandwidth_gbs:.1f} GB/s"))
    return Picture(caption, svg=_svg(parts, left + width + 12, height + 38))


def _short(name: str) -> str:
    """Returns a name that fits beside a bar: of a layer without what all share, and then its end, which tells layers apart."""
    plain = name.removesuffix("/WithoutBiases").removesuffix("/Conv")
    return plain if len(plain) <= _LETTERS else "…" + plain[1 - _LETTERS :]


def _text(x: float, y: float, text: str, anchor: str = "start", *, halo: bool = False) -> str:
    # A line that a text stands on is covered around its letters.
    around = ' stroke="#fff" stroke-width="4" paint-order="stroke" stroke-linejoin="round"' if halo else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{around}>{escape(text)}</text>'


def _svg(parts: Sequence[str], width: float, height: float) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" font-size="12" font-family="sans-serif"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(parts)}</svg>'
