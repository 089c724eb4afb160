# SPDX-License-Identifier: Apache-2.0
"""The card: what a model is, independent of how it is run.

Leaves to others: reading a card from a checkpoint or an ONNX file (`build.sources`), applying the input contract
(`vision`). Invariants: a card is frozen, complete, and round-trips through `to_dict` and `from_dict`; unknown keys are
refused. Stable. The written form is described in `docs/formats/bundle.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from shipsight.errors import CardError

__all__ = ["Card", "Fit", "Head", "InputContract", "Origin", "OutputContract", "Task", "TrainingRecord"]


class Task(StrEnum):
    """What a model answers about an image."""

    DETECT = "detect"
    SEGMENT = "segment"
    POSE = "pose"
    OBB = "obb"
    CLASSIFY = "classify"


class Head(StrEnum):
    """How raw outputs encode predictions (`docs/formats/heads.md`).

    `yolov8`: (1, 4 + classes + extras, anchors), boxes decoded as centre x, y, width, height in input pixels, class
    scores after the sigmoid; extras are 32 mask coefficients (segment), keypoints (pose) or one angle (obb).
    `yolox`: (1, anchors, 5 + classes), offsets to be decoded on a grid of strides 8, 16, 32; score = objectness x class.
    `end2end`: (1, detections, 6 + extras), x0, y0, x1, y1, score, class: suppression has been done in the model. For obb
    the first four are centre x, y, width, height and the extra is the angle.
    `classify`: (1, classes), probabilities.
    """

    YOLOV8 = "yolov8"
    YOLOX = "yolox"
    END2END = "end2end"
    CLASSIFY = "classify"


class Fit(StrEnum):
    """How an image is brought to the input size.

    `letterbox`: scaled to fit, centred, the rest padded. `letterbox-top-left`: scaled to fit, placed at the top left.
    `centre-crop`: the shorter side scaled to the input size, the centre cut out (classification).
    """

    LETTERBOX = "letterbox"
    LETTERBOX_TOP_LEFT = "letterbox-top-left"
    CENTRE_CROP = "centre-crop"


@dataclass(frozen=True)
class InputContract:
    """What the model must be fed.

    The float tensor is `(pixel * scale - mean) / std` for pixels in [0, 255], NCHW, channels in `colour` order.

    Attributes:
        size_hw: height and width in pixels, multiples of `stride`.
        colour: `rgb` or `bgr`.
        fit: how an image is brought to `size_hw`.
        pad_value: level of the padding, 0 to 255.
        scale: factor on pixel values before mean and std.
        mean: per channel, in `colour` order, after scaling.
        std: per channel, in `colour` order, after scaling.
        stride: largest stride of the network in pixels.
    """

    size_hw: tuple[int, int]
    colour: str = "rgb"
    fit: Fit = Fit.LETTERBOX
    pad_value: int = 114
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    stride: int = 32

    def __post_init__(self) -> None:
        height, width = self.size_hw
        if not (0 < height <= 8192 and 0 < width <= 8192):
            raise CardError("input size out of range", where="input.size_hw", expected="1 to 8192", got=self.size_hw)
        if self.colour not in ("rgb", "bgr"):
            raise CardError("unknown colour order", where="input.colour", expected="rgb or bgr", got=self.colour)
        if not 0 <= self.pad_value <= 255:
            raise CardError("padding out of range", where="input.pad_value", expected="0 to 255", got=self.pad_value)
        if not all(map(math.isfinite, (self.scale, *self.mean, *self.std))) or self.scale <= 0 or min(self.std) <= 0:
            raise CardError("scale and std must be finite and above 0", where="input", got=(self.scale, self.std))


@dataclass(frozen=True)
class OutputContract:
    """What the model's raw outputs mean.

    Attributes:
        head: how predictions are encoded.
        keypoint_shape: (keypoints, 2 or 3 values each) for pose, else None.
        mask_channels: number of mask coefficients for segment, else 0.
        max_detections: rows of an `end2end` output, else None.
    """

    head: Head
    keypoint_shape: tuple[int, int] | None = None
    mask_channels: int = 0
    max_detections: int | None = None


@dataclass(frozen=True)
class Origin:
    """Where the model came from.

    Attributes:
        kind: `ultralytics` or `onnx`.
        file_name: name of the source file.
        sha256: digest of the source file, lower-case hexadecimal.
        architecture: what the source calls its network, `unknown` where it does not say.
    """

    kind: str
    file_name: str
    sha256: str
    architecture: str = "unknown"


@dataclass(frozen=True)
class TrainingRecord:
    """What the source says of its training; `unknown` or empty where it does not say.

    Attributes:
        framework: name and version.
        date: as the source writes it.
        arguments: training arguments.
        metrics: metrics that training itself reported, name -> value.
        epoch: number of the epoch the weights are from, None where unknown.
    """

    framework: str = "unknown"
    date: str = "unknown"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    epoch: int | None = None


@dataclass(frozen=True)
class Card:
    """What a model is.

    Attributes:
        name: name the model is served under: letters, digits, `.`, `_`, `-`; 1 to 100 characters.
        version: the model's own version.
        task: what it answers.
        class_names: one a class, position = class id.
        input: what it must be fed.
        output: what its raw outputs mean.
        licence: of the weights, as the source says, else `unknown`.
        origin: where it came from.
        training: what the source says of its training.
        images_shareable: whether golden images may leave with the bundle (`package`, `fleet`).
    """

    name: str
    version: str
    task: Task
    class_names: tuple[str, ...]
    input: InputContract
    output: OutputContract
    licence: str = "unknown"
    origin: Origin = Origin(kind="unknown", file_name="unknown", sha256="0" * 64)
    training: TrainingRecord = TrainingRecord()
    images_shareable: bool = False

    def __post_init__(self) -> None:
        allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        for key, value in (("name", self.name), ("version", self.version)):
            if not (1 <= len(value) <= 100 and set(value) <= allowed and value[0] not in ".-"):
                raise CardError(
                    f"{key} is not usable",
                    where=key,
                    expected="1 to 100 letters, digits, '.', '_' or '-', not starting with '.' or '-'",
                    got=repr(value[:120]),
                )
        if not self.class_names:
            raise CardError("a model needs at least one class name", where="class_names")

    def with_size(self, size_hw: tuple[int, int]) -> Card:
        """Returns the card with another input size."""
        return replace(self, input=replace(self.input, size_hw=size_hw))

    def to_dict(self) -> dict[str, Any]:
        """Returns the card as plain mappings, lists, numbers and strings."""
        return {
            "name": self.name,
            "version": self.version,
            "task": self.task.value,
            "class_names": list(self.class_names),
            "input": {
                "size_hw": list(self.input.size_hw),
                "colour": self.input.colour,
                "fit": self.input.fit.value,
                "pad_value": self.input.pad_value,
                "scale": self.input.scale,
                "mean": list(self.input.mean),
                "std": list(self.input.std),
                "stride": self.input.stride,
            },
            "output": {
                "head": self.output.head.value,
                "keypoint_shape": None if self.output.keypoint_shape is None else list(self.output.keypoint_shape),
                "mask_channels": self.output.mask_channels,
                "max_detections": self.output.max_detections,
            },
            "licence": self.licence,
            "origin": {
                "kind": self.origin.kind,
                "file_name": self.origin.file_name,
                "sha256": self.origin.sha256,
                "architecture": self.origin.architecture,
            },
            "training": {
                "framework": self.training.framework,
                "date": self.training.date,
                "arguments": dict(self.training.arguments),
                "metrics": dict(self.training.metrics),
                "epoch": self.training.epoch,
            },
            "images_shareable": self.images_shareable,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Card:
        """Reads what `to_dict` returned.

        Raises:
            CardError: a key is unknown or missing, or a value does not fit.
        """
        top = _take(data, "card", {"name", "version", "task", "class_names", "input", "output"}, _CARD_OPTIONAL)
        given_input = _take(top["input"], "card.input", {"size_hw"}, _INPUT_OPTIONAL)
        given_output = _take(
            top["output"], "card.output", {"head"}, {"keypoint_shape", "mask_channels", "max_detections"}
        )
        origin = _take(top.get("origin", {}), "card.origin", set(), {"kind", "file_name", "sha256", "architecture"})
        training = _take(
            top.get("training", {}), "card.training", set(), {"framework", "date", "arguments", "metrics", "epoch"}
        )
        shareable = top.get("images_shareable", False)
        _check_kinds(top, given_input, training, shareable)
        try:
            numbers = dict(given_input)
            for key in ("size_hw", "mean", "std"):
                if key in numbers:
                    numbers[key] = tuple(numbers[key])
            if "fit" in numbers:
                numbers["fit"] = Fit(numbers["fit"])
            shape = given_output.get("keypoint_shape")
            return cls(
                name=str(top["name"]),
                version=str(top["version"]),
                task=Task(top["task"]),
                class_names=tuple(str(name) for name in top["class_names"]),
                input=InputContract(**numbers),
                output=OutputContract(
                    head=Head(given_output["head"]),
                    keypoint_shape=None if shape is None else (int(shape[0]), int(shape[1])),
                    mask_channels=int(given_output.get("mask_channels") or 0),
                    max_detections=given_output.get("max_detections"),
                ),
                licence=str(top.get("licence", "unknown")),
                origin=Origin(**{"kind": "unknown", "file_name": "unknown", "sha256": "0" * 64, **origin}),
                training=TrainingRecord(**training),
                images_shareable=shareable,
            )
        except (TypeError, ValueError, IndexError) as error:
            raise CardError("a value of the card does not fit", got=error) from error


_CARD_OPTIONAL = {"licence", "origin", "training", "images_shareable"}
_INPUT_OPTIONAL = {"colour", "fit", "pad_value", "scale", "mean", "std", "stride"}


def _check_kinds(
    top: Mapping[str, Any], given_input: Mapping[str, Any], training: Mapping[str, Any], shareable: object
) -> None:
    """Refuses values that would be read as something else: "no" as true, a word as a list of letters."""
    sides = given_input["size_hw"]
    claims = [
        ("images_shareable", isinstance(shareable, bool), "true or false", shareable),
        ("class_names", isinstance(top["class_names"], list | tuple), "a list of names", top["class_names"]),
        (
            "input.size_hw",
            isinstance(sides, list | tuple) and len(sides) == 2 and all(type(side) is int for side in sides),
            "two whole numbers",
            sides,
        ),
        ("training.arguments", isinstance(training.get("arguments", {}), Mapping), "a mapping", training),
        ("training.metrics", isinstance(training.get("metrics", {}), Mapping), "a mapping", training),
    ]
    for where, holds, expected, got in claims:
        if not holds:
            raise CardError("a value of the card does not fit", where=where, expected=expected, got=repr(got)[:200])


def _take(data: object, where: str, needed: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise CardError("must be a mapping", where=where, got=type(data).__name__)
    unknown = sorted(str(key) for key in set(data) - needed - optional)
    missing = sorted(needed - set(data))
    if unknown or missing:
        raise CardError(
            "keys do not fit",
            where=where,
            expected=f"{sorted(needed)} and optionally {sorted(optional)}",
            got=f"unknown {unknown}, missing {missing}",
        )
    return dict(data)
