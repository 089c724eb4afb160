# SPDX-License-Identifier: Apache-2.0
"""The Pareto picture: marks stand where the numbers say, labels cover nothing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.build.report import ReportData, render_pareto_svg
from shipsight.build.report._labels import Box, Labeller
from shipsight.build.report.svg import log_ticks, nice_ticks

SVG = "{http://www.w3.org/2000/svg}"


def test_pareto_is_valid_xml_with_one_mark_a_variant(full_data: ReportData) -> None:
    root = ET.fromstring(render_pareto_svg(full_data))
    titles = [title.text or "" for group in root.iter(f"{SVG}g") for title in group.findall(f"{SVG}title")]
    assert sorted(text.split(":")[0] for text in titles) == sorted(one["name"] for one in full_data.variants)


def test_pareto_draws_the_front_through_the_variants_on_it(full_data: ReportData) -> None:
    root = ET.fromstring(render_pareto_svg(full_data))
    (front,) = [path for path in root.iter(f"{SVG}path") if path.get("class") == "front"]
    assert front.get("d", "").count("V") == sum(one["on_front"] for one in full_data.variants) - 1


def test_pareto_marks_the_default_and_the_reference(full_data: ReportData) -> None:
    picture = render_pareto_svg(full_data)
    assert picture.count('class="halo"') == 1
    assert "openvino-int8-640-u8 · default" in picture
    assert "onnxruntime-fp32-640 · reference" in picture


def test_pareto_draws_error_bars_as_long_as_the_interval(full_data: ReportData) -> None:
    root = ET.fromstring(render_pareto_svg(full_data))
    ends = []
    for path in root.iter(f"{SVG}path"):
        if "error openvino" in path.get("class", ""):
            found = re.match(r"M[\d.]+ ([\d.]+)V([\d.]+)", path.get("d", ""))
            assert found is not None
            ends.append(float(found[2]) - float(found[1]))
    ticks = [
        (float(text.text or 0), float(text.get("y", 0)))
        for text in root.iter(f"{SVG}text")
        if text.get("class") == "axis" and text.get("text-anchor") == "end" and re.fullmatch(r"0\.\d+", text.text or "")
    ]
    (low, y_low), (high, y_high) = min(ticks), max(ticks)
    default = full_data.default_variant
    assert default is not None
    wide = default["drop"]["high"] - default["drop"]["low"]
    # 0.2 px: coordinates are written with one decimal
    assert max(ends) == pytest.approx(wide * (y_low - y_high) / (high - low), abs=0.2)


def test_pareto_is_empty_when_nothing_has_a_latency(full_data: ReportData) -> None:
    assert render_pareto_svg(replace(full_data, variants=[])) == ""


@pytest.mark.parametrize("count", [1, 2, 40])
def test_pareto_survives_any_number_of_variants(full_data: ReportData, count: int) -> None:
    template = full_data.variants[4]
    variants = [
        {
            **template,
            "name": f"openvino-fp32-{i}",
            "latency_ms": {"p50": 3.0 * 1.1**i, "p95": 9, "p99": 9},
            "map50_95": 0.4 + i / 1e4,
        }
        for i in range(count)
    ]
    for width in (880, 400):
        root = ET.fromstring(render_pareto_svg(replace(full_data, variants=variants), width=width))
        assert len(list(root.iter(f"{SVG}g"))) == count


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0, 300), st.floats(10, 150)), min_size=1, max_size=30))
def test_labels_never_cover_each_other_or_leave_their_room(wanted: list[tuple[float, float, float]]) -> None:
    room = Box(0, 0, 500, 300)
    labeller = Labeller(room)
    placed = [box for x, y, width in wanted if (box := labeller.place(x, y, width, 15)) is not None]
    assert all(box.is_inside(room) for box in placed)
    assert all(one.overlap(two) == 0 for i, one in enumerate(placed) for two in placed[:i])


@given(st.floats(-1e3, 1e3), st.floats(1e-4, 1e3))
def test_nice_ticks_reach_around_the_range(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert ticks[0] <= low + 1e-6 * span + 1e-9
    assert ticks[-1] >= low + span - 1e-6 * span - 1e-9
    assert 2 <= len(ticks) <= 14


@given(st.floats(0.01, 1e3), st.floats(1.01, 100))
def test_log_ticks_lie_within_the_range(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert ticks
    assert all(low <= tick <= low * factor for tick in ticks)
