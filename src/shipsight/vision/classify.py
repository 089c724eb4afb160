# SPDX-License-Identifier: Apache-2.0
"""The task `classify`: one probability a class. Thresholds and filters do not apply. Stable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import TensorError
from shipsight.model import Card, ImagePredictions, OutputForm
from shipsight.vision.detect import check_finite
from shipsight.vision.geometry import Geometry
from shipsight.vision.settings import PredictSettings

__all__ = ["classify"]


def classify(
    outputs: Mapping[str, NDArray[Any]],
    *,
    card: Card,
    form: OutputForm,
    geometry: Geometry,
    settings: PredictSettings,
    source: str | None,
) -> ImagePredictions:
    """Makes probabilities; arguments, result and errors as in `postprocess`."""
    del form, settings  # part of every task's signature; a classifier has one form and nothing to filter
    expected = (1, len(card.class_names))
    found = [array for array in outputs.values() if array.shape == expected]
    if len(found) != 1:
        shapes = {name: array.shape for name, array in outputs.items()}
        raise TensorError("no probabilities of one image", where="outputs", expected=expected, got=shapes)
    return ImagePredictions(
        source=source,
        width=geometry.original_hw[1],
        height=geometry.original_hw[0],
        class_names=card.class_names,
        class_ids=np.zeros(0, dtype=np.int64),
        scores=np.zeros(0, dtype=np.float32),
        probabilities=check_finite("probabilities", found[0][0].astype(np.float32)),
    )
