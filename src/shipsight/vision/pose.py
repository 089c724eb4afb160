# SPDX-License-Identifier: Apache-2.0
"""The task `pose`: boxes with keypoints.

Leaves to others: suppression by boxes (`detect.keep_best`). Rules: keypoints are clipped to the image, as Ultralytics
does; a model without keypoint confidences gives confidence 1. Stable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import CardError
from shipsight.model import Card, ImagePredictions, OutputForm
from shipsight.vision.detect import check_finite, keep_best
from shipsight.vision.geometry import Geometry
from shipsight.vision.heads import decode_candidates
from shipsight.vision.settings import PredictSettings

__all__ = ["pose"]


def pose(
    outputs: Mapping[str, NDArray[Any]],
    *,
    card: Card,
    form: OutputForm,
    geometry: Geometry,
    settings: PredictSettings,
    source: str | None,
) -> ImagePredictions:
    """Makes boxes with keypoints; arguments, result and errors as in `postprocess`.

    Raises:
        CardError: the card does not say the shape of the keypoints.
    """
    if card.output.keypoint_shape is None:
        raise CardError("a pose model needs the shape of its keypoints", where="output.keypoint_shape")
    points, values = card.output.keypoint_shape
    kept = keep_best(decode_candidates(outputs, card=card, form=form, settings=settings), settings)
    keypoints = np.ones((len(kept.scores), points, 3), dtype=np.float32)
    keypoints[..., :values] = kept.extras.reshape(-1, points, values)
    return ImagePredictions(
        source=source,
        width=geometry.original_hw[1],
        height=geometry.original_hw[0],
        class_names=card.class_names,
        class_ids=kept.class_ids,
        scores=kept.scores,
        boxes_xyxy=check_finite("boxes", geometry.boxes_to_original(kept.boxes_xyxy)),
        keypoints_xyc=check_finite("keypoints", geometry.keypoints_to_original(keypoints)),
    )
