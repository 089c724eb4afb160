# SPDX-License-Identifier: Apache-2.0
"""What the examination of the data collected, for its rules to look at. Pure. Private."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from shipsight.doctor.data.borders import Border
from shipsight.doctor.data.content import Mix, Sizes, Strangeness
from shipsight.doctor.data.correcting import Correction
from shipsight.doctor.data.costing import Cost
from shipsight.doctor.data.deviations import LEAST_IMAGES, Deviation
from shipsight.doctor.data.explaining import Cause, Explanation
from shipsight.doctor.data.reading import Copies
from shipsight.doctor.finding import Picture

__all__ = ["DataEvidence", "Scores"]


@dataclass(frozen=True)
class Scores:
    """The best score of each image, here and in training.

    Attributes:
        here: mean.
        training: mean.
        p_value: chance of as much where nothing changed.
    """

    here: float
    training: float
    p_value: float

    @property
    def lost(self) -> float:
        """Share by which the mean fell, 0 where it did not."""
        return max(0.0, 1 - self.here / self.training) if self.training > 0 else 0.0


@dataclass(frozen=True, eq=False)
class DataEvidence:
    """What was collected.

    Attributes:
        looked_at: number of files.
        refused: what is wrong with those that cannot be read: sentence -> number of files.
        turned_by_file: number of files that ask to be turned.
        copies: files that show the same.
        distinct: images that are left without copies.
        border: around most images, or None.
        corrections: that were tried; empty where nothing called for it.
        correction: the one that makes the model surer, or None.
        deviations: of all measures; after the border was cut off and the correction made.
        explanation: of them.
        costs: rule -> what it costs on golden images, as far as that could be measured.
        scores: best scores, None where training has none.
        mix: of classes, or None.
        sizes: of objects, or None.
        is_labelled: whether `mix` and `sizes` come from labels.
        by_class: class name -> F1 of the source model, as measured at the build.
        strangeness: of the model's features, or None.
        training_images: number of images that the statistics were made from.
        pictures: rule -> what to show.
    """

    looked_at: int
    refused: Mapping[str, int] = field(default_factory=dict)
    turned_by_file: int = 0
    copies: Copies = field(default_factory=Copies)
    distinct: int = 0
    border: Border | None = None
    corrections: tuple[Correction, ...] = ()
    correction: Correction | None = None
    deviations: tuple[Deviation, ...] = ()
    explanation: Explanation = field(default_factory=lambda: Explanation((), 0.0, 0.0))
    costs: Mapping[str, Cost] = field(default_factory=dict)
    scores: Scores | None = None
    mix: Mix | None = None
    sizes: Sizes | None = None
    is_labelled: bool = False
    by_class: Mapping[str, float] = field(default_factory=dict)
    strangeness: Strangeness | None = None
    training_images: int = 0
    pictures: Mapping[str, tuple[Picture, ...]] = field(default_factory=dict)

    @property
    def is_enough(self) -> bool:
        """Whether there are images enough to say anything of distributions."""
        return self.distinct >= LEAST_IMAGES

    def cause(self, rule: str) -> Cause | None:
        """Returns the cause that a rule tells of, where it was found."""
        return next((one for one in self.explanation.causes if one.rule == rule), None)

    def deviation(self, measure: str) -> Deviation | None:
        """Returns how a measure deviates, where it was compared."""
        return next((one for one in self.deviations if one.measure == measure), None)

    @property
    def heaviest(self) -> float:
        """Largest measured cost of any cause found."""
        return max((one.value for one in self.costs.values()), default=0.0)
