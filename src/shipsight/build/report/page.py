# SPDX-License-Identifier: Apache-2.0
"""Renders `report.html`: one self-contained page that works offline, without JavaScript and in print.

Leaves to others: every number (`ReportData`). Invariants: the page fetches nothing, which its own content security
policy also forbids; all text is escaped by jinja2's autoescape, and only SVG made in this room is inserted as it is;
the same data gives the same bytes. Unstable.
"""

from __future__ import annotations

from typing import Any

from shipsight import __version__
from shipsight.build.report import numbers, sections
from shipsight.build.report.data import ReportData
from shipsight.build.report.pareto import CHART_STYLE, render_pareto_svg
from shipsight.build.report.self_contained import STYLE, open_templates, policy_of, read_template, trust
from shipsight.build.report.verdict import judge, key_figures

__all__ = ["render_report"]

_ROOM = "shipsight.build.report"
_WIDE_PX, _NARROW_PX = (880, 440), (400, 400)


def render_report(data: ReportData) -> str:
    """Renders the report.

    Args:
        data: what was measured; every part may be missing and the page then says so.

    Returns:
        The page, HTML 5, to be written as UTF-8.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    style, script = read_template(*STYLE) + CHART_STYLE, read_template(_ROOM, "report.js")
    return (
        open_templates(_ROOM)
        .get_template("report.html.j2")
        .render(
            policy=policy_of(style, script),
            style=trust(style),
            script=trust(script),
            data=data,
            card=data.card,
            classify=data.metric == "top1",
            verdict=judge(data),
            figures=key_figures(data),
            chart_wide=render_pareto_svg(data, width=_WIDE_PX[0], height=_WIDE_PX[1], standalone=False),
            chart_narrow=render_pareto_svg(data, width=_NARROW_PX[0], height=_NARROW_PX[1], standalone=False),
            engines=list(dict.fromkeys(str(variant.get("engine")) for variant in data.variants)),
            precisions=list(dict.fromkeys(str(variant.get("precision")) for variant in data.variants)),
            measured=data.source_accuracy is not None,
            by_size=_by_size(data),
            version=__version__,
            **_sections(data),
        )
    )


def _sections(data: ReportData) -> dict[str, Any]:
    return {
        "variants": sections.variant_rows(data),
        "guard": sections.guard_runs(data),
        "parity": sections.parity_table(data),
        "classes": sections.class_rows(data),
        "pictures": sections.pictures(data),
        "histograms": sections.histograms(data),
        "class_counts": sections.class_counts(data),
        "training": sections.training_rows(data),
        "environment": sections.environment_groups(data),
    }


def _by_size(data: ReportData) -> list[tuple[str, str, str]]:
    default = data.default_variant or {}
    source = (data.reference.get("source") or {}).get("by_size") or {}
    chosen = ((data.reference.get("variants") or {}).get(default.get("name")) or {}).get("by_size") or {}
    return [(name, numbers.accuracy(source[name]), numbers.accuracy(chosen.get(name))) for name in source]
