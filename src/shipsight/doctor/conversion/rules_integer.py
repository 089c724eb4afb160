# SPDX-License-Identifier: Apache-2.0
"""Rules on INT8: which part of the graph costs the accuracy, and whether integers are run at all. Pure. Stable.

The parts are measured (`Repair`): the graph runs again with that part in float. Only the costliest has weight, those whose cost is part
of it are notes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from shipsight.doctor.conversion.evidence import ConversionEvidence
from shipsight.doctor.conversion.pictures import draw_layers, draw_scores
from shipsight.doctor.conversion.telling import causes, severity, told_agreement
from shipsight.doctor.finding import Finding, Severity
from shipsight.doctor.rule import Rule

__all__ = [
    "DflInInt8",
    "DynamicInt8",
    "HeadConvolutionsInInt8",
    "NotExecutedInInt8",
    "OneToOneInInt8",
    "RangeClipped",
    "Saturation",
    "ScaleSpans",
    "SigmoidInInt8",
    "SignedActivations",
]

_BUILD = "shipsight build best.pt --data data.yaml --precision int8"


class _PartRule(Rule[ConversionEvidence]):
    """A part of the graph whose quantization is measured."""

    what: ClassVar[str]
    remedy: ClassVar[str]

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns the part, where computing it in float surely regains predictions."""
        ranked = causes(evidence)
        mine = next((one for one in ranked if one.rule == self.id), None)
        if mine is None or evidence.weights:
            return
        is_first = ranked[0].rule == self.id
        pictures = [draw_layers(evidence.layers, None)] if evidence.layers else []
        pictures += [draw_scores(evidence.scores)] if evidence.scores else []
        yield Finding(
            rule=self.id,
            severity=severity(evidence) if is_first else Severity.NOTE,
            what=self.what,
            evidence=f"{told_agreement(evidence)}; with this part in float {mine.share:.1%} are ({mine.tensors} tensors)",
            remedy=self.remedy,
            command=_BUILD,
            weight=mine.gain if is_first else 0.0,
            figures={
                "share_found": round(evidence.agreement.share, 4) if evidence.agreement else None,
                "share_found_in_float": round(mine.share, 4),
                "gain_low": round(mine.gain_low, 4),
                "tensors": mine.tensors,
                **{name: round(value, 6) for name, value in mine.detail.items()},
            },
            pictures=tuple(pictures) if is_first else (),
        )


class ScaleSpans(_PartRule):
    """Boxes in pixels and scores joined under one scale."""

    id = "int8-scale-spans-boxes-and-scores"
    title = "one INT8 scale spans boxes and scores"
    what = "One INT8 scale spans boxes in pixels and scores from 0 to 1, so that scores are rounded away."
    remedy = "Quantize only layers with weights, and leave what joins boxes and scores in float."


class DflInInt8(_PartRule):
    """The DFL and the box arithmetic behind it in integers."""

    id = "int8-dfl"
    title = "DFL in INT8"
    what = "The softmax and mean that make box edges (DFL), and the box arithmetic behind them, are quantized."
    remedy = "Keep every node behind the last convolutions of the box branch in float."


class HeadConvolutionsInInt8(_PartRule):
    """The last convolutions in integers."""

    id = "int8-head-convolutions"
    title = "head convolutions in INT8"
    what = "The last convolutions of the head, which make the outputs, are quantized."
    remedy = "Keep the output convolutions in float; they are a small part of the work."


class SigmoidInInt8(_PartRule):
    """The head's Sigmoid in integers."""

    id = "int8-sigmoid"
    title = "Sigmoid of the scores in INT8"
    what = "The Sigmoid that makes the scores is quantized, so that scores are compressed to few levels."
    remedy = "Keep the Sigmoid of the head, and only that one, in float."


class OneToOneInInt8(_PartRule):
    """The one-to-one head in integers."""

    id = "int8-one2one"
    title = "one-to-one head in INT8"
    what = "The one-to-one head of an end-to-end model is quantized."
    remedy = "Leave the one-to-one head in float, or export the one-to-many head."


class RangeClipped(_PartRule):
    """Activations beyond the range that calibration chose."""

    id = "int8-range-clipped"
    title = "calibration too narrow"
    what = "Activations exceed the INT8 ranges that calibration chose, so the strongest are clipped."
    remedy = "Calibrate again with 300 or more images as in production, prepared exactly as there."


class NotExecutedInInt8(Rule[ConversionEvidence]):
    """A quantized graph whose layers the engine runs in float, against the engine's own graph."""

    id = "int8-not-executed"
    title = "INT8 is not executed"

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns it where under half of the quantized layers run in integers."""
        facts = evidence.facts
        if (
            not facts.quantized
            or evidence.agreement is None
            or facts.dynamic
            or evidence.executed * 2 >= facts.quantized
        ):
            return
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="Quantized layers run in float: the model has INT8's errors and not its speed.",
            evidence=f"of {facts.quantized} quantized layers the engine runs {evidence.executed} in integers",
            remedy="Quantize with kernels that the engine fuses: static, unsigned activations on x86, symmetric weights.",
            command=_BUILD,
            figures={"layers_quantized": facts.quantized, "layers_executed": evidence.executed},
        )


class DynamicInt8(Rule[ConversionEvidence]):
    """Ranges found while running: slow for convolutions."""

    id = "int8-dynamic"
    title = "dynamic quantization"

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns it where a graph finds ranges while it runs."""
        if not evidence.facts.dynamic:
            return
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR if evidence.loss_matters() else Severity.WARNING,
            what="The model is quantized dynamically: each layer finds its range while it runs, which convolutions pay for.",
            evidence=f"{evidence.facts.dynamic} nodes find ranges at run time; {told_agreement(evidence)}",
            remedy="Quantize statically with calibration images.",
            command=_BUILD,
            weight=evidence.lost,
            figures={"nodes_dynamic": evidence.facts.dynamic, "share_lost": round(evidence.lost, 4)},
        )


class SignedActivations(Rule[ConversionEvidence]):
    """Signed activations, which x86 has no fast kernels for."""

    id = "int8-signed-activations"
    title = "signed activations on x86"

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns it where most activations are signed and the file was not made for Arm."""
        facts = evidence.facts
        if facts.signed <= facts.unsigned or evidence.executed * 2 >= max(facts.quantized, 1) * 2:
            return
        yield Finding(
            rule=self.id,
            severity=Severity.NOTE,
            what="Activations are signed: ONNX Runtime has fast kernels for unsigned ones on x86.",
            evidence=f"{facts.signed} of {facts.signed + facts.unsigned} quantized activations are signed",
            remedy="Quantize with unsigned activations (QUInt8) and signed weights for x86.",
            command=_BUILD,
            figures={"activations_signed": facts.signed, "activations_unsigned": facts.unsigned},
        )


class Saturation(_PartRule):
    """Eight-bit weights on a processor that adds pairs of products in 16 bits: measured by adding in floats."""

    id = "int8-saturation"
    title = "sums saturate without VNNI"
    what = "This processor has no VNNI and clamps sums of 8-bit products: the same file is better elsewhere."
    remedy = "Quantize with 7-bit weights (reduce_range), or run where the processor has VNNI."
