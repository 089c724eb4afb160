# SPDX-License-Identifier: Apache-2.0
"""The variant: one exported form of a model, engine x precision x image size.

Leaves to others: making one (`build`), running one (`engines`), what was measured of it (`proof/` in the bundle).
Invariant: the name encodes every parameter that changes what runs. Stable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from shipsight.errors import CorruptError, UsageError

__all__ = ["OutputForm", "Precision", "TensorLayout", "Variant", "format_size", "parse_size"]


class Precision(StrEnum):
    """What a variant computes in; `int8` means its convolutions, as far as the guard allowed."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"


class TensorLayout(StrEnum):
    """What an engine is fed.

    `float-nchw`: (batch, 3, height, width) float32, normalised as the card's input contract says.
    `uint8-nhwc`: (batch, height, width, 3) uint8, RGB always; normalisation and channel order are in the graph.
    """

    FLOAT_NCHW = "float-nchw"
    UINT8_NHWC = "uint8-nhwc"


class OutputForm(StrEnum):
    """What leaves an engine.

    `raw`: the head's own outputs (`docs/formats/heads.md`).
    `best-class`: named tensors with one class an anchor: `boxes` (1, A, 4) centre x, y, width, height in input pixels,
    `scores` (1, A), `class_ids` (1, A) int32, and where the task has them `extras` (1, A, E: mask coefficients,
    keypoint values or the angle) and `protos` (1, channels, height/4, width/4). Only for the heads `yolov8` and `yolox`.
    """

    RAW = "raw"
    BEST_CLASS = "best-class"


@dataclass(frozen=True)
class Variant:
    """One exported form of a model.

    Attributes:
        name: for example `openvino-int8-640`.
        engine: `onnxruntime`, `openvino` or `pytorch`.
        precision: what it computes in.
        size_hw: input height and width in pixels.
        layout: what it is fed.
        form: what leaves it.
        files: names of its files, relative to its folder, the first the one an engine opens.
        rest: precision of what is not integer in an `int8` variant, `fp32` or `bf16`; else equal to `precision`.
        is_reference: whether this is the float ONNX with float input and raw output that is always kept.
    """

    name: str
    engine: str
    precision: Precision
    size_hw: tuple[int, int]
    layout: TensorLayout
    form: OutputForm
    files: tuple[str, ...]
    rest: Precision
    is_reference: bool = False

    @property
    def imgsz(self) -> int | list[int]:
        """Input size as users write it: one number where square, else [height, width]."""
        height, width = self.size_hw
        return height if height == width else [height, width]

    def to_dict(self) -> dict[str, Any]:
        """Returns the variant as plain values."""
        return {
            "name": self.name,
            "engine": self.engine,
            "precision": self.precision.value,
            "size_hw": list(self.size_hw),
            "layout": self.layout.value,
            "form": self.form.value,
            "files": list(self.files),
            "rest": self.rest.value,
            "is_reference": self.is_reference,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Variant:
        """Reads what `to_dict` returned.

        Raises:
            CorruptError: a key is unknown or missing, or a value does not fit.
        """
        keys = {"name", "engine", "precision", "size_hw", "layout", "form", "files", "rest", "is_reference"}
        if not isinstance(data, Mapping) or set(data) != keys:
            got = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
            raise CorruptError("keys of a variant do not fit", where="variants", expected=sorted(keys), got=got)
        size_hw, files, is_reference = data["size_hw"], data["files"], data["is_reference"]
        is_size = isinstance(size_hw, list | tuple) and all(type(side) is int for side in size_hw)
        if not (is_size and isinstance(files, list | tuple) and isinstance(is_reference, bool)):
            raise CorruptError("a value of a variant does not fit", where="variants", got=repr(dict(data))[:300])
        try:
            height, width = size_hw
            return cls(
                name=str(data["name"]),
                engine=str(data["engine"]),
                precision=Precision(data["precision"]),
                size_hw=(height, width),
                layout=TensorLayout(data["layout"]),
                form=OutputForm(data["form"]),
                files=tuple(str(name) for name in files),
                rest=Precision(data["rest"]),
                is_reference=is_reference,
            )
        except (TypeError, ValueError) as error:
            raise CorruptError("a value of a variant does not fit", where="variants", got=error) from error


def format_size(size_hw: tuple[int, int]) -> str:
    """Writes an input size: `640` where square, else `384x640` (height x width)."""
    height, width = size_hw
    return str(height) if height == width else f"{height}x{width}"


def parse_size(text: str) -> tuple[int, int]:
    """Reads an input size written `640` or `384x640`.

    Raises:
        UsageError: the text is neither, or a side is not a multiple of 32 between 32 and 4096.
    """
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip())
    sides = () if found is None else (int(found[1]), int(found[2] or found[1]))
    if not sides or any(side % 32 or not 32 <= side <= 4096 for side in sides):
        raise UsageError(
            "not an image size",
            where="--imgsz",
            expected="a multiple of 32 such as 640, or height x width such as 384x640",
            got=repr(text),
        )
    return sides
