# SPDX-License-Identifier: Apache-2.0
"""Predictions: what a model says of an image, in the pixels of the original image (after EXIF orientation).

Leaves to others: making them (`vision`), drawing and conversion to other libraries (`vision.draw`,
`vision.supervision`). Invariants: parallel arrays of one length, validated once; sorted by falling score where a model
suppresses. The one shape for machines is `to_dict`, described in `docs/formats/predictions.md`. Stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import CorruptError, TensorError

__all__ = ["ImagePredictions", "Predictions", "decode_rle", "encode_rle"]

FloatArray = NDArray[np.float32]

# What is read may come from anywhere: these bound what it can make us allocate.
_MOST_CLASSES = 100_000
_MOST_PIXELS = 2**28
_MOST_MASK_PIXELS = 2**32
_EXPECTED = "predictions as docs/formats/predictions.md has them"


@dataclass(frozen=True, eq=False)
class ImagePredictions:
    """What a model says of one image.

    Attributes:
        source: what the caller called the image (a path, a name), or None.
        width: of the original image in pixels.
        height: of the original image in pixels.
        class_names: of the model; position = class id.
        class_ids: (N,) int64.
        scores: (N,) float32 in [0, 1].
        boxes_xyxy: (N, 4) float32 x0, y0, x1, y1; None for obb and classify.
        corners_xy: (N, 4, 2) float32, obb only.
        keypoints_xyc: (N, K, 3) float32 x, y, confidence, pose only.
        masks: (N, height, width) bool, segment only.
        probabilities: (classes,) float32, classify only; then N is 0.
        track_ids: (N,) int64 from 1, where the image is a frame of a stream that is tracked.
    """

    source: str | None
    width: int
    height: int
    class_names: tuple[str, ...]
    class_ids: NDArray[np.int64]
    scores: FloatArray
    boxes_xyxy: FloatArray | None = None
    corners_xy: FloatArray | None = None
    keypoints_xyc: FloatArray | None = None
    masks: NDArray[np.bool_] | None = None
    probabilities: FloatArray | None = None
    track_ids: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        count = len(self.class_ids)
        shapes: list[tuple[str, NDArray[Any] | None, tuple[int, ...]]] = [
            ("class_ids", self.class_ids, (count,)),
            ("scores", self.scores, (count,)),
            ("boxes_xyxy", self.boxes_xyxy, (count, 4)),
            ("corners_xy", self.corners_xy, (count, 4, 2)),
            ("masks", self.masks, (count, self.height, self.width)),
            ("probabilities", self.probabilities, (len(self.class_names),)),
            ("track_ids", self.track_ids, (count,)),
        ]
        for name, array, shape in shapes:
            if array is not None and array.shape != shape:
                raise TensorError("array has another shape", where=name, expected=shape, got=array.shape)
        points = self.keypoints_xyc
        if points is not None and (points.ndim != 3 or points.shape[0] != count or points.shape[2] != 3):
            raise TensorError(
                "array has another shape", where="keypoints_xyc", expected=(count, "K", 3), got=points.shape
            )

    def __len__(self) -> int:
        return len(self.class_ids)

    def select(self, index: NDArray[Any] | slice) -> ImagePredictions:
        """Returns the predictions that an index or boolean mask over N picks."""

        def pick(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if array is None else array[index]

        return ImagePredictions(
            source=self.source,
            width=self.width,
            height=self.height,
            class_names=self.class_names,
            class_ids=self.class_ids[index],
            scores=self.scores[index],
            boxes_xyxy=pick(self.boxes_xyxy),
            corners_xy=pick(self.corners_xy),
            keypoints_xyc=pick(self.keypoints_xyc),
            masks=pick(self.masks),
            probabilities=self.probabilities,
            track_ids=pick(self.track_ids),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns one entry of `images` (`docs/formats/predictions.md`)."""
        entry: dict[str, Any] = {"source": self.source, "width": self.width, "height": self.height}
        if self.probabilities is not None:
            entry["probabilities"] = [float(p) for p in self.probabilities]
            return entry
        entry["predictions"] = [self._prediction(i) for i in range(len(self))]
        return entry

    def _prediction(self, i: int) -> dict[str, Any]:
        class_id = int(self.class_ids[i])
        one: dict[str, Any] = {
            "class_id": class_id,
            "class_name": self.class_names[class_id],
            "score": float(self.scores[i]),
        }
        if self.track_ids is not None:
            one["track_id"] = int(self.track_ids[i])
        if self.boxes_xyxy is not None:
            one["box_xyxy"] = self.boxes_xyxy[i].tolist()
        if self.corners_xy is not None:
            one["corners_xy"] = self.corners_xy[i].tolist()
        if self.keypoints_xyc is not None:
            one["keypoints_xyc"] = self.keypoints_xyc[i].tolist()
        if self.masks is not None:
            one["mask"] = {"size_hw": [self.height, self.width], "counts": encode_rle(self.masks[i])}
        return one


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[ImagePredictions]):
    """What a variant says of several images, in the order they were given.

    Attributes:
        model: name of the model.
        version: of the model.
        variant: name of the variant that answered.
        images: one entry an image.
    """

    model: str
    version: str
    variant: str
    images: tuple[ImagePredictions, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - Sequence's overloads, int or slice
        return self.images[index]

    def to_dict(self) -> dict[str, Any]:
        """Returns the one shape for machines (`docs/formats/predictions.md`)."""
        return {
            "model": self.model,
            "version": self.version,
            "variant": self.variant,
            "images": [image.to_dict() for image in self.images],
        }

    @classmethod
    def from_dict(cls, told: object, *, class_names: Sequence[str] | None = None) -> Self:
        """Reads what `to_dict` wrote. Keys that are not known are passed over, as the format asks of readers.

        Args:
            told: the JSON.
            class_names: of the model, by class id. None for those that the predictions themselves name; a class that none of
                them names is then called by its number.

        Returns:
            The predictions. An image in which nothing was found has `boxes_xyxy` of no boxes, whatever the task.

        Raises:
            CorruptError: it is not of that shape, or larger than any image's.
        """
        try:
            if not isinstance(told, Mapping):
                raise TypeError("not a mapping")
            model, version, variant = names = [told[key] for key in ("model", "version", "variant")]
            entries = told["images"]
            if not all(isinstance(one, str) for one in names) or not isinstance(entries, list):
                raise TypeError("not texts, or no list")
            known = _names_in(entries) if class_names is None else tuple(class_names)
            return cls(model, version, variant, tuple(_read_image(one, known) for one in entries))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError, TensorError) as error:
            raise CorruptError(
                "not predictions", expected=_EXPECTED, got=f"{type(error).__name__}: {error}"[:200]
            ) from error


def _names_in(entries: list[Any]) -> tuple[str, ...]:
    """Returns class names as far as predictions tell them, numbers for the others."""
    found: dict[int, str] = {}
    count = 0
    for entry in entries:
        count = max(count, len(entry.get("probabilities", ())))
        for one in entry.get("predictions", ()):
            found[_whole(one["class_id"], _MOST_CLASSES)] = str(one["class_name"])
    count = max(count, *(number + 1 for number in found), 0)
    return tuple(found.get(number, str(number)) for number in range(_whole(count, _MOST_CLASSES + 1)))


def _read_image(entry: Mapping[str, Any], class_names: tuple[str, ...]) -> ImagePredictions:
    width, height = _whole(entry["width"], _MOST_PIXELS), _whole(entry["height"], _MOST_PIXELS)
    source = entry.get("source")
    if width * height > _MOST_PIXELS or not isinstance(source, str | None):
        raise ValueError("not an image's size and name")
    found = entry.get("predictions", [])
    class_ids = [_whole(one["class_id"], len(class_names)) for one in found]

    def gather(name: str, kind: Any = np.float32) -> NDArray[Any] | None:  # noqa: ANN401 - a dtype
        if not any(name in one for one in found):
            return None
        return _numbers([one[name] for one in found], kind)

    masks = None
    if any("mask" in one for one in found):
        if len(found) * width * height > _MOST_MASK_PIXELS or any(
            one["mask"]["size_hw"] != [height, width] for one in found
        ):
            raise ValueError("masks of another size")
        masks = np.stack([decode_rle(one["mask"]["counts"], (height, width)) for one in found])
    is_classified = "probabilities" in entry
    boxes = gather("box_xyxy")
    return ImagePredictions(
        source=source,
        width=width,
        height=height,
        class_names=class_names,
        class_ids=np.array(class_ids, np.int64),
        scores=_numbers([one["score"] for one in found], np.float32),
        boxes_xyxy=np.zeros((0, 4), np.float32) if not found and not is_classified else boxes,
        corners_xy=gather("corners_xy"),
        keypoints_xyc=gather("keypoints_xyc"),
        masks=masks,
        probabilities=_numbers(entry["probabilities"], np.float32) if is_classified else None,
        track_ids=gather("track_id", np.int64),
    )


def _whole(value: object, below: int) -> int:
    if type(value) is not int or not 0 <= value < below:
        raise ValueError(f"not a whole number from 0 to {below - 1}: {value!r:.40}")
    return value


def _numbers(values: Any, kind: Any) -> NDArray[Any]:  # noqa: ANN401 - nested lists; a dtype
    array = np.asarray(values)
    if (array.dtype.kind not in "iuf" and array.size) or not np.isfinite(array.astype(np.float64)).all():
        raise ValueError("not numbers")
    return array.astype(kind)


def encode_rle(mask: NDArray[np.bool_]) -> str:
    """Encodes a mask as COCO's compressed run lengths.

    Args:
        mask: (height, width) bool.

    Returns:
        COCO's `counts` string. Runs go down columns and start with a run of zeros; each is written as base 48 + 5-bit
        groups, from the third on as the difference to the run two before (format of the COCO API's `rleToString`).
    """
    flat = np.asarray(mask, dtype=np.bool_).reshape(-1, order="F").view(np.uint8)
    edges = np.flatnonzero(np.diff(flat, prepend=np.uint8(0), append=np.uint8(255)))
    runs = np.diff(edges, prepend=0).tolist() if flat.size else []
    text: list[str] = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            group = value & 0x1F
            value >>= 5
            more = value != -1 if group & 0x10 else value != 0
            text.append(chr((group | 0x20 if more else group) + 48))
            if not more:
                break
    return "".join(text)


def decode_rle(counts: str, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Decodes what `encode_rle` wrote.

    Raises:
        TensorError: the runs are malformed or do not add up to the size.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise TensorError("run lengths are malformed", where="mask.counts", got=repr(character))
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    height, width = size_hw
    if shift or any(run < 0 for run in runs) or sum(runs) != height * width:
        raise TensorError("run lengths do not fill the mask", where="mask.counts", expected=height * width)
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")
