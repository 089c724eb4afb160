# SPDX-License-Identifier: Apache-2.0
"""The digits bundle with what a build with data adds (statistics of training images, golden images), and sets of production images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from shipsight.doctor import Case, Finding, by_weight
from shipsight.doctor.data import DataEvidence, DataExamination
from shipsight.model.bundle import open_bundle, write_bundle
from shipsight.model.manifest import GoldenInfo
from shipsight.proof import TrainingImage, collect_statistics
from shipsight.proof.arrays import write_png

__all__ = ["SIZE", "add_training", "diagnose", "write_images"]

Image = NDArray[np.uint8]
Scenes = Callable[[int, int], tuple[Any, Any]]
SIZE = 256
_TRAINING = 96
_GOLDEN = 8


def add_training(bundle: Path, place: Path, scenes: Scenes) -> Path:
    """Writes the bundle anew with statistics of scenes and with golden images."""
    opened = open_bundle(bundle)
    images = []
    folder = place.parent / "training"
    folder.mkdir()
    for seed in range(_TRAINING):
        pixels, labels = scenes(10_000 + seed, SIZE)
        path = folder / f"{seed:03d}.png"
        cv2.imwrite(str(path), pixels[..., ::-1])
        boxes = np.array([[row[3] - row[1], row[4] - row[2]] for row in labels], dtype=np.float64).reshape(-1, 2) / SIZE
        images.append(TrainingImage(path, [int(row[0]) for row in labels], boxes))
    reference = next(one for one in opened.variants if one.is_reference)
    model = next(iter(opened.variant_files(reference.name).values()))
    files: dict[str, bytes | Path] = {name: opened.read(name) for name in opened.names}
    statistics = collect_statistics(images, opened.card.with_size(reference.size_hw), reference_onnx=model)
    files["proof/training-stats.json"] = json.dumps(statistics).encode()
    index = opened.read_json("proof/golden/golden.json")
    for number in range(_GOLDEN):
        key = f"image-{number:02d}"
        files[f"proof/golden/inputs/{key}.png"] = write_png(np.ascontiguousarray(scenes(20_000 + number, SIZE)[0]))
        index["inputs"].append({"key": key, "kind": "images", "made_from": {"reduced_by": 1}})
    files["proof/golden/golden.json"] = json.dumps(index).encode()
    write_bundle(
        place,
        files,
        card=opened.card,
        variants=opened.variants,
        default_variant=opened.default_variant.name,
        golden=GoldenInfo(kind="both", images=_GOLDEN, synthetic=opened.manifest.golden.synthetic),
    )
    return place


def write_images(folder: Path, images: Sequence[Image], *, quality: int | None = None) -> tuple[Path, ...]:
    """Writes RGB pixels as PNG files, or as JPEG files of a quality, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(images):
        path = folder / (f"{number:04d}.png" if quality is None else f"{number:04d}.jpg")
        options = [] if quality is None else [cv2.IMWRITE_JPEG_QUALITY, quality]
        cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]), options)
        paths.append(path)
    return tuple(paths)


class _Counting:
    """A progress that checks what it is told."""

    def __init__(self) -> None:
        self.done = 0

    def plan(self, cost: float) -> None:
        assert cost > 0

    def step(self, text: str, cost: float = 1.0) -> None:
        assert text

    def part(self, done: int, total: int) -> None:
        assert self.done <= done <= total
        self.done = done

    def note(self, text: str) -> None:
        assert text


def diagnose(bundle: Path, images: tuple[Path, ...], **more: Any) -> tuple[list[Finding], DataEvidence]:
    """Returns the findings of the examination, by weight, and its evidence."""
    opened = open_bundle(bundle)
    case = Case(opened, opened.default_variant, images, **more)
    examination = DataExamination()
    assert examination.lacks(case) is None
    evidence = examination.collect(case, _Counting())
    return by_weight(one for rule in examination.rules for one in rule.look(evidence)), evidence
