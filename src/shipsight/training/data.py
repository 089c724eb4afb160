# SPDX-License-Identifier: Apache-2.0
"""The images of a training, as Ultralytics wants them, beside nobody's data: it writes caches where labels lie.

Links to the user's files stand in a folder of the run. The images that figures are published of (the report) are not there at all. Private to the room.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from shipsight.build.measure import Dataset, Sample, label_file
from shipsight.model import Card, Task

__all__ = ["link_data"]


def link_data(folder: Path, dataset: Dataset, card: Card, parts: Mapping[str, Sequence[Sample]]) -> Path:
    """Writes the folder anew and returns what Ultralytics is given as `data`.

    Args:
        folder: for it; what lies there goes.
        dataset: that the images are of.
        card: what the model is.
        parts: images by `train` and `val`.
    """
    if folder.exists():
        shutil.rmtree(folder)
    for part, samples in parts.items():
        for number, sample in enumerate(samples):
            name = f"{number:06}{sample.image.suffix.lower()}"
            if card.task is Task.CLASSIFY:
                _link(sample.image, folder / part / card.class_names[int(sample.labels.class_ids[0])] / name)
                continue
            _link(sample.image, folder / "images" / part / name)
            labels = label_file(sample.image)
            if labels.exists():
                _link(labels, folder / "labels" / part / f"{number:06}.txt")
    if card.task is Task.CLASSIFY:
        for part in parts:
            for name in card.class_names:
                (folder / part / name).mkdir(parents=True, exist_ok=True)
        return folder
    told: dict[str, Any] = {
        "path": str(folder.resolve()),
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(card.class_names)),
    }
    if dataset.keypoint_shape is not None:
        told["kpt_shape"] = list(dataset.keypoint_shape)
        flipped = _read(dataset.origin).get("flip_idx")
        if flipped is not None:  # without it Ultralytics mirrors no image, rather than calling left hands right
            told["flip_idx"] = flipped
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
    return file


def _read(file: Path) -> dict[str, Any]:
    told = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    return told if isinstance(told, dict) else {}


def _link(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(source.resolve())
