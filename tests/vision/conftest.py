# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the vision tests: the source framework run beside us, each model once a session."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from shipsight.model import Card, Fit, Head, InputContract, OutputContract, OutputForm, Task, TensorLayout
from shipsight.vision import Geometry, PredictSettings, prepare, to_tensor


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of shared/data with the images it is held against."""

    file_name: str
    task: Task
    imgsz: int
    images: str


CHECKPOINTS = {
    "yolo11n": Checkpoint("yolo11n.pt", Task.DETECT, 640, "coco128/images/val2017/*.jpg"),
    "bccd": Checkpoint("bccd-yolo11n.pt", Task.DETECT, 320, "bccd/images/val/*.jpg"),
    "pose": Checkpoint("yolov8n-pose.pt", Task.POSE, 640, "coco128/images/val2017/*.jpg"),
    "seg": Checkpoint("yolo11n-seg.pt", Task.SEGMENT, 320, "coco128-seg/images/val2017/*.jpg"),
    "obb": Checkpoint("yolo11n-obb.pt", Task.OBB, 320, "coco128-obb/images/val2017/*.jpg"),
    "cls": Checkpoint("yolo11n-cls.pt", Task.CLASSIFY, 64, "bccd-cls/*/*"),
}


class SideBySide:
    """One checkpoint in Ultralytics on PyTorch, and its float ONNX export in ONNX Runtime."""

    def __init__(self, checkpoint: Checkpoint, data: Path, folder: Path) -> None:
        from ultralytics import YOLO

        self.images = sorted(data.glob(checkpoint.images))
        self.size_hw = (checkpoint.imgsz, checkpoint.imgsz)
        weights = folder / checkpoint.file_name
        shutil.copyfile(data / "models" / checkpoint.file_name, weights)
        model = YOLO(weights)
        exported = YOLO(weights).export(format="onnx", imgsz=checkpoint.imgsz, simplify=False, verbose=False)
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime

        self.session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
        blank = np.zeros((*self.size_hw, 3), dtype=np.uint8)
        model.predict(blank, imgsz=checkpoint.imgsz, rect=False, verbose=False, retina_masks=True, device="cpu")
        self.predictor = model.predictor
        self.card = _make_card(checkpoint, model)

    def tensor(self, image_rgb: np.ndarray) -> tuple[np.ndarray, Geometry]:
        """The square float input and where the image lies in it."""
        prepared, geometry = prepare(image_rgb, self.card.input)
        return to_tensor(prepared, self.card.input, TensorLayout.FLOAT_NCHW), geometry

    def onnx(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
        """Raw outputs of the ONNX export."""
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, {self.session.get_inputs()[0].name: tensor}), strict=True))

    def ultralytics(self, tensor: np.ndarray, image_rgb: np.ndarray, settings: PredictSettings) -> Any:
        """Ultralytics' own result at the same input tensor."""
        import torch

        arguments = self.predictor.args
        arguments.conf, arguments.iou, arguments.max_det = settings.conf, settings.iou, settings.max_det
        arguments.agnostic_nms, arguments.retina_masks = settings.agnostic_nms, True
        arguments.classes = None if settings.classes is None else list(settings.classes)
        self.predictor.batch = (["image"], None, None)
        with torch.inference_mode():
            batch = torch.from_numpy(tensor)
            raw = self.predictor.model(batch)
            return self.predictor.postprocess(raw, batch, [np.ascontiguousarray(image_rgb[..., ::-1])])[0]


def _make_card(checkpoint: Checkpoint, model: Any) -> Card:
    size_hw = (checkpoint.imgsz, checkpoint.imgsz)
    is_classifier = checkpoint.task is Task.CLASSIFY
    return Card(
        name=checkpoint.file_name.removesuffix(".pt"),
        version="1",
        task=checkpoint.task,
        class_names=tuple(model.names[i] for i in range(len(model.names))),
        input=InputContract(size_hw, fit=Fit.CENTRE_CROP if is_classifier else Fit.LETTERBOX),
        output=OutputContract(
            head=Head.CLASSIFY if is_classifier else Head.YOLOV8,
            keypoint_shape=tuple(model.model.kpt_shape) if checkpoint.task is Task.POSE else None,
            mask_channels=32 if checkpoint.task is Task.SEGMENT else 0,
        ),
    )


@pytest.fixture(scope="session")
def side_by_side(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SideBySide]:
    """Opens a checkpoint of `CHECKPOINTS` in both, once a session."""
    opened: dict[str, SideBySide] = {}

    def open_once(name: str) -> SideBySide:
        if name not in opened:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch's and the exporter's own deprecations
                opened[name] = SideBySide(CHECKPOINTS[name], shared_data, tmp_path_factory.mktemp(f"side-{name}"))
            assert "torchvision" in sys.modules  # Ultralytics then suppresses with torchvision
        return opened[name]

    return open_once


@pytest.fixture
def make_card() -> Callable[..., Card]:
    """Makes a small card for a task."""

    def make(
        task: Task = Task.DETECT,
        *,
        classes: int = 3,
        size_hw: tuple[int, int] = (64, 96),
        head: Head = Head.YOLOV8,
        **contract: Any,
    ) -> Card:
        return Card(
            name="model",
            version="1",
            task=task,
            class_names=tuple(f"class {i}" for i in range(classes)),
            input=InputContract(size_hw, **contract),
            output=OutputContract(
                head=head,
                keypoint_shape=(4, 3) if task is Task.POSE else None,
                mask_channels=8 if task is Task.SEGMENT else 0,
            ),
        )

    return make


def to_best_class(outputs: dict[str, np.ndarray], card: Card) -> dict[str, np.ndarray]:
    """The best-class form of a `yolov8` head's raw outputs, as a trimmed graph gives it."""
    (raw,) = (array for array in outputs.values() if array.ndim == 3)
    classes = len(card.class_names)
    trimmed = {
        "boxes": np.ascontiguousarray(raw[:, :4].transpose(0, 2, 1)),
        "scores": raw[:, 4 : 4 + classes].max(axis=1),
        "class_ids": raw[:, 4 : 4 + classes].argmax(axis=1).astype(np.int32),
    }
    if raw.shape[1] > 4 + classes:
        trimmed["extras"] = np.ascontiguousarray(raw[:, 4 + classes :].transpose(0, 2, 1))
    for array in outputs.values():
        if array.ndim == 4:
            trimmed["protos"] = array
    return trimmed


@pytest.fixture
def best_class() -> Callable[[dict[str, np.ndarray], Card], dict[str, np.ndarray]]:
    """Turns raw outputs into the best-class form."""
    return to_best_class


@pytest.fixture
def read_rgb() -> Callable[[Path], np.ndarray]:
    """Reads an image as Ultralytics does, but RGB."""

    def read(path: Path) -> np.ndarray:
        return np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])

    return read


__all__ = ["CHECKPOINTS", "OutputForm", "SideBySide"]
