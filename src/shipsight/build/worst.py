# SPDX-License-Identifier: Apache-2.0
"""The images on which the default variant does worst, drawn for the report: labels, source, variant.

Private to `build`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shipsight.build.job import Job, Measured
from shipsight.build.measure import Labels
from shipsight.build.measuring import open_variant
from shipsight.build.report import WorstImage
from shipsight.build.timing_variants import predict_pixels
from shipsight.engines import EngineSession
from shipsight.errors import InternalError
from shipsight.model import ImagePredictions, Task, Variant
from shipsight.vision import PredictSettings, decode_image, draw

__all__ = ["draw_worst_images", "labels_as_predictions"]

_COUNT = 4
_LONGEST_SIDE_PX = 640


def draw_worst_images(
    job: Job, default: Measured, source: EngineSession, source_variant: Variant
) -> tuple[WorstImage, ...]:
    """Draws the report images with the lowest F1 of the default variant, at its recommended confidence."""
    splits = job.material.splits
    if default.accuracy is None or splits is None:
        return ()
    settings = PredictSettings(conf=min(max(default.accuracy.best_confidence or 0.25, 0.001), 0.999))
    variant = default.result.variant
    found = []
    with open_variant(default.candidate.files, variant, threads=job.options.threads) as session:
        for score in default.accuracy.worst_images(_COUNT):
            if score.missed + score.wrong == 0:
                continue
            sample = splits.report[score.index]
            pixels = decode_image(sample.image)
            labels = labels_as_predictions(sample.labels, pixels.shape, job.card.class_names, job.card.task)
            by_source = predict_pixels(source, job.card, source_variant, pixels, settings)
            by_variant = predict_pixels(session, job.card, variant, pixels, settings)
            drawn = [_to_jpeg(draw(pixels, one)) for one in (labels, by_source, by_variant)]
            note = f"{score.found} found, {score.missed} missed, {score.wrong} wrong at confidence {settings.conf:.2f}"
            found.append(WorstImage(sample.image.name, note, *drawn))
    return tuple(found)


def labels_as_predictions(
    labels: Labels, shape: Sequence[int], class_names: tuple[str, ...], task: Task
) -> ImagePredictions:
    """Returns labels in the shape of predictions, each with score 1, so that they are drawn alike.

    Args:
        labels: of one image.
        shape: of the image: height, width, channels.
        class_names: of the model.
        task: of the model.
    """
    height, width = int(shape[0]), int(shape[1])
    scale = np.array([width, height], dtype=np.float64)
    if task is Task.CLASSIFY:
        certain = np.zeros(len(class_names), np.float32)
        certain[labels.class_ids] = 1.0
        none = np.zeros(0, np.float32)
        return ImagePredictions(None, width, height, class_names, none.astype(np.int64), none, probabilities=certain)
    centres, sizes = labels.boxes_cxcywh[:, :2] * scale, labels.boxes_cxcywh[:, 2:] * scale
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1).astype(np.float32)
    keypoints = labels.keypoints_xyv
    corners = labels.corners_xy
    return ImagePredictions(
        source=None,
        width=width,
        height=height,
        class_names=class_names,
        class_ids=labels.class_ids,
        scores=np.ones(len(labels), np.float32),
        boxes_xyxy=None if task is Task.OBB else boxes,
        corners_xy=None if corners is None else (corners * scale).astype(np.float32),
        keypoints_xyc=None if keypoints is None else _visible(keypoints, scale),
        masks=_fill(labels, height, width) if task is Task.SEGMENT else None,
    )


def _visible(keypoints_xyv: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float32]:
    found = keypoints_xyv.astype(np.float32)
    found[..., :2] = keypoints_xyv[..., :2] * scale
    found[..., 2] = keypoints_xyv[..., 2] > 0
    return found


def _fill(labels: Labels, height: int, width: int) -> NDArray[np.bool_]:
    import cv2

    masks = np.zeros((len(labels), height, width), np.uint8)
    for mask, polygon in zip(masks, labels.polygons_xy or (), strict=True):
        cv2.fillPoly(mask, [np.rint(polygon * [width, height]).astype(np.int32)], 1)
    return masks.astype(bool)


def _to_jpeg(image_rgb: NDArray[np.uint8]) -> bytes:
    import cv2

    height, width = image_rgb.shape[:2]
    factor = _LONGEST_SIDE_PX / max(height, width)
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        image_rgb = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
    written, data = cv2.imencode(".jpg", image_rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    if not written:
        raise InternalError("OpenCV could not encode a JPEG", got=image_rgb.shape)
    return bytes(data.tobytes())
