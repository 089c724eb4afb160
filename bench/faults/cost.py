# SPDX-License-Identifier: Apache-2.0
"""What a planted fault costs, by labels: decided before the doctor is asked, and without it.

The same fault goes through the same pipeline over all labelled images that the model was not trained on, at most 64 of them. Its loss is mAP50-95
of the right pipeline less that of the wrong one, with the paired 95 % interval over images. Predictions from a score of 0.05 on, where the fault is not
the score itself: less is true of both.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from faults.pipeline import NothingComesOutError, Pipeline
from shipsight.build.measure import Accuracy, Interval, Sample, compare, evaluate, load_dataset
from shipsight.model import ImagePredictions, Task

__all__ = ["Wrong", "loss"]

MOST = 64
_SCORE = 0.05


@dataclasses.dataclass(frozen=True)
class Wrong:
    """A pipeline with a fault.

    Attributes:
        pipeline: it.
        file: where it finds an image: the image itself, or what a camera made of it.
    """

    pipeline: Pipeline
    file: Callable[[Path], Path] = lambda path: path


@cache
def _samples(data: Path, names: tuple[str, ...]) -> tuple[Sample, ...]:
    return load_dataset(data, Task.DETECT, class_names=names).splits["val"][:MOST]


@cache
def _right(pipeline: Pipeline, data: Path) -> Accuracy:
    return _accuracy(Wrong(dataclasses.replace(pipeline, conf=_SCORE, geometry={})), data)


def _accuracy(wrong: Wrong, data: Path) -> Accuracy:
    names = wrong.pipeline.model.names
    samples = _samples(data, names)
    return evaluate(
        [_predictions(wrong, one.image, names) for one in samples], samples, task=Task.DETECT, class_names=names
    )


def _predictions(wrong: Wrong, image: Path, names: tuple[str, ...]) -> ImagePredictions:
    from PIL import Image

    found = wrong.pipeline.predictions(wrong.file(image))
    with Image.open(image) as opened:
        width, height = opened.size
    seen_h, seen_w = wrong.pipeline.geometry["shape"]
    boxes = np.array([one["box_xyxy"] for one in found], np.float32).reshape(-1, 4)
    scores = np.array([one["score"] for one in found], np.float32)
    return ImagePredictions(
        image.name,
        width,
        height,
        names,
        np.array([one["class_id"] for one in found], np.int64),
        np.nan_to_num(scores, nan=0.0),
        np.nan_to_num(boxes * np.float32([width / seen_w, height / seen_h] * 2), nan=0.0, posinf=0.0, neginf=0.0),
    )


def loss(right: Pipeline, data: Path, make: Callable[[Path], Wrong]) -> Interval | None:
    """Returns what a fault costs; None where nothing comes out of the wrong pipeline, which costs all.

    Args:
        right: the pipeline without the fault.
        data: `data.yaml` of labelled images.
        make: plants the fault, with a folder for what it needs.
    """
    before = _right(right, data)
    with tempfile.TemporaryDirectory(prefix="shipsight-cost-") as folder:
        wrong = make(Path(folder))
        pipeline = wrong.pipeline
        if pipeline.conf == right.conf:
            pipeline = dataclasses.replace(pipeline, conf=_SCORE, geometry={})
        try:
            after = _accuracy(Wrong(pipeline, wrong.file), data)
        except NothingComesOutError:
            return None
    return compare(before, after)
