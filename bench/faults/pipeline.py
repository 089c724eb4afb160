# SPDX-License-Identifier: Apache-2.0
"""Somebody's own pipeline around an exported model: pixels in, predictions out, each step of which may be wrong.

Written with OpenCV, Pillow, NumPy and ONNX Runtime alone, as people write them: it shares no code with the package it is diagnosed by.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image, ImageOps

Array = NDArray[Any]


class NothingComesOutError(Exception):
    """The model refuses what it is fed, or answers in another form."""


@dataclass(frozen=True)
class Model:
    """An exported detector: float NCHW RGB in, (1, 4 + classes, positions) out, boxes as centre and size in pixels of the model."""

    path: Path
    size_hw: tuple[int, int]
    names: tuple[str, ...]

    @cached_property
    def session(self) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 2
        return ort.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])

    def run(self, tensor: Array) -> Array:
        name = self.session.get_inputs()[0].name
        output: Array = self.session.run(None, {name: np.ascontiguousarray(tensor, dtype=np.float32)})[0]
        return output[0]


@dataclass(frozen=True)
class Pipeline:
    """Steps, each with what is right as its default.

    Attributes: of preprocessing `oriented` to `layout`, of postprocessing the rest.
    """

    model: Model
    oriented: bool = True
    channels: str = "rgb"  # rgb, bgr, grey
    decoded: str = "full"  # full, video (levels 16 to 235)
    gamma: float = 1.0
    mirrored: bool = False
    fit: str = "letterbox"  # letterbox, stretch, crop
    place: str = "centre"  # centre, top-left, bottom-right
    padding: int = 114
    interpolation: int = cv2.INTER_LINEAR
    pillow: bool = False  # resized by Pillow, which smooths
    size_hw: tuple[int, int] | None = None
    swapped: bool = False  # height for width
    rounds_down: bool = False  # the sides of the resized picture
    scale: float = 1 / 255
    offset: float = 0.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: str = "nchw"
    conf: float = 0.25
    iou: float = 0.7
    most: int = 300
    suppresses: bool = True
    agnostic: bool = False
    maps_back: bool = True
    box: str = "xyxy"  # xyxy, xywh, cxcywh, normalized
    classes: tuple[int, ...] | None = None  # id of the model -> id that is told
    class_offset: int = 0
    sigmoid_again: bool = False
    geometry: dict[str, Any] = field(default_factory=dict, compare=False)

    def pixels(self, path: Path) -> Array:
        """Decodes; (H, W, 3), uint8."""
        image = Image.open(path)
        if self.oriented:
            image = ImageOps.exif_transpose(image)
        rgb: Array = np.asarray(image.convert("RGB"))
        if self.channels == "bgr":
            rgb = rgb[..., ::-1]
        elif self.channels == "grey":
            rgb = np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=2)
        if self.decoded == "video":
            rgb = (rgb.astype(np.float32) * (219 / 255) + 16).round().astype(np.uint8)
        if self.gamma != 1.0:
            rgb = (255 * (rgb / 255.0) ** self.gamma).round().astype(np.uint8)
        return np.ascontiguousarray(rgb[:, ::-1] if self.mirrored else rgb)

    def fitted(self, rgb: Array) -> Array:
        """Brings an image to the model's size, and notes how."""
        height, width = self.size_hw or self.model.size_hw
        if self.swapped:
            height, width = width, height
        h, w = rgb.shape[:2]
        if self.fit == "stretch":
            self.geometry.update(ratio=(width / w, height / h), offset=(0, 0), shape=(h, w))
            return self._resize(rgb, width, height)
        if self.fit == "crop":
            ratio = max(height / h, width / w)
            big = self._resize(rgb, round(w * ratio), round(h * ratio))
            top, left = (big.shape[0] - height) // 2, (big.shape[1] - width) // 2
            self.geometry.update(ratio=(ratio, ratio), offset=(-left, -top), shape=(h, w))
            return big[top : top + height, left : left + width]
        ratio = min(height / h, width / w)
        new_w, new_h = (int(w * ratio), int(h * ratio)) if self.rounds_down else (round(w * ratio), round(h * ratio))
        small = self._resize(rgb, new_w, new_h)
        free_w, free_h = width - new_w, height - new_h
        left, top = {
            "centre": (round(free_w / 2 - 0.1), round(free_h / 2 - 0.1)),
            "top-left": (0, 0),
            "bottom-right": (free_w, free_h),
        }[self.place]
        canvas = np.full((height, width, 3), self.padding, np.uint8)
        canvas[top : top + new_h, left : left + new_w] = small
        self.geometry.update(ratio=(ratio, ratio), offset=(left, top), shape=(h, w))
        return canvas

    def tensor(self, path: Path) -> Array:
        """What the model is fed: float32, with a batch of one."""
        image = self.fitted(self.pixels(path)).astype(np.float32) * self.scale + self.offset
        image = (image - np.float32(self.mean)) / np.float32(self.deviation)
        return (image[None] if self.layout == "nhwc" else image.transpose(2, 0, 1)[None]).astype(np.float32)

    def predictions(self, path: Path) -> list[dict[str, Any]]:
        """What it says of one image."""
        tensor = self.tensor(path)
        if tensor.shape[2:] != self.model.size_hw:
            raise NothingComesOutError(f"the model takes {self.model.size_hw}, not {tensor.shape}")
        table = self.model.run(tensor)
        if table.ndim != 2 or table.shape[0] != 4 + len(self.model.names):
            raise NothingComesOutError(f"the model answers {table.shape}")
        scores = table[4:].max(axis=0)
        kept = scores > self.conf
        boxes, classes, scores = table[:4, kept].T, table[4:, kept].argmax(axis=0), scores[kept]
        corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
        order = np.argsort(-scores, kind="stable")
        chosen = list(order) if not self.suppresses else self._suppress(corners, classes, scores, order)
        return [self._told(corners[n], int(classes[n]), float(scores[n])) for n in chosen[: self.most]]

    def document(self, paths: list[Path]) -> dict[str, Any]:
        """What it says of images, in the shape of `docs/formats/predictions.md`."""
        images = []
        for path in paths:
            found = self.predictions(path)
            height, width = self.geometry["shape"]
            images.append({"source": path.name, "width": width, "height": height, "predictions": found})
        return {"model": "somebody's", "version": "1", "variant": "own", "images": images}

    def write(self, paths: list[Path], file: Path) -> Path:
        file.write_text(json.dumps(self.document(paths)))
        return file

    def _resize(self, image: Array, width: int, height: int) -> Array:
        if self.pillow:
            return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        return cv2.resize(image, (width, height), interpolation=self.interpolation)

    def _suppress(self, boxes: Array, classes: Array, scores: Array, order: Array) -> list[int]:
        apart = 0 if self.agnostic else 7680
        moved = boxes + classes[:, None] * apart
        chosen: list[int] = []
        for n in order:
            if not chosen or _overlaps(moved[n], moved[chosen]).max() <= self.iou:
                chosen.append(int(n))
            if len(chosen) == self.most:
                break
        return chosen

    def _told(self, corners: Array, number: int, score: float) -> dict[str, Any]:
        height, width = self.geometry["shape"]
        box = corners.astype(np.float64)
        if self.maps_back:
            offset, ratio = np.tile(self.geometry["offset"], 2), np.tile(self.geometry["ratio"], 2)
            box = np.clip((box - offset) / ratio, 0, [width, height, width, height])
        if self.mirrored and self.maps_back:
            box = box[[2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
        if self.box == "xywh":
            box = np.concatenate([box[:2], box[2:] - box[:2]])
        elif self.box == "cxcywh":
            box = np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]])
        elif self.box == "normalized":
            box = box / [width, height, width, height]
        number = number if self.classes is None else self.classes[number]
        number = (number + self.class_offset) % len(self.model.names)
        if self.sigmoid_again:
            score = float(1 / (1 + np.exp(-score)))
        return {
            "class_id": number,
            "class_name": self.model.names[number],
            "score": score,
            "box_xyxy": [float(one) for one in box],
        }


def _overlaps(one: Array, others: Array) -> Array:
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(one[2:] - one[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1)
    return np.asarray(both / np.maximum(areas - both, 1e-9))
