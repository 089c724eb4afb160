# SPDX-License-Identifier: Apache-2.0
"""What the stages of a build hand on: the job, a candidate, a measured candidate. Private to `build`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shipsight.build.material import Material
from shipsight.build.measure import Accuracy
from shipsight.build.options import BuildOptions
from shipsight.build.progress import Progress
from shipsight.build.result import VariantResult
from shipsight.build.schedule import Schedule, Stage
from shipsight.build.sources import Source
from shipsight.build.workspace import Workspace
from shipsight.model import Card, Variant
from shipsight.model.warning import BuildWarning

__all__ = ["Candidate", "GuardRecord", "Job", "Measured"]


@dataclass(frozen=True, eq=False)
class GuardRecord:
    """What the INT8 guard did for one engine and size.

    Attributes:
        files: the int8 form to take, None where none may be shipped.
        steps: one mapping a step, as `proof/reference.json` stores it.
        warnings: what the user should know.
    """

    files: Mapping[str, bytes] | None
    steps: tuple[Mapping[str, object], ...]
    warnings: tuple[BuildWarning, ...]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A variant with its files, before it is measured.

    Attributes:
        variant: which.
        files: name -> content.
        reference_onnx: the float ONNX of its size.
        guard: what the INT8 guard did, None for float variants.
    """

    variant: Variant
    files: Mapping[str, bytes]
    reference_onnx: bytes
    guard: GuardRecord | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """A candidate with what was measured of it."""

    candidate: Candidate
    result: VariantResult
    accuracy: Accuracy | None


@dataclass(frozen=True, eq=False)
class Job:
    """What every stage needs."""

    source: Source
    card: Card
    sizes_hw: tuple[tuple[int, int], ...]
    options: BuildOptions
    progress: Progress
    workspace: Workspace
    material: Material
    schedule: Schedule
    warnings: list[BuildWarning]

    def begin(self, stage: Stage, text: str, size_hw: tuple[int, int] | None = None) -> None:
        """Tells that a step of a stage begins; the size matters for the stages that come once a size."""
        self.progress.step(text, self.schedule.cost(stage, size_hw))
