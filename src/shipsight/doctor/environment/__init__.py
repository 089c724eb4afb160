# SPDX-License-Identifier: Apache-2.0
"""The environment: what runs here against what the proof recorded of the build. Stable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.environment.evidence import EnvironmentEvidence, KnownVersion, Precision, Timing
from shipsight.doctor.environment.machine_rules import (
    CpuFeaturesMissing,
    CpuLimited,
    DenormalsSlow,
    ThreadsOversubscribed,
)
from shipsight.doctor.environment.rules import (
    EngineVersionKnownBad,
    EngineVersionOther,
    Int8Saturates,
    ModelFileDiffers,
    PrecisionNotAsBuilt,
    RuntimeNewerFormat,
)
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure
from shipsight.doctor.rule import Rule

__all__ = ["EnvironmentEvidence", "EnvironmentExamination", "KnownVersion", "Precision", "Timing"]


class EnvironmentExamination(Examination[Case, EnvironmentEvidence]):
    """This machine and its software against those of the build."""

    name = "environment"
    title = "Does the same software run in the same precision?"
    rules: ClassVar[tuple[Rule[Any], ...]] = (
        EngineVersionKnownBad(),
        EngineVersionOther(),
        PrecisionNotAsBuilt(),
        CpuFeaturesMissing(),
        Int8Saturates(),
        ThreadsOversubscribed(),
        CpuLimited(),
        DenormalsSlow(),
        ModelFileDiffers(),
        RuntimeNewerFormat(),
    )
    cost = 3.0

    def lacks(self, case: Case) -> str | None:
        """Returns what a server leaves unsaid; a file or a variant has all."""
        if case.against is not None and case.against.startswith(("http://", "https://")):
            return "A server's environment is not seen from here: run this on its machine, with the bundle alone."
        if "proof/environment.json" not in case.bundle.names:
            return "The bundle does not say where it was built: build it anew."
        return None

    def collect(self, case: Case, progress: Progress) -> EnvironmentEvidence:
        """Compares this machine with the proof."""
        from shipsight.doctor.environment.collecting import collect_environment

        return collect_environment(case, progress)

    def figures(self, evidence: EnvironmentEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns the processor, its cores, and what runs."""
        told: dict[str, Figure | list[Figure]] = {
            "cpu": evidence.cpu,
            "built_cpu": evidence.built_cpu,
            "cores": evidence.cores,
            "subnormal_share": evidence.subnormal_share,
        }
        if evidence.runs is not None:
            told |= {"integer_convolutions": evidence.runs.integer_convolutions, "float_type": evidence.runs.float_type}
        if evidence.saturation is not None:
            told["saturation_agreement"] = evidence.saturation
        return told
