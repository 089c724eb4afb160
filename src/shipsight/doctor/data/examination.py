# SPDX-License-Identifier: Apache-2.0
"""The examination of the data: what it needs, and which rules look. Stable."""

from __future__ import annotations

from collections.abc import Mapping

from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.data.collecting import collect, read_training
from shipsight.doctor.data.evidence import DataEvidence
from shipsight.doctor.data.rules_files import CameraFrozen, Duplicates, FilesCorrupt, ImagesTooFew
from shipsight.doctor.data.rules_scenes import (
    BordersAdded,
    ChannelsSwapped,
    ClassMixChanged,
    ColoursInverted,
    ObjectsLarger,
    ObjectsSmaller,
    OrientationIgnored,
    UnknownScenes,
)
from shipsight.doctor.data.rules_shifts import (
    AspectChanged,
    ColourCast,
    ColourLost,
    CompressionStronger,
    ContrastHigher,
    ContrastLower,
    ImagesBlurred,
    ImagesBrighter,
    ImagesDarker,
    ImagesLarger,
    ImagesNoisier,
    ImagesSmaller,
)
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure
from shipsight.doctor.rule import Rule
from shipsight.errors import InternalError

__all__ = ["RULES", "DataExamination"]

RULES: tuple[Rule[DataEvidence], ...] = (
    FilesCorrupt(),
    CameraFrozen(),
    Duplicates(),
    ImagesTooFew(),
    OrientationIgnored(),
    ColoursInverted(),
    ChannelsSwapped(),
    BordersAdded(),
    ImagesDarker(),
    ImagesBrighter(),
    ContrastLower(),
    ContrastHigher(),
    ImagesBlurred(),
    ImagesNoisier(),
    ColourCast(),
    ColourLost(),
    CompressionStronger(),
    ImagesSmaller(),
    ImagesLarger(),
    AspectChanged(),
    ClassMixChanged(),
    ObjectsSmaller(),
    ObjectsLarger(),
    UnknownScenes(),
)


class DataExamination(Examination[Case, DataEvidence]):
    """Production images against what was recorded of the training images."""

    name = "data"
    title = "Are these the images it was trained for?"
    rules = RULES
    cost = 20.0

    def lacks(self, case: Case) -> str | None:
        """Returns what is missing: images, or statistics of training in the bundle."""
        if not case.images:
            return "No images of production: give them with --images."
        if read_training(case) is None:
            return "The bundle holds no statistics of training images: build it with --data."
        return None

    def collect(self, case: Case, progress: Progress) -> DataEvidence:
        """Collects the evidence.

        Raises:
            CorruptError: a file of the bundle's proof does not fit.
            DatasetError: the labels cannot be read.
        """
        training = read_training(case)
        if training is None:
            raise InternalError("an examination was made that lacks its data", where=self.name)
        return collect(case, training, progress)

    def figures(self, evidence: DataEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns how far each measure deviates, and what was looked at."""
        scores, strange = evidence.scores, evidence.strangeness
        return {
            "images": evidence.looked_at,
            "images_distinct": evidence.distinct,
            "images_training": evidence.training_images,
            **{f"deviations_{one.measure}": round(one.deviations, 3) for one in evidence.deviations},
            "best_score_here": None if scores is None else round(scores.here, 4),
            "best_score_training": None if scores is None else round(scores.training, 4),
            "features_distance": None if strange is None else round(strange.middle, 4),
            "class_distance": None if evidence.mix is None else round(evidence.mix.distance, 4),
            "object_size_times": None if evidence.sizes is None else round(2.718281828**evidence.sizes.shift, 4),
        }
