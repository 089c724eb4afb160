# SPDX-License-Identifier: Apache-2.0
"""What another program did to images before its model saw them: from the tensors it made, or from what it predicted. Stable.

Leaves to others: whether what runs is the right model (`dataset`), and programs that can be recorded stage by stage (`stages`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.dataset.prediction_rules import ThresholdsDiffer
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure
from shipsight.doctor.preprocessing.evidence import Difference, PreprocessingEvidence, Residual
from shipsight.doctor.preprocessing.rules import RULES
from shipsight.doctor.rule import Rule
from shipsight.model import Task

__all__ = ["Difference", "PreprocessingEvidence", "PreprocessingExamination", "Residual"]


_WITHOUT_BOXES = frozenset({Task.CLASSIFY, Task.OBB})


class PreprocessingExamination(Examination[Case, PreprocessingEvidence]):
    """The detective: finds the chain of steps that explains a tensor or predictions."""

    name = "preprocessing"
    title = "What did the other program do to the image before the model saw it?"
    rules: ClassVar[tuple[Rule[Any], ...]] = (*RULES, ThresholdsDiffer())
    cost = 30.0

    def lacks(self, case: Case) -> str | None:
        """Returns what is missing: a tensor or predictions, and the images they are of."""
        if case.tensor is None and case.predictions is None:
            return "There is nothing of another program: give --tensor or --predictions."
        if not case.images:
            return "The images that it is of are not there: give them with --images."
        if case.predictions is not None and case.card.task in _WITHOUT_BOXES:
            return (
                f"Predictions of the task {case.card.task} are not examined: steps are told by what upright boxes do. "
                "Give what the other program fed its model with --tensor."
            )
        return None

    def collect(self, case: Case, progress: Progress) -> PreprocessingEvidence:
        """Finds the chain."""
        if case.tensor is not None:
            from shipsight.doctor.preprocessing.collecting import collect_tensors

            return collect_tensors(case, case.tensor, progress)
        from shipsight.doctor.preprocessing.collecting_predictions import collect_predictions

        assert case.predictions is not None
        return collect_predictions(case, case.predictions, progress)

    def figures(self, evidence: PreprocessingEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns what is left unexplained."""
        rest = evidence.residual
        return {
            "images": evidence.images,
            "residual_before": rest.before,
            "residual": rest.mean,
            "residual_high": rest.high,
        }

    def not_told(self, evidence: PreprocessingEvidence) -> tuple[str, ...]:
        """Returns what could not be told apart, and what would tell it."""
        return evidence.not_told
