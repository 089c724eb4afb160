# SPDX-License-Identifier: Apache-2.0
"""Does the converted model compute what was trained? Examination 5 of `doctor accuracy`. Stable.

The graph in production beside the source's that every bundle keeps: weights, layers, quantization, agreement on the golden inputs.
Leaves to others: images, preparation, thresholds of the program around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.conversion.collecting import collect
from shipsight.doctor.conversion.evidence import Agreement, ConversionEvidence, GraphFacts, Layer, Nms, Repair, Weight
from shipsight.doctor.conversion.rules_float import (
    ClassIdsInHalf,
    HalfOverflow,
    LayerBroken,
    NmsBaked,
    NmsMissing,
    OpsetTooNew,
    PrecisionBf16Default,
    ShapeDynamic,
    WeightsDiffer,
)
from shipsight.doctor.conversion.rules_integer import (
    DflInInt8,
    DynamicInt8,
    HeadConvolutionsInInt8,
    NotExecutedInInt8,
    OneToOneInInt8,
    RangeClipped,
    Saturation,
    ScaleSpans,
    SigmoidInInt8,
    SignedActivations,
)
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure
from shipsight.doctor.rule import Rule

__all__ = ["Agreement", "ConversionEvidence", "ConversionExamination", "GraphFacts", "Layer", "Nms", "Repair", "Weight"]

_KINDS = (".onnx", ".xml")


class ConversionExamination(Examination[Case, ConversionEvidence]):
    """The converted model beside the source."""

    name = "conversion"
    title = "Does the converted model compute what was trained?"
    rules: ClassVar[tuple[Rule[Any], ...]] = (
        WeightsDiffer(),
        HalfOverflow(),
        ClassIdsInHalf(),
        ScaleSpans(),
        RangeClipped(),
        DflInInt8(),
        SigmoidInInt8(),
        HeadConvolutionsInInt8(),
        OneToOneInInt8(),
        DynamicInt8(),
        NotExecutedInInt8(),
        SignedActivations(),
        Saturation(),
        NmsBaked(),
        NmsMissing(),
        OpsetTooNew(),
        ShapeDynamic(),
        PrecisionBf16Default(),
        LayerBroken(),
    )
    cost = 30.0

    def lacks(self, case: Case) -> str | None:
        """Returns what is missing: a graph that can be looked into, and the source's."""
        if not any(one.is_reference for one in case.bundle.variants):
            return "The bundle keeps no float reference: build it again."
        against = case.against
        if against is None:
            known = case.variant.engine in ("onnxruntime", "openvino")
            return (
                None
                if known
                else f"The graph of {case.variant.engine} cannot be looked into: name an ONNX or OpenVINO variant."
            )
        if against.startswith(("http://", "https://")) or against.lower().endswith((".pt", ".pth")):
            return "A server or checkpoint shows no graph: give the exported model (.onnx, .xml) with --against."
        return None

    def collect(self, case: Case, progress: Progress) -> ConversionEvidence:
        """Collects the evidence.

        Raises:
            ShipsightError: what was given cannot be used.
        """
        return collect(case, progress)

    def figures(self, evidence: ConversionEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns agreement, counts and the signal by layer."""
        one = evidence.agreement
        return {
            "share_found": None if one is None else round(one.share, 4),
            "share_found_low": None if one is None else round(one.low, 4),
            "predictions": 0 if one is None else one.confident,
            "golden_inputs": 0 if one is None else one.images,
            "layers_compared": evidence.compared,
            "layers_quantized": evidence.facts.quantized,
            "layers_executed_in_integers": evidence.executed,
            "float_type": evidence.float_type,
            "sqnr_db": [round(layer.sqnr_db, 2) for layer in evidence.layers],
        }

    def not_told(self, evidence: ConversionEvidence) -> tuple[str, ...]:
        """Returns which parts there was no time for, and what cannot be laid beside the source."""
        return evidence.not_told
