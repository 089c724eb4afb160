# SPDX-License-Identifier: Apache-2.0
"""Where on its way does an image become another answer? Examination 4 of `doctor accuracy`. Stable; `docs/doctor/stages.md`.

Each stage is fed what was recorded before it, so that the first that differs is the cause. Leaves to others: which step of the
preparation it is, which layer of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure
from shipsight.doctor.rule import Rule
from shipsight.doctor.stages.collecting import collect_foreign, collect_golden
from shipsight.doctor.stages.evidence import ORDER, Stage, StagesEvidence
from shipsight.doctor.stages.recorder import Recorded, StageRecorder, read_stages
from shipsight.doctor.stages.rules import (
    DecodeDiffers,
    EngineDiffers,
    Nondeterministic,
    PostprocessDiffers,
    PrepareDiffers,
)

__all__ = ["Recorded", "Stage", "StageRecorder", "StagesEvidence", "StagesExamination", "read_stages"]


class StagesExamination(Examination[Case, StagesEvidence]):
    """Every stage beside what was recorded of it."""

    name = "stages"
    title = "Which stage differs first?"
    rules: ClassVar[tuple[Rule[Any], ...]] = (
        DecodeDiffers(),
        PrepareDiffers(),
        EngineDiffers(),
        PostprocessDiffers(),
        Nondeterministic(),
    )
    cost = 10.0

    def lacks(self, case: Case) -> str | None:
        """Returns what is missing: a recording of another pipeline, or a variant whose own can be replayed."""
        if case.stages is not None:
            return None if case.images else "No images to the recorded stages: give them with --images."
        if case.against is not None:
            return (
                "Nothing of its stages is recorded: record them with StageRecorder and give the folder with --stages."
            )
        return None

    def collect(self, case: Case, progress: Progress) -> StagesEvidence:
        """Collects the evidence.

        Raises:
            ShipsightError: what was given cannot be used.
        """
        if case.stages is not None:
            return collect_foreign(case, case.stages, progress)
        return collect_golden(case, progress)

    def figures(self, evidence: StagesEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns how far each stage is off."""
        far: dict[str, Figure | list[Figure]] = {f"{one.name}_far": round(one.far, 6) for one in evidence.stages}
        return {**far, "share_lost": round(evidence.share_lost, 4), "images_unsteady": evidence.unsteady}

    def not_told(self, evidence: StagesEvidence) -> tuple[str, ...]:
        """Returns which stages of another pipeline were not compared, and what of its predictions is not."""
        if not evidence.is_foreign:
            return ()
        compared = {one.name for one in evidence.stages}
        missing = ", ".join(name for name in ORDER if name not in compared)
        told = (f"These stages are not in the recording, so they were not compared: {missing}.",) if missing else ()
        return (*told, *evidence.uncompared)
