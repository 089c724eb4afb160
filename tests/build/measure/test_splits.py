# SPDX-License-Identifier: Apache-2.0
"""Three disjoint sets, chosen the same way each time."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shipsight.build.measure import Dataset, Labels, Sample, choose_calibration, split_dataset
from shipsight.errors import DatasetError, UsageError
from shipsight.model import Task

WriteImage = Callable[[Path, int], Path]


@pytest.fixture
def make_dataset(tmp_path: Path, write_image: WriteImage) -> Callable[..., Dataset]:
    def make(**counts: int) -> Dataset:
        splits = {}
        seed = 0
        for split, count in counts.items():
            samples = []
            for i in range(count):
                seed += 1
                class_ids = np.array([0] if i % 10 else [1, 0], dtype=np.int64)
                labels = Labels(class_ids, np.full((len(class_ids), 4), 0.5))
                samples.append(Sample(write_image(tmp_path / split / f"{i:03}.png", seed), labels))
            splits[split] = tuple(samples)
        return Dataset(Task.DETECT, ("common", "rare"), splits, None, tmp_path)

    return make


def images(samples: tuple[Sample, ...]) -> list[Path]:
    return [sample.image for sample in samples]


def test_sets_are_disjoint_and_repeatable(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset(train=200, val=20)
    splits = split_dataset(dataset, calibration_count=50, seed=3)
    assert (len(splits.calibration), len(splits.guard), len(splits.report)) == (50, 64, 20)
    together = images(splits.calibration + splits.guard + splits.report)
    assert len(set(together)) == len(together)
    again = split_dataset(dataset, calibration_count=50, seed=3)
    assert images(again.calibration) == images(splits.calibration)
    assert images(again.guard) == images(splits.guard)
    assert images(split_dataset(dataset, seed=4).guard) != images(splits.guard)


def test_guard_keeps_the_share_of_rare_classes(make_dataset: Callable[..., Dataset]) -> None:
    guard = split_dataset(make_dataset(train=100, val=2), guard_count=20).guard
    counts = Counter(class_id for sample in guard for class_id in sample.labels.class_ids.tolist())
    assert len(guard) == 20
    assert 2 <= counts[1] <= 4, "10 of 100 images hold the rare class"


@pytest.mark.parametrize(("train", "guard"), [(40, 20), (128, 64), (300, 75)])
def test_guard_is_a_quarter_but_at_least_64_and_at_most_half(
    make_dataset: Callable[..., Dataset], train: int, guard: int
) -> None:
    assert len(split_dataset(make_dataset(train=train, val=2)).guard) == guard


def test_named_guard_split_leaves_train_to_calibration(make_dataset: Callable[..., Dataset]) -> None:
    splits = split_dataset(make_dataset(train=30, val=5, test=10), guard_split="test")
    assert (len(splits.calibration), len(splits.guard)) == (30, 10)
    assert {image.parent.name for image in images(splits.guard)} == {"test"}


def test_same_bytes_are_not_used_twice(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset(train=30, val=5, test=10)
    for split, i, source in (("train", 3, "val"), ("train", 4, "test"), ("test", 5, "val"), ("train", 8, "train")):
        shutil.copyfile(dataset.splits[source][0].image, dataset.splits[split][i].image)
    splits = split_dataset(dataset, guard_split="test")
    assert len(splits.guard) == 9
    assert len(splits.calibration) == 27
    digests = [sample.digest for sample in splits.calibration + splits.guard + splits.report]
    assert len(set(digests)) == len(digests)
    codes = [warning.code for warning in splits.warnings]
    assert codes.count("duplicates-between-splits") == 3
    assert "duplicates-in-split" in codes


def test_missing_training_images_are_a_warning(make_dataset: Callable[..., Dataset]) -> None:
    splits = split_dataset(make_dataset(val=5))
    assert (splits.calibration, splits.guard, len(splits.report)) == ((), (), 5)
    assert [warning.code for warning in splits.warnings] == ["no-train-split"]


def test_training_images_that_are_the_validation_images_are_a_warning(make_dataset: Callable[..., Dataset]) -> None:
    val = make_dataset(val=5).splits["val"]
    dataset = Dataset(Task.DETECT, ("common", "rare"), {"train": val, "val": val}, None, Path("x"))
    splits = split_dataset(dataset)
    assert splits.calibration == ()
    assert {"duplicates-between-splits", "no-calibration-images"} <= {warning.code for warning in splits.warnings}


def test_wrong_use_is_refused(make_dataset: Callable[..., Dataset]) -> None:
    dataset = make_dataset(train=4, val=2)
    for bad in ("test", "val"):
        with pytest.raises(UsageError, match="not a split to guard with"):
            split_dataset(dataset, guard_split=bad)
    with pytest.raises(UsageError, match="calibration_count"):
        split_dataset(dataset, calibration_count=0)
    with pytest.raises(DatasetError, match="no images to report on"):
        split_dataset(make_dataset(train=4))


def test_calibration_is_diverse(tmp_path: Path) -> None:
    import cv2

    # Forty nearly equal dark images and three that stand out: these must be among the first four of six chosen.
    samples = []
    for i in range(43):
        image = np.full((40, 40, 3), 20, dtype=np.uint8)
        image[:3, : i % 40] = 24
        if i >= 40:
            image = np.full((40, 40, 3), [(250, 0, 0), (0, 250, 0), (0, 0, 250)][i - 40], dtype=np.uint8)
        path = tmp_path / f"{i}.png"
        assert cv2.imwrite(str(path), image)
        samples.append(Sample(path, Labels(np.zeros(0, np.int64), np.zeros((0, 4)))))
    chosen = choose_calibration(samples, 6)
    assert {"40.png", "41.png", "42.png"} <= {sample.image.name for sample in chosen[:4]}
    assert [sample.image for sample in choose_calibration(samples, 6)] == [sample.image for sample in chosen]
    assert [sample.image for sample in choose_calibration(samples, 7)][:6] == [sample.image for sample in chosen]
    assert len(choose_calibration(samples, 2, seed=1)) == 2, "drawn from a pool of sixteen"
    assert choose_calibration(samples, 100) == tuple(samples)


def test_damaged_image_is_named_when_calibration_is_chosen(tmp_path: Path) -> None:
    nothing = Labels(np.zeros(0, np.int64), np.zeros((0, 4)))
    (tmp_path / "a.jpg").write_bytes(b"no image")
    (tmp_path / "b.jpg").write_bytes(b"")
    for name in ("a.jpg", "b.jpg", "missing.jpg"):
        with pytest.raises(DatasetError, match=name):
            choose_calibration([Sample(tmp_path / name, nothing)] * 2, 1)
