# SPDX-License-Identifier: Apache-2.0
"""What a step returned, checked and read as predictions of the model.

Rules: the shape of `docs/formats/predictions.md` and nothing beside it; size and source of the image stay what they
were; classes are the model's; predictions come back by falling score. Stable.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from shipsight.errors import ShipsightError, StepError
from shipsight.model import ImagePredictions
from shipsight.model.predictions import decode_rle

__all__ = ["read_predictions"]


def read_predictions(entry: object, like: ImagePredictions) -> ImagePredictions:
    """Reads an entry of `images`.

    Args:
        entry: what the last step returned, as JSON has it.
        like: what the first was given.

    Raises:
        StepError: it is anything else; the message names the place.
    """
    is_classifier = like.probabilities is not None
    fields = _object(
        entry, "predictions", {"source", "width", "height", "probabilities" if is_classifier else "predictions"}
    )
    for name in ("source", "width", "height"):
        if fields[name] != getattr(like, name):
            raise _wrong(name, getattr(like, name), fields[name])
    if like.probabilities is not None:
        values = _numbers(fields["probabilities"], "probabilities", len(like.class_names), most=1.0)
        return replace(like, probabilities=np.array(values, dtype=np.float32))
    if not isinstance(fields["predictions"], list):
        raise _wrong("predictions", "a list", fields["predictions"])
    read = [_prediction(one, f"predictions[{i}]", like) for i, one in enumerate(fields["predictions"])]
    read.sort(key=lambda one: -one["score"])  # stable: equal scores stay as the step has them
    shapes = {"box_xyxy": (4,), "corners_xy": (4, 2), "keypoints_xyc": _keypoint_shape(like, read)}

    def column(key: str, has: object) -> Any:  # noqa: ANN401 - an array or None
        if has is None:
            return None
        return np.array([one[key] for one in read], dtype=np.float32).reshape(len(read), *shapes[key])

    masks = None
    if like.masks is not None:
        masks = np.zeros((len(read), like.height, like.width), dtype=np.bool_)
        for position, one in enumerate(read):
            masks[position] = one["mask"]
    return replace(
        like,
        class_ids=np.array([one["class_id"] for one in read], dtype=np.int64),
        scores=np.array([one["score"] for one in read], dtype=np.float32),
        boxes_xyxy=column("box_xyxy", like.boxes_xyxy),
        corners_xy=column("corners_xy", like.corners_xy),
        keypoints_xyc=column("keypoints_xyc", like.keypoints_xyc),
        masks=masks,
    )


def _prediction(value: object, where: str, like: ImagePredictions) -> dict[str, Any]:
    readers: dict[str, Callable[[object, str], Any]] = {
        "class_id": lambda one, at: _class_id(one, at, like),
        "class_name": lambda one, at: one,
        "score": lambda one, at: _numbers([one], at, 1, most=1.0)[0],
    }
    if like.boxes_xyxy is not None:
        readers["box_xyxy"] = lambda one, at: _numbers(one, at, 4)
    if like.corners_xy is not None:
        readers["corners_xy"] = lambda one, at: _rows(one, at, 2, 4)
    if like.keypoints_xyc is not None:
        readers["keypoints_xyc"] = lambda one, at: _rows(one, at, 3, None)
    if like.masks is not None:
        readers["mask"] = lambda one, at: _mask(one, at, like)
    fields = _object(value, where, set(readers))
    read = {name: reader(fields[name], f"{where}.{name}") for name, reader in readers.items()}
    if read["class_name"] != like.class_names[read["class_id"]]:
        raise _wrong(f"{where}.class_name", like.class_names[read["class_id"]], read["class_name"])
    return read


def _keypoint_shape(like: ImagePredictions, read: list[dict[str, Any]]) -> tuple[int, int]:
    if like.keypoints_xyc is None:
        return (0, 3)
    counts = {len(one["keypoints_xyc"]) for one in read}
    if len(like.keypoints_xyc):
        counts.add(like.keypoints_xyc.shape[1])
    if len(counts) > 1:
        raise _wrong("keypoints_xyc", "as many points in each", sorted(counts))
    return (next(iter(counts), like.keypoints_xyc.shape[1]), 3)


def _class_id(value: object, where: str, like: ImagePredictions) -> int:
    if type(value) is not int or not 0 <= value < len(like.class_names):
        raise _wrong(where, f"0 to {len(like.class_names) - 1}", value)
    return value


def _mask(value: object, where: str, like: ImagePredictions) -> Any:  # noqa: ANN401 - a boolean array
    fields = _object(value, where, {"size_hw", "counts"})
    if fields["size_hw"] != [like.height, like.width] or not isinstance(fields["counts"], str):
        raise _wrong(where, f"size_hw [{like.height}, {like.width}] and counts", fields["size_hw"])
    try:
        return decode_rle(fields["counts"], (like.height, like.width))
    except ShipsightError as error:
        raise _wrong(where, "COCO run lengths", error) from error


def _rows(value: object, where: str, width: int, count: int | None) -> list[list[float]]:
    if not isinstance(value, list) or (count is not None and len(value) != count):
        raise _wrong(where, f"{'rows' if count is None else count} of {width} numbers", value)
    return [_numbers(row, f"{where}[{i}]", width) for i, row in enumerate(value)]


def _numbers(value: object, where: str, count: int, *, most: float | None = None) -> list[float]:
    is_right = isinstance(value, list) and len(value) == count and all(type(one) in (int, float) for one in value)
    if not is_right or not all(math.isfinite(one) for one in value):  # type: ignore[attr-defined]
        raise _wrong(where, f"{count} finite numbers", value)
    found = [float(one) for one in value]  # type: ignore[attr-defined]
    if most is not None and not all(0 <= one <= most for one in found):
        raise _wrong(where, f"0 to {most:g}", value)
    return found


def _object(value: object, where: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != keys:
        raise _wrong(
            where, f"an object with {', '.join(sorted(keys))}", sorted(value) if isinstance(value, dict) else value
        )
    return value


def _wrong(where: str, expected: object, got: object) -> StepError:
    return StepError(
        "the steps returned no predictions of this model", where=where, expected=expected, got=repr(got)[:200]
    )
