# SPDX-License-Identifier: Apache-2.0
"""Rules of files: which cannot be read, which show the same, and whether there are enough. Private."""

from __future__ import annotations

from collections.abc import Iterable

from shipsight.doctor.data.deviations import LEAST_IMAGES
from shipsight.doctor.data.evidence import DataEvidence
from shipsight.doctor.finding import Finding, Severity
from shipsight.doctor.rule import Rule

__all__ = ["CameraFrozen", "Duplicates", "FilesCorrupt", "ImagesTooFew"]

_MANY_CORRUPT = 0.05
_MANY_FROZEN = 0.25
_MANY_COPIES = 0.10


class FilesCorrupt(Rule[DataEvidence]):
    """Finds files that cannot be read: truncated, damaged, of a format that is not accepted. One is enough."""

    id = "files-corrupt"
    title = "files that cannot be read"

    def look(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Returns the finding where a file was refused."""
        count = sum(evidence.refused.values())
        if not count:
            return
        share = count / evidence.looked_at
        why = "; ".join(
            f"{what}: {number}" for what, number in sorted(evidence.refused.items(), key=lambda one: -one[1])
        )
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR if share >= _MANY_CORRUPT else Severity.WARNING,
            what="Some files are truncated, damaged or no images: the model answers nothing for them.",
            evidence=f"{count} of {evidence.looked_at} files ({share:.1%}) cannot be read: {why}.",
            remedy="Write files under another name and rename them when complete, and compare sizes where they are copied.",
            weight=share,
            figures={"files": evidence.looked_at, "refused": count, "share_lost": round(share, 4)},
        )


class CameraFrozen(Rule[DataEvidence]):
    """Finds runs of four and more neighbouring images that show the same, in a quarter of all."""

    id = "camera-frozen"
    title = "a picture that stands still"

    def look(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Returns the finding where enough images stand in such runs."""
        copies, read = evidence.copies, evidence.looked_at - sum(evidence.refused.values())
        if not _is_frozen(evidence):
            return
        share = copies.frozen / read
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR,
            what="The camera stands still: image after image shows the same.",
            evidence=f"{copies.frozen} of {read} images stand in runs that show the same, the longest of {copies.longest}.",
            remedy="Restart the stream, and let the reader compare time stamps so that a repeated frame is noticed.",
            weight=share,
            figures={
                "images": read,
                "frozen": copies.frozen,
                "longest_run": copies.longest,
                "share_lost": round(share, 4),
            },
        )


def _is_frozen(evidence: DataEvidence) -> bool:
    read = evidence.looked_at - sum(evidence.refused.values())
    return read > 0 and evidence.copies.frozen >= max(4, _MANY_FROZEN * read)


class Duplicates(Rule[DataEvidence]):
    """Finds images that are in the set more than once, where the camera does not simply stand still."""

    id = "duplicates"
    title = "images more than once"

    def look(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Returns the finding where copies were found."""
        copies, read = evidence.copies, evidence.looked_at - sum(evidence.refused.values())
        count = copies.exact + copies.near
        if not count or _is_frozen(evidence):
            return
        share = count / read
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING if share >= _MANY_COPIES else Severity.NOTE,
            what="Some images are there more than once: whatever is counted over them counts these again.",
            evidence=f"{count} of {read} images show the same as an earlier one: {copies.exact} equal byte by byte, {copies.near} nearly.",
            remedy="Drop repeated files before counting, and find who sends them twice.",
            weight=share if share >= _MANY_COPIES else 0.0,
            figures={"images": read, "exact": copies.exact, "near": copies.near, "share": round(share, 4)},
        )


class ImagesTooFew(Rule[DataEvidence]):
    """Says that there are too few images to say anything of how they look."""

    id = "images-too-few"
    title = "too few images"

    def look(self, evidence: DataEvidence) -> Iterable[Finding]:
        """Returns the finding where fewer than 12 distinct images were read."""
        if evidence.is_enough:
            return
        yield Finding(
            rule=self.id,
            severity=Severity.NOTE,
            what="There are too few images to compare with training.",
            evidence=f"{evidence.distinct} distinct images can be read; at least {LEAST_IMAGES} are needed.",
            remedy="Give more images: 64 show a shift of half a deviation, 16 one of a whole.",
            figures={"images": evidence.distinct, "images_needed": LEAST_IMAGES},
        )
