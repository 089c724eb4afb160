# SPDX-License-Identifier: Apache-2.0
"""From predictions and labels of an image to overlaps, one matcher for boxes, masks, keypoints and rotated boxes.

What for: says per task what an object's overlap and area are. Leaves to others: matching itself (`matching`), numbers
(`accuracy`). Invariants: labels are scaled by the width and height of the predictions, which are those of the image
after EXIF orientation; a table entry per task names its matchers, the headline's last. Stable.

Source: COCO API; area of a pose label: YOLO labels hold no mask, so 0.53 of the box stands in for it, the share that
Ultralytics validates with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure.coco_backend import (
    CocoRecorder,
    CocoSummary,
    mask_areas,
    mask_iou,
    masks_to_rle,
    polygons_to_rle,
)
from shipsight.build.measure.dataset import Sample
from shipsight.build.measure.matching import MatchTable, Objects, TableBuilder
from shipsight.build.measure.overlap import box_iou, keypoint_sigmas, object_keypoint_similarity, rotated_iou
from shipsight.errors import DatasetError, MissingDependencyError, UsageError
from shipsight.model import ImagePredictions, Task

__all__ = ["POSE_AREA_SHARE", "TASK_MATCHERS", "TaskMatcher"]

FloatArray = NDArray[np.float64]

POSE_AREA_SHARE = 0.53
"""Area of a person as a share of its box, where no mask is known."""


class TaskMatcher(ABC):
    """Collects the matches of images for one kind of geometry."""

    def __init__(self, class_count: int) -> None:
        """Starts empty.

        Args:
            class_count: number of the model's classes.
        """
        self.class_count = class_count
        self._builder = TableBuilder(class_count)

    @abstractmethod
    def add(self, predictions: ImagePredictions, sample: Sample) -> None:
        """Matches the next image.

        Raises:
            UsageError: the predictions lack this geometry.
            DatasetError: the labels do not fit.
        """

    def summarize(self) -> CocoSummary | None:
        """Returns faster-coco-eval's numbers, None where it has no such geometry."""
        return None

    def table(self, area: str) -> MatchTable:
        """Returns the matches of all images for a range of object area."""
        return self._builder.build(area)

    def _class_ids(self, sample: Sample) -> NDArray[np.int64]:
        class_ids = sample.labels.class_ids
        if len(class_ids) and int(class_ids.max()) >= self.class_count:
            raise DatasetError(
                "a label has a class that the model does not know",
                where=sample.image,
                expected=f"below {self.class_count}",
                got=int(class_ids.max()),
            )
        return class_ids


def _need(array: NDArray[np.float32] | None, what: str, predictions: ImagePredictions) -> FloatArray:
    if array is None:
        raise UsageError(f"a prediction lacks {what}", where=predictions.source)
    return array.astype(np.float64)


def _label_boxes_xywh(sample: Sample, width: int, height: int) -> FloatArray:
    boxes = sample.labels.boxes_cxcywh * np.array([width, height, width, height], dtype=np.float64)
    boxes[:, :2] -= boxes[:, 2:] / 2
    return boxes


def _to_xywh(boxes_xyxy: FloatArray) -> FloatArray:
    return np.concatenate([boxes_xyxy[:, :2], boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]], axis=1)


class BoxMatcher(TaskMatcher):
    """Boxes along the axes."""

    def __init__(self, class_count: int) -> None:
        """Starts empty.

        Args:
            class_count: number of the model's classes.
        """
        super().__init__(class_count)
        self._recorder = CocoRecorder("bbox", class_count)

    def add(self, predictions: ImagePredictions, sample: Sample) -> None:
        """Matches the boxes of the next image."""
        found = _to_xywh(_need(predictions.boxes_xyxy, "boxes", predictions))
        truth = _label_boxes_xywh(sample, predictions.width, predictions.height)
        class_ids, scores = self._class_ids(sample), predictions.scores.astype(np.float64)
        areas = truth[:, 2] * truth[:, 3]
        self._recorder.add(
            (predictions.height, predictions.width), (class_ids, areas, truth), (predictions.class_ids, scores, found)
        )
        self._builder.add(
            Objects(predictions.class_ids, found[:, 2] * found[:, 3], scores),
            Objects(class_ids, areas),
            box_iou(found, truth),
        )

    def summarize(self) -> CocoSummary:
        """Returns faster-coco-eval's numbers."""
        return self._recorder.summarize()


class MaskMatcher(TaskMatcher):
    """Masks, in the pixels of the original image."""

    def __init__(self, class_count: int) -> None:
        """Starts empty.

        Args:
            class_count: number of the model's classes.
        """
        super().__init__(class_count)
        self._recorder = CocoRecorder("segm", class_count)

    def add(self, predictions: ImagePredictions, sample: Sample) -> None:
        """Matches the masks of the next image."""
        polygons = sample.labels.polygons_xy
        if predictions.masks is None:
            raise UsageError("a prediction lacks masks", where=predictions.source)
        if polygons is None:
            raise DatasetError("labels hold no polygons", where=sample.image)
        size_hw = predictions.height, predictions.width
        scale = np.array([predictions.width, predictions.height], dtype=np.float64)
        truth = polygons_to_rle([polygon * scale for polygon in polygons], size_hw)
        found = masks_to_rle(predictions.masks)
        class_ids, scores = self._class_ids(sample), predictions.scores.astype(np.float64)
        areas = mask_areas(truth)
        self._recorder.add(size_hw, (class_ids, areas, truth), (predictions.class_ids, scores, found))
        overlap = np.zeros((len(found), len(truth)))
        for class_id in np.intersect1d(predictions.class_ids, class_ids):
            rows, columns = np.flatnonzero(predictions.class_ids == class_id), np.flatnonzero(class_ids == class_id)
            overlap[np.ix_(rows, columns)] = mask_iou([found[i] for i in rows], [truth[i] for i in columns])
        self._builder.add(Objects(predictions.class_ids, mask_areas(found), scores), Objects(class_ids, areas), overlap)

    def summarize(self) -> CocoSummary:
        """Returns faster-coco-eval's numbers."""
        return self._recorder.summarize()


class KeypointMatcher(TaskMatcher):
    """Keypoints, by object keypoint similarity; labels without a visible keypoint are ignored."""

    def add(self, predictions: ImagePredictions, sample: Sample) -> None:
        """Matches the keypoints of the next image."""
        points = _need(predictions.keypoints_xyc, "keypoints", predictions)
        given = sample.labels.keypoints_xyv
        if given is None:
            raise DatasetError("labels hold no keypoints", where=sample.image)
        if len(points) and len(given) and points.shape[1] != given.shape[1]:
            raise DatasetError(
                "another number of keypoints", where=sample.image, expected=points.shape[1], got=given.shape[1]
            )
        boxes = _label_boxes_xywh(sample, predictions.width, predictions.height)
        truth = given * np.array([predictions.width, predictions.height, 1.0])
        areas = boxes[:, 2] * boxes[:, 3] * POSE_AREA_SHARE
        # The COCO API takes the area of a pose from the extent of its keypoints.
        extent = np.ptp(points[..., :2], axis=1) if len(points) else np.zeros((0, 2))
        overlap = np.zeros((len(points), len(given)))
        if overlap.size:
            sigmas = keypoint_sigmas(points.shape[1])
            overlap = object_keypoint_similarity(points[..., :2], truth, boxes, areas=areas, sigmas=sigmas)
        self._builder.add(
            Objects(predictions.class_ids, extent[:, 0] * extent[:, 1], predictions.scores.astype(np.float64)),
            Objects(self._class_ids(sample), areas, ignored=~(truth[..., 2] > 0).any(axis=1)),
            overlap,
        )


class RotatedBoxMatcher(TaskMatcher):
    """Rotated boxes, by the exact overlap of the rectangles."""

    def add(self, predictions: ImagePredictions, sample: Sample) -> None:
        """Matches the rotated boxes of the next image."""
        found = _need(predictions.corners_xy, "corners", predictions)
        given = sample.labels.corners_xy
        if given is None:
            raise DatasetError("labels hold no corners", where=sample.image)
        truth = _to_rectangles(given * np.array([predictions.width, predictions.height], dtype=np.float64))
        class_ids = self._class_ids(sample)
        same = predictions.class_ids[:, None] == class_ids[None]
        self._builder.add(
            Objects(predictions.class_ids, _areas(found), predictions.scores.astype(np.float64)),
            Objects(class_ids, _areas(truth)),
            np.where(same, rotated_iou(found, truth), 0.0),
        )


def _areas(corners_xy: FloatArray) -> FloatArray:
    following = np.roll(corners_xy, -1, axis=1)
    cross = corners_xy[..., 0] * following[..., 1] - corners_xy[..., 1] * following[..., 0]
    return np.asarray(np.abs(cross.sum(axis=1)) / 2)


def _to_rectangles(corners_xy: FloatArray) -> FloatArray:
    """Returns the smallest rectangle around each label: four clicked corners seldom form one exactly."""
    if not len(corners_xy):
        return corners_xy
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "opencv is not installed", where="cv2", hint="Run pip install opencv-python-headless."
        ) from error
    boxes = [cv2.boxPoints(cv2.minAreaRect(corners.astype(np.float32))) for corners in corners_xy]
    return np.stack(boxes).astype(np.float64)


TASK_MATCHERS: Mapping[Task, tuple[Callable[[int], TaskMatcher], ...]] = {
    Task.DETECT: (BoxMatcher,),
    Task.SEGMENT: (BoxMatcher, MaskMatcher),
    Task.POSE: (BoxMatcher, KeypointMatcher),
    Task.OBB: (RotatedBoxMatcher,),
}
"""What is matched for each task; the last gives the headline numbers."""
