# SPDX-License-Identifier: Apache-2.0
"""What is in the images: classes, sizes of objects, and how far the scenes are from the model's training. Pure.

Counts come from labels where the case has them, else from the model's own confident predictions. Objects of one image belong
together, so errors are a bootstrap over images. Private.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.data.deviations import FAMILY_ERROR, LEAST_IMAGES, holm
from shipsight.doctor.data.training import Distribution, Embedding

__all__ = ["ClassShare", "Mix", "Objects", "Sizes", "Strangeness", "compare_mix", "compare_sizes", "how_strange"]

FloatArray = NDArray[np.float64]
_DRAWS = 400
_LEAST_CLASS_SHARE = 0.15
_SURELY_NEW = 30
"""Labels of training from which on a share is known well enough to be compared."""


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects of one image.

    Attributes:
        class_ids: (N,).
        sizes: (N,) square root of the area's share of the image.
    """

    class_ids: NDArray[np.int64]
    sizes: FloatArray


@dataclass(frozen=True)
class ClassShare:
    """One class whose share changed.

    Attributes:
        name: of it.
        here: share of the objects, 0 to 1.
        training: likewise.
    """

    name: str
    here: float
    training: float


@dataclass(frozen=True)
class Mix:
    """Shares of classes.

    Attributes:
        changed: those that changed clearly, the most first.
        distance: half of the summed differences of all shares, 0 to 1.
        objects: number of objects here.
        images: that they are in.
    """

    changed: tuple[ClassShare, ...]
    distance: float
    objects: int
    images: int


@dataclass(frozen=True)
class Sizes:
    """Sizes of objects.

    Attributes:
        here: median share of the image's side.
        training: likewise.
        shift: change of the logarithm, mean over the middle nine tenths.
        error: standard error of it.
        objects: number of objects here.
    """

    here: float
    training: float
    shift: float
    error: float
    objects: int


@dataclass(frozen=True)
class Strangeness:
    """How far the model's features lie from those of training.

    Attributes:
        middle: squared distance of the mean from that of training, per direction, in deviations; what chance gives is taken off.
        far: mean squared distance of an image, per direction; 1 in training.
        left: `middle` after what the causes that were found account for.
        images: number.
    """

    middle: float
    far: float
    left: float
    images: int


def compare_mix(
    objects: Sequence[Objects], names: Sequence[str], training: Mapping[str, int], *, seed: int = 0
) -> Mix | None:
    """Compares shares of classes; None for fewer than 12 images with objects or 30 labels in training."""
    having = [one for one in objects if len(one.class_ids)]
    total = sum(training.values())
    if len(having) < LEAST_IMAGES or total < _SURELY_NEW:
        return None
    counts = np.array([np.bincount(one.class_ids, minlength=len(names)) for one in having], dtype=np.float64)
    there = np.array([training.get(name, 0) for name in names], dtype=np.float64) / total
    here = counts.sum(axis=0) / counts.sum()
    drawn = np.random.default_rng(seed).integers(0, len(counts), size=(_DRAWS, len(counts)))
    sums = counts[drawn].sum(axis=1)
    error = (sums / sums.sum(axis=1, keepdims=True)).std(axis=0)
    # Labels of training come in images too: as many objects an image are taken to belong together there as here.
    per_image = counts.sum() / len(counts)
    error = np.sqrt(error**2 + there * (1 - there) * per_image / total + 0.02**2)
    scores = np.abs(here - there) / error
    passed = holm([_tail(float(score)) for score in scores], FAMILY_ERROR)
    changed = [
        ClassShare(str(name), float(here[i]), float(there[i]))
        for i, name in enumerate(names)
        if passed[i] and abs(here[i] - there[i]) >= _LEAST_CLASS_SHARE
    ]
    changed.sort(key=lambda one: -abs(one.here - one.training))
    return Mix(tuple(changed), float(np.abs(here - there).sum() / 2), int(counts.sum()), len(having))


def _tail(score: float) -> float:
    from math import erfc, sqrt

    return erfc(score / sqrt(2))


def compare_sizes(objects: Sequence[Objects], training: Distribution | None, *, seed: int = 0) -> Sizes | None:
    """Compares sizes of objects; None where training has none or fewer than 12 images have objects."""
    having = [np.log(one.sizes + 1e-3) for one in objects if len(one.sizes)]
    if training is None or len(having) < LEAST_IMAGES:
        return None
    shares = np.linspace(0.1, 0.9, 17)
    there = training.scaled(lambda value: np.log(np.asarray(value) + 1e-3)).at(shares)
    generator = np.random.default_rng(seed)

    def shift(rows: Sequence[FloatArray]) -> float:
        return float(np.mean(np.quantile(np.concatenate(rows), shares) - there))

    drawn = [shift([having[at] for at in generator.integers(0, len(having), len(having))]) for _ in range(_DRAWS // 2)]
    here = np.concatenate([one.sizes for one in objects if len(one.sizes)])
    return Sizes(float(np.median(here)), training.median, shift(having), float(np.std(drawn)), len(here))


def how_strange(vectors: FloatArray, training: Embedding, explained: FloatArray | None = None) -> Strangeness:
    """Measures how far features lie from training.

    Args:
        vectors: (n, D) of production.
        training: of training.
        explained: (D,) move that the causes found account for.
    """
    places = training.place(vectors)
    variance = float(places.var(axis=0, ddof=1).mean()) if len(places) > 1 else 1.0
    by_chance = variance / len(places) + 1 / training.count

    def middle(moved: FloatArray) -> float:
        return max(0.0, float((moved.mean(axis=0) ** 2).mean()) - by_chance)

    left = places if explained is None else training.place(vectors - explained)
    return Strangeness(middle(places), float((places**2).mean()), middle(left), len(places))
