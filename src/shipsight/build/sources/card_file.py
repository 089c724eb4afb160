# SPDX-License-Identifier: Apache-2.0
"""The card file: what a person says of an ONNX model that does not describe itself (`docs/formats/card-file.md`).

Leaves to others: whether the model fits what is said (`onnx_source`). Invariants: nothing that changes predictions is
guessed: task, head, names, fit, colour and scale must be said; unknown keys are refused with the nearest known one.
Stable.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from shipsight.errors import CardError
from shipsight.model import Fit, Head, Task

__all__ = ["MAX_CLASSES", "CardFile", "example_card", "find_card_file", "read_card_file"]

MAX_CARD_BYTES = 4 << 20
MAX_CLASSES = 20_000
MAX_NAME = 200
_KEYS = {
    "task": "detect, segment, pose, obb or classify",
    "head": "yolov8, yolox, end2end or classify",
    "names": "a list of class names, or a mapping from 0 on",
    "fit": "letterbox, letterbox-top-left or centre-crop",
    "normalisation": "a mapping with colour and scale",
    "imgsz": "one number, or [height, width]",
    "pad_value": "0 to 255",
    "stride": "1 to 256",
    "keypoint_shape": "[keypoints, 2 or 3]",
    "licence": "a text",
    "architecture": "a text",
}
_NEEDED = ("task", "head", "names", "fit", "normalisation")
_NORMALISATION_KEYS = ("colour", "scale", "mean", "std")
_TASKS_OF_HEAD = {
    Head.YOLOV8: (Task.DETECT, Task.SEGMENT, Task.POSE, Task.OBB),
    Head.YOLOX: (Task.DETECT,),
    Head.END2END: (Task.DETECT, Task.SEGMENT, Task.POSE, Task.OBB),
    Head.CLASSIFY: (Task.CLASSIFY,),
}


@dataclass(frozen=True)
class CardFile:
    """What a card file says.

    Attributes:
        task: what the model answers.
        head: how its raw outputs encode that.
        names: class names, position = class id.
        fit: how images are brought to the input size.
        colour: `rgb` or `bgr`.
        scale: factor on pixel values, before mean and std.
        mean: per channel in `colour` order.
        std: per channel in `colour` order, above 0.
        size_hw: input size in pixels, None where the model's own static shape says it.
        pad_value: level of the padding, 0 to 255.
        stride: the network's largest stride in pixels.
        keypoint_shape: (keypoints, values each) for pose, else None.
        licence: of the weights.
        architecture: name of the network.
    """

    task: Task
    head: Head
    names: tuple[str, ...]
    fit: Fit
    colour: str
    scale: float
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    size_hw: tuple[int, int] | None = None
    pad_value: int = 114
    stride: int = 32
    keypoint_shape: tuple[int, int] | None = None
    licence: str = "unknown"
    architecture: str = "unknown"


def find_card_file(model: Path) -> Path | None:
    """Returns the card file beside a model, `<stem>.card.yaml`, or None."""
    beside = model.with_name(f"{model.stem}.card.yaml")
    return beside if beside.is_file() else None


def read_card_file(path: Path) -> CardFile:
    """Reads a card file.

    Raises:
        CardError: it cannot be read, is not YAML, a key is unknown or missing, or a value does not fit.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CARD_BYTES + 1)
    except OSError as error:
        raise CardError("the card file cannot be read", where=path, got=error.strerror) from error
    if len(data) > MAX_CARD_BYTES:
        raise CardError("the card file is too large", where=path, expected=f"<= {MAX_CARD_BYTES} bytes")
    try:
        said = yaml.load(data, Loader=_Loader)  # noqa: S506 - a SafeLoader that also refuses doubled keys and aliases
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        text = " ".join(str(error).split())[:300]
        raise CardError("the card file is not YAML that can be read", where=path, got=text) from error
    return _Reader(path).read(said)


def example_card(*, size_hw: tuple[int, int] | None, outputs: list[str], class_count: int | None) -> str:
    """Returns a card to edit, for a model that has none.

    Args:
        size_hw: the model's static input size, None where it is free.
        outputs: its outputs, for the comment.
        class_count: number of classes as far as the outputs tell.
    """
    count = f"{class_count} names, in the order of their ids" if class_count else "in the order of their ids"
    size = [] if size_hw is not None else ["imgsz: 640                # or [height, width]; this model's size is free"]
    return "\n".join(
        [
            f"# outputs of this model: {', '.join(outputs)[:300]}",
            "task: detect              # detect, segment, pose, obb, classify",
            "head: yolov8              # yolov8, yolox, end2end, classify (docs/formats/heads.md)",
            f"names: [first, second]    # {count}",
            "fit: letterbox            # letterbox, letterbox-top-left, centre-crop",
            "normalisation:",
            "  colour: rgb             # rgb or bgr",
            "  scale: 1/255            # factor on pixels; 1 where the model takes 0 to 255",
            *size,
        ]
    )


class _Loader(yaml.SafeLoader):
    """A SafeLoader that refuses doubled keys and aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not used in card files")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key {key[1]!r} stands twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep=deep)


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, said: object) -> CardFile:
        card = self._mapping(said, "", tuple(_KEYS), _NEEDED)
        normalisation = self._mapping(card["normalisation"], "normalisation", _NORMALISATION_KEYS, ("colour", "scale"))
        task = Task(self._choice(card["task"], "task", [task.value for task in Task]))
        head = Head(self._choice(card["head"], "head", [head.value for head in Head]))
        if task not in _TASKS_OF_HEAD[head]:
            raise self._error("head", f"one that answers {task}", head.value)
        return CardFile(
            task=task,
            head=head,
            names=self._names(card["names"]),
            fit=Fit(self._choice(card["fit"], "fit", [fit.value for fit in Fit])),
            colour=self._choice(normalisation["colour"], "normalisation.colour", ["rgb", "bgr"]),
            scale=self._number(normalisation["scale"], "normalisation.scale", above=0.0),
            mean=self._three(normalisation.get("mean", 0.0), "normalisation.mean", above=None),
            std=self._three(normalisation.get("std", 1.0), "normalisation.std", above=0.0),
            size_hw=self._size(card.get("imgsz")),
            pad_value=self._integer(card.get("pad_value", 114), "pad_value", 0, 255),
            stride=self._integer(card.get("stride", 32), "stride", 1, 256),
            keypoint_shape=self._keypoints(card.get("keypoint_shape"), task),
            licence=self._text(card.get("licence", "unknown"), "licence"),
            architecture=self._text(card.get("architecture", "unknown"), "architecture"),
        )

    def _error(self, key: str, expected: object, got: object, hint: str | None = None) -> CardError:
        where = f"{self._path}: {key}" if key else str(self._path)
        return CardError("the card file does not fit", where=where, expected=expected, got=str(got)[:200], hint=hint)

    def _mapping(self, said: object, where: str, known: tuple[str, ...], needed: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(said, Mapping):
            raise self._error(where, f"a mapping with {', '.join(needed)}", type(said).__name__)
        for key in said:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
                hint = f"Did you mean {close[0]!r}?" if close else None
                raise self._error(where, f"only {', '.join(known)}", f"unknown key {key!r}", hint)
        missing = [key for key in needed if key not in said]
        if missing:
            expected = "; ".join(f"{key}: {_KEYS.get(key, 'a value')}" for key in missing)
            raise self._error(where, expected, f"missing {', '.join(missing)}")
        return dict(said)

    def _choice(self, value: object, key: str, choices: list[str]) -> str:
        if value not in choices:
            close = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
            raise self._error(key, ", ".join(choices), value, f"Did you mean {close[0]!r}?" if close else None)
        return str(value)

    def _names(self, value: object) -> tuple[str, ...]:
        if isinstance(value, Mapping):
            if sorted(value, key=str) != sorted(range(len(value)), key=str):
                raise self._error("names", "a mapping from 0 on without gaps", list(value)[:10])
            value = [value[i] for i in range(len(value))]
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_CLASSES:
            raise self._error("names", f"1 to {MAX_CLASSES} names", type(value).__name__)
        for i, name in enumerate(value):
            is_text = isinstance(name, (str, int, float)) and not isinstance(name, bool)
            if not is_text or not str(name).strip() or len(str(name)) > MAX_NAME or not str(name).isprintable():
                hint = "Put quotes around yes, no, on and off" if isinstance(name, bool) else None
                raise self._error(f"names[{i}]", f"a printable text of at most {MAX_NAME} characters", repr(name), hint)
        return tuple(str(name) for name in value)

    def _number(self, value: object, key: str, *, above: float | None) -> float:
        if isinstance(value, str) and value.count("/") == 1:  # 1/255 says more than 0.00392156862745098
            parts = value.split("/")
            try:
                value = float(parts[0]) / float(parts[1])
            except (ValueError, ZeroDivisionError):
                raise self._error(key, "a number or a fraction such as 1/255", value) from None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self._error(key, "a number or a fraction such as 1/255", repr(value))
        if above is not None and value <= above:
            raise self._error(key, f"above {above:g}", value)
        return float(value)

    def _three(self, value: object, key: str, *, above: float | None) -> tuple[float, float, float]:
        values = value if isinstance(value, list) else [value] * 3
        if len(values) != 3:
            raise self._error(key, "three numbers, one a channel in `colour` order", values)
        first, second, third = (self._number(item, key, above=above) for item in values)
        return first, second, third

    def _integer(self, value: object, key: str, least: int, most: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self._error(key, f"a whole number, {least} to {most}", repr(value))
        return value

    def _size(self, value: object) -> tuple[int, int] | None:
        if value is None:
            return None
        sides = value if isinstance(value, list) else [value, value]
        if len(sides) != 2:
            raise self._error("imgsz", _KEYS["imgsz"], value)
        height, width = (self._integer(side, "imgsz", 1, 4096) for side in sides)
        return height, width

    def _keypoints(self, value: object, task: Task) -> tuple[int, int] | None:
        if (value is None) != (task is not Task.POSE):
            raise self._error("keypoint_shape", _KEYS["keypoint_shape"] + " for pose, nothing else", value)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 2:
            raise self._error("keypoint_shape", _KEYS["keypoint_shape"], value)
        return self._integer(value[0], "keypoint_shape", 1, 1000), self._integer(value[1], "keypoint_shape", 2, 3)

    def _text(self, value: object, key: str) -> str:
        if not isinstance(value, str) or not value.isprintable() or not 1 <= len(value) <= MAX_NAME:
            raise self._error(key, f"a printable text of at most {MAX_NAME} characters", repr(value))
        return value
