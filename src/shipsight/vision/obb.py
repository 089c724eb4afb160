# SPDX-License-Identifier: Apache-2.0
"""The task `obb`: rotated boxes, as four corners.

Leaves to others: reading heads (`heads`), the arithmetic of suppression (`suppression`). Rules: corners are not
clipped to the image; they start at centre + half width + half height and follow the outline. Stable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.model import Card, ImagePredictions, OutputForm
from shipsight.vision.detect import check_finite
from shipsight.vision.geometry import Geometry
from shipsight.vision.heads import decode_candidates
from shipsight.vision.settings import PredictSettings
from shipsight.vision.suppression import suppress_rotated

__all__ = ["corners_to_rotated", "obb", "rotated_to_corners"]


def obb(
    outputs: Mapping[str, NDArray[Any]],
    *,
    card: Card,
    form: OutputForm,
    geometry: Geometry,
    settings: PredictSettings,
    source: str | None,
) -> ImagePredictions:
    """Makes rotated boxes; arguments, result and errors as in `postprocess`."""
    found = decode_candidates(outputs, card=card, form=form, settings=settings)
    boxes_xywhr = np.concatenate((found.boxes, found.extras), axis=1)
    if found.is_final:
        kept = np.argsort(-found.scores, kind="stable")[: settings.max_det]
    else:
        class_ids = None if settings.agnostic_nms else found.class_ids
        kept = suppress_rotated(
            boxes_xywhr, found.scores, class_ids=class_ids, iou=settings.iou, max_det=settings.max_det
        )
    corners = rotated_to_corners(geometry.rotated_to_original(boxes_xywhr[kept]))
    return ImagePredictions(
        source=source,
        width=geometry.original_hw[1],
        height=geometry.original_hw[0],
        class_names=card.class_names,
        class_ids=found.class_ids[kept],
        scores=found.scores[kept],
        corners_xy=check_finite("boxes", corners),
    )


def rotated_to_corners(boxes_xywhr: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turns rotated boxes into corners.

    Args:
        boxes_xywhr: (N, 5) centre x, y, width, height in pixels, angle in radians from the x axis towards the y axis.

    Returns:
        (N, 4, 2) float32 x, y, in the order of the outline.
    """
    centre, angle = boxes_xywhr[:, :2], boxes_xywhr[:, 4]
    cos, sin = np.cos(angle), np.sin(angle)
    half_width, half_height = boxes_xywhr[:, 2] / 2, boxes_xywhr[:, 3] / 2
    along = np.stack((half_width * cos, half_width * sin), axis=1)
    across = np.stack((-half_height * sin, half_height * cos), axis=1)
    outline = (centre + along + across, centre + along - across, centre - along - across, centre - along + across)
    return np.stack(outline, axis=1).astype(np.float32, copy=False)


def corners_to_rotated(corners_xy: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turns corners into rotated boxes; undoes `rotated_to_corners`.

    Args:
        corners_xy: (N, 4, 2) float32 x, y, in the order of the outline.

    Returns:
        (N, 5) float32 centre x, y, width, height in pixels, angle in radians.
    """
    along, across = corners_xy[:, 0] - corners_xy[:, 3], corners_xy[:, 0] - corners_xy[:, 1]
    sizes = (np.hypot(*along.T), np.hypot(*across.T), np.arctan2(along[:, 1], along[:, 0]))
    return np.concatenate((corners_xy.mean(axis=1), np.stack(sizes, axis=1)), axis=1)
