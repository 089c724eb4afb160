# SPDX-License-Identifier: Apache-2.0
"""Turns the stored numbers into rows of text for the page's tables. Private to the room.

Leaves to others: the verdict (`verdict`), pictures (`pareto`, `charts`), layout (the template). Every function gives an
empty list where nothing was measured, and the template then says so or leaves the section out.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

from shipsight.build.report import charts, numbers
from shipsight.build.report.data import ReportData

__all__ = [
    "class_counts",
    "class_rows",
    "environment_groups",
    "guard_runs",
    "histograms",
    "parity_table",
    "pictures",
    "training_rows",
    "variant_rows",
]

_SQNR_STEPS_DB = (10, 15, 20, 25, 30, 40, 60)


def _size(imgsz: object) -> str:
    return "\u00d7".join(str(side) for side in imgsz) if isinstance(imgsz, list | tuple) else str(imgsz)


def variant_rows(data: ReportData) -> list[dict[str, Any]]:
    """Returns the table of variants, the reference first, then by latency."""

    def order(variant: Mapping[str, Any]) -> tuple[bool, float]:
        return not variant.get("is_reference"), float((variant.get("latency_ms") or {}).get("p50") or math.inf)

    rows = []
    for variant in sorted(data.variants, key=order):
        latency = variant.get("latency_ms") or {}
        layers = variant.get("int8_layers")
        rows.append(
            {
                "name": str(variant["name"]),
                "marks": [
                    word
                    for word, key in (("default", "is_default"), ("reference", "is_reference"), ("front", "on_front"))
                    if variant.get(key)
                ],
                "kept": bool(variant.get("kept", True)),
                "dropped_because": str(variant.get("dropped_because") or ""),
                "size": _size(variant.get("imgsz", "")),
                "accuracy": variant.get(data.metric),
                "accuracy_text": numbers.accuracy(variant.get(data.metric)),
                "second_text": numbers.accuracy(variant.get(data.second_metric)),
                "change": numbers.interval(variant.get("drop")),
                "outcome": _judged(variant.get("outcome")),
                "p50": latency.get("p50"),
                "latency": [numbers.milliseconds(latency.get(key)) for key in ("p50", "p95", "p99")],
                "steady": variant.get("is_steady", True),
                "throughput": variant.get("throughput_ips"),
                "throughput_text": numbers.rate(variant.get("throughput_ips")),
                "bytes": variant.get("size_mb"),
                "size_text": numbers.megabytes(variant.get("size_mb")),
                "memory_text": numbers.megabytes(variant.get("memory_mb")),
                "layers": f"{layers[0]}/{layers[1]}" if layers and layers[0] else numbers.MISSING,
                "float_type": str(variant.get("float_type") or ""),
                "cold_text": numbers.milliseconds(variant.get("cold_start_ms")),
                "threshold": numbers.plain(_two(variant.get("threshold"))),
            }
        )
    return rows


def _judged(outcome: object) -> str:
    return str(outcome) if outcome in ("passed", "undecided", "failed") else ""


def _two(value: object) -> object:
    return f"{value:.2f}" if isinstance(value, float) else value


def guard_runs(data: ReportData) -> list[dict[str, Any]]:
    """Returns the INT8 guard's steps, grouped by variant, in the order in which they were taken."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for step in data.guard_steps:
        done, total = step.get("integer_convolutions") or 0, step.get("convolutions") or 0
        runs.setdefault(str(step["variant"]), []).append(
            {
                "step": numbers.plain(step.get("step")),
                "attempt": str(step.get("attempt") or ""),
                "latency": numbers.milliseconds(step.get("latency_ms")),
                "returned": [str(name) for name in step.get("returned") or ()],
                "accuracy": numbers.accuracy(step.get("accuracy")),
                "change": numbers.interval(step.get("drop")),
                "layers": f"{done} of {total}",
                "bar": charts.bar_svg(done / total if total else 0.0),
                "outcome": str(step.get("outcome") or ""),
            }
        )
    return [{"variant": variant, "steps": steps} for variant, steps in runs.items()]


def _heat(sqnr_db: float | None) -> int:
    if sqnr_db is None:
        return 0
    return sum(sqnr_db >= step for step in _SQNR_STEPS_DB) + 1


def parity_table(data: ReportData) -> dict[str, Any]:
    """Returns parity: columns are variants, rows layer groups, cells SQNR with a level 1 (worst) to 8."""
    variants: Mapping[str, Mapping[str, Any]] = data.parity.get("variants") or {}
    by_variant = [_layer_groups(one) for one in variants.values()]
    names = list(dict.fromkeys(name for groups in by_variant for name in groups))
    rows = []
    for group in names:
        cells = []
        for groups in by_variant:
            found = groups.get(group) or {}
            sqnr = found.get("sqnr_db")
            sqnr = 120.0 if sqnr is not None and (math.isinf(sqnr) or sqnr > 120) else sqnr
            said = f"cosine {numbers.plain(found.get('cosine'))}, largest error {numbers.plain(found.get('max_error'))}"
            cells.append(
                {"text": numbers.MISSING if sqnr is None else f"{sqnr:.0f}", "level": _heat(sqnr), "title": said}
            )
        rows.append({"name": group, "stage": _stage(by_variant, group), "cells": cells})
    return {"variants": list(variants), "rows": rows, "matched": [_matched(one) for one in variants.values()]}


def _layer_groups(parity: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the layer groups of one variant in their order, then its output tensors."""
    groups = {str(row["name"]): row for row in parity.get("groups") or ()}
    return groups | {f"output {name}": row for name, row in (parity.get("tensors") or {}).items()}


def _stage(by_variant: Sequence[Mapping[str, Mapping[str, Any]]], group: str) -> str:
    return next((str(groups[group]["stage"]) for groups in by_variant if (groups.get(group) or {}).get("stage")), "")


def _matched(parity: Mapping[str, Any]) -> dict[str, Any]:
    found = parity.get("predictions") or {}
    expected = found.get("expected")
    return {
        "text": numbers.MISSING if not expected else f"{found.get('matched', 0)} of {expected}",
        "score": _short(found.get("worst_score")),
        "box": _short(found.get("worst_box_px")),
        "passed": parity.get("passed"),
        "gate": str(parity.get("gate") or ""),
    }


def _short(value: float | None) -> str:
    return numbers.MISSING if value is None else f"{value:.2g}"


def class_rows(data: ReportData) -> list[dict[str, Any]]:
    """Returns accuracy by class, source beside default, the classes that lost most first."""
    default = data.default_variant
    source = (data.reference.get("source") or {}).get("by_class") or {}
    chosen = ((data.reference.get("variants") or {}).get(default["name"]) or {}).get("by_class") if default else None
    rows = []
    for name, first in source.items():
        second = (chosen or {}).get(name) or {}
        before, after = first.get(data.metric), second.get(data.metric)
        if before is None:
            continue
        change = None if after is None else after - before
        rows.append(
            {
                "name": str(name),
                "labels": first.get("labels", 0),
                "before": numbers.accuracy(before),
                "after": numbers.accuracy(after),
                "change": change,
                "change_text": numbers.signed(change, 3),
                "bars": charts.bar_pair_svg(before, after or 0.0),
            }
        )
    return sorted(rows, key=lambda row: (row["change"] if row["change"] is not None else 0.0, row["name"]))


def pictures(data: ReportData) -> list[dict[str, Any]]:
    """Returns the worst images as data URIs; empty where they may not be shown."""
    if not data.shareable:
        return []
    return [
        {
            "name": image.name,
            "note": image.note,
            "views": [
                {"name": name, "uri": "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")}
                for name, content in (
                    ("labels", image.labels_jpeg),
                    ("source model", image.source_jpeg),
                    ("default variant", image.variant_jpeg),
                )
            ],
        }
        for image in data.worst_images
    ]


def histograms(data: ReportData) -> list[dict[str, Any]]:
    """Returns the distributions of the training images, each with the ends of its range."""
    found = []
    for name, one in (data.training_stats.get("histograms") or {}).items():
        counts, edges = list(one.get("counts") or ()), list(one.get("edges") or ())
        if not counts or len(edges) != len(counts) + 1:
            continue
        title = str(name).replace("_", " ")
        found.append(
            {
                "name": title,
                "unit": str(one.get("unit") or ""),
                "low": f"{edges[0]:.4g}",
                "high": f"{edges[-1]:.4g}",
                "middle": f"{_median(counts, edges):.3g}",
                "chart": charts.histogram_svg(counts, label=f"Distribution of {title}"),
            }
        )
    return found


def _median(counts: Sequence[float], edges: Sequence[float]) -> float:
    half, seen = sum(counts) / 2, 0.0
    for index, count in enumerate(counts):
        if count and seen + count >= half:
            return edges[index] + (half - seen) / count * (edges[index + 1] - edges[index])
        seen += count
    return edges[-1]


def class_counts(data: ReportData, most: int = 24) -> dict[str, Any]:
    """Returns labels by class in the training images, most frequent first, and how many classes are not listed."""
    counts = sorted((data.training_stats.get("classes") or {}).items(), key=lambda item: (-item[1], item[0]))
    top = counts[0][1] if counts and counts[0][1] else 1
    rows = [{"name": name, "count": f"{count:,}", "bar": charts.bar_svg(count / top)} for name, count in counts[:most]]
    return {"rows": rows, "more": max(len(counts) - most, 0)}


def training_rows(data: ReportData) -> dict[str, Any]:
    """Returns what training reported, beside what was measured here."""
    record = data.card.get("training") or {}
    source = data.reference.get("source") or {}
    rows = []
    for name, value in (record.get("metrics") or {}).items():
        key = str(name).lower().replace("metrics/", "").replace("(b)", "").replace("-", "_").replace("accuracy_", "")
        key = {"map50_95": "map50_95", "map50": "map50", "top1": "top1", "top5": "top5"}.get(key, "")
        here = source.get(key) if key else None
        rows.append(
            {"name": str(name), "reported": numbers.plain(value), "here": numbers.accuracy(here) if key else ""}
        )
    facts = [("framework", record.get("framework")), ("date", record.get("date")), ("epoch", record.get("epoch"))]
    arguments = [(str(key), numbers.plain(value)) for key, value in sorted((record.get("arguments") or {}).items())]
    return {"rows": rows, "facts": [(key, numbers.plain(value)) for key, value in facts], "arguments": arguments}


def environment_groups(data: ReportData) -> list[dict[str, Any]]:
    """Returns the environment as titled lists of facts, nested mappings flattened with dots."""
    loose: list[tuple[str, str]] = []
    groups = []
    measured = {key: value for key, value in data.measurements.items() if key != "variants"}
    for key, value in (*data.environment.items(), *measured.items()):
        if isinstance(value, Mapping):
            groups.append({"name": str(key).replace("_", " "), "facts": _flatten(value)})
        else:
            loose.append((str(key).replace("_", " "), numbers.plain(value)))
    return [*([{"name": "machine", "facts": loose}] if loose else []), *groups]


def _flatten(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    for key, value in mapping.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            facts += _flatten(value, f"{name}.")
        else:
            facts.append((name, numbers.plain(value)))
    return facts
