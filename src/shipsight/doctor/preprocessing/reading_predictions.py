# SPDX-License-Identifier: Apache-2.0
"""Predictions of another program: shipsight's own document, COCO results, or Ultralytics' `to_json`. Private to the room.

Leaves to others: whether they are right. Rule: what is told is taken as told; boxes may be anything finite.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shipsight.doctor.dataset.evidence import Boxes
from shipsight.errors import CorruptError, UsageError

__all__ = ["Told", "read_predictions"]

_MOST_BYTES = 2**28
_EXPECTED = "docs/formats/predictions.md, COCO results [{image_id, category_id, bbox, score}], or Ultralytics' to_json"
# Ids that COCO's 91 categories leave out of its 80.
_COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)


@dataclass(frozen=True, eq=False)
class Told:
    """What another program says of images.

    Attributes:
        images: position of the image among those given -> its boxes, as written.
        readings: tables from class id as written to class id, of which each is right in some data sets; {} changes nothing.
        is_coco: whether boxes were x, y, width, height as COCO has them, and were made corners here.
    """

    images: Mapping[int, Boxes]
    readings: tuple[Mapping[int, int], ...] = ({},)
    is_coco: bool = False


def read_predictions(path: Path, images: Sequence[Path]) -> Told:
    """Reads predictions, and finds the images that they are of by name.

    Args:
        path: JSON file.
        images: those that were given.

    Raises:
        CorruptError: it is none of the formats.
        UsageError: it is of none of the images, or two images have one name.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CorruptError("the predictions are too large", where=path, expected=f"at most {_MOST_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
        rows, readings, is_coco = _rows(document, images)
        boxes = {name: _boxes(found) for name, found in rows.items()}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, OSError) as error:
        got = f"{type(error).__name__}: {error}"[:200]
        raise CorruptError("not predictions", where=path, expected=_EXPECTED, got=got) from error
    places = _places(images)
    known = {places[name]: one for name, one in boxes.items() if name in places}
    if not known:
        got = ", ".join(list(boxes)[:3]) or "no image"
        raise UsageError(
            "the predictions are of none of the images", where="--images", expected="files of the same names", got=got
        )
    return Told(known, readings, is_coco)


Row = tuple[int, float, list[float]]


def _rows(document: Any, images: Sequence[Path]) -> tuple[dict[str, list[Row]], tuple[Mapping[int, int], ...], bool]:  # noqa: ANN401 - JSON
    if isinstance(document, Mapping) and "images" in document:
        found = {_stem(one["source"]): [_own(row) for row in one["predictions"]] for one in document["images"]}
        return found, ({},), False
    if isinstance(document, Mapping):
        return {_stem(name): [_theirs(row) for row in rows] for name, rows in document.items()}, ({},), False
    if not isinstance(document, list):
        raise TypeError("neither a mapping nor a list")
    if document and isinstance(document[0], Mapping) and "bbox" in document[0]:
        coco: dict[str, list[Row]] = {_number_of(path): [] for path in images}
        for row in document:
            coco.setdefault(_stem(row["image_id"]), []).append(_coco(row))
        gaps = {full: full - 1 - sum(gap < full for gap in _COCO_GAPS) for full in range(1, 91)}
        return coco, ({}, {number: number - 1 for number in range(1, 100_000)}, gaps), True
    lists = document if all(isinstance(one, list) for one in document) and document else [document]
    if len(lists) != len(images):
        raise ValueError(f"{len(lists)} lists for {len(images)} images")
    return (
        {_number_of(path): [_theirs(row) for row in rows] for path, rows in zip(images, lists, strict=True)},
        ({},),
        False,
    )


def _own(row: Mapping[str, Any]) -> Row:
    return int(row["class_id"]), float(row["score"]), [float(one) for one in row["box_xyxy"]]


def _theirs(row: Mapping[str, Any]) -> Row:
    box = row["box"]
    return int(row["class"]), float(row["confidence"]), [float(box[key]) for key in ("x1", "y1", "x2", "y2")]


def _coco(row: Mapping[str, Any]) -> Row:
    x, y, width, height = (float(one) for one in row["bbox"])
    return int(row["category_id"]), float(row["score"]), [x, y, x + width, y + height]


def _stem(name: object) -> str:
    if type(name) not in (str, int):
        raise TypeError(f"not the name of an image: {name!r:.40}")
    text = Path(str(name).replace("\\", "/")).stem
    # COCO's ids are its names without the zeros before.
    return text.lstrip("0") or "0" if text.isdigit() else text


def _number_of(path: Path) -> str:
    return _stem(path.name)


def _places(images: Sequence[Path]) -> dict[str, int]:
    places: dict[str, int] = {}
    for at, path in enumerate(images):
        if _number_of(path) in places:
            raise UsageError("two images have one name", where="--images", got=path.name)
        places[_number_of(path)] = at
    return places


def _boxes(rows: Sequence[Row]) -> Boxes:
    boxes = np.array([row[2] for row in rows], dtype=np.float64)
    scores = np.array([row[1] for row in rows], dtype=np.float64)
    boxes = boxes.reshape(len(rows), 4)
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("boxes or scores that are no numbers")
    order = np.argsort(-scores, kind="stable")
    return Boxes(np.array([row[0] for row in rows], dtype=np.int64)[order], scores[order], boxes[order])
