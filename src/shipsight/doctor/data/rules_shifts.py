# SPDX-License-Identifier: Apache-2.0
"""Rules of how images look: one a kind of change that explains what deviates (`explaining`). Private."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from shipsight.doctor.data.evidence import DataEvidence
from shipsight.doctor.data.explaining import Cause
from shipsight.doctor.data.telling import cost_figures, judge, tell_cost
from shipsight.doctor.data.training import SCALES
from shipsight.doctor.finding import Finding, Severity
from shipsight.doctor.rule import Rule

__all__ = [
    "AspectChanged",
    "ColourCast",
    "ColourLost",
    "CompressionStronger",
    "ContrastHigher",
    "ContrastLower",
    "ImagesBlurred",
    "ImagesBrighter",
    "ImagesDarker",
    "ImagesLarger",
    "ImagesNoisier",
    "ImagesSmaller",
    "ShiftRule",
]

_SURE = 1e-5
"""Photographs come in series (one camera, one shape), so sixteen of them differ by more than the test allows for: two halves of coco128
reach 1e-4 in their shapes."""


class ShiftRule(Rule[DataEvidence]):
    """Tells of a change of the images that explains what deviates, and what it costs.

    Attributes:
        what: of the finding.
        remedy: of the finding.
        measure: that people know it by.
    """

    what: ClassVar[str]
    remedy: ClassVar[str]
    measure: ClassVar[str]

    def look(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Returns the finding where the change is among the causes."""
        cause = evidence.cause(self.id)
        if cause is None:
            return
        cost = evidence.costs.get(self.id)
        severity, weight, certainty = judge(cost, evidence)
        if not _is_sure(cause, evidence):
            severity = Severity.NOTE
        seen = evidence.deviation(self.measure)
        unit = SCALES[self.measure].unit
        said = (
            ""
            if seen is None
            else (
                f"median {SCALES[self.measure].word} {seen.here:.3g} here, {seen.training:.3g} in training"
                f"{f' ({unit})' if unit else ''}, {evidence.distinct} images; "
            )
        )
        what_it_is = f"{cause.kind.tell(cause.strength)} explains {evidence.explanation.share:.0%} of all that deviates"
        yield Finding(
            rule=self.id,
            severity=severity,
            what=self.what,
            evidence=f"{said}{what_it_is}; {tell_cost(cost)}.",
            remedy=self.remedy,
            weight=weight,
            certainty=certainty * max(0.5, min(1.0, evidence.explanation.share)),
            figures={
                "images": evidence.distinct,
                "median_here": None if seen is None else round(seen.here, 4),
                "median_training": None if seen is None else round(seen.training, 4),
                "deviations": None if seen is None else round(seen.deviations, 2),
                "change": cause.kind.name,
                "strength": round(cause.strength, 3),
                "share_explained": round(evidence.explanation.share, 4),
                **cost_figures(cost),
            },
            pictures=evidence.pictures.get(self.id, ()),
        )


def _is_sure(cause: Cause, evidence: DataEvidence) -> bool:
    """Tells whether what a change moves first deviates beyond doubt: only then is it more than a note."""
    moved = [one.p_value for one in evidence.deviations if one.is_clear and one.measure in cause.kind.needs]
    return min(moved, default=1.0) < _SURE


class ImagesDarker(ShiftRule):
    """Darker than in training."""

    id = "images-darker"
    title = "darker than in training"
    what = "The images are darker than those the model was trained on."
    remedy = "Lengthen the exposure or add light; where that cannot be, train again with images of this brightness."
    measure = "brightness"


class ImagesBrighter(ShiftRule):
    """Brighter than in training."""

    id = "images-brighter"
    title = "brighter than in training"
    what = "The images are brighter than those the model was trained on."
    remedy = (
        "Shorten the exposure, and check gain and gamma of the camera; or train again with images of this brightness."
    )
    measure = "brightness"


class ContrastLower(ShiftRule):
    """Less contrast than in training: haze, a dirty lens, limited levels read as full ones."""

    id = "contrast-lower"
    title = "flatter than in training"
    what = "The images have less contrast than those the model was trained on."
    remedy = "Clean the lens, and check that limited video levels (16 to 235) are read as such; or train again with such images."
    measure = "contrast"


class ContrastHigher(ShiftRule):
    """More contrast than in training."""

    id = "contrast-higher"
    title = "harder than in training"
    what = "The images have more contrast than those the model was trained on."
    remedy = "Check the camera's picture profile, and that full video levels are not stretched once more."
    measure = "contrast"


class ImagesBlurred(ShiftRule):
    """Less sharp than in training: out of focus, moving, enlarged."""

    id = "images-blurred"
    title = "less sharp than in training"
    what = "The images are less sharp than those the model was trained on."
    remedy = "Focus and clean the lens, shorten the exposure where things move, and stop enlarging small frames before the model."
    measure = "sharpness"


class ImagesNoisier(ShiftRule):
    """Noisier than in training."""

    id = "images-noisier"
    title = "noisier than in training"
    what = "The images hold more noise than those the model was trained on."
    remedy = "Lower the gain and add light; or train again with noise of this strength among the augmentations."
    measure = "noise"


class ColourCast(ShiftRule):
    """Another balance of the colours."""

    id = "colour-cast"
    title = "another balance of colours"
    what = "The images have a colour cast that those the model was trained on did not have."
    remedy = "Set the camera's white balance by a grey card; or train again with this light."
    measure = "blue"


class ColourLost(ShiftRule):
    """Less colour, or none: night mode, infrared, a grey stream."""

    id = "colour-lost"
    title = "less colour than in training"
    what = "The images have lost colour against those the model was trained on."
    remedy = "Turn night mode and grey streams off; where they must stay, train a model on grey images."
    measure = "saturation"


class CompressionStronger(ShiftRule):
    """Stronger JPEG compression."""

    id = "compression-stronger"
    title = "stronger compression"
    what = "The images are compressed more strongly than those the model was trained on."
    remedy = "Raise the JPEG quality where the images are written, and send them on without writing them again."
    measure = "jpeg_quality"


class ImagesSmaller(ShiftRule):
    """Fewer pixels than in training."""

    id = "images-smaller"
    title = "fewer pixels than in training"
    what = "The images have fewer pixels than those the model was trained on."
    remedy = "Take the camera's full resolution, not its second stream or thumbnails."
    measure = "width"


class ImagesLarger(ShiftRule):
    """More pixels than in training."""

    id = "images-larger"
    title = "more pixels than in training"
    what = "The images have more pixels than those the model was trained on."
    remedy = (
        "Scale them down where they are taken, or look at them tile by tile where objects are small: `predict --tile`."
    )
    measure = "width"


class AspectChanged(ShiftRule):
    """Another ratio of width to height: stretched."""

    id = "aspect-changed"
    title = "another shape"
    what = "The images have another ratio of width to height than those the model was trained on, as if stretched."
    remedy = "Keep the ratio when images are resized (letterbox, do not stretch), and check for anamorphic video."
    measure = "aspect"
