# SPDX-License-Identifier: Apache-2.0
"""The task `detect`: boxes. `keep_best` is what segment and pose share with it.

Leaves to others: reading heads (`heads`), the arithmetic of suppression (`suppression`). Stable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import TensorError
from shipsight.model import Card, ImagePredictions, OutputForm
from shipsight.vision.geometry import Geometry
from shipsight.vision.heads import Candidates, decode_candidates
from shipsight.vision.settings import PredictSettings
from shipsight.vision.suppression import suppress

__all__ = ["check_finite", "detect", "keep_best"]


def detect(
    outputs: Mapping[str, NDArray[Any]],
    *,
    card: Card,
    form: OutputForm,
    geometry: Geometry,
    settings: PredictSettings,
    source: str | None,
) -> ImagePredictions:
    """Makes boxes; arguments, result and errors as in `postprocess`."""
    kept = keep_best(decode_candidates(outputs, card=card, form=form, settings=settings), settings)
    return ImagePredictions(
        source=source,
        width=geometry.original_hw[1],
        height=geometry.original_hw[0],
        class_names=card.class_names,
        class_ids=kept.class_ids,
        scores=kept.scores,
        boxes_xyxy=check_finite("boxes", geometry.boxes_to_original(kept.boxes_xyxy)),
    )


def keep_best(found: Candidates, settings: PredictSettings) -> Candidates:
    """Suppresses upright boxes, unless the model has, and keeps the best `max_det` by falling score."""
    if found.is_final:
        return found.select(np.argsort(-found.scores, kind="stable")[: settings.max_det])
    kept = suppress(
        found.boxes_xyxy,
        found.scores,
        class_ids=None if settings.agnostic_nms else found.class_ids,
        iou=settings.iou,
        max_det=settings.max_det,
    )
    return found.select(kept)


def check_finite(name: str, array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the array, or refuses it.

    Raises:
        TensorError: a number is infinite or not a number: the variant overflows.
    """
    if not np.isfinite(array).all():
        raise TensorError(
            "the model gave numbers that are not finite",
            where=name,
            hint="Run another precision: a half-precision variant may overflow.",
        )
    return array
