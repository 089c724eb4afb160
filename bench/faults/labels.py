# SPDX-License-Identifier: Apache-2.0
"""Labels that are wrong, or of which another program reported another accuracy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from faults.planting import STRENGTHS, Planted, Scene, copied, drawn, given

__all__ = ["commonest_class", "labelled", "read_labels", "wrong_labels"]

Row = list[float]
Rewrite = Callable[[list[Row], np.random.Generator], list[Row]]
"""Changes the labels of one image: class, centre and size as shares of the image."""


def read_labels(path: Path) -> list[Row]:
    return [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]


def commonest_class(scene: Scene) -> int:
    """The class that has most labels."""
    files = sorted(scene.labels.glob("*.txt"))
    return Counter(int(row[0]) for path in files for row in read_labels(path)).most_common(1)[0][0]


def labelled(images: list[Path], scene: Scene, folder: Path, rewrite: Rewrite, seed: int) -> list[str]:
    """Writes images with their labels, the latter changed."""
    draw = np.random.default_rng(seed)
    (folder / "labels").mkdir()
    for path in images:
        rows = read_labels(scene.labels / f"{path.stem}.txt") if (scene.labels / f"{path.stem}.txt").exists() else []
        lines = [" ".join([str(int(row[0])), *(f"{one:.6f}" for one in row[1:])]) for row in rewrite(rows, draw)]
        (folder / "labels" / f"{path.stem}.txt").write_text("\n".join(lines))
    return given(copied(images, folder / "images"), "--labels", folder / "labels")


def _planted(make: Callable[[Scene], Rewrite]) -> Callable[[Scene, Path, int], list[str]]:
    return lambda scene, folder, seed: labelled(scene.some(seed, 64), scene, folder, make(scene), seed)


def _other_order(scene: Scene) -> Rewrite:
    """Numbers of a list of names that stands in another order."""
    count = len(scene.pipeline.model.names)
    return lambda rows, draw: [[(row[0] + 1) % count, *row[1:]] for row in rows]


def _moved(share: float) -> Callable[[Scene], Rewrite]:
    """Boxes of images that had been cropped after they were labelled."""

    def move(row: Row) -> Row:
        middle = [min(at + share, 1 - side / 2) for at, side in zip(row[1:3], row[3:], strict=True)]
        return [row[0], *middle, *row[3:]]

    return lambda scene: lambda rows, draw: [move(row) for row in rows]


def _forgotten(kept: float) -> Callable[[Scene], Rewrite]:
    """Somebody labelled in a hurry."""
    return lambda scene: lambda rows, draw: [row for row in rows if draw.random() < kept]


def wrong_labels() -> Iterator[Planted]:
    """Yields labels that are wrong."""
    wrong = frozenset({"labels-suspect"})
    yield Planted("labels in another order of classes", "labels", wrong, _planted(_other_order))
    for word, share in zip(STRENGTHS, (0.012, 0.03, 0.06), strict=True):
        yield Planted(
            "labels are moved",
            "labels",
            wrong,
            lambda scene, folder, seed, share=share: _planted(_moved(drawn(share, seed)))(scene, folder, seed),
            word,
            may_be_unseen=word == "weak",
        )
    for word, kept in zip(STRENGTHS, (0.8, 0.5, 0.3), strict=True):
        yield Planted(
            "objects without a label",
            "labels",
            frozenset({"accuracy-below-reference"}),
            _planted(_forgotten(kept)),
            word,
            may_be_unseen=word == "weak",
        )
    # What training reported of yolo11n is of another data set.
    yield Planted(
        "training's own mAP",
        "labels",
        frozenset({"metric-definition-differs"}),
        lambda scene, folder, seed: labelled(list(scene.images), scene, folder, lambda rows, draw: rows, seed),
        models=frozenset({"bccd"}),
        is_noted=True,
    )
