# SPDX-License-Identifier: Apache-2.0
"""What Ultralytics' metadata in an ONNX file says, and what a model's outputs must look like for a card.

Leaves to others: reading the metadata (`_onnx_worker`, in the child). Private. Source: the keys that Ultralytics' exporter
writes (task, names, stride, imgsz, kpt_shape, end2end, args, license, version, date, head, channels).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shipsight.build.sources.card_file import MAX_CLASSES, MAX_NAME, CardFile
from shipsight.errors import CardError, CorruptError, UnsupportedError
from shipsight.model import Fit, Head, Task, TrainingRecord
from shipsight.model.warning import BuildWarning

__all__ = ["Described", "check_outputs", "describes_itself", "read_metadata"]


@dataclass(frozen=True)
class Described:
    """What is known of a model before it was run.

    Attributes:
        card: what a card file would say.
        training: what the metadata say of the training.
        warnings: what a person should know.
    """

    card: CardFile
    training: TrainingRecord = field(default_factory=TrainingRecord)
    warnings: tuple[BuildWarning, ...] = ()


def describes_itself(metadata: Mapping[str, Any]) -> bool:
    """Returns whether the metadata are complete enough to need no card."""
    return {"task", "names", "stride"} <= set(metadata)


def read_metadata(metadata: Mapping[str, Any], *, where: str) -> Described:
    """Reads Ultralytics' metadata.

    Raises:
        UnsupportedError: the task, the channels or baked-in suppression are not handled.
        CorruptError: a value does not fit.
    """
    try:
        task = Task(str(metadata["task"]))
    except ValueError as error:
        tasks = ", ".join(Task)
        raise UnsupportedError(
            "this task is not handled", where=where, expected=tasks, got=str(metadata["task"])[:60]
        ) from error
    if str(metadata.get("channels", "3")) != "3":
        raise UnsupportedError(
            "only models of colour images are handled", where=where, got=str(metadata["channels"])[:20]
        )
    try:
        arguments = {str(key): value for key, value in metadata.get("args") or []}
        has_suppression = arguments.get("nms") is True
        is_end2end = str(metadata.get("end2end", "False")) == "True" or has_suppression
        shape = metadata.get("kpt_shape") if task is Task.POSE else None
        card = CardFile(
            task=task,
            head=Head.CLASSIFY if task is Task.CLASSIFY else Head.END2END if is_end2end else Head.YOLOV8,
            names=_names(metadata["names"]),
            fit=Fit.CENTRE_CROP if task is Task.CLASSIFY else Fit.LETTERBOX,
            colour="rgb",
            scale=1 / 255,
            size_hw=_size(metadata.get("imgsz")),
            stride=32 if task is Task.CLASSIFY else int(metadata["stride"]),
            keypoint_shape=None if shape is None else (int(shape[0]), int(shape[1])),
            licence=str(metadata.get("license", "unknown"))[:MAX_NAME],
            architecture=str(metadata.get("description", "unknown"))[:MAX_NAME],
        )
        if not 1 <= card.stride <= 256 or (task is Task.POSE and card.keypoint_shape is None):
            raise ValueError(f"stride {card.stride}, keypoints {shape}")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptError("the model's metadata do not fit", where=where, got=error) from error
    version = metadata.get("version")
    training = TrainingRecord(framework=f"ultralytics {version}"[:60] if version else "unknown")
    return Described(card, training, _baked(arguments) if has_suppression else ())


def check_outputs(card: CardFile, shapes: list[tuple[int, ...]], size_hw: tuple[int, int], *, where: str) -> int:
    """Checks a model's outputs against its card.

    Args:
        card: what is said of the model.
        shapes: the outputs' shapes, from a run.
        size_hw: the input size they belong to.
        where: the file's name.

    Returns:
        The number of mask coefficients (0 without masks).

    Raises:
        CardError: an output's shape is not what head and names make it.
    """
    masks = 0
    if card.task is Task.SEGMENT:
        if len(shapes) != 2 or len(shapes[1]) != 4:
            raise _mismatch(where, "two outputs: predictions and mask prototypes (1, masks, h/4, w/4)", shapes)
        masks = shapes[1][1]
    elif len(shapes) != 1:
        raise _mismatch(where, "one output", shapes)
    keypoints = card.keypoint_shape
    extras = masks + (keypoints[0] * keypoints[1] if keypoints else 0) + (1 if card.task is Task.OBB else 0)
    classes, found = len(card.names), shapes[0]
    height, width = size_hw
    cells = sum((height // stride) * (width // stride) for stride in (8, 16, 32))
    expected: tuple[object, ...]
    if card.head is Head.CLASSIFY:
        expected, fits = (1, classes), found == (1, classes)
    elif card.head is Head.YOLOX:
        expected, fits = (1, cells, 5 + classes), found == (1, cells, 5 + classes)
    elif card.head is Head.END2END:
        expected = (1, "detections", 6 + extras)
        fits = len(found) == 3 and found[0] == 1 and found[2] == 6 + extras and 1 <= found[1] <= 30_000
    else:
        expected = (1, 4 + classes + extras, "anchors")
        fits = len(found) == 3 and found[:2] == (1, 4 + classes + extras)
    if not fits:
        raise _mismatch(where, f"{expected} for head {card.head} with {classes} classes", shapes)
    return masks


def _mismatch(where: str, expected: str, shapes: list[tuple[int, ...]]) -> CardError:
    return CardError("the model's outputs are not what its card says", where=where, expected=expected, got=shapes)


def _names(said: Any) -> tuple[str, ...]:  # noqa: ANN401 - a list of names or of [id, name] pairs
    is_pairs = isinstance(said, list) and all(isinstance(item, list) and len(item) == 2 for item in said)
    table = {int(key): str(name) for key, name in said} if is_pairs else dict(enumerate(map(str, said)))
    if not 1 <= len(table) <= MAX_CLASSES or set(table) != set(range(len(table))):
        raise ValueError(f"{len(table)} names, not numbered from 0 on")
    texts = (table[i][:MAX_NAME] for i in range(len(table)))
    return tuple("".join(c if c.isprintable() else " " for c in text) for text in texts)


def _size(said: Any) -> tuple[int, int] | None:  # noqa: ANN401 - what the metadata say
    if said is None:
        return None
    height, width = (int(side) for side in (said if isinstance(said, list) else [said, said]))
    if not (1 <= height <= 4096 and 1 <= width <= 4096):
        raise ValueError(f"image size {said}")
    return height, width


def _baked(arguments: Mapping[str, Any]) -> tuple[BuildWarning, ...]:
    known = {key: arguments[key] for key in ("conf", "iou", "max_det") if arguments.get(key) is not None}
    said = ", ".join(f"{key} {value}" for key, value in known.items()) or "unknown thresholds"
    text = f"suppression is part of this model ({said}): lower thresholds have no effect, and accuracy cannot be measured below them"
    return (BuildWarning("onnx-thresholds-baked", text),)
