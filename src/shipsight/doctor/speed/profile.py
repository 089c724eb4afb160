# SPDX-License-Identifier: Apache-2.0
"""Where the time of an image goes: stage by stage, and inside the engine layer by layer. Pure. Stable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from shipsight.build.progress import Progress
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure, Finding, Picture, Severity
from shipsight.doctor.rule import Rule
from shipsight.doctor.speed.case import SpeedCase
from shipsight.doctor.speed.drawings import draw_bars
from shipsight.engines import LayerTime

__all__ = ["LayersInFloat", "OutsideEngine", "ProfileEvidence", "ProfileExamination", "ReordersCostly"]

_OUTSIDE = 0.4
_MOVED = 0.25
"""Share of the engine's time: variants of YOLO11n had 0.04 to 0.14."""
_IN_FLOAT = 0.25
"""Share of an int8 variant's time: what stays in float on purpose took 0.02 to 0.06 of YOLO11n's."""
_MOST_LAYERS = 10

_MOVING = frozenset(
    [
        "Cast",
        "Convert",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "FakeQuantize",
        "QuantizeLinear",
        "Reorder",
        "ReorderInput",
        "ReorderOutput",
        "Transpose",
    ]
)
"""Kinds of layers that compute nothing: they change the order or the type of numbers. Names are the runtimes'."""
_MATRIX = frozenset(
    [
        "Conv",
        "Convolution",
        "ConvolutionBackpropData",
        "Deconvolution",
        "FullyConnected",
        "FusedConv",
        "Gemm",
        "GroupConvolution",
        "MatMul",
        "NhwcFusedConv",
    ]
)
_FLOATS = frozenset({"f32", "f16", "bf16"})
_ADVICE = {
    "read": "Keep the files on a faster disk, or hand over bytes",
    "decode": "Send smaller images or JPEG, and decode the next image while the engine has this one",
    "prepare": "Send images of the size that the model takes",
    "postprocess": "Raise the least score, or take a variant whose graph does more of it",
    "serialise": "Ask for fewer predictions",
}


@dataclass(frozen=True)
class ProfileEvidence:
    """What was timed.

    Attributes:
        precision: of the variant.
        stages_ms: stage -> median milliseconds an image, in order; `infer` is the engine.
        images: number of images.
        runs: times that each was run.
        layers: what each executed layer cost, in another session that counts.
    """

    precision: str
    stages_ms: Mapping[str, float]
    images: int
    runs: int
    layers: tuple[LayerTime, ...]

    @property
    def whole_ms(self) -> float:
        """All stages together."""
        return sum(self.stages_ms.values())

    @property
    def layers_ms(self) -> float:
        """All layers together."""
        return sum(one.mean_ms for one in self.layers)

    def by_kind(self) -> list[tuple[str, float]]:
        """Returns the milliseconds of each kind of layer with what it computes in, the costliest first."""
        totals: dict[str, float] = {}
        for one in self.layers:
            name = f"{one.kind} {one.computed}".strip()
            totals[name] = totals.get(name, 0.0) + one.mean_ms
        return sorted(totals.items(), key=lambda pair: -pair[1])

    def share_of(self, kinds: frozenset[str], computed: frozenset[str] | None = None) -> float:
        """Returns the share of the layers' time that kinds of them take.

        Args:
            kinds: as the runtimes name them.
            computed: what they compute in, None for anything.
        """
        chosen = [one for one in self.layers if one.kind in kinds and (computed is None or one.computed in computed)]
        return sum(one.mean_ms for one in chosen) / self.layers_ms if self.layers_ms else 0.0


class OutsideEngine(Rule[ProfileEvidence]):
    """Much of an image's time is spent before and after the engine: stages timed one by one."""

    id = "outside-engine"
    title = "Much time outside the engine"

    def look(self, evidence: ProfileEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        outside = {stage: value for stage, value in evidence.stages_ms.items() if stage != "infer"}
        whole = evidence.whole_ms
        if not outside or whole <= 0 or sum(outside.values()) < _OUTSIDE * whole:
            return
        worst = max(outside, key=lambda stage: outside[stage])
        told = ", ".join(f"{stage} {value:.2f} ms" for stage, value in evidence.stages_ms.items())
        yield Finding(
            rule=self.id,
            # How much of it can be saved depends on the stage; other rules measure that.
            severity=Severity.NOTE,
            what="A large part of an image's time is spent outside the engine: a faster model gains little.",
            evidence=f"{sum(outside.values()) / whole:.0%} of {whole:.1f} ms: {told}; medians over {evidence.images} images.",
            remedy=f"{_ADVICE[worst]}: {worst} costs most.",
            figures={
                "outside_share": sum(outside.values()) / whole,
                "stage": worst,
                "stage_ms": outside[worst],
                "whole_ms": whole,
            },
        )


class ReordersCostly(Rule[ProfileEvidence]):
    """Layers that only move or convert numbers take much of the engine's time: from the runtime's own counters."""

    id = "reorders-costly"
    title = "Conversions inside the engine"

    def look(self, evidence: ProfileEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        share = evidence.share_of(_MOVING)
        if share < _MOVED:
            return
        count = sum(one.kind in _MOVING for one in evidence.layers)
        costliest = max((one for one in evidence.layers if one.kind in _MOVING), key=lambda one: one.mean_ms)
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="The engine spends much of its time on converting numbers and changing their order.",
            evidence=f"{share:.0%} of {evidence.layers_ms:.1f} ms in {count} such layers; the costliest kind, {costliest.kind}, "
            f"has one of {costliest.mean_ms:.2f} ms.",
            remedy="Quantize whole runs of layers in one form, so that fewer conversions stand between them; a build tries the forms.",
            command="shipsight build MODEL --data DATA",
            weight=share,
            figures={"moved_share": share, "layers": count, "layers_ms": evidence.layers_ms},
        )


class LayersInFloat(Rule[ProfileEvidence]):
    """An int8 variant spends much of its time in float products: from the runtime's own counters."""

    id = "layers-in-float"
    title = "Float layers in an int8 variant"

    def look(self, evidence: ProfileEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        if evidence.precision != "int8":
            return
        share = evidence.share_of(_MATRIX, _FLOATS)
        if share < _IN_FLOAT:
            return
        layers = sorted(
            (one for one in evidence.layers if one.kind in _MATRIX and one.computed in _FLOATS),
            key=lambda one: -one.mean_ms,
        )
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="The variant is called int8, and much of its time is spent in layers that compute in float.",
            evidence=f"{share:.0%} of {evidence.layers_ms:.1f} ms in {len(layers)} float layers; the slowest takes {layers[0].mean_ms:.2f} ms "
            f"in {layers[0].computed}.",
            remedy="Build again here with a larger accuracy drop allowed, so that fewer layers stay in float, or repair the quantized export.",
            command="shipsight build MODEL --data DATA --max-drop 0.02",
            weight=share,
            certainty=0.8,
            figures={"float_share": share, "layers": len(layers), "slowest_ms": layers[0].mean_ms},
        )


class ProfileExamination(Examination[SpeedCase, ProfileEvidence]):
    """Stages of an image, and layers of the model."""

    name = "profile"
    title = "Where does the time of an image go?"
    rules: ClassVar[tuple[Rule[Any], ...]] = (OutsideEngine(), ReordersCostly(), LayersInFloat())
    cost = 4.0

    def lacks(self, case: SpeedCase) -> str | None:
        """Returns nothing: a bundle has all."""
        return None

    def collect(self, case: SpeedCase, progress: Progress) -> ProfileEvidence:
        """Runs the images stage by stage, and the model with its counters on."""
        from shipsight.doctor.speed.collecting.profile import collect_profile

        return collect_profile(case, case.share_s(self.cost), progress)

    def figures(self, evidence: ProfileEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns each stage, and the costliest kinds of layers."""
        kinds = evidence.by_kind()[:_MOST_LAYERS]
        told: dict[str, Figure | list[Figure]] = {
            f"{stage}_ms": round(value, 3) for stage, value in evidence.stages_ms.items()
        }
        return told | {
            "whole_ms": evidence.whole_ms,
            "layer_kinds": [name for name, _ in kinds],
            "layer_kinds_ms": [round(value, 3) for _, value in kinds],
            "moved_share": evidence.share_of(_MOVING),
        }

    def pictures(self, evidence: ProfileEvidence) -> tuple[Picture, ...]:
        """Returns bars of the stages and of the kinds of layers."""
        whole, inside = evidence.whole_ms or 1.0, evidence.layers_ms or 1.0
        stages = [(name, ms, f"{ms:.2f} ms, {ms / whole:.0%}") for name, ms in evidence.stages_ms.items()]
        kinds = [(name, ms, f"{ms:.2f} ms, {ms / inside:.0%}") for name, ms in evidence.by_kind()[:_MOST_LAYERS]]
        slowest = sorted(evidence.layers, key=lambda one: -one.mean_ms)[:_MOST_LAYERS]
        layers = [(one.name, one.mean_ms, f"{one.mean_ms:.2f} ms {one.computed}".strip()) for one in slowest]
        return (
            draw_bars(stages, f"Stages of one image, medians over {evidence.images} images."),
            draw_bars(kinds, "Kinds of layers inside the engine, with its counters on."),
            draw_bars(layers, "The costliest layers inside the engine."),
        )
