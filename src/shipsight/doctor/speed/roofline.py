# SPDX-License-Identifier: Apache-2.0
"""What this machine could do at best, and how near the model comes: compute, memory, or neither. Pure. Stable.

Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model", CACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from shipsight.build.progress import Progress
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure, Finding, Picture, Severity
from shipsight.doctor.rule import Rule
from shipsight.doctor.speed.case import SpeedCase
from shipsight.doctor.speed.drawings import draw_roofline

__all__ = ["EngineOverhead", "Peak", "RooflineEvidence", "RooflineExamination"]

_FAR = 0.25
"""Share of what the machine can do below which neither compute nor memory is what holds the model up."""
_NEAR = 0.5


@dataclass(frozen=True)
class Peak:
    """What a large matrix product reached.

    Attributes:
        precision: it was computed in: `fp32`, `bf16`.
        gflops: 10^9 additions and multiplications a second.
    """

    precision: str
    gflops: float


@dataclass(frozen=True)
class RooflineEvidence:
    """What was measured and counted.

    Attributes:
        precision: of the variant.
        model_gflop: additions and multiplications of one image in convolutions and matrix products, in 10^9; 0 where the graph cannot be
            counted.
        model_mb: bytes that one image moves at least, weights and what goes in and out of those layers, in 10^6; 0 likewise.
        engine_ms: median of the engine alone.
        peaks: measured in matrix products, fp32 first.
        bandwidth_gbs: of memory, reading and writing, in 10^9 bytes a second.
        threads: of all of them.
    """

    precision: str
    model_gflop: float
    model_mb: float
    engine_ms: float
    peaks: tuple[Peak, ...]
    bandwidth_gbs: float
    threads: int

    @property
    def reached_gflops(self) -> float:
        """What the model reaches."""
        return self.model_gflop / (self.engine_ms / 1e3)

    @property
    def intensity(self) -> float:
        """FLOP a byte."""
        return self.model_gflop * 1e3 / self.model_mb if self.model_mb else 0.0

    @property
    def peak(self) -> Peak:
        """The peak of the variant's own precision, fp32's where that was not measured."""
        return next((one for one in self.peaks if one.precision == self.precision), self.peaks[0])

    @property
    def compute_share(self) -> float:
        """Share of the peak; above 1 where the model runs in a faster precision than the peak was measured in."""
        return self.reached_gflops / self.peak.gflops

    @property
    def memory_share(self) -> float:
        """Share of the bandwidth that the bytes moved at least would take."""
        return self.model_mb / self.engine_ms / self.bandwidth_gbs

    @property
    def bound(self) -> str:
        """What holds the model up: `compute`, `memory`, `overhead`, or `unknown` where its work was not counted."""
        if not self.model_gflop:
            return "unknown"
        if max(self.compute_share, self.memory_share) < _NEAR:
            return "overhead"
        return "compute" if self.compute_share >= self.memory_share else "memory"


class EngineOverhead(Rule[RooflineEvidence]):
    """Neither the cores nor the memory are busy: the time between layers weighs most. From measured peaks and counted work."""

    id = "engine-overhead"
    title = "Neither compute nor memory is used up"

    def look(self, evidence: RooflineEvidence) -> Iterable[Finding]:
        """Returns a note, if any."""
        if not evidence.model_gflop or max(evidence.compute_share, evidence.memory_share) >= _FAR:
            return
        yield Finding(
            rule=self.id,
            severity=Severity.NOTE,
            what="The model uses little of what this machine can do: what stands between its layers costs more than they do.",
            evidence=f"{evidence.reached_gflops:.0f} of {evidence.peak.gflops:.0f} GFLOP/s in {evidence.peak.precision} and "
            f"{evidence.memory_share:.0%} of {evidence.bandwidth_gbs:.1f} GB/s: {evidence.model_gflop:.2f} GFLOP in {evidence.engine_ms:.1f} ms.",
            remedy="Run several requests at once, fewer threads each, or a larger input or model: it costs less than its size says.",
            command="shipsight doctor speed BUNDLE --only sweep",
            figures={
                "compute_share": evidence.compute_share,
                "memory_share": evidence.memory_share,
                "engine_ms": evidence.engine_ms,
            },
        )


class RooflineExamination(Examination[SpeedCase, RooflineEvidence]):
    """The model under the roofs of this machine."""

    name = "roofline"
    title = "What could this machine do at best?"
    rules: ClassVar[tuple[Rule[Any], ...]] = (EngineOverhead(),)
    cost = 4.0

    def lacks(self, case: SpeedCase) -> str | None:
        """Returns nothing: a bundle has all."""
        return None

    def collect(self, case: SpeedCase, progress: Progress) -> RooflineEvidence:
        """Measures matrix products and memory, and counts the model's work."""
        from shipsight.doctor.speed.collecting.roofline import collect_roofline

        return collect_roofline(case, case.share_s(self.cost), progress)

    def figures(self, evidence: RooflineEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns the roofs, and the model under them."""
        peaks: dict[str, Figure | list[Figure]] = {f"peak_{one.precision}_gflops": one.gflops for one in evidence.peaks}
        return peaks | {
            "bandwidth_gbs": evidence.bandwidth_gbs,
            "model_gflop": evidence.model_gflop,
            "model_mb": evidence.model_mb,
            "engine_ms": evidence.engine_ms,
            "reached_gflops": evidence.reached_gflops,
            "flop_a_byte": evidence.intensity,
            "bound": evidence.bound,
            "threads": evidence.threads,
        }

    def pictures(self, evidence: RooflineEvidence) -> tuple[Picture, ...]:
        """Returns the roofline."""
        if not evidence.model_gflop:
            return ()
        told = {
            "compute": "the cores are busy",
            "memory": "memory is busy",
            "overhead": "neither cores nor memory are busy",
        }
        caption = (
            f"The model (red) under what was measured here with {evidence.threads} threads in matrix products and in copying memory: "
            f"{told[evidence.bound]}. It runs in {evidence.precision}."
        )
        roofs = [(one.precision, one.gflops) for one in evidence.peaks]
        return (
            draw_roofline(
                roofs,
                evidence.bandwidth_gbs,
                intensity=evidence.intensity,
                reached_gflops=evidence.reached_gflops,
                caption=caption,
            ),
        )
