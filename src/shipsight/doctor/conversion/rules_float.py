# SPDX-License-Identifier: Apache-2.0
"""Rules on weights, float precisions, suppression in the graph and what an engine accepts. Pure. Stable."""

from __future__ import annotations

from collections.abc import Iterable

from shipsight.doctor.conversion.evidence import ConversionEvidence, Layer
from shipsight.doctor.conversion.pictures import draw_layers, draw_scores
from shipsight.doctor.conversion.telling import explains, overflows, severity, told_agreement
from shipsight.doctor.finding import Finding, Severity
from shipsight.doctor.rule import Rule

__all__ = [
    "ClassIdsInHalf",
    "HalfOverflow",
    "LayerBroken",
    "NmsBaked",
    "NmsMissing",
    "OpsetTooNew",
    "PrecisionBf16Default",
    "ShapeDynamic",
    "WeightsDiffer",
    "first_broken",
]

_REBUILD = "shipsight build best.pt --data data.yaml"
_HALF_MOST = 65504.0
_HALF_INTEGERS = 2048
_NEWEST_OPSET, _NEWEST_INTEGER_OPSET, _NEWEST_IR = 20, 20, 10


def first_broken(layers: tuple[Layer, ...], *, is_integer: bool) -> int | None:
    """Returns the first group of layers whose signal is lost.

    Healthy INT8 graphs fell to 8.5 dB in the deepest groups of three models, FP16 to 50, FP32 to 110; bf16 to about 25.
    """
    limit = 5.0 if is_integer else 20.0
    return next((number for number, one in enumerate(layers) if one.sqnr_db < limit), None)


class WeightsDiffer(Rule[ConversionEvidence]):
    """Weights that are not the source's: another checkpoint, a layer zeroed, channels permuted, BatchNorm folded wrongly."""

    id = "weights-differ"
    title = "other weights"

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns it where a layer differs by more than its precision explains."""
        found = evidence.weights
        if not found:
            return
        yield Finding(
            rule=self.id,
            severity=severity(evidence) if evidence.lost > 0 else Severity.WARNING,
            what=_what(evidence),
            evidence=(
                f"{len(found)} of {evidence.compared} layers differ, first {found[0].name} by {found[0].error:.1%} of its norm; "
                f"{told_agreement(evidence)}"
            ),
            remedy="Export again from the checkpoint that the bundle was built from, or build a bundle of the new one.",
            command=_REBUILD,
            weight=evidence.lost,
            figures={
                "layers_compared": evidence.compared,
                "layers_differ": len(found),
                "layers_zeroed": sum(one.how == "zeroed" for one in found),
                "layers_permuted": sum(one.how == "permuted" for one in found),
                "layers_scaled": sum(one.how == "scaled" for one in found),
                "first_layer": found[0].name,
                "first_error": round(found[0].error, 6),
                "share_lost": round(evidence.lost, 4),
            },
            pictures=(draw_scores(evidence.scores),) if evidence.scores else (),
        )


def _what(evidence: ConversionEvidence) -> str:
    hows = {one.how for one in evidence.weights}
    if len(evidence.weights) > evidence.compared / 2 and hows != {"scaled"}:
        return "The weights are another training's: most layers differ from the source's."
    if hows == {"zeroed"}:
        return "The weights of single layers are zero."
    if hows == {"permuted"}:
        return "Output channels of a layer stand in another order than in the source, as with another order of classes."
    if hows == {"scaled"}:
        return (
            "Weights are scaled channel by channel: a BatchNorm was folded with other statistics, or with another eps."
        )
    return "The weights of single layers are not the source's."


class HalfOverflow(Rule[ConversionEvidence]):
    """Numbers beyond FP16's largest, 65504."""

    id = "fp16-overflow"
    title = "overflow in FP16"

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns it where FP16 layers give numbers that are not finite, or the source's activations reach the limit."""
        if not overflows(evidence) or evidence.weights:
            return
        name, most = evidence.largest[0] if evidence.largest else ("", 0.0)
        told = f"the largest activation is {most:.0f} in {name}, FP16 ends at 65504; " if most else ""
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR if evidence.not_finite else severity(evidence),
            what="Numbers exceed what FP16 can hold.",
            evidence=told + told_agreement(evidence),
            remedy="Keep the layers named in float32, and the inputs and outputs too; build chooses them.",
            command=f"{_REBUILD} --precision fp16",
            weight=evidence.lost,
            figures={"largest": round(most, 1), "layer": name, "share_lost": round(evidence.lost, 4)},
        )


class ClassIdsInHalf(Rule[ConversionEvidence]):
    """Class ids above 2048 in an FP16 output."""

    id = "fp16-class-ids"
    title = "class ids in FP16"

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns it where an FP16 output must hold ids beyond 2048."""
        if not evidence.facts.half_output or evidence.classes <= _HALF_INTEGERS:
            return
        share = 1.0 - _HALF_INTEGERS / evidence.classes
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR,
            what="An FP16 output holds class ids, and FP16 knows no odd integer above 2048.",
            evidence=f"{evidence.classes} classes in an FP16 output: ids of {share / 2:.1%} of them cannot be told apart",
            remedy="Keep the outputs in float32.",
            command=f"{_REBUILD} --precision fp16",
            weight=max(evidence.lost, share / 2),
            figures={"classes": evidence.classes, "share_of_classes": round(share / 2, 4)},
        )


class NmsBaked(Rule[ConversionEvidence]):
    """Thresholds of suppression that are part of the graph."""

    id = "nms-baked"
    title = "NMS thresholds in the graph"

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns the thresholds; they cost where predictions of the source lie below them."""
        if not evidence.facts.nms:
            return
        one = evidence.facts.nms[0]
        conf = one.conf or 0.0
        lost = evidence.below_baked
        if lost > 0.2 or evidence.loss_matters():
            grade = Severity.ERROR
        else:
            grade = Severity.WARNING if conf > 0.05 else Severity.NOTE
        yield Finding(
            rule=self.id,
            severity=grade,
            what="Suppression with fixed thresholds is part of the graph; what a caller asks for below them never comes.",
            evidence=(
                f"score {_told(one.conf)}, IoU {_told(one.iou)}, at most {_told(one.max_det)} a class; {lost:.1%} of what the "
                f"source finds lies below that score; {told_agreement(evidence)}"
            ),
            remedy="Export without NMS, or with a score of 0.001, and suppress behind the model.",
            command=_REBUILD,
            weight=max(lost, evidence.lost),
            figures={"conf": one.conf, "iou": one.iou, "max_det": one.max_det, "share_below": round(lost, 4)},
        )


def _told(value: float | None) -> str:
    return "computed" if value is None else f"{value:g}"


class NmsMissing(Rule[ConversionEvidence]):
    """Metadata that promise suppression which the graph does not hold, or hide what it holds."""

    id = "nms-missing"
    title = "NMS missing or done twice"

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns it where metadata and graph disagree."""
        facts = evidence.facts
        if facts.says_nms is not False or not facts.nms:
            return
        yield Finding(
            rule=self.id,
            severity=severity(evidence),
            what="The graph suppresses, and its metadata say that it does not: suppression is done twice.",
            evidence=f"{len(facts.nms)} suppressions in the graph, metadata say none; {told_agreement(evidence)}",
            remedy="Export with the metadata that the exporter writes, and read them instead of guessing from shapes.",
            command=_REBUILD,
            weight=evidence.lost,
            figures={"suppressions": len(facts.nms), "share_lost": round(evidence.lost, 4)},
        )


class OpsetTooNew(Rule[ConversionEvidence]):
    """An operator set or IR version that engines in the field refuse."""

    id = "opset-too-new"
    title = "opset too new"

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns it above opset 20 or IR 10."""
        facts = evidence.facts
        if facts.opset <= _NEWEST_OPSET and facts.ir_version <= _NEWEST_IR:
            return
        opens = not evidence.refused
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING if opens else Severity.ERROR,
            what="The model is written for newer engines than many that are in use.",
            evidence=f"opset {facts.opset}, IR {facts.ir_version}; " + ("it opens here" if opens else evidence.refused),
            remedy="Export with opset 18 or lower and IR 10 or lower.",
            command="yolo export model=best.pt format=onnx opset=18",
            weight=0.0 if opens else 1.0,
            figures={"opset": facts.opset, "ir_version": facts.ir_version, "opens": opens},
        )


class ShapeDynamic(Rule[ConversionEvidence]):
    """A free input size."""

    id = "shape-dynamic"
    title = "free input size"

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns it; worth a warning where OpenVINO runs it in INT8."""
        if not evidence.facts.has_free_shape:
            return
        is_risky = evidence.kind == "openvino" and evidence.is_integer
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING if is_risky else Severity.NOTE,
            what="The input's size is free: engines plan memory again for each size, and some INT8 kernels fail on it.",
            evidence="at least one side of the input has no fixed length",
            remedy="Export one file a size that is used, each with a fixed shape.",
            command="yolo export model=best.pt format=onnx dynamic=False imgsz=640",
        )


class PrecisionBf16Default(Rule[ConversionEvidence]):
    """A model said to be FP32 that the engine runs in bf16."""

    id = "precision-bf16-default"
    title = "runs in bf16"

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns it where the engine's own graph says bf16."""
        if evidence.float_type != "bf16" or evidence.precision != "fp32":
            return
        lost = not evidence.weights and evidence.loss_matters()
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING if lost else Severity.NOTE,
            what="The engine runs an FP32 model in bf16, its default on processors that have it.",
            evidence=f"the engine's own graph runs in bf16; {told_agreement(evidence)}",
            remedy="Set INFERENCE_PRECISION_HINT to f32 where the numbers must be FP32's.",
            weight=evidence.lost if lost else 0.0,
            figures={"share_lost": round(evidence.lost, 4)},
        )


class LayerBroken(Rule[ConversionEvidence]):
    """A layer that loses its signal, and nothing more exact explains it."""

    id = "layer-broken"
    title = "a layer breaks"

    def look(self, evidence: ConversionEvidence) -> Iterable[Finding]:
        """Returns the first group that breaks where predictions are lost and no other rule says why."""
        if explains(evidence) or not evidence.loss_matters() or evidence.facts.nms or evidence.facts.dynamic:
            return
        at = first_broken(evidence.layers, is_integer=evidence.is_integer)
        where = "no group of layers that both name" if at is None else f"{evidence.layers[at].name}"
        signal = "" if at is None else f" with {evidence.layers[at].sqnr_db:.1f} dB"
        yield Finding(
            rule=self.id,
            severity=severity(evidence),
            what="The converted model does not compute what the source does."
            if at is None
            else "From one group of layers on, the converted model does not compute what the source does.",
            evidence=f"first to break: {where}{signal}; {told_agreement(evidence)}",
            remedy="Export again with another version of the exporter, and keep the layer named in float.",
            command=_REBUILD,
            weight=evidence.lost,
            certainty=0.8 if at is not None else 0.5,
            figures={
                "layer": None if at is None else evidence.layers[at].name,
                "sqnr_db": None if at is None else round(evidence.layers[at].sqnr_db, 2),
                "share_lost": round(evidence.lost, 4),
            },
            pictures=(draw_layers(evidence.layers, at),) if evidence.layers else (),
        )
