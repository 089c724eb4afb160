# SPDX-License-Identifier: Apache-2.0
"""Small data sets, and predictions made from their labels with seeded mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from shipsight.build.measure import Labels, Sample
from shipsight.model import ImagePredictions

SIZE_WH = (320, 240)
CLASS_NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture
def write_image() -> Callable[[Path, int], Path]:
    """Writes a small image that differs by seed."""
    import cv2

    def write(path: Path, seed: int) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        ok = cv2.imwrite(str(path), cv2.resize(small, (48, 36), interpolation=cv2.INTER_CUBIC))
        assert ok
        return path

    return write


def _random_labels(rng: np.random.Generator, count: int) -> Labels:
    """Boxes of all of COCO's sizes, as corners relative to the image."""
    size = np.exp(rng.uniform(np.log(0.03), np.log(0.7), (count, 2)))
    centre = size / 2 + rng.random((count, 2)) * (1 - size)
    return Labels(rng.integers(0, len(CLASS_NAMES), count), np.concatenate([centre, size], axis=1))


def _box_samples(count: int, *, seed: int = 0) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [Sample(Path(f"{i}.jpg"), _random_labels(rng, int(rng.integers(0, 12)))) for i in range(count)]


def _perturbed_boxes(
    samples: Sequence[Sample], *, seed: int, noise: float = 0.08, extra: int = 30
) -> list[ImagePredictions]:
    """Labels moved by noise, some lost, some classes wrong, false ones added, scores drawn; several equal on purpose."""
    rng = np.random.default_rng(seed)
    width, height = SIZE_WH
    result = []
    for sample in samples:
        labels = sample.labels
        boxes = labels.boxes_cxcywh * [width, height, width, height]
        boxes = boxes + rng.normal(0, noise, boxes.shape) * boxes[:, [2, 3, 2, 3]]
        boxes = np.concatenate([boxes, boxes + rng.normal(0, 2, boxes.shape)])
        boxes[:, 2:] = np.maximum(np.abs(boxes[:, 2:]), 1.0)
        class_ids = np.concatenate([labels.class_ids, labels.class_ids])
        kept = rng.random(len(boxes)) < 0.7
        boxes, class_ids = boxes[kept], class_ids[kept]
        wrong = rng.random(len(boxes)) < 0.1
        class_ids = np.where(wrong, (class_ids + 1) % len(CLASS_NAMES), class_ids)
        false = np.concatenate([rng.random((extra, 2)) * SIZE_WH, 5 + rng.random((extra, 2)) * 100], axis=1)
        boxes = np.concatenate([boxes, false])
        class_ids = np.concatenate([class_ids, rng.integers(0, len(CLASS_NAMES), extra)])
        scores = np.concatenate([rng.beta(4, 2, int(kept.sum())), rng.beta(1, 5, extra)]).round(3)
        order = np.argsort(-scores, kind="stable")
        xyxy = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
        result.append(
            ImagePredictions(
                source=str(sample.image),
                width=width,
                height=height,
                class_names=CLASS_NAMES,
                class_ids=class_ids[order].astype(np.int64),
                scores=scores[order].astype(np.float32),
                boxes_xyxy=xyxy[order].astype(np.float32),
            )
        )
    return result


@pytest.fixture
def box_samples() -> Callable[..., list[Sample]]:
    """Makes samples with random boxes; takes the count and a seed."""
    return _box_samples


@pytest.fixture
def perturbed_boxes() -> Callable[..., list[ImagePredictions]]:
    """Makes predictions from samples; takes a seed, `noise` of the boxes and `extra` false ones an image."""
    return _perturbed_boxes
