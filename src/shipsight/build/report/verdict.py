# SPDX-License-Identifier: Apache-2.0
"""Does it work? One word, one sentence and the key figures on top of the report. Private to the room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shipsight.build.report import numbers
from shipsight.build.report.data import ReportData

__all__ = ["Figure", "Verdict", "judge", "key_figures"]


_MISSED_GATE = "Its predictions differ from the source model's on the golden set by more than the parity gate allows."


@dataclass(frozen=True)
class Verdict:
    """What the report says first.

    Attributes:
        kind: `passed`, `undecided`, `failed` or `unmeasured`; also the name of its colour.
        word: one or two words.
        sentence: what that rests on.
    """

    kind: str
    word: str
    sentence: str


@dataclass(frozen=True)
class Figure:
    """One key figure: what it is, the default variant's value, its unit, and what it is compared with."""

    name: str
    value: str
    unit: str
    beside: str


def _outcome_sentence(data: ReportData, variant: Mapping[str, Any]) -> str:
    change = numbers.interval(variant.get("drop"))
    limit = "" if data.max_drop is None else f" A drop of {data.max_drop:g} was allowed."
    if change == numbers.MISSING:
        return f"The default variant computes in float, and its accuracy was not compared.{limit}"
    drop = variant["drop"]
    if not any(round(drop.get(key) or 0.0, 3) for key in ("value", "low", "high")):
        return f"Its accuracy is the source model's, on {data.images_measured} images.{limit}"
    return f"Its accuracy differs from the source model's by {change} on {data.images_measured} images.{limit}"


def judge(data: ReportData) -> Verdict:
    """Returns the verdict on the default variant."""
    variant = data.default_variant
    if variant is None:
        return Verdict("failed", "No default", "No variant meets what was asked for.")
    parity = (data.parity.get("variants") or {}).get(variant["name"]) or {}
    misses_gate = parity.get("passed") is False
    if variant.get(data.metric) is None:
        if misses_gate:
            return Verdict("failed", "Does not match", f"{_MISSED_GATE} No labelled images say what that costs.")
        sentence = "Accuracy was not measured: build with --data to know what conversion cost."
        return Verdict("unmeasured", "Runs", sentence)
    sentence = _outcome_sentence(data, variant)
    words = {"passed": "Works", "undecided": "Works, not proven", "failed": "Loses too much"}
    outcome = "passed" if variant.get("is_reference") else str(variant.get("outcome"))
    if outcome == "undecided":
        sentence += " More images would decide it."
    if misses_gate:
        # On labelled images accuracy has the last word; that single predictions moved is still worth a look.
        sentence += f" {_MISSED_GATE}"
        if outcome == "passed":
            return Verdict("undecided", "Works, with differences", sentence)
    return Verdict(outcome, words.get(outcome, outcome), sentence)


def _reference(data: ReportData) -> Mapping[str, Any]:
    return next((variant for variant in data.variants if variant.get("is_reference")), {})


def _ratio(first: float | None, second: float | None, word: str) -> str:
    if not first or not second:
        return ""
    ratio = f"{first / second:.1f}"
    return "like the reference" if ratio == "1.0" else f"{ratio}\u00d7 {word} the reference"


def key_figures(data: ReportData) -> tuple[Figure, ...]:
    """Returns the figures of the default variant, each beside what it is compared with."""
    variant = data.default_variant
    if variant is None:
        return ()
    reference = _reference(data)
    here = (variant.get("latency_ms") or {}).get("p50")
    there = (reference.get("latency_ms") or {}).get("p50")
    is_same = variant is reference
    source = data.source_accuracy
    figures = [
        Figure(
            "top-1" if data.metric == "top1" else "mAP50-95",
            numbers.accuracy(variant.get(data.metric)),
            "",
            "not measured" if variant.get(data.metric) is None else f"source {numbers.accuracy(source)}",
        ),
        Figure("latency p50", numbers.milliseconds(here), "ms", "" if is_same else _ratio(there, here, "faster than")),
        Figure(
            "throughput",
            numbers.rate(variant.get("throughput_ips")),
            "images/s",
            "" if is_same else _ratio(variant.get("throughput_ips"), reference.get("throughput_ips"), "that of"),
        ),
        Figure("size", numbers.megabytes(variant.get("size_mb")), "MB", _beside(reference, "size_mb", is_same=is_same)),
        Figure(
            "peak memory",
            numbers.megabytes(variant.get("memory_mb")),
            "MB",
            _beside(reference, "memory_mb", is_same=is_same),
        ),
    ]
    done, total = variant.get("int8_layers") or (0, 0)
    if done:
        figures.append(Figure("integer layers", f"{done}", f"of {total}", "convolutions in 8 bits"))
    return tuple(figures)


def _beside(reference: Mapping[str, Any], key: str, *, is_same: bool) -> str:
    value = reference.get(key)
    return "" if is_same or value is None else f"reference {numbers.megabytes(value)}"
