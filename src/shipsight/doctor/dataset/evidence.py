# SPDX-License-Identifier: Apache-2.0
"""What the examination of a data set knows: what the source, the suspect and the labels say of the same images. Pure. Stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure.intervals import Interval

if TYPE_CHECKING:
    from shipsight.doctor.dataset.agreement import Explained
    from shipsight.doctor.dataset.thresholds import Baked

__all__ = ["Boxes", "DatasetEvidence", "Measured", "Seen"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Boxes:
    """Objects of one image. A classifier's answer is one box that covers the image.

    Attributes:
        class_ids: (N,) int64, of the source's classes.
        scores: (N,) float64 in [0, 1]; ones for labels.
        boxes_xyxy: (N, 4) float64 in pixels of the original image; the enclosing box where the task has rotated ones.
    """

    class_ids: NDArray[np.int64]
    scores: FloatArray
    boxes_xyxy: FloatArray

    def __len__(self) -> int:
        return len(self.class_ids)

    def pick(self, index: NDArray[np.bool_]) -> Boxes:
        """Returns those that a mask over N picks."""
        return Boxes(self.class_ids[index], self.scores[index], self.boxes_xyxy[index])


@dataclass(frozen=True, eq=False)
class Seen:
    """One image.

    Attributes:
        ratio: pixels of the model's input to one of the image.
        source: what the source says.
        suspect: what the suspect says.
        labels: what is written of it, None for nothing.
    """

    ratio: float
    source: Boxes
    suspect: Boxes
    labels: Boxes | None = None


@dataclass(frozen=True)
class Measured:
    """Accuracy on the labelled images: mAP50-95, or top-1 of a classifier.

    Attributes:
        source: of the source.
        suspect: of the suspect.
        drop: source minus suspect, with its interval.
        low, high: 95 % interval of the source's own value over these images.
        multi_label: of the source where one anchor may give several classes, None where that is not possible.
    """

    source: float
    suspect: float
    drop: Interval
    low: float
    high: float
    multi_label: float | None = None


@dataclass(frozen=True, eq=False)
class DatasetEvidence:
    """What was collected.

    Attributes:
        class_names: of the source.
        suspect_names: of the suspect, as it tells them; None where it tells none.
        label_names: of the labels, None where they tell none.
        seen: one entry an image.
        side: the longer side of the model's input, in pixels.
        is_same_file: whether the suspect is a variant of this very bundle.
        is_integer: whether the suspect computes in 8-bit integers; None where that cannot be told (a server).
        is_classifier: whether the task is classify.
        is_upright: whether boxes are not rotated.
        floor: least score that was asked of both.
        most: most predictions an image that were asked of both.
        iou: overlap above which both were asked to suppress.
        expected_share: share of confident predictions that the suspect matched when it was built; None where it was not built here.
        reported: metrics that training itself reported, by their names.
        recorded: accuracy of the source in the proof, None for none.
        recorded_images: number of images it was measured on.
        measured: None without labels.
        digest: of the bundle's manifest.
        suspect_digest: of the bundle that the suspect comes from, None where it does not tell.
        not_told: what was left out or is not compared: sentences.
    """

    class_names: tuple[str, ...]
    suspect_names: tuple[str, ...] | None
    seen: tuple[Seen, ...]
    side: int = 640
    label_names: tuple[str, ...] | None = None
    is_same_file: bool = False
    is_integer: bool | None = None
    is_classifier: bool = False
    is_upright: bool = True
    floor: float = 0.001
    most: int = 300
    iou: float = 0.7
    expected_share: float | None = None
    reported: Mapping[str, float] = field(default_factory=dict)
    recorded: float | None = None
    recorded_images: int = 0
    measured: Measured | None = None
    digest: str = ""
    suspect_digest: str | None = None
    not_told: tuple[str, ...] = ()

    @cached_property
    def explained(self) -> Explained:
        """What explains the differences between the source and the suspect."""
        from shipsight.doctor.dataset.agreement import explain

        return explain(self)

    @cached_property
    def baked(self) -> Baked | None:
        """The thresholds that the suspect holds to though others were asked."""
        from shipsight.doctor.dataset.thresholds import find_baked

        return find_baked(self)
