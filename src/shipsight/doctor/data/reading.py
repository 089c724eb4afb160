# SPDX-License-Identifier: Apache-2.0
"""Production files, read: pixels, what is measured of each, and which cannot be read. All input of the examination is here.

Leaves to others: what follows from it. Rules: a file that cannot be read costs the others nothing; of copies, one is kept. Private.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import ImageError
from shipsight.proof.image_measures import estimate_jpeg_quality
from shipsight.vision import decode_image, import_cv2
from shipsight.vision.image_header import read_header

__all__ = ["Copies", "Files", "ReadImage", "find_copies", "read_files"]

Image = NDArray[np.uint8]
_THUMB = 32
_ALIKE_LEVELS = 1.5
_ALIKE_CORRELATION = 0.98
"""Two thumbnails show the same where they differ by less than this many levels on average and agree in form. Neighbouring
images (by name) of coco128 (192), bccd (292) and digits (340) differ by 12 levels at least; two pictures of one scene with 8 levels of noise by 0.5."""


@dataclass(frozen=True, eq=False)
class ReadImage:
    """One production image.

    Attributes:
        at: its place among the files that were looked at.
        image_rgb: (H, W, 3) uint8 RGB, upright as its file says.
        quality: JPEG quality of the file; None where it is not JPEG.
        is_turned: whether the file asks to be turned or mirrored (EXIF).
        digest: of the file.
        thumb: (32, 32) float32 luma.
    """

    at: int
    image_rgb: Image
    quality: float | None
    is_turned: bool
    digest: str
    thumb: NDArray[np.float32]


@dataclass(frozen=True)
class Copies:
    """Files that show the same.

    Attributes:
        exact: files that are equal to an earlier one, byte by byte.
        near: further ones that show the same as an earlier one.
        frozen: files in runs of four and more neighbours that show the same.
        longest: files of the longest such run.
        kept: places of those that are left when of all copies one is kept.
    """

    exact: int = 0
    near: int = 0
    frozen: int = 0
    longest: int = 0
    kept: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Files:
    """What was read.

    Attributes:
        images: that can be read, in order.
        refused: what is wrong with the others: sentence -> number of files.
    """

    images: tuple[ReadImage, ...]
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def looked_at(self) -> int:
        """Number of files."""
        return len(self.images) + sum(self.refused.values())


def read_files(paths: Sequence[Path], tick: Callable[[], None] = lambda: None) -> Files:
    """Reads files, one after another; none of them raises."""
    images: list[ReadImage] = []
    refused: dict[str, int] = {}
    for at, path in enumerate(paths):
        try:
            images.append(_read(at, path))
        except ImageError as error:
            refused[error.what] = refused.get(error.what, 0) + 1
        except OSError as error:
            text = f"the file cannot be read ({type(error).__name__})"
            refused[text] = refused.get(text, 0) + 1
        tick()
    return Files(tuple(images), refused)


def _read(at: int, path: Path) -> ReadImage:
    data = path.read_bytes()
    image = decode_image(data)
    cv2 = import_cv2()
    small = cv2.resize(image, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA).astype(np.float32)
    return ReadImage(
        at=at,
        image_rgb=image,
        quality=estimate_jpeg_quality(data),
        is_turned=read_header(data, "image").orientation != 1,
        digest=hashlib.sha256(data).hexdigest(),
        thumb=small @ np.array([0.299, 0.587, 0.114], dtype=np.float32),
    )


def find_copies(images: Sequence[ReadImage]) -> Copies:
    """Finds images that show the same, among all and among neighbours."""
    exact = near = 0
    kept: list[int] = []
    digests: set[str] = set()
    for number, one in enumerate(images):
        if one.digest in digests:
            exact += 1
        elif any(_shows_same(images[other], one) for other in kept):
            near += 1
        else:
            kept.append(number)
        digests.add(one.digest)
    runs = _runs([_shows_same(one, other) for one, other in pairwise(images)])
    long = [length for length in runs if length >= 4]
    return Copies(exact, near, sum(long), max(long, default=0), tuple(kept))


def _shows_same(one: ReadImage, other: ReadImage) -> bool:
    if one.digest == other.digest:
        return True
    if one.image_rgb.shape != other.image_rgb.shape:
        return False
    first, second = one.thumb - one.thumb.mean(), other.thumb - other.thumb.mean()
    if float(np.abs(first - second).mean()) > _ALIKE_LEVELS:
        return False
    spread = float(np.sqrt((first**2).mean() * (second**2).mean()))
    return spread < 1 or float((first * second).mean()) / spread >= _ALIKE_CORRELATION


def _runs(same_as_next: Sequence[bool]) -> list[int]:
    """Returns lengths of runs of files, from whether each is the same as the next."""
    lengths, length = [], 1
    for same in same_as_next:
        if same:
            length += 1
        else:
            lengths.append(length)
            length = 1
    return [*lengths, length]
