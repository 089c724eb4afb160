# SPDX-License-Identifier: Apache-2.0
"""What is planted, and where: a fault with the rules that may come first, a model with its images."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from faults.cost import Wrong
from faults.pipeline import Model, Pipeline

__all__ = [
    "STRENGTHS",
    "Around",
    "Costed",
    "MakesBundle",
    "Plant",
    "Planted",
    "Scene",
    "copied",
    "drawn",
    "given",
    "scene",
]


@dataclass(frozen=True)
class Scene:
    """A model with its images.

    Attributes:
        name: of the model.
        bundle: it with its proof.
        checkpoint: that it was built from.
        pipeline: that is right.
        images: that it was not trained on.
        labels: folder of theirs.
        calibration: images that it was trained on.
        data: file that says where labelled images are.
        others: images of something else.
    """

    name: str
    bundle: Path
    checkpoint: Path
    pipeline: Pipeline
    images: tuple[Path, ...]
    labels: Path
    calibration: tuple[Path, ...]
    data: Path
    others: tuple[Path, ...] = ()

    def some(self, seed: int, most: int = 32) -> list[Path]:
        """Some of its images, drawn by chance."""
        draw = np.random.default_rng(seed)
        chosen = draw.permutation(len(self.images))[:most]
        return [self.images[n] for n in sorted(chosen.tolist())]


Plant = Callable[[Scene, Path, int], list[str]]
MakesBundle = Callable[[Scene, Path, int], Path]
Around = Callable[[Scene, Path, int], AbstractContextManager[str | None]]
"""Each is given a scene, an empty folder and a seed."""


@dataclass(frozen=True)
class Planted:
    """One fault in one place.

    Attributes:
        name: of the fault.
        family: what kind.
        right: rules that may come first; empty where nothing is wrong.
        plant: makes it in a folder, and returns what `shipsight doctor` is given behind the bundle, its first word `accuracy` or `speed`.
        strength: `weak`, `middle`, `strong`, or `-` where it has none.
        may_be_unseen: whether silence is right, too.
        models: in which it can be seen at all; empty for every one.
        cores: of processor time that the doctor's control group is held to, None for all.
        serves: makes the bundle of the server that is asked, None for no server.
        is_noted: whether a note will do, since what it costs is no accuracy and no speed.
        bundle: makes the bundle that is examined, None for the scene's own.
        environment: gives variables that the doctor's process has.
        before: words before the doctor's command.
        around: runs while the doctor does; gives what is examined in place of a bundle, or None.

    What plants it has `wrong` where labels can say what it costs.
    """

    name: str
    family: str
    right: frozenset[str]
    plant: Plant
    strength: str = "-"
    may_be_unseen: bool = False
    models: frozenset[str] = frozenset()
    cores: float | None = None
    serves: MakesBundle | None = None
    is_noted: bool = False
    bundle: MakesBundle | None = None
    environment: Callable[[], Mapping[str, str]] | None = None
    before: tuple[str, ...] = ()
    around: Around | None = None


STRENGTHS = ("weak", "middle", "strong")


def given(images: Path | list[Path], *more: object) -> list[str]:
    folder = images if isinstance(images, Path) else images[0].parent
    return ["accuracy", "--images", str(folder), *map(str, more)]


def copied(paths: list[Path], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for path in paths:
        shutil.copy(path, folder / path.name)
    return folder


@runtime_checkable
class Costed(Protocol):
    """Plants a fault, and gives the pipeline that has it."""

    def __call__(self, scene: Scene, folder: Path, seed: int) -> list[str]: ...

    def wrong(self, scene: Scene, folder: Path, seed: int) -> Wrong: ...


def drawn(strength: float, seed: int, place: int = 1) -> float:
    """A strength around the one that stands here; of shares one that is still a share."""
    return float(strength ** np.random.default_rng([seed, place]).uniform(0.85, 1.15))


def scene(name: str, bundle: Path, checkpoint: Path, names: tuple[str, ...], data: Path) -> Scene:
    """Returns a model with its images.

    Args:
        name: of it.
        bundle: it with its proof; its float variant is what others have exported.
        checkpoint: that it was built from.
        names: of its classes.
        data: folder with `images` and `labels`, each with a part for training and one for validation.
    """
    exported = next(
        path
        for path in sorted((bundle / "variants").glob("onnxruntime-fp32-*/model.onnx"))
        if not path.parent.name.endswith("u8")
    )
    size = int(exported.parent.name.rpartition("-")[2])
    parts = sorted((data / "images").iterdir())
    train = next(part for part in parts if part.name.startswith("train"))
    val = next(part for part in parts if part.name.startswith("val"))
    return Scene(
        name,
        bundle,
        checkpoint,
        Pipeline(Model(exported, (size, size), names)),
        tuple(sorted(path for path in val.iterdir() if path.suffix in {".jpg", ".png"})),
        data / "labels" / val.name,
        tuple(sorted(path for path in train.iterdir() if path.suffix in {".jpg", ".png"})),
        data / "data.yaml",
    )
