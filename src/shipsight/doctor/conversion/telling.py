# SPDX-License-Identifier: Apache-2.0
"""What rules of this room share: which explanation goes first, how bad a loss is, and how it is told. Pure. Private."""

from __future__ import annotations

from shipsight.doctor.conversion.evidence import ConversionEvidence, Repair
from shipsight.doctor.finding import Severity

__all__ = ["causes", "explains", "overflows", "severity", "told_agreement"]

_LEAST_GAIN = 0.03
"""Share regained below which a part explains nothing: chosen, not measured."""


def told_agreement(evidence: ConversionEvidence) -> str:
    """Returns how much the suspect agrees with the source, in words."""
    one = evidence.agreement
    if one is None:
        return "the engine does not open it"
    if evidence.not_finite:
        return f"outputs are not finite; {one.share:.1%} of {one.confident} predictions of the source are found"
    return (
        f"{one.share:.1%} of {one.confident} confident predictions of the source are found "
        f"(90 % interval {one.low:.1%} to {one.high:.1%}, {one.images} golden inputs)"
    )


def severity(evidence: ConversionEvidence) -> Severity:
    """Returns how bad what is lost is: an error where it is surely more than a healthy conversion loses."""
    if evidence.agreement is None or evidence.loss_matters():
        return Severity.ERROR
    if evidence.is_own:
        return Severity.NOTE
    return Severity.WARNING if evidence.lost > 0.05 else Severity.NOTE


def overflows(evidence: ConversionEvidence) -> bool:
    """Whether numbers leave FP16's range."""
    if not (evidence.facts.is_half or evidence.float_type == "f16"):
        return False
    return evidence.not_finite or bool(evidence.largest and evidence.largest[0][1] >= 65504.0)


def causes(evidence: ConversionEvidence) -> list[Repair]:
    """Returns the parts of an integer graph that surely cost something, the costliest first; of what is a defect anyway the gain need not be sure."""
    found = [one for one in evidence.repairs if one.gain >= _LEAST_GAIN and (one.gain_low > 0 or one.is_defect)]
    return sorted(found, key=lambda one: -one.gain)


def explains(evidence: ConversionEvidence) -> bool:
    """Whether something more exact than a broken layer explains what is lost."""
    return bool(evidence.weights or causes(evidence) or overflows(evidence) or evidence.refused)
