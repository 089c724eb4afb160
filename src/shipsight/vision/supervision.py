# SPDX-License-Identifier: Apache-2.0
"""Predictions to and from `supervision.Detections`, so that its trackers, zones and annotators can be used.

Leaves to others: everything supervision does. Rules: what supervision has a field for goes there (`xyxy`, `confidence`,
`class_id`, `mask`, `tracker_id`), class names into `data["class_name"]`, rotated corners into `data["xyxyxyxy"]`, keypoints
into `data["keypoints_xyc"]` (supervision keeps keypoints in a class of its own that has no boxes). The package is
loaded on first use. Stable.

Source: supervision's documentation of `Detections`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shipsight.errors import MissingDependencyError, UsageError
from shipsight.model import ImagePredictions

__all__ = ["from_supervision", "to_supervision"]

_CLASS_NAME = "class_name"
_CORNERS = "xyxyxyxy"
_KEYPOINTS = "keypoints_xyc"


def to_supervision(predictions: ImagePredictions) -> Any:  # noqa: ANN401 - supervision is an optional package
    """Turns predictions into `supervision.Detections`.

    Args:
        predictions: of one image; not a classifier's.

    Returns:
        `supervision.Detections` with N entries; arrays are copies. Rotated boxes get the upright box around them as
        `xyxy`.

    Raises:
        MissingDependencyError: supervision is not installed.
        UsageError: the predictions are a classifier's: there is nothing detected.
    """
    supervision = _import_supervision()
    if predictions.probabilities is not None:
        raise UsageError("a classifier's answer holds no detections", where="predictions", got="probabilities")
    names = np.array([predictions.class_names[i] for i in predictions.class_ids.tolist()], dtype=np.str_)
    data: dict[str, Any] = {_CLASS_NAME: names}
    boxes = predictions.boxes_xyxy
    if predictions.corners_xy is not None:
        data[_CORNERS] = predictions.corners_xy.copy()
        corners = predictions.corners_xy
        boxes = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
    if predictions.keypoints_xyc is not None:
        data[_KEYPOINTS] = predictions.keypoints_xyc.copy()
    return supervision.Detections(
        xyxy=np.zeros((0, 4), dtype=np.float32) if boxes is None else boxes.copy(),
        mask=None if predictions.masks is None else predictions.masks.copy(),
        confidence=predictions.scores.copy(),
        class_id=predictions.class_ids.copy(),
        tracker_id=None if predictions.track_ids is None else predictions.track_ids.copy(),
        data=data,
    )


def from_supervision(
    detections: Any,  # noqa: ANN401 - supervision is an optional package
    *,
    class_names: Sequence[str],
    width: int,
    height: int,
    source: str | None = None,
) -> ImagePredictions:
    """Turns `supervision.Detections` into predictions, by falling score.

    Args:
        detections: `supervision.Detections` with `class_id` and `confidence`.
        class_names: of the model, position = class id.
        width: of the image in pixels.
        height: of the image in pixels.
        source: what the caller calls the image.

    Returns:
        The predictions; arrays are copies.

    Raises:
        UsageError: class ids or confidences are missing, or a class id has no name.
        TensorError: a mask is not of the image's size.
    """
    count = len(detections.xyxy)
    if count and (detections.class_id is None or detections.confidence is None):
        raise UsageError("detections lack class ids or confidences", where="detections")
    class_ids = np.zeros(0, dtype=np.int64) if not count else np.asarray(detections.class_id, dtype=np.int64)
    if count and (class_ids.min() < 0 or class_ids.max() >= len(class_names)):
        got = f"{class_ids.min()} to {class_ids.max()}"
        raise UsageError("a class id has no name", where="class_id", expected=f"0 to {len(class_names) - 1}", got=got)
    scores = np.zeros(0, dtype=np.float32) if not count else np.asarray(detections.confidence, dtype=np.float32)
    corners = detections.data.get(_CORNERS)
    keypoints = detections.data.get(_KEYPOINTS)
    found = ImagePredictions(
        source=source,
        width=width,
        height=height,
        class_names=tuple(class_names),
        class_ids=class_ids,
        scores=scores,
        boxes_xyxy=np.asarray(detections.xyxy, dtype=np.float32) if corners is None else None,
        corners_xy=None if corners is None else np.asarray(corners, dtype=np.float32),
        keypoints_xyc=None if keypoints is None else np.asarray(keypoints, dtype=np.float32),
        masks=None if detections.mask is None else np.asarray(detections.mask, dtype=np.bool_),
        track_ids=None if detections.tracker_id is None else np.asarray(detections.tracker_id, dtype=np.int64),
    )
    return found.select(np.argsort(-found.scores, kind="stable"))


def _import_supervision() -> Any:  # noqa: ANN401 - a module of an optional package
    try:
        import supervision
    except ImportError as error:
        raise MissingDependencyError(
            "supervision is not installed",
            where="supervision",
            got=error,
            hint="Run: pip install 'shipsight[supervision]'",
        ) from error
    return supervision
