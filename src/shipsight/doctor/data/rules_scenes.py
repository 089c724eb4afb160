# SPDX-License-Identifier: Apache-2.0
"""Rules of what is in the images: mistakes that can be undone, borders, classes, sizes, other scenes altogether. Private."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from shipsight.doctor.data.correcting import MISTAKES
from shipsight.doctor.data.evidence import DataEvidence
from shipsight.doctor.data.telling import cost_figures, judge, tell_cost
from shipsight.doctor.finding import Finding, Severity
from shipsight.doctor.rule import Rule

__all__ = [
    "BordersAdded",
    "ChannelsSwapped",
    "ClassMixChanged",
    "ColoursInverted",
    "MistakeRule",
    "ObjectsLarger",
    "ObjectsSmaller",
    "OrientationIgnored",
    "UnknownScenes",
    "is_unknown",
]

_HEAVY = 0.05
_SCENES = 30
_STRANGE = 0.6
_EXPLAINED = 0.75
_SIZE_CLEAR = 3.5
_SMALLER = 0.5
_LARGER = 0.9


class MistakeRule(Rule[DataEvidence]):
    """Tells of a mistake that, undone, makes the model surer of the same images.

    Attributes:
        what: of the finding.
        remedy: of the finding.
    """

    what: ClassVar[str]
    remedy: ClassVar[str]

    def look(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Returns the finding where the correction chosen is this one's."""
        found = evidence.correction
        if found is None or MISTAKES[found.mistake].rule != self.id:
            return
        cost = evidence.costs.get(self.id)
        _, weight, _ = judge(cost, evidence)
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR,
            what=self.what,
            evidence=(
                f"The images are {MISTAKES[found.mistake].tell}: with that undone the model's confidence rises from {found.before:.2f} to "
                f"{found.before + found.gain:.2f} on {found.images} images (by {found.low:.2f} at least); {tell_cost(cost)}."
                + (
                    f" {evidence.turned_by_file} files ask to be turned, which was done."
                    if evidence.turned_by_file
                    else ""
                )
            ),
            remedy=self.remedy,
            weight=max(weight, found.gain),
            figures={
                "images": found.images,
                "mistake": found.mistake,
                "confidence_before": round(found.before, 4),
                "confidence_gain": round(found.gain, 4),
                "confidence_gain_low": round(found.low, 4),
                "turned_by_file": evidence.turned_by_file,
                **cost_figures(cost),
            },
            pictures=evidence.pictures.get(self.id, ()),
        )


class OrientationIgnored(MistakeRule):
    """Turned or mirrored: an EXIF orientation that was lost, or a camera mounted upside down."""

    id = "orientation-ignored"
    title = "turned or mirrored"
    what = "The images stand on their side or their head: their orientation was lost or is recorded wrongly."
    remedy = "Turn the pixels when files are written (or keep the EXIF orientation), and set the camera's mounting."

    def look(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Returns the finding where turning back makes the model surer, or where it explains sizes and the model does not care."""
        cause = evidence.cause(self.id)
        width, height = evidence.deviation("width"), evidence.deviation("height")
        if cause is None or width is None or height is None:
            yield from super().look(evidence)
            return
        cost = evidence.costs.get(self.id)
        severity, weight, certainty = judge(cost, evidence)
        yield Finding(
            rule=self.id,
            # It is wrong even where nothing shows: a model that is trained again on upright images may care.
            severity=severity if severity is not Severity.NOTE else Severity.WARNING,
            what="The images stand on their side: width and height are exchanged, and the model is as sure of them turned back.",
            evidence=(
                f"{width.here:.0f}x{height.here:.0f} px here, {width.training:.0f}x{height.training:.0f} in training (medians, "
                f"{evidence.distinct} images); {cause.kind.tell(cause.strength)} explains {evidence.explanation.share:.0%} of all that "
                f"deviates; {tell_cost(cost)}."
            ),
            remedy=self.remedy,
            weight=weight,
            certainty=certainty * cause.share,
            figures={
                "images": evidence.distinct,
                "width_here": round(width.here, 1),
                "height_here": round(height.here, 1),
                "width_training": round(width.training, 1),
                "height_training": round(height.training, 1),
                "share_explained": round(cause.share, 4),
                "turned_by_file": evidence.turned_by_file,
                **cost_figures(cost),
            },
            pictures=evidence.pictures.get(self.id, ()),
        )


class ColoursInverted(MistakeRule):
    """Light is dark and dark is light."""

    id = "colours-inverted"
    title = "light and dark exchanged"
    what = "The images are negatives: light is dark and dark is light."
    remedy = "Take 255 minus each level, or set the polarity of the camera (thermal: white-hot)."


class ChannelsSwapped(MistakeRule):
    """Red and blue exchanged when the files were written."""

    id = "images-channels-swapped"
    title = "red and blue exchanged in the files"
    what = "Red and blue were exchanged before the files were written."
    remedy = "Convert RGB to BGR before `cv2.imwrite`, or leave the conversion out where it is done twice."


class BordersAdded(Rule[DataEvidence]):
    """Even bands around at least half of the images, which training did not have."""

    id = "borders-added"
    title = "bands around the images"

    def look(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Returns the finding where a border was found."""
        border = evidence.border
        if border is None:
            return
        cost = evidence.costs.get(self.id)
        severity, weight, certainty = judge(cost, evidence)
        top, bottom, left, right = border.margins
        yield Finding(
            rule=self.id,
            severity=severity
            if severity is not Severity.NOTE
            else Severity.WARNING
            if border.area > 0.2
            else Severity.NOTE,
            what="Even bands were put around the images, as letterboxes, players and screenshots do.",
            evidence=(
                f"{border.share:.0%} of {evidence.distinct} images have bands of levels {border.level}: top {top:.0%}, bottom {bottom:.0%}, "
                f"left {left:.0%}, right {right:.0%}, {border.area:.0%} of the image in all; {tell_cost(cost)}."
            ),
            remedy="Cut the bands off before the model, or take the stream before it is letterboxed.",
            weight=weight,
            certainty=certainty,
            figures={
                "images": evidence.distinct,
                "share_of_images": round(border.share, 4),
                "area": round(border.area, 4),
                **cost_figures(cost),
            },
            pictures=evidence.pictures.get(self.id, ()),
        )


class ClassMixChanged(Rule[DataEvidence]):
    """Other shares of the classes than the training labels have."""

    id = "class-mix-changed"
    title = "other shares of the classes"

    def look(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Returns the finding where the share of a class changed by 15 points and more, beyond chance."""
        mix = evidence.mix
        if mix is None or not mix.changed or is_unknown(evidence):
            return
        lost = _mix_cost(evidence)
        is_symptom = evidence.heaviest >= _HEAVY or evidence.correction is not None
        is_known = (
            evidence.is_labelled or mix.images >= _SCENES
        )  # a class comes in scenes, and few scenes are few draws
        most = mix.changed[0]
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING if lost >= 0.02 and not is_symptom and is_known else Severity.NOTE,
            what="Other classes appear than in training, or in other shares.",
            evidence=(
                f"{most.name}: {most.here:.0%} of {mix.objects} objects here, {most.training:.0%} in training; {len(mix.changed)} classes changed "
                f"clearly ({'labels' if evidence.is_labelled else 'predictions'} of {mix.images} images)."
            ),
            remedy="Weigh the measured accuracy by the classes that appear, and train again with more of those that became common.",
            weight=0.0 if is_symptom else lost,
            certainty=1.0 if evidence.is_labelled else 0.6,
            figures={
                "images": mix.images,
                "objects": mix.objects,
                "distance": round(mix.distance, 4),
                "classes_changed": len(mix.changed),
                "share_here": round(most.here, 4),
                "share_training": round(most.training, 4),
                "f1_lost": round(lost, 4),
            },
        )


def _mix_cost(evidence: DataEvidence) -> float:
    """Returns how much F1, as measured class by class at the build, falls when the classes that changed are weighed as here."""
    assert evidence.mix is not None
    known = [one for one in evidence.mix.changed if one.name in evidence.by_class]
    if not known:
        return 0.0
    middle = float(np.mean(list(evidence.by_class.values())))
    return max(0.0, sum((one.training - one.here) * (evidence.by_class[one.name] - middle) for one in known))


class ObjectsSmaller(Rule[DataEvidence]):
    """Objects take less of the image than the training labels do."""

    id = "objects-smaller"
    title = "smaller objects"

    def look(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Returns the finding where sizes fell by 40 % and more, beyond chance."""
        sizes = evidence.sizes
        if sizes is None or sizes.shift > -_SMALLER or sizes.shift > -_SIZE_CLEAR * sizes.error or is_unknown(evidence):
            return
        yield _tell_sizes(
            evidence,
            rule=self.id,
            severity=Severity.NOTE if evidence.heaviest >= _HEAVY else Severity.WARNING,
            what="Objects are smaller in the images than in training.",
            remedy="Move or zoom the camera nearer, or look tile by tile: `predict --tile`.",
            weight=0.0 if evidence.heaviest >= _HEAVY or evidence.scores is None else evidence.scores.lost,
        )


class ObjectsLarger(Rule[DataEvidence]):
    """Objects take more of the image than the training labels do."""

    id = "objects-larger"
    title = "larger objects"

    def look(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Returns the finding where sizes grew 2.5 times, beyond chance: predictions miss small objects, so less says nothing."""
        sizes = evidence.sizes
        least = _SMALLER if evidence.is_labelled else _LARGER
        if sizes is None or sizes.shift < least or sizes.shift < _SIZE_CLEAR * sizes.error or is_unknown(evidence):
            return
        if not evidence.is_labelled and evidence.heaviest > _HEAVY / 2:
            return  # whatever hides small objects from the model makes those that it finds larger
        yield _tell_sizes(
            evidence,
            rule=self.id,
            severity=Severity.NOTE,
            what="Objects are larger in the images than in training.",
            remedy="Move or zoom the camera away, or train again with such views.",
            weight=0.0,
        )


def _tell_sizes(
    evidence: DataEvidence, *, rule: str, severity: Severity, what: str, remedy: str, weight: float
) -> Finding:
    sizes = evidence.sizes
    assert sizes is not None
    return Finding(
        rule=rule,
        severity=severity,
        what=what,
        evidence=(
            f"An object takes {sizes.here:.1%} of the image's side here and {sizes.training:.1%} in training (medians; {sizes.objects} "
            f"{'labels' if evidence.is_labelled else 'predictions'}): {np.exp(sizes.shift):.2f} times, error {sizes.error:.2f} of the logarithm."
        ),
        remedy=remedy,
        weight=weight,
        certainty=1.0 if evidence.is_labelled else 0.6,
        figures={
            "objects": sizes.objects,
            "size_here": round(sizes.here, 4),
            "size_training": round(sizes.training, 4),
            "times": round(float(np.exp(sizes.shift)), 3),
            "error": round(sizes.error, 4),
        },
    )


def is_unknown(evidence: DataEvidence) -> bool:
    """Tells whether the images show other scenes: far from training in the model's features, and no plain change explains it."""
    strange = evidence.strangeness
    if strange is None or evidence.correction is not None:
        return False
    clear = [one for one in evidence.deviations if one.is_clear]
    is_explained = bool(evidence.explanation.causes) and evidence.explanation.share >= _EXPLAINED
    return strange.left > _STRANGE and not (is_explained and clear)


class UnknownScenes(Rule[DataEvidence]):
    """Images that are far from training in the model's features although no plain change explains it."""

    id = "unknown-scenes"
    title = "other scenes than in training"

    def look(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Returns the finding where the features lie far away."""
        if not is_unknown(evidence):
            return
        strange = evidence.strangeness
        assert strange is not None
        scores = evidence.scores
        lost = 0.0 if scores is None else scores.lost
        said = (
            ""
            if scores is None
            else f"; the best score of an image is {scores.here:.2f} here and {scores.training:.2f} in training"
        )
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR if lost >= _HEAVY else Severity.WARNING,
            what="The images show other scenes than those the model was trained on.",
            evidence=(
                f"The model's features of {strange.images} images lie {np.sqrt(strange.left):.1f} deviations from training's mean in each main "
                f"direction, and no plain change of light, colour, sharpness or size explains it{said}."
            ),
            remedy="Label some of these images, measure the accuracy on them, and train again with them.",
            weight=lost,
            certainty=0.8,
            figures={
                "images": strange.images,
                "distance": round(float(np.sqrt(strange.left)), 3),
                "spread": round(strange.far, 3),
                "best_score_here": None if scores is None else round(scores.here, 4),
                "best_score_training": None if scores is None else round(scores.training, 4),
            },
            pictures=evidence.pictures.get(self.id, ()),
        )
