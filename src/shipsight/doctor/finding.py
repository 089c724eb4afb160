# SPDX-License-Identifier: Apache-2.0
"""A finding: one thing that the doctor has to say, with the numbers that prove it and what repairs it. Pure. Stable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Figure", "Finding", "Picture", "Severity", "by_weight"]

Figure = float | int | str | bool | None
"""What a figure of a finding may be: a number without a unit in it (the key has it), or a short word."""


class Severity(StrEnum):
    """How much it matters."""

    ERROR = "error"
    """It is wrong, and it costs: the answer of the doctor is no."""
    WARNING = "warning"
    """It costs something, or will under other conditions; or it is wrong and nothing shows yet."""
    NOTE = "note"
    """Worth knowing; costs nothing measurable here."""


@dataclass(frozen=True)
class Picture:
    """One that convinces, for the page.

    Attributes:
        caption: what is seen, in one sentence.
        svg: drawing, an `<svg>` element without scripts, links or fonts from elsewhere; empty for none.
        png: pixels as a PNG file, where a drawing cannot show it; empty for none. Holds what the images hold: never shared.
    """

    caption: str
    svg: str = ""
    png: bytes = b""


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        rule: id of the rule, the name of its page in `docs/doctor/`.
        severity: how much it matters.
        what: what is wrong, one sentence without numbers that only the evidence can hold.
        evidence: what proves it, one sentence with its numbers and their units, and of how many images.
        remedy: what to do, one sentence that begins with a verb.
        command: that does it, as typed; None where no command can.
        weight: what it costs: the share of accuracy (mAP, top-1, or agreement with the source) or of speed that is lost, 0 to 1, measured
            where it can be; findings of one severity are sorted by it.
        certainty: how sure it is that this is the cause, 0 to 1; 1 where it was measured directly.
        figures: the numbers, by stable keys with their unit (`share_lost`, `p50_ms`); no path, host or name of a file.
        pictures: for the page.
    """

    rule: str
    severity: Severity
    what: str
    evidence: str
    remedy: str
    command: str | None = None
    weight: float = 0.0
    certainty: float = 1.0
    figures: Mapping[str, Figure | list[Figure]] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns it for machines, without pictures."""
        return {
            "rule": self.rule,
            "severity": self.severity.value,
            "what": self.what,
            "evidence": self.evidence,
            "remedy": self.remedy,
            "command": self.command,
            "weight": round(self.weight, 6),
            "certainty": round(self.certainty, 4),
            "figures": dict(self.figures),
        }


_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}


_EXPLAINS = 0.5
"""Least part of what a symptom costs that a cause must cost to go before it."""


def by_weight(findings: Iterable[Finding], causes: Mapping[str, frozenset[str]] | None = None) -> list[Finding]:
    """Returns findings in the order in which people should read them.

    The severest first, of those the surest and costliest; a symptom comes after an error or a warning that explains it, however severe it is itself.

    Args:
        findings: in any order.
        causes: rule that tells of a symptom -> rules whose errors and warnings explain it.
    """
    every = list(findings)

    def place(one: Finding) -> tuple[int, float, bool, float, str]:
        own = one.weight * one.certainty
        explaining = (causes or {}).get(one.rule, frozenset())
        before = [
            other
            for other in every
            if other.rule in explaining
            and other.severity is not Severity.NOTE
            and other.weight * other.certainty >= _EXPLAINS * own
        ]
        severity = max(_ORDER[one.severity], min((_ORDER[other.severity] for other in before), default=0))
        least = min([own, *(other.weight * other.certainty for other in before)])
        return severity, -least, bool(before), -own, one.rule

    return sorted(every, key=place)
