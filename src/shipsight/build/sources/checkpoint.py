# SPDX-License-Identifier: Apache-2.0
"""Ultralytics checkpoints as sources: YOLO11, YOLOv8 and YOLO26, in all five tasks.

Leaves to others: opening the pickle (`_checkpoint`, in a sandboxed child). Invariants: this process never unpickles
anything; what the child says is checked before it becomes a card. Stable.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shipsight.build.sources._process import ChildProcess
from shipsight.build.sources.contract import Source
from shipsight.build.sources.reference import PyTorchSession
from shipsight.build.sources.sandbox import DEFAULT_LIMITS, Limits, Sandbox
from shipsight.engines.contract import EngineSession
from shipsight.errors import CorruptError, UnsupportedError, UsageError
from shipsight.model import Card, Fit, Head, InputContract, Origin, OutputContract, Task, TrainingRecord
from shipsight.model.warning import BuildWarning

__all__ = ["CheckpointSource", "check_size"]

_DEFAULT_SIZE = {Task.CLASSIFY: 224, Task.OBB: 1024}
_END2END_ROWS = 300


class CheckpointSource(Source):
    """An Ultralytics checkpoint.

    Args:
        path: the file.
        data: its bytes.
        sha256: their digest.
        name: the model's name.
        version: the model's version.
        sandbox: whether isolation is required.
        limits: of the child process.

    Raises:
        UntrustedError: the file carries foreign code, or more than a checkpoint holds.
        UnsupportedError: it is another kind of model.
        CorruptError: it is damaged.
        LimitError: it takes too much memory or time.
        SandboxError: isolation is required and impossible here.
        MissingDependencyError: torch or ultralytics is not installed.
    """

    def __init__(
        self,
        path: Path,
        data: bytes,
        *,
        sha256: str,
        name: str,
        version: str,
        sandbox: Sandbox = Sandbox.REQUIRED,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.path = path
        self._limits = limits
        self._closed = False
        self._exports: dict[tuple[int, int], bytes] = {}
        self._child = ChildProcess("checkpoint", sandbox, limits)
        try:
            said, _ = self._child.call(
                "load", {"file_name": path.name}, [data], what=f"loading {path.name}", timeout_s=limits.load_s
            )
            origin = Origin("ultralytics", path.name, sha256, str(said["architecture"])[:100])
            self.card, self.warnings = _read_card(said, origin, name=name, version=version)
        except (KeyError, TypeError, ValueError) as error:
            self._child.release()
            raise CorruptError("the checkpoint's description does not fit", where=path.name, got=error) from error
        except BaseException:
            self._child.release()
            raise

    @property
    def isolation(self) -> tuple[str, ...]:
        """The layers of isolation that held while the file was opened; empty without a sandbox."""
        return self._child.layers

    def export_onnx(self, size_hw: tuple[int, int]) -> bytes:
        """Exports through Ultralytics' own exporter; see the contract."""
        check_size(size_hw, self.card.input.stride)
        if size_hw not in self._exports:
            _, (model,) = self._child.call(
                "export",
                {"size_hw": list(size_hw)},
                what=f"exporting {self.path.name}",
                timeout_s=self._limits.export_s,
            )
            self._exports[size_hw] = model
        return self._exports[size_hw]

    def open_reference(self, size_hw: tuple[int, int], *, threads: int | None = None) -> EngineSession:
        """Opens the checkpoint in PyTorch; see the contract."""
        check_size(size_hw, self.card.input.stride)
        return PyTorchSession(self._child, size_hw, what=self.path.name, threads=threads, infer_s=self._limits.infer_s)

    def close(self) -> None:
        """Stops the child process, unless a reference session still uses it."""
        if not self._closed:
            self._closed = True
            self._exports.clear()
            self._child.release()


def check_size(size_hw: tuple[int, int], stride: int) -> None:
    """Refuses a size that a network of this stride cannot take.

    Raises:
        UsageError: a side is no multiple of the stride, or out of range.
    """
    if len(size_hw) != 2 or any(not 0 < side <= 4096 or side % stride for side in size_hw):
        raise UsageError(
            "the model cannot take this size", where="imgsz", expected=f"multiples of {stride} up to 4096", got=size_hw
        )


def _read_card(
    said: Mapping[str, Any], origin: Origin, *, name: str, version: str
) -> tuple[Card, tuple[BuildWarning, ...]]:
    task = Task(said["task"])
    arguments: dict[str, Any] = dict(said["arguments"])
    stride = int(said["stride"])
    if not 1 <= stride <= 256:
        raise ValueError(f"stride {stride}")
    warnings: list[BuildWarning] = []
    size_hw = _training_size(arguments.get("imgsz"), task, stride, warnings)
    shape = said["keypoint_shape"]
    card = Card(
        name=name,
        version=version,
        task=task,
        class_names=tuple(str(text) for text in said["names"]),
        input=_input_contract(said, task, size_hw, stride),
        output=OutputContract(
            head=Head.CLASSIFY if task is Task.CLASSIFY else Head.END2END if said["end2end"] else Head.YOLOV8,
            keypoint_shape=None if shape is None else (int(shape[0]), int(shape[1])),
            mask_channels=int(said["mask_channels"]),
            max_detections=_rows(size_hw) if said["end2end"] else None,
        ),
        licence=_licence(str(said["licence"] or "unknown")),
        origin=origin,
        training=TrainingRecord(
            framework=f"ultralytics {said['version']}"[:60] if said["version"] else "unknown",
            date=str(said["date"] or "unknown"),
            arguments=arguments,
            metrics=_numbers(said["metrics"]),
            epoch=_epoch(said["epoch"]),
        ),
    )
    return card, tuple(warnings)


def _training_size(imgsz: object, task: Task, stride: int, warnings: list[BuildWarning]) -> tuple[int, int]:
    sides: list[Any] = list(imgsz) if isinstance(imgsz, (list, tuple)) else [imgsz, imgsz]
    if len(sides) == 2 and all(isinstance(side, int) and 0 < side <= 4096 for side in sides):
        height, width = (math.ceil(side / stride) * stride for side in sides)
        return height, width
    side = _DEFAULT_SIZE.get(task, 640)
    warnings.append(
        BuildWarning(
            "imgsz-unknown", f"the checkpoint does not say its image size; {side} is assumed, as Ultralytics does"
        )
    )
    return side, side


def _input_contract(said: Mapping[str, Any], task: Task, size_hw: tuple[int, int], stride: int) -> InputContract:
    if task is not Task.CLASSIFY:
        return InputContract(size_hw=size_hw, stride=stride)
    transforms: Mapping[str, Any] = said["transforms"] or {}
    mean, std = (_three(transforms.get(key), default) for key, default in (("mean", 0.0), ("std", 1.0)))
    interpolation = transforms.get("interpolation", "bilinear")
    if interpolation != "bilinear":
        raise UnsupportedError(
            "the model resizes images in a way that is not handled", expected="bilinear", got=interpolation
        )
    return InputContract(size_hw=size_hw, fit=Fit.CENTRE_CROP, mean=mean, std=std, stride=stride)


def _three(values: object, default: float) -> tuple[float, float, float]:
    if isinstance(values, list) and len(values) == 3:
        first, second, third = (float(value) for value in values)
        return first, second, third
    return default, default, default


def _rows(size_hw: tuple[int, int]) -> int:
    anchors = sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in (8, 16, 32))
    return min(_END2END_ROWS, anchors)


def _licence(text: str) -> str:
    found = re.search(r"[AL]?GPL-[0-9.]+|Apache-2\.0|MIT|BSD-[23]-Clause", text)
    return found[0] if found else text[:200]


def _numbers(values: object) -> dict[str, float]:
    if not isinstance(values, Mapping):
        return {}
    return {
        str(key): float(value)
        for key, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _epoch(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
