# SPDX-License-Identifier: Apache-2.0
"""What is known of a converted model beside its source: agreement, layers, weights, and the facts of its graph. Pure. Stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Agreement", "ConversionEvidence", "GraphFacts", "Layer", "Nms", "Repair", "Weight"]


@dataclass(frozen=True)
class Agreement:
    """How much of what the source found a suspect finds too: same class, IoU at least 0.5, score within 0.2.

    Attributes:
        share: 0 to 1; 0 where the suspect gives numbers that are not finite.
        low: lower end of its 90 % interval, a bootstrap over images.
        high: upper end.
        confident: predictions that should be found.
        images: golden inputs.
        score_shift: mean of the suspect's less the source's score over predictions of the same class that overlap; 0 for none.
    """

    share: float
    low: float
    high: float
    confident: int
    images: int
    score_shift: float = 0.0

    @property
    def lost(self) -> float:
        """The share that is lost."""
        return 1.0 - self.share


@dataclass(frozen=True)
class Layer:
    """One group of layers beside the source's: `stage` is `backbone`, `neck` or `head`; `sqnr_db` in dB, `cosine` to 1."""

    name: str
    stage: str
    sqnr_db: float
    cosine: float


@dataclass(frozen=True)
class Weight:
    """One tensor of weights that is not the source's.

    Attributes:
        name: of the layer.
        how: `zeroed`, `permuted` (output channels in another order), `scaled` (a factor per output channel), or `other`.
        error: norm of the difference over the norm of the source's.
    """

    name: str
    how: str
    error: float


@dataclass(frozen=True)
class Nms:
    """Suppression within a graph: thresholds as they stand there, None where they are computed."""

    conf: float | None
    iou: float | None
    max_det: int | None


@dataclass(frozen=True)
class Repair:
    """What one part of a graph costs, measured by computing that part in float.

    Attributes:
        rule: that the part belongs to.
        tensors: quantized tensors in it.
        share: agreement with the part in float.
        gain: that share less the agreement before.
        gain_low: lower end of the gain's 90 % interval, a bootstrap over images.
        detail: figures of the part.
        is_defect: whether the graph itself shows that something is wrong with the part.
    """

    rule: str
    tensors: int
    share: float
    gain: float
    gain_low: float
    is_defect: bool = False
    detail: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GraphFacts:
    """What stands in a graph.

    Attributes:
        opset: of the standard domain; 0 where it has none (OpenVINO).
        ir_version: of ONNX, 0 likewise.
        has_free_shape: whether the input's size is free.
        nms: suppressions in it.
        says_nms: whether its metadata say that suppression is part of it; None where they say nothing.
        layers: convolutions and matrix products.
        quantized: those with 8-bit inputs.
        dynamic: nodes that find their range while they run.
        signed: activations quantized to signed integers.
        unsigned: to unsigned ones.
        full_range: 8-bit weights that use more than seven bits.
        half_output: whether an output is FP16.
        is_half: whether weights or activations are FP16.
    """

    opset: int = 0
    ir_version: int = 0
    has_free_shape: bool = False
    nms: tuple[Nms, ...] = ()
    says_nms: bool | None = None
    layers: int = 0
    quantized: int = 0
    dynamic: int = 0
    signed: int = 0
    unsigned: int = 0
    full_range: int = 0
    half_output: bool = False
    is_half: bool = False


@dataclass(frozen=True)
class ConversionEvidence:
    """What the rules look at.

    Attributes:
        kind: of suspect: `variant`, `onnx` or `openvino`.
        precision: said of it: `fp32`, `fp16`, `int8`, ...
        float_type: that the engine runs in: `f32`, `bf16`, `f16`.
        executed: layers that the engine runs in integers.
        agreement: with the source; None where the graph could not be opened.
        facts: of the graph.
        layers: groups in order; empty where no names are shared.
        weights: that differ, the first layer first.
        compared: weights that were compared.
        repairs: parts of an integer graph, each measured.
        largest: largest absolute activation by layer, of the source and where it reaches FP16's 65504 of the suspect, largest first; only for FP16.
        not_finite: whether the suspect gave numbers that are not finite.
        has_integer_dot: whether this processor has instructions for 8-bit products (VNNI, or Arm's).
        classes: number of them.
        below_baked: share of the source's predictions whose score is below a baked threshold.
        refused: why the engine could not open it, empty where it did.
        scores: pairs of (source, suspect) scores of predictions that overlap, at most 400: for the picture.
        is_own: whether it is the bundle's own variant, whose cost was measured when it was built.
        not_told: what was not measured or compared, and why: sentences.
    """

    kind: str
    precision: str
    float_type: str
    executed: int
    agreement: Agreement | None
    facts: GraphFacts
    layers: tuple[Layer, ...] = ()
    weights: tuple[Weight, ...] = ()
    compared: int = 0
    repairs: tuple[Repair, ...] = ()
    largest: tuple[tuple[str, float], ...] = ()
    not_finite: bool = False
    has_integer_dot: bool = True
    classes: int = 1
    below_baked: float = 0.0
    refused: str = ""
    scores: tuple[tuple[float, float], ...] = ()
    is_own: bool = False
    not_told: tuple[str, ...] = ()

    @property
    def is_integer(self) -> bool:
        """Whether the graph holds quantized layers."""
        return self.facts.quantized > 0 or self.facts.dynamic > 0

    @property
    def lost(self) -> float:
        """Share of the source's predictions that the suspect lost, 0 where it is not known."""
        return 0.0 if self.agreement is None else self.agreement.lost

    def loss_matters(self) -> bool:
        """Whether what was lost is surely more than a healthy conversion loses."""
        if self.agreement is None:
            return False
        # Healthy float conversions, FP16 included, lost nothing on three models; healthy INT8 graphs up to what the second line
        # allows, by the same looser match that `Agreement` uses.
        allowed = 0.15 if self.is_integer else 0.04 if self.facts.is_half or self.float_type != "f32" else 0.02
        return self.agreement.lost > allowed and 1.0 - self.agreement.high > allowed / 2
