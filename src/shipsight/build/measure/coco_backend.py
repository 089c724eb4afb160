# SPDX-License-Identifier: Apache-2.0
"""faster-coco-eval: COCO's numbers as everybody computes them, and its run-length masks.

What for: the headline numbers of detect and segment come from here; mask overlap does for matching too. Leaves to
others: matches that can be resampled (`matching`), rotated boxes and keypoints (`accuracy`). Invariants: loaded only
when used; prints nothing. Stable.

Source: https://github.com/MiXaiLL76/faster_coco_eval (Apache-2.0), a faster COCO API with equal results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure.matching import AREAS, MAX_DETECTIONS
from shipsight.errors import MissingDependencyError

__all__ = ["CocoRecorder", "CocoSummary", "Geometry", "mask_areas", "mask_iou", "masks_to_rle", "polygons_to_rle"]

FloatArray = NDArray[np.float64]
Rle = dict[str, Any]
Geometry = Sequence[Rle] | FloatArray
"""Objects of an image: run-length masks, or (N, 4) boxes left, top, width, height in pixels."""


def _load(module: str) -> Any:  # noqa: ANN401 - an untyped module
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            "faster-coco-eval is not installed", where=module, hint="Run pip install 'shipsight[build]'."
        ) from error


def masks_to_rle(masks: NDArray[np.bool_]) -> list[Rle]:
    """Encodes (N, height, width) masks as COCO's compressed run lengths."""
    if not len(masks):
        return []
    stacked = np.asfortranarray(np.moveaxis(masks, 0, 2), dtype=np.uint8)
    encoded: list[Rle] = _load("faster_coco_eval.core.mask").encode(stacked)
    return encoded


def polygons_to_rle(polygons_xy: Sequence[FloatArray], size_hw: tuple[int, int]) -> list[Rle]:
    """Rasterizes polygons as the COCO API does.

    Args:
        polygons_xy: one (P, 2) array an object in pixels, three points or more.
        size_hw: height and width of the image in pixels.
    """
    if not polygons_xy:
        return []
    flat = [polygon.reshape(-1).tolist() for polygon in polygons_xy]
    encoded: list[Rle] = _load("faster_coco_eval.core.mask").frPyObjects(flat, *size_hw)
    return encoded


def mask_areas(masks: Sequence[Rle]) -> FloatArray:
    """Returns (N,) areas in pixels."""
    if not masks:
        return np.zeros(0)
    return np.asarray(_load("faster_coco_eval.core.mask").area(list(masks)), dtype=np.float64)


def mask_iou(masks: Sequence[Rle], others: Sequence[Rle]) -> FloatArray:
    """Returns (N, M) intersection over union."""
    if not masks or not others:
        return np.zeros((len(masks), len(others)))
    overlap = _load("faster_coco_eval.core.mask").iou(list(masks), list(others), [0] * len(others))
    return np.asarray(overlap, dtype=np.float64).reshape(len(masks), len(others))


@dataclass(frozen=True)
class CocoSummary:
    """COCO's numbers; NaN where no image has a label that counts.

    Attributes:
        map50_95: mean over ten IoU thresholds.
        map50: at IoU 0.5.
        map75: at IoU 0.75.
        by_size: `small`, `medium`, `large` -> mAP50-95.
    """

    map50_95: float
    map50: float
    map75: float
    by_size: dict[str, float]


class CocoRecorder:
    """Collects labels and predictions of images for one COCO evaluation."""

    def __init__(self, kind: str, class_count: int) -> None:
        """Starts empty.

        Args:
            kind: `bbox` or `segm`.
            class_count: number of classes; category ids are class id + 1.
        """
        self._kind = kind
        self._key = "bbox" if kind == "bbox" else "segmentation"
        self._images: list[dict[str, Any]] = []
        self._labels: list[dict[str, Any]] = []
        self._predictions: list[dict[str, Any]] = []
        self._categories = [{"id": i + 1, "name": str(i)} for i in range(class_count)]

    def add(
        self,
        size_hw: tuple[int, int],
        labels: tuple[NDArray[np.int64], FloatArray, Geometry],
        predictions: tuple[NDArray[np.int64], FloatArray, Geometry],
    ) -> None:
        """Adds the next image.

        Args:
            size_hw: height and width in pixels.
            labels: class ids (M,), areas (M,) in square pixels, geometry of M objects.
            predictions: class ids (N,), scores (N,), geometry of N objects.
        """
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, "height": size_hw[0], "width": size_hw[1]})
        for class_id, area, geometry in zip(*labels, strict=True):
            one: dict[str, Any] = {
                "id": len(self._labels) + 1,
                "image_id": image_id,
                "category_id": int(class_id) + 1,
                "iscrowd": 0,
            }
            self._labels.append({**one, "area": float(area), self._key: self._plain(geometry)})
        for class_id, score, geometry in zip(*predictions, strict=True):
            one = {"image_id": image_id, "category_id": int(class_id) + 1, "score": float(score)}
            self._predictions.append({**one, self._key: self._plain(geometry)})

    def _plain(self, geometry: Any) -> Any:  # noqa: ANN401 - a run-length mask or a row of numbers
        return geometry.tolist() if self._kind == "bbox" else geometry

    def summarize(self) -> CocoSummary:
        """Runs the evaluation; without any label all numbers are NaN, without any prediction 0."""
        if not self._labels:
            return CocoSummary(np.nan, np.nan, np.nan, dict.fromkeys(list(AREAS)[1:], np.nan))
        if not self._predictions:
            sizes = {name: self._present(*AREAS[name]) for name in list(AREAS)[1:]}
            return CocoSummary(0.0, 0.0, 0.0, sizes)
        api = _load("faster_coco_eval")
        truth = api.COCO({"images": self._images, "annotations": self._labels, "categories": self._categories})
        run = api.COCOeval_faster(truth, truth.loadRes(self._predictions), iouType=self._kind)
        run.params.maxDets = [MAX_DETECTIONS]
        run.evaluate()
        run.accumulate()
        # (thresholds, recalls, classes, areas, counts of detections); -1 where a class has no label that counts.
        precision = np.asarray(run.eval["precision"])[..., 0]
        names = list(AREAS)
        return CocoSummary(
            map50_95=_mean(precision[..., 0]),
            map50=_mean(precision[0, ..., 0]),
            map75=_mean(precision[5, ..., 0]),
            by_size={name: _mean(precision[..., names.index(name)]) for name in names[1:]},
        )

    def _present(self, low: float, high: float) -> float:
        return 0.0 if any(low <= label["area"] <= high for label in self._labels) else np.nan


def _mean(precision: FloatArray) -> float:
    counted = precision[precision > -1]
    return float(counted.mean()) if counted.size else float("nan")
