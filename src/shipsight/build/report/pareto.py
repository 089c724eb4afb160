# SPDX-License-Identifier: Apache-2.0
"""The Pareto picture: accuracy against latency of every variant that was measured, as SVG.

Leaves to others: which variants lie on the front (the pipeline says so) and the page around it. Colour says the
engine, shape the precision, so that the picture is readable without colour. Error bars are the paired 95 % interval of
the difference to the source. Without accuracy the same room shows latency as bars (p50, with a line to p99). Unstable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shipsight.build.report import numbers
from shipsight.build.report._labels import Box, Labeller
from shipsight.build.report.data import ReportData
from shipsight.build.report.svg import element, log_ticks, nice_ticks, text_width

__all__ = ["CHART_STYLE", "render_pareto_svg"]

_COLOURS = """
svg{--ink:#20242a;--soft:#667079;--line:#d9dcd8;--paper:#fff;--accent:#0b6e69;--ort:#3b6fb6;--ov:#0b857d;--other:#7a5ea8;
--fine:#0b857d;--bad:#c0392b;background:#fff;font-family:system-ui,sans-serif}
"""
CHART_STYLE = """
.chart text{fill:var(--ink);font-size:12px}.chart .axis,.chart .note{fill:var(--soft)}.chart .grid{stroke:var(--line)}
.chart .front{fill:none;stroke:var(--accent);stroke-width:2}.chart .source{stroke:var(--ink);stroke-dasharray:5 4}
.chart .limit{stroke:var(--bad);stroke-dasharray:2 4}.chart .leader{stroke:var(--soft);stroke-width:.75}
.chart .onnxruntime{fill:var(--ort);stroke:var(--ort)}.chart .openvino{fill:var(--ov);stroke:var(--ov)}
.chart .other{fill:var(--other);stroke:var(--other)}.chart .error{fill:none;stroke-width:1.25;opacity:.5}
.chart .mark{stroke:var(--paper);stroke-width:1.5}.chart .halo{fill:none;stroke:var(--ink);stroke-width:1.5}
.chart .label{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}.chart .strong{font-weight:650}.chart .dropped{opacity:.42}.chart .bar{stroke:none}
"""
"""Style of the picture's parts; whoever shows it gives the colours as custom properties."""
_TEXT_PX = 12.0


@dataclass(frozen=True)
class _Point:
    """One variant in the picture: `x`, `y` in pixels, `top` and `bottom` the ends of its error bar."""

    variant: Mapping[str, Any]
    x: float
    y: float
    top: float
    bottom: float


@dataclass(frozen=True)
class _Frame:
    """The plot area in pixels and the values at its edges; x is logarithmic where `is_log`."""

    left: float
    right: float
    top: float
    bottom: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float
    is_log: bool

    def x(self, value: float) -> float:
        low, high, here = self.x_low, self.x_high, value
        if self.is_log:
            low, high, here = math.log(low), math.log(high), math.log(value)
        return self.left + (here - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        return self.bottom - (value - self.y_low) / (self.y_high - self.y_low) * (self.bottom - self.top)


def render_pareto_svg(data: ReportData, *, width: int = 880, height: int = 440, standalone: bool = True) -> str:
    """Draws accuracy against latency.

    Args:
        data: of the report; `variants` and `reference` are read.
        width: of the picture in pixels; below 500 only the most important points are labelled.
        height: of the picture in pixels.
        standalone: whether the picture carries its own colours (a page brings them itself).

    Returns:
        One `svg` element; an empty string where no variant has a latency.
    """
    timed = [variant for variant in data.variants if _latency(variant) is not None]
    if not timed:
        return ""
    judged = [variant for variant in timed if variant.get(data.metric) is not None]
    if judged:
        body = _draw_scatter(data, judged, width, height)
        title = "Accuracy against latency of every variant"
    else:
        height = 56 + 34 * len(timed)
        body = _draw_bars(timed, width, height)
        title = "Latency of every variant"
    style = element("style", text=_COLOURS + CHART_STYLE) if standalone else ""
    return element(
        "svg",
        element("title", text=title),
        style,
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=title,
        class_="chart",
    )


def _latency(variant: Mapping[str, Any]) -> float | None:
    value = (variant.get("latency_ms") or {}).get("p50")
    return None if value is None or value <= 0 else float(value)


def _engine_class(variant: Mapping[str, Any]) -> str:
    engine = str(variant.get("engine"))
    return engine if engine in ("onnxruntime", "openvino") else "other"


def _span(variant: Mapping[str, Any], metric: str, source: float | None) -> tuple[float, float, float]:
    value = float(variant[metric])
    drop = variant.get("drop") or {}
    low, high = drop.get("low"), drop.get("high")
    if source is None or low is None or high is None or variant.get("is_reference"):
        return value, value, value
    return value, min(value, source - high), max(value, source - low)


def _frame(data: ReportData, variants: Sequence[Mapping[str, Any]], width: int, height: int) -> _Frame:
    times = [float(_latency(variant) or 0) for variant in variants]
    values = [value for variant in variants for value in _span(variant, data.metric, data.source_accuracy)]
    if data.source_accuracy is not None:
        values.append(data.source_accuracy)
        if data.max_drop is not None and max(values) - min(values) < 10 * data.max_drop:
            values.append(data.source_accuracy - data.max_drop)
    if max(values) - min(values) < 1e-4:
        values += [min(values) - 0.005, max(values) + 0.005]
    ticks = nice_ticks(min(values), max(values), 5)
    low, high = min(times), max(times)
    is_log = high / low > 6
    pad = (high - low) * 0.12 or high * 0.3
    x_low, x_high = (low / 1.25, high * 1.25) if is_log else (max(low - pad, 0.0), high + pad)
    return _Frame(56, width - 20, 34, height - 46, x_low, x_high, ticks[0], ticks[-1], is_log)


def _draw_axes(frame: _Frame, metric_name: str) -> list[str]:
    parts = []
    ticks = nice_ticks(frame.y_low, frame.y_high, 5)
    digits = 3 if ticks[1] - ticks[0] < 0.01 else 2
    for value in (tick for tick in ticks if frame.y_low - 1e-9 <= tick <= frame.y_high + 1e-9):
        y = frame.y(value)
        parts.append(element("line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_="grid"))
        parts.append(
            element("text", text=f"{value:.{digits}f}", x=frame.left - 8, y=y + 4, text_anchor="end", class_="axis")
        )
    marks = log_ticks(frame.x_low, frame.x_high) if frame.is_log else nice_ticks(frame.x_low, frame.x_high, 6)
    for value in (mark for mark in marks if frame.x_low <= mark <= frame.x_high):
        x = frame.x(value)
        parts.append(element("line", x1=x, x2=x, y1=frame.bottom, y2=frame.bottom + 5, class_="grid"))
        parts.append(element("text", text=f"{value:g}", x=x, y=frame.bottom + 19, text_anchor="middle", class_="axis"))
    x_name = "latency p50, ms: decoded image to predictions" + (" (log)" if frame.is_log else "")
    parts.append(element("text", text=metric_name, x=4, y=12, class_="axis"))
    parts.append(element("text", text=x_name, x=frame.right, y=frame.bottom + 39, text_anchor="end", class_="axis"))
    return parts


def _draw_levels(data: ReportData, frame: _Frame, labels: Labeller, drawn: Sequence[Box]) -> list[str]:
    source = data.source_accuracy
    if source is None:
        return []
    levels = [("source", source, f"source model {numbers.accuracy(source)}")]
    if data.max_drop is not None and frame.y_low <= source - data.max_drop:
        levels.append(("limit", source - data.max_drop, f"limit \u2212{data.max_drop:g}"))
    parts = []
    for name, value, text in levels:
        y = frame.y(value)
        parts.append(element("line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_=name))
        labels.discourage(Box(frame.left, y - 2, frame.right - frame.left, 4), 24)
        wide = text_width(text, _TEXT_PX)
        # From the right end of the line to its left, on either side: where nothing else is drawn, or least of it.
        sides = (y - 17, y + 3) if name == "source" else (y + 3, y - 17)
        room = Box(frame.left, frame.top - 18, frame.right - frame.left, frame.bottom - frame.top + 18)
        starts = range(int(frame.right - wide - 2), int(frame.left), -12)
        places = [Box(x, side, wide, 14) for x in starts for side in sides]
        box = min(
            (place for place in places if place.is_inside(room)),
            key=lambda place: sum(place.overlap(one) for one in drawn),
        )
        labels.block(box)
        parts.append(element("text", text=text, x=box.x, y=box.y + 11, class_="note", font_size=11))
    return parts


def _draw_scatter(data: ReportData, variants: Sequence[Mapping[str, Any]], width: int, height: int) -> list[str]:
    frame = _frame(data, variants, width, height)
    points = []
    for variant in variants:
        value, low, high = _span(variant, data.metric, data.source_accuracy)
        x = frame.x(float(_latency(variant) or 0))
        points.append(_Point(variant, x, frame.y(value), frame.y(high), frame.y(low)))
    labels = Labeller(Box(frame.left, frame.top - 8, frame.right - frame.left, frame.bottom - frame.top + 8))
    marks = [Box(point.x - 8, point.y - 8, 16, 16) for point in points]
    errors = [Box(point.x - 4, point.top, 8, point.bottom - point.top) for point in points]
    front = sorted((p for p in points if p.variant.get("on_front")), key=lambda point: point.x)
    ends = [*(point.x for point in front[1:]), frame.right]
    steps = [Box(point.x, point.y - 2, end - point.x, 4) for point, end in zip(front, ends, strict=False)]
    levels = _draw_levels(data, frame, labels, [*marks, *errors, *steps])
    for point, mark in zip(points, marks, strict=True):
        labels.block(mark)
        labels.discourage(Box(point.x - 3, point.top, 6, point.bottom - point.top), 12)
    for step in steps:
        labels.discourage(step, 24)
    metric_name = {"top1": "top-1 accuracy"}.get(data.metric, "mAP50-95")
    return [
        *_draw_axes(frame, metric_name),
        *levels,
        *_draw_front(front, frame),
        *(_draw_error(point) for point in points if point.bottom - point.top > 1),
        *_draw_labels(points, labels, is_narrow=width < 500),
        *(_draw_mark(point, data.metric) for point in points),
    ]


def _draw_front(front: Sequence[_Point], frame: _Frame) -> list[str]:
    if not front:
        return []
    steps = [f"M{front[0].x:.1f} {front[0].y:.1f}"]
    steps += [f"H{point.x:.1f}V{point.y:.1f}" for point in front[1:]]
    steps.append(f"H{frame.right:.1f}")
    return [element("path", d="".join(steps), class_="front")]


def _draw_error(point: _Point) -> str:
    x, top, bottom = point.x, point.top, point.bottom
    path = f"M{x:.1f} {top:.1f}V{bottom:.1f}M{x - 4:.1f} {top:.1f}h8M{x - 4:.1f} {bottom:.1f}h8"
    return element("path", d=path, class_=f"error {_engine_class(point.variant)}")


def _shape(precision: str, x: float, y: float, class_: str) -> str:
    if precision == "fp16":
        return element("rect", x=x - 5, y=y - 5, width=10, height=10, class_=class_)
    if precision == "bf16":
        return element("path", d=f"M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7-7z", class_=class_)
    if precision == "int8":
        return element("path", d=f"M{x:.1f} {y - 7:.1f}l7 12h-14z", class_=class_)
    return element("circle", cx=x, cy=y, r=5.5, class_=class_)


def _draw_mark(point: _Point, metric: str) -> str:
    variant = point.variant
    drop = numbers.interval(variant.get("drop"))
    said = f"{variant['name']}: {numbers.accuracy(variant[metric])} at {numbers.milliseconds(_latency(variant))} ms"
    tip = element("title", text=said if drop == numbers.MISSING else f"{said}, change {drop}")
    dropped = "" if variant.get("kept", True) else " dropped"
    mark = _shape(str(variant.get("precision")), point.x, point.y, class_=f"mark {_engine_class(variant)}{dropped}")
    halo = element("circle", cx=point.x, cy=point.y, r=11, class_="halo") if variant.get("is_default") else ""
    return element("g", tip, halo, mark)


def _importance(variant: Mapping[str, Any]) -> int:
    return (
        8 * bool(variant.get("is_default"))
        + 4 * bool(variant.get("is_reference"))
        + 2 * bool(variant.get("on_front"))
        + bool(variant.get("kept", True))
    )


def _draw_labels(points: Sequence[_Point], labels: Labeller, *, is_narrow: bool) -> list[str]:
    parts = []
    for point in sorted(points, key=lambda point: -_importance(point.variant)):
        variant = point.variant
        if is_narrow and _importance(variant) < 2:
            continue
        name = str(variant["name"])
        role = " · default" if variant.get("is_default") else " · reference" if variant.get("is_reference") else ""
        box = labels.place(point.x, point.y, text_width(name + role, _TEXT_PX), 15)
        if box is None:
            continue
        if abs(box.middle_y - point.y) > 22 or min(abs(box.x - point.x), abs(box.x + box.width - point.x)) > 22:
            edge_x = min(max(point.x, box.x), box.x + box.width)
            edge_y = box.y + box.height if box.middle_y < point.y else box.y
            parts.append(element("line", x1=point.x, y1=point.y, x2=edge_x, y2=edge_y, class_="leader"))
        weight = "label strong" if variant.get("is_default") else "label"
        parts.append(element("text", text=name + role, x=box.x, y=box.y + 12, class_=weight))
    return parts


def _draw_bars(variants: Sequence[Mapping[str, Any]], width: int, height: int) -> list[str]:
    left = min(max(text_width(str(variant["name"]), _TEXT_PX) for variant in variants) + 16, width * 0.5)
    ends = [float(variant["latency_ms"].get("p99") or variant["latency_ms"]["p50"]) for variant in variants]
    ticks = nice_ticks(0, max(ends), 5)
    scale = (width - left - 60) / ticks[-1]
    parts = []
    for tick in ticks:
        x = left + tick * scale
        parts.append(element("line", x1=x, x2=x, y1=8, y2=height - 38, class_="grid"))
        parts.append(element("text", text=f"{tick:g}", x=x, y=height - 22, text_anchor="middle", class_="axis"))
    parts.append(
        element("text", text="ms: bar p50, line p99", x=width - 4, y=height - 5, text_anchor="end", class_="axis")
    )
    for row, variant in enumerate(sorted(variants, key=lambda variant: _latency(variant) or 0)):
        y = 12 + 34 * row
        p50 = _latency(variant) or 0.0
        p99 = float(variant["latency_ms"].get("p99") or p50)
        weight = "strong" if variant.get("is_default") else None
        parts.append(
            element("text", text=str(variant["name"]), x=left - 10, y=y + 16, text_anchor="end", class_=weight)
        )
        parts.append(
            element("rect", x=left, y=y + 3, width=p50 * scale, height=18, class_=f"bar {_engine_class(variant)}", rx=2)
        )
        parts.append(
            element("line", x1=left + p50 * scale, x2=left + p99 * scale, y1=y + 12, y2=y + 12, class_="leader")
        )
        parts.append(element("text", text=numbers.milliseconds(p50), x=left + p99 * scale + 6, y=y + 16))
    return parts
