# SPDX-License-Identifier: Apache-2.0
"""The model's own view of an image: predictions, best score, and its features. Private.

The reference of the bundle looks, as it did when the training images were recorded: what a variant does is examined elsewhere.
Without `onnx` there are predictions and no features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.case import Case
from shipsight.errors import MissingDependencyError
from shipsight.model import ImagePredictions, OutputForm
from shipsight.predictor import Predictor, load
from shipsight.proof.embedding import is_plain
from shipsight.proof.statistics import Features
from shipsight.vision import PredictSettings, postprocess

__all__ = ["LOWEST_CONF", "Eye", "Look"]

LOWEST_CONF = 0.05
"""Predictions are kept from this score on."""


@dataclass(frozen=True, eq=False)
class Look:
    """What the model makes of one image.

    Attributes:
        predictions: from `LOWEST_CONF` on.
        vector: (D,) its features; None without `onnx`.
    """

    predictions: ImagePredictions
    vector: NDArray[np.float64] | None

    @property
    def best_score(self) -> float:
        """Highest score in the image, 0 to 1."""
        found = self.predictions
        scores = found.scores if found.probabilities is None else found.probabilities
        return float(scores.max()) if len(scores) else 0.0

    @property
    def confidence(self) -> float:
        """How sure the model is of what is in the image: mean of the three best scores (classify: the best), 0 to 1."""
        found = self.predictions
        if found.probabilities is not None:
            return float(found.probabilities.max())
        best = np.sort(found.scores)[::-1][:3]
        return float(best.sum()) / 3


class Eye:
    """Looks at images with the bundle's reference.

    Args:
        case: whose bundle is meant.
        recorded_tensor: the feature map that the training statistics were made of; None for no features.
    """

    def __init__(self, case: Case, recorded_tensor: str | None) -> None:
        self._settings = PredictSettings(conf=LOWEST_CONF)
        self._features: Features | None = None
        self._predictor: Predictor | None = None
        reference = next((one for one in case.bundle.variants if one.is_reference), case.variant)
        self._card = case.card.with_size(reference.size_hw)
        if recorded_tensor is not None and is_plain(reference):
            data = case.bundle.variant_files(reference.name)
            try:
                features = Features(next(one for name, one in data.items() if name.endswith(".onnx")), self._card)
            except MissingDependencyError:
                features = None  # told as a figure: the embedding is one measure of many
            if features is not None and features.tensor == recorded_tensor:
                self._features = features
        if self._features is None:
            self._predictor = load(case.bundle, variant=reference.name, threads=case.threads)

    @property
    def has_features(self) -> bool:
        """Whether looks hold vectors."""
        return self._features is not None

    def look(self, image_rgb: NDArray[np.uint8]) -> Look:
        """Looks at (H, W, 3) uint8 RGB pixels."""
        if self._predictor is not None:
            return Look(self._predictor.predict_one(None, image_rgb, self._settings), None)
        assert self._features is not None
        seen = self._features.see(image_rgb)
        found = postprocess(
            seen.outputs,
            card=self._card,
            form=OutputForm.RAW,
            geometry=seen.geometry,
            settings=self._settings,
            source=None,
        )
        return Look(found, seen.vector)

    def close(self) -> None:
        """Gives back what the engine holds."""
        if self._predictor is not None:
            self._predictor.close()
