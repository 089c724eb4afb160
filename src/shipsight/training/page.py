# SPDX-License-Identifier: Apache-2.0
"""The page beside a pruned checkpoint: what it gained, what it lost, and what each layer matters. Private to the room."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from shipsight import __version__
from shipsight.build.report.charts import bar_svg
from shipsight.build.report.self_contained import STYLE, open_templates, policy_of, read_template, trust

__all__ = ["render_pruning"]

_ROOM = "shipsight.training"


def render_pruning(told: Mapping[str, Any], facts: Mapping[str, str], *, name: str, measured: int) -> str:
    """Renders the page, HTML 5: self-contained, without scripts.

    Args:
        told: what `PruneResult.to_dict` returned.
        facts: how it was made; `size`, `epochs` and `seeds` stand at the top as well.
        name: of the model.
        measured: images that sensitivity was measured on.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    style = read_template(*STYLE)
    template = open_templates(_ROOM).get_template("pruning.html.j2")
    metric = "top-1" if told["metric"] == "top1" else "mAP50-95"
    rows = [("as it was given", "-", told["source"])]
    rows += [("pruned", seed, value) for seed, value in told["pruned"].items()]
    rows += [("control", seed, value) for seed, value in told["controls"].items()]
    most = max((one["sensitivity"] for one in told["units"]), default=1.0)
    least = min((one["sensitivity"] for one in told["units"]), default=1.0)
    return template.render(
        policy=policy_of(style),
        style=trust(style),
        name=name,
        share=f"{told['share']:.0%}",
        size=facts["size"],
        epochs=facts["epochs"],
        seeds=f"seeds {facts['seeds']}",
        verdict=_verdict(told, metric),
        figures=_figures(told, metric),
        images=told["images_measured"],
        metric=metric,
        networks=[{"name": what, "seed": seed, "value": f"{value:.4f}"} for what, seed, value in rows],
        measured=measured,
        units=[
            {
                **one,
                "bar": bar_svg(_on_log(one["sensitivity"], least, most)),
                "sensitivity": f"{one['sensitivity']:.3g}",
                "kept_bar": bar_svg(one["kept"] / one["channels"]),
            }
            for one in sorted(told["units"], key=lambda one: _in_order(one["name"]))
        ],
        facts=list(facts.items()),
        version=__version__,
    )


def _in_order(name: str) -> list[tuple[int, str]]:
    """Returns what names of layers are sorted by: their numbers as numbers."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in name.split(".")]


def _on_log(value: float, least: float, most: float) -> float:
    """Returns where a value stands between two others, by its order of size: a few layers matter a hundred times what others do."""
    if most <= least:
        return 1.0
    return 0.04 + 0.96 * math.log(value / least) / math.log(most / least)


def _verdict(told: Mapping[str, Any], metric: str) -> dict[str, str]:
    difference = told["difference"]
    if difference is None:
        sentence = "No control was trained: what the figures say is pruning and training together."
        return {"kind": "unmeasured", "word": "What pruning costs is not known", "sentence": sentence}
    value, low, high = difference["value"], difference["low"], difference["high"]
    sentence = (
        f"Pruned minus control: {value:+.4f} {metric}, 95 % interval {low:+.4f} to {high:+.4f} over "
        f"{told['images_measured']} images and {len(told['controls'])} seed{'s' * (len(told['controls']) != 1)}."
    )
    if high < 0:
        return {"kind": "failed", "word": f"Pruning costs {-value:.4f} {metric}", "sentence": sentence}
    if low > 0:
        return {"kind": "passed", "word": f"Pruning gains {value:.4f} {metric}", "sentence": sentence}
    return {"kind": "undecided", "word": "No loss is to be seen on these images", "sentence": sentence}


def _figures(told: Mapping[str, Any], metric: str) -> list[dict[str, str]]:
    latency = told["latency_ms"]
    pruned = list(told["pruned"].values())
    return [
        {
            "name": "multiply-adds left",
            "value": f"{told['share'] * 100:.0f}",
            "unit": "%",
            "beside": "of the model as it was given",
        },
        {
            "name": "inference",
            "value": f"{latency['pruned']:.2f}",
            "unit": "ms",
            "beside": f"{told['speedup']:.2f} times as fast as {latency['source']:.2f} ms, OpenVINO in float32",
        },
        {
            "name": metric,
            "value": f"{sum(pruned) / len(pruned):.4f}",
            "unit": "",
            "beside": f"{told['source']:.4f} as it was given",
        },
    ]
