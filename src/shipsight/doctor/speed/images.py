# SPDX-License-Identifier: Apache-2.0
"""Whether the images cost more to decode than they must: too many pixels, or a slow format. Pure. Stable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from shipsight.build.measure import Interval
from shipsight.build.progress import Progress
from shipsight.doctor.examination import Examination
from shipsight.doctor.finding import Figure, Finding, Picture, Severity
from shipsight.doctor.rule import Rule
from shipsight.doctor.speed.case import SpeedCase
from shipsight.doctor.speed.drawings import draw_bars
from shipsight.doctor.speed.racing import is_worth, times

__all__ = ["ImagesEvidence", "ImagesExamination", "ImagesOversized", "ImagesSlowFormat", "OtherForm"]


@dataclass(frozen=True)
class OtherForm:
    """The same images in another form, through the whole pipeline, timed in turns.

    Attributes:
        images: that have this other form.
        now_ms: median of these images as they are.
        other_ms: median of the other form.
        gain: how many times faster that is.
    """

    images: int
    now_ms: float
    other_ms: float
    gain: Interval


@dataclass(frozen=True)
class ImagesEvidence:
    """What was timed.

    Attributes:
        images: number of images.
        formats: how many of each format.
        megapixels: median of an image, as stored.
        input_megapixels: of the model's input.
        decode_ms: median of decoding alone.
        reduced: the larger JPEGs decoded at the smallest of 1/2, 1/4, 1/8 that still fills the model's input; None where none is so large.
        as_jpeg: PNG and WebP encoded as JPEG of quality 95; None where there is none.
    """

    images: int
    formats: Mapping[str, int]
    megapixels: float
    input_megapixels: float
    decode_ms: float
    reduced: OtherForm | None = None
    as_jpeg: OtherForm | None = None


class ImagesOversized(Rule[ImagesEvidence]):
    """Large JPEGs are decoded in full, and then made small: timed against decoding at a fraction of the size."""

    id = "images-oversized"
    title = "Large images decoded in vain"

    def look(self, evidence: ImagesEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        other = evidence.reduced
        if other is None or not is_worth(other.gain):
            return
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="The images are far larger than the model's input: most of what is decoded is thrown away.",
            evidence=f"{evidence.megapixels:.1f} megapixels an image, the model takes {evidence.input_megapixels:.2f}; {other.now_ms:.1f} ms an image, "
            f"decoded at a fraction {other.other_ms:.1f} ms: {times(other.gain)} as fast, on {other.images} images.",
            remedy="Let the camera or the client send images of about twice the model's input, or decode at a fraction and compare the accuracy.",
            command="shipsight doctor accuracy BUNDLE --images SMALLER",
            weight=1 - 1 / other.gain.value,
            figures={
                "gain": other.gain.value,
                "gain_low": other.gain.low,
                "megapixels": evidence.megapixels,
                "decode_ms": evidence.decode_ms,
                "images": other.images,
            },
        )


class ImagesSlowFormat(Rule[ImagesEvidence]):
    """PNG or WebP takes longer to decode than JPEG would: timed against the same images as JPEG."""

    id = "images-slow-format"
    title = "A format that is slow to decode"

    def look(self, evidence: ImagesEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        other = evidence.as_jpeg
        if other is None or not is_worth(other.gain):
            return
        names = ", ".join(f"{count} {name}" for name, count in sorted(evidence.formats.items()))
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="The images come in a format that is slow to decode.",
            evidence=f"{names}: {other.now_ms:.1f} ms an image, as JPEG of quality 95 {other.other_ms:.1f} ms: {times(other.gain)} as fast, "
            f"on {other.images} images.",
            remedy="Send JPEG of high quality where its losses do not hurt: the examination of accuracy tells.",
            command="shipsight doctor accuracy BUNDLE --images AS-JPEG",
            weight=1 - 1 / other.gain.value,
            figures={"gain": other.gain.value, "gain_low": other.gain.low, "images": other.images},
        )


class ImagesExamination(Examination[SpeedCase, ImagesEvidence]):
    """Images as they come against forms that are cheaper to decode."""

    name = "images"
    title = "Do the images cost more to decode than they must?"
    rules: ClassVar[tuple[Rule[Any], ...]] = (ImagesOversized(), ImagesSlowFormat())
    cost = 3.0

    def lacks(self, case: SpeedCase) -> str | None:
        """Returns that production's images are missing: the golden ones were stored by us."""
        return None if case.images else "No images: give some of production with --images."

    def collect(self, case: SpeedCase, progress: Progress) -> ImagesEvidence:
        """Times the pipeline on each form."""
        from shipsight.doctor.speed.collecting.images import collect_images

        return collect_images(case, case.share_s(self.cost), progress)

    def figures(self, evidence: ImagesEvidence) -> Mapping[str, Figure | list[Figure]]:
        """Returns sizes, formats and the time of decoding."""
        return {
            "images": evidence.images,
            "formats": [f"{count} {name}" for name, count in sorted(evidence.formats.items())],
            "megapixels": evidence.megapixels,
            "input_megapixels": evidence.input_megapixels,
            "decode_ms": evidence.decode_ms,
        }

    def pictures(self, evidence: ImagesEvidence) -> tuple[Picture, ...]:
        """Returns bars of each form that was tried."""
        rows = []
        for name, other in (("decoded at a fraction", evidence.reduced), ("as JPEG", evidence.as_jpeg)):
            if other is not None:
                rows.append(("as they are", other.now_ms, f"{other.now_ms:.1f} ms"))
                rows.append((name, other.other_ms, f"{other.other_ms:.1f} ms"))
        return (draw_bars(rows, "Milliseconds an image, file to answer."),) if rows else ()
