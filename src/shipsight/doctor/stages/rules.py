# SPDX-License-Identifier: Apache-2.0
"""Rules on stages: the first that differs is named, what follows from it is not. Pure. Stable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from shipsight.doctor.finding import Finding, Severity
from shipsight.doctor.rule import Rule
from shipsight.doctor.stages.evidence import StagesEvidence

__all__ = ["DecodeDiffers", "EngineDiffers", "Nondeterministic", "PostprocessDiffers", "PrepareDiffers"]


class _StageRule(Rule[StagesEvidence]):
    stage: ClassVar[str]
    what: ClassVar[str]
    remedy: ClassVar[str]

    def look(self, evidence: StagesEvidence) -> Iterable[Finding]:
        """Returns the stage where it is the first that differs."""
        one = evidence.first()
        if one is None or one.name != self.stage or (self.stage == "engine" and evidence.unsteady):
            return
        # Each image is one trial; a single one of many may be a damaged file.
        lost = evidence.share_lost
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR if lost >= 0.05 else Severity.WARNING,
            what=self.what,
            evidence=(
                f"{one.differ} of {one.images} images differ, the first is number {one.first + 1}; "
                f"by {one.far:.3g} {one.unit} at most where {one.allowed:.3g} is allowed; "
                f"{lost:.1%} of the confident predictions recorded are lost in the end"
            ),
            remedy=self.remedy,
            weight=lost,
            figures={
                "images": one.images,
                "images_differ": one.differ,
                "first_image": one.first,
                "far": round(one.far, 6),
                "allowed": round(one.allowed, 6),
                "unit": one.unit,
                "share_lost": round(lost, 4),
            },
        )


class DecodeDiffers(_StageRule):
    """Decoded pixels differ."""

    id = "stage-decode-differs"
    title = "decoding differs"
    stage = "decode"
    what = "The pixels already differ after decoding: another decoder, colour order, orientation or bit depth."
    remedy = "Decode to 8-bit RGB and apply the EXIF orientation before anything else."


class PrepareDiffers(_StageRule):
    """Prepared tensors differ though the decoded pixels agree."""

    id = "stage-prepare-differs"
    title = "preparation differs"
    stage = "prepare"
    what = "The decoded pixels agree and the prepared tensors do not: resizing, padding, colour order or scale differ."
    remedy = "Prepare as the card's input contract says; compare the two tensors value by value."


class EngineDiffers(_StageRule):
    """Outputs differ though the same tensors went in."""

    id = "stage-engine-differs"
    title = "the engine differs"
    stage = "engine"
    what = "The same tensors go in and other outputs come out: another model, precision or kernel."
    remedy = "Compare the file with the bundle's (shipsight verify), then look at the findings of the conversion."


class PostprocessDiffers(_StageRule):
    """Predictions differ though outputs agree."""

    id = "stage-postprocess-differs"
    title = "postprocessing differs"
    stage = "postprocess"
    what = "The outputs agree and the predictions do not: thresholds, suppression, or the way back to image pixels."
    remedy = "Suppress and scale back as shipsight predict does, with the same thresholds."


class Nondeterministic(Rule[StagesEvidence]):
    """The same tensor twice gives other outputs."""

    id = "stage-nondeterministic"
    title = "not deterministic"

    def look(self, evidence: StagesEvidence) -> Iterable[Finding]:
        """Returns it where a repetition is off by more than the tolerance recorded for repetitions."""
        if not evidence.unsteady:
            return
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR if evidence.share_lost >= 0.05 else Severity.WARNING,
            what="The same input gives other outputs when it is run again.",
            evidence=(
                f"{evidence.unsteady} of {evidence.repeated} images, by {evidence.unsteady_far:.3g} times the tolerance at most"
            ),
            remedy="Look for buffers that are shared between requests, and for faulty memory; run with one thread to tell them apart.",
            weight=evidence.share_lost,
            figures={"images": evidence.repeated, "images_differ": evidence.unsteady},
        )
