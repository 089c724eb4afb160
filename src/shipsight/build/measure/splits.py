# SPDX-License-Identifier: Apache-2.0
"""Three disjoint sets of images: calibration, guard and report.

What for: INT8 ranges come from the calibration images, decisions about INT8 look at the guard images, and the numbers
that people read come from the report images; no image serves two of them. Leaves to others: reading the data set
(`dataset`), what the sets are used for (`build.optimize`, `accuracy`). Invariants: disjoint by path and by the bytes
of the image file; the same data set, counts and seed give the same sets. Stable.

Source: farthest-point choice after Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure.dataset import Dataset, DatasetWarning, Sample
from shipsight.errors import DatasetError, MissingDependencyError, UsageError

__all__ = ["CALIBRATION_COUNT", "Splits", "choose_calibration", "split_dataset"]

CALIBRATION_COUNT = 300
"""Calibration images asked for by default; fewer give the warning `few-calibration-images`."""

_GUARD_RANGE = (64, 300)
_GUARD_SHARE = 0.25
_POOL_FACTOR = 8
"""At most this many images per calibration image are looked at; the pool is drawn at random, by the seed."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Three disjoint sets of images.

    Attributes:
        calibration: for INT8 ranges; empty where the data set has no training images of its own.
        guard: what decisions about INT8 look at; empty where there are none.
        report: what published numbers are measured on: the whole validation split.
        warnings: what a reader of the numbers should know.
    """

    calibration: tuple[Sample, ...]
    guard: tuple[Sample, ...]
    report: tuple[Sample, ...]
    warnings: tuple[DatasetWarning, ...] = ()


def split_dataset(
    dataset: Dataset,
    *,
    guard_split: str | None = None,
    guard_count: int | None = None,
    calibration_count: int = CALIBRATION_COUNT,
    seed: int = 0,
) -> Splits:
    """Divides a data set into calibration, guard and report images.

    Args:
        dataset: with at least a `val` (or `test`) split.
        guard_split: split to guard with; None (default) holds the guard out of `train`.
        guard_count: most guard images; None (default) takes a quarter of `train`, at least 64 and at most 300, but
            never more than half of it; of a named split, all up to 300.
        calibration_count: most calibration images, 1 and more.
        seed: of every random choice.

    Returns:
        The sets. An image whose bytes also stand in a set further right of (calibration, guard, report) is left out
        of the set further left, with a warning `duplicates-between-splits`.

    Raises:
        DatasetError: there is no split to report on.
        UsageError: a count is below 1, or `guard_split` is not a split, or is the one reported on.
    """
    for name, count in (("guard_count", guard_count), ("calibration_count", calibration_count)):
        if count is not None and count < 1:
            raise UsageError("too few images", where=name, expected="1 or more", got=count)
    report_split = next((name for name in ("val", "test") if name in dataset.splits), None)
    if report_split is None:
        raise DatasetError("no images to report on", where=dataset.origin, expected="a split `val` or `test`")
    if guard_split is not None and (guard_split not in dataset.splits or guard_split == report_split):
        others = sorted(set(dataset.splits) - {report_split})
        raise UsageError("not a split to guard with", where="guard_split", expected=others, got=guard_split)
    report = dataset.splits[report_split]
    warnings: list[DatasetWarning] = []
    train = _without(dataset.splits.get("train", ()), report, ("train", report_split), warnings)
    rng = np.random.default_rng(seed)
    if guard_split is None or guard_split == "train":
        wanted = guard_count if guard_count is not None else _default_guard_count(len(train))
        guard = _hold_out(train, min(wanted, len(train) // 2), rng)
        held = set(map(id, guard))
        rest = tuple(sample for sample in train if id(sample) not in held)
    else:
        pool = _without(dataset.splits[guard_split], report, (guard_split, report_split), warnings)
        guard = _hold_out(pool, min(guard_count or _GUARD_RANGE[1], len(pool)), rng)
        rest = train
    rest = _without(rest, guard, ("train", "guard"), warnings)
    calibration = choose_calibration(rest, calibration_count, seed=seed)
    warnings += _describe(calibration, guard, dataset)
    return Splits(calibration, guard, report, tuple(warnings))


def _default_guard_count(train_count: int) -> int:
    low, high = _GUARD_RANGE
    return min(max(round(_GUARD_SHARE * train_count), low), high)


def _describe(calibration: Sequence[Sample], guard: Sequence[Sample], dataset: Dataset) -> list[DatasetWarning]:
    warnings = []
    if "train" not in dataset.splits:
        text = "the data set has no training split: there are no images to calibrate INT8 with"
        warnings.append(DatasetWarning("no-train-split", text))
    elif not calibration:
        text = "no training image is left to calibrate INT8 with: all of them serve to guard or to report"
        warnings.append(DatasetWarning("no-calibration-images", text))
    elif len(calibration) < CALIBRATION_COUNT:
        text = f"{len(calibration)} calibration images; {CALIBRATION_COUNT} or more are recommended"
        warnings.append(DatasetWarning("few-calibration-images", text))
    if guard and len(guard) < _GUARD_RANGE[0]:
        text = f"{len(guard)} guard images; differences below a point of mAP can hardly be told on so few"
        warnings.append(DatasetWarning("few-guard-images", text))
    return warnings


def _without(
    samples: Sequence[Sample], others: Sequence[Sample], names: tuple[str, str], warnings: list[DatasetWarning]
) -> tuple[Sample, ...]:
    """Returns the samples whose image bytes are not among the others', and each of their own once.

    Only files of a size that occurs twice are hashed: large sets cost a `stat` an image.
    """
    sizes = Counter(_size(sample) for sample in others)
    own_sizes = Counter(_size(sample) for sample in samples)
    digests = {sample.digest for sample in others if own_sizes[_size(sample)]}
    kept: list[Sample] = []
    shared = repeated = 0
    seen: set[str] = set()
    for sample in samples:
        size = _size(sample)
        if sizes[size] == 0 and own_sizes[size] == 1:
            kept.append(sample)
        elif sample.digest in digests:
            shared += 1
        elif sample.digest in seen:
            repeated += 1
        else:
            seen.add(sample.digest)
            kept.append(sample)
    if shared:
        text = f"{shared} images of {names[0]} also stand in {names[1]}; they are not used for {names[0]}"
        warnings.append(DatasetWarning("duplicates-between-splits", text))
    if repeated:
        text = f"{repeated} images of {names[0]} repeat another one there; each is used once"
        warnings.append(DatasetWarning("duplicates-in-split", text))
    return tuple(kept)


def _size(sample: Sample) -> int:
    try:
        return sample.image.stat().st_size
    except OSError as error:
        raise DatasetError("image cannot be read", where=sample.image, got=error) from error


def _hold_out(samples: Sequence[Sample], count: int, rng: np.random.Generator) -> tuple[Sample, ...]:
    """Picks images so that every class keeps roughly its share, the rarest class served first.

    Walks the classes from the rarest to the most frequent, picking shuffled images that hold the class until the class
    has its share of objects; images without objects fill up what is left.
    """
    if count >= len(samples):
        return tuple(samples)
    order = rng.permutation(len(samples))
    counts = [Counter(samples[i].labels.class_ids.tolist()) for i in range(len(samples))]
    total = sum(counts, Counter())
    share = count / len(samples)
    chosen: dict[int, None] = {}
    have: Counter[int] = Counter()
    for class_id, number in sorted(total.items(), key=lambda item: (item[1], item[0])):
        for i in order:
            if len(chosen) >= count or have[class_id] >= share * number:
                break
            if int(i) not in chosen and counts[i][class_id]:
                chosen[int(i)] = None
                have += counts[i]
    rest = [int(i) for i in order if int(i) not in chosen]
    background_first = sorted(rest, key=lambda i: bool(counts[i]))
    wanted_background = round(share * sum(not one for one in counts))
    for i in background_first[:wanted_background] + rest:
        if len(chosen) >= count:
            break
        chosen[i] = None
    return tuple(samples[i] for i in sorted(chosen))


def choose_calibration(samples: Sequence[Sample], count: int, *, seed: int = 0) -> tuple[Sample, ...]:
    """Chooses images that differ from each other as much as possible.

    Greedy farthest-point choice over small colour thumbnails and brightness and edge statistics: starts from the image
    nearest the mean and adds the image farthest from all chosen ones. Of very many images a pool of 8 times `count` is
    drawn at random first, by the seed.

    Args:
        samples: to choose from.
        count: most images to choose, 1 and more.
        seed: of the pool.

    Returns:
        All samples where there are no more than `count`, in their order; else `count` of them, in the order chosen,
        so that any beginning of it is a diverse choice too.

    Raises:
        DatasetError: an image cannot be read.
        MissingDependencyError: OpenCV is not installed.
    """
    if len(samples) <= count:
        return tuple(samples)
    pool = list(samples)
    if len(pool) > count * _POOL_FACTOR:
        picked = np.random.default_rng(seed).permutation(len(pool))[: count * _POOL_FACTOR]
        pool = [pool[i] for i in sorted(picked.tolist())]
    features = np.stack([_features(sample) for sample in pool])
    features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    chosen = [int(np.argmin((features**2).sum(axis=1)))]
    distance = np.full(len(pool), np.inf)
    while len(chosen) < count:
        distance = np.minimum(distance, ((features - features[chosen[-1]]) ** 2).sum(axis=1))
        distance[chosen] = -1.0
        chosen.append(int(np.argmax(distance)))
    return tuple(pool[i] for i in chosen)


def _features(sample: Sample) -> NDArray[np.float64]:
    """Describes an image cheaply: 8 x 8 colour thumbnail, spread of each channel, share of edges, shape."""
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "opencv is not installed", where="cv2", hint="Run pip install opencv-python-headless."
        ) from error
    try:
        data = np.frombuffer(sample.image.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise DatasetError("image cannot be read", where=sample.image, got=error) from error
    # A quarter of the size is decoded: a JPEG decoder does that at a fraction of the cost.
    image = cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_4) if data.size else None
    if image is None:
        raise DatasetError("image is damaged or of an unknown format", where=sample.image)
    thumbnail = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float64)
    grey = cv2.cvtColor(cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    edges = np.abs(np.diff(grey.astype(np.float64), axis=1)).mean()
    spread = image.reshape(-1, 3).std(axis=0)
    shape = np.log(image.shape[0] / image.shape[1])
    return np.concatenate([thumbnail.ravel(), spread, [edges, shape]])
