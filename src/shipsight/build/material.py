# SPDX-License-Identifier: Apache-2.0
"""The images of a build: three disjoint sets of a data set, or a folder, or scenes that shipsight draws.

Invariants: calibration, guard and report share no image; what is chosen depends on the seed and the data alone.
Private to `build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure import Dataset, PreparedImages, Sample, Splits, load_dataset, split_dataset
from shipsight.build.options import BuildOptions
from shipsight.errors import DatasetError, ImageError
from shipsight.model import Card
from shipsight.model.warning import BuildWarning
from shipsight.proof.scenes import make_scene
from shipsight.vision import decode_image, prepare

__all__ = ["Material", "gather_material"]

_Item = TypeVar("_Item")
Pixels = NDArray[np.uint8]
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


@dataclass(frozen=True, eq=False)
class Material:
    """The images of a build.

    Attributes:
        dataset: what `--data` named, None without.
        splits: its three sets, None without.
        files: images that golden inputs may come from: report images, or those of `--images`.
        training_files: images that the training statistics describe.
        cache: prepared report images, shared between variants.
        warnings: what the user should know of the data.
    """

    dataset: Dataset | None
    splits: Splits | None
    files: tuple[Path, ...]
    training_files: tuple[Path, ...]
    cache: PreparedImages = field(default_factory=PreparedImages)
    warnings: tuple[BuildWarning, ...] = ()

    def some_pixels(self, count: int) -> list[Pixels]:
        """Returns decoded images, (height, width, 3) uint8 RGB: the user's first, drawn scenes where there are none."""
        if self.files:
            return [decode_image(file) for file in self.files[:count]]
        return [make_scene(subject) for subject in range(count)]

    def calibration_pixels(self, card: Card) -> list[Pixels]:
        """Returns the calibration images at the card's input size, (h, w, 3) uint8 RGB."""
        samples: Sequence[Sample] = () if self.splits is None else self.splits.calibration
        return [prepare(decode_image(sample.image), card.input)[0] for sample in samples]


def gather_material(card: Card, options: BuildOptions) -> Material:
    """Reads the data set, or the folder of images.

    Raises:
        DatasetError: the data set cannot be read, or does not fit the card, or the folder holds no image.
    """
    if options.data is None:
        files = () if options.images is None else _list_images(options.images)
        chosen = _sample(files, options.max_images, options.seed)
        return Material(dataset=None, splits=None, files=chosen, training_files=chosen)
    dataset = load_dataset(options.data, card.task, class_names=card.class_names)
    warnings = [*dataset.check_card(card)]
    splits = split_dataset(
        dataset,
        guard_split=options.guard_split,
        guard_count=min(options.max_images, 300),
        seed=options.seed,
    )
    warnings += splits.warnings
    report = _sample(splits.report, options.max_images, options.seed)
    found = [BuildWarning(one.code, one.text) for one in warnings]
    if len(report) < len(splits.report):
        text = f"{len(report)} of {len(splits.report)} report images are measured; --max-images sets how many."
        found.append(BuildWarning("report-images-sampled", text))
    _check_readable(report)
    training = tuple(sample.image for sample in dataset.splits.get("train", splits.report))
    return Material(
        dataset=dataset,
        splits=replace(splits, report=report),
        files=tuple(sample.image for sample in report),
        training_files=_sample(training, options.max_images, options.seed),
        warnings=tuple(found),
    )


def _sample(items: Sequence[_Item], count: int, seed: int) -> tuple[_Item, ...]:
    """Returns at most `count` items, chosen by the seed, in their order."""
    if len(items) <= count:
        return tuple(items)
    chosen = np.random.default_rng(seed).choice(len(items), size=count, replace=False)
    return tuple(items[index] for index in sorted(chosen))


def _list_images(folder: Path) -> tuple[Path, ...]:
    if folder.is_file():
        return (folder,)
    files = tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES))
    if not files:
        raise DatasetError("no image there", where=folder, expected=f"files ending in {sorted(_SUFFIXES)}")
    return files


def _check_readable(samples: Sequence[Sample]) -> None:
    """Refuses the data set at once where an image cannot be read, rather than an hour into the build."""
    for sample in samples:
        try:
            decode_image(sample.image)
        except ImageError as error:
            raise DatasetError(
                "an image of the report set cannot be read", where=sample.image, got=error.what, hint="Remove it."
            ) from error
