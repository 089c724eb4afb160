# SPDX-License-Identifier: Apache-2.0
"""A controlled data set: the same images through the source and the suspect, and against labels where there are any. Stable.

What differs is traced to what explains it: another order of classes, shifted boxes, changed scores, a lost class, thresholds of its
own, other weights; or to the labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.dataset.evidence import Boxes, DatasetEvidence, Measured, Seen
from shipsight.doctor.dataset.label_rules import AccuracyBelowReference, LabelsSuspect, MetricDefinitionDiffers
from shipsight.doctor.dataset.prediction_rules import (
    BoxesShifted,
    ClassesPermuted,
    OneClassLost,
    ScoresCompressed,
    StaleModel,
    ThresholdsDiffer,
)
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure
from shipsight.doctor.rule import Rule

__all__ = ["Boxes", "DatasetEvidence", "DatasetExamination", "Measured", "Seen"]


class DatasetExamination(Examination[Case, DatasetEvidence]):
    """The same images through the source and the suspect."""

    name = "dataset"
    title = "Does it answer as the trained model does?"
    rules: ClassVar[tuple[Rule[Any], ...]] = (
        ClassesPermuted(),
        BoxesShifted(),
        ScoresCompressed(),
        OneClassLost(),
        ThresholdsDiffer(),
        StaleModel(),
        LabelsSuspect(),
        AccuracyBelowReference(),
        MetricDefinitionDiffers(),
    )
    cost = 20.0

    def lacks(self, case: Case) -> str | None:
        """Returns nothing: the golden set is in every bundle with a proof."""
        from shipsight.doctor.environment.collecting import changed_files

        if case.against is None and changed_files(case):
            return "The variant's files are not what the manifest promises: put the bundle in place anew."
        if case.labels is None and not case.looked_at and "proof/golden/golden.json" not in case.bundle.names:
            return "There are no images and no golden set: give --images, or a bundle with its proof."
        if all(not one.is_reference for one in case.bundle.variants):
            return "The bundle has no reference variant to compare with: build it anew."
        return None

    def collect(self, case: Case, progress: Progress) -> DatasetEvidence:
        """Asks both for the same images."""
        from shipsight.doctor.dataset.collecting import collect_dataset

        return collect_dataset(case, progress)

    def figures(self, evidence: DatasetEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns agreement and accuracy."""
        found, measured = evidence.explained, evidence.measured
        told: dict[str, Figure | list[Figure]] = {
            "images": found.images,
            "agreement": found.before,
            "share_matched": found.share,
        }
        if measured is not None:
            told |= {
                "accuracy_source": measured.source,
                "accuracy_suspect": measured.suspect,
                "drop": measured.drop.value,
                "drop_low": measured.drop.low,
                "drop_high": measured.drop.high,
            }
        return told

    def not_told(self, evidence: DatasetEvidence) -> tuple[str, ...]:
        """Returns how many images were left out, and what of the predictions is not compared."""
        return evidence.not_told
