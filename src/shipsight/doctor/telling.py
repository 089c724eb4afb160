# SPDX-License-Identifier: Apache-2.0
"""A diagnosis in words, the same on the terminal and on the page: the verdict, what a finding costs, what none can tell. Pure. Private."""

from __future__ import annotations

from shipsight.doctor.diagnosis import Diagnosis
from shipsight.doctor.finding import Finding, Severity

__all__ = ["judge", "limits", "lost"]

_LEAST = 0.0005  # a tenth of a percent, rounded, is the least that is written


def lost(finding: Finding) -> str:
    """Returns what a finding costs in words, empty where that is nothing measurable."""
    if finding.severity is Severity.NOTE or finding.weight < _LEAST:
        return ""
    return f"costs {finding.weight * 100:.{0 if finding.weight >= 0.095 else 1}f} %"


def judge(diagnosis: Diagnosis) -> tuple[str, str, str]:
    """Returns the verdict: the name of its colour (`failed`, `undecided`, `passed`), a few words, and what they rest on."""
    counts = {one: sum(found.severity is one for found in diagnosis.findings) for one in Severity}
    made = sum(one.lacks is None for one in diagnosis.examined)
    count = diagnosis.of.images
    told = f"{made} of {len(diagnosis.examined)} examinations were made, "
    told += f"on {_count(count, 'image')}" if count else "without images of production"
    if diagnosis.of.variant:
        told += f", of the variant {diagnosis.of.variant}"
    summary = ", ".join(
        _count(counts[one], word)
        for one, word in ((Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.NOTE, "note"))
        if counts[one]
    )
    sentence = f"{summary}. {told}." if summary else f"{told}."
    if counts[Severity.ERROR]:
        return "failed", f"Something is wrong that costs {diagnosis.about}", sentence
    if counts[Severity.WARNING]:
        return "undecided", "Nothing is plainly wrong, but look at this", sentence
    return "passed", f"Nothing was found that costs {diagnosis.about}", sentence


def limits(diagnosis: Diagnosis) -> str:
    """Returns what the diagnosis does not say: the absence of findings is no proof of health."""
    begin = "No rule saw its fault in what was examined. " if not diagnosis.findings else ""
    if diagnosis.about != "accuracy":
        return f"{begin}What was measured holds for this machine as it was while the examination ran."
    if not diagnosis.of.images:
        return f"{begin}This does not prove that the predictions are right in production: no image of it was looked at (--images)."
    few = f"{_count(diagnosis.of.images, 'image')} can hide a fault that is weak or rare"
    return (
        f"{begin}This does not prove that the predictions are right: {few}, and only labels (--labels) tell how often the "
        "model is right on these images. What was not examined may hold faults of its own."
    )


def _count(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
