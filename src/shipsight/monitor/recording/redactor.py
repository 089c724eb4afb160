# SPDX-License-Identifier: Apache-2.0
"""Opens the bundle that a policy names to find what is to be redacted. Stable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shipsight.model import ImagePredictions
from shipsight.model.bundle import Bundle
from shipsight.monitor.recording.enforcement import Enforcement, Finder
from shipsight.predictor import load

__all__ = ["open_redactor"]


@contextmanager
def open_redactor(enforcement: Enforcement, bundle: Path | Bundle) -> Iterator[Finder]:
    """Gives what finds objects with a bundle's default variant, on one thread, so that requests keep theirs.

    Args:
        enforcement: of the policy.
        bundle: that it names, or that is served.

    Raises:
        UsageError: the bundle's model has no class that is to be redacted, or says not where.
        TamperedError: a file of the bundle differs from what its manifest promises.
        EnvironmentLackError: its engine is not here.
    """
    with load(bundle, threads=1) as predictor:
        card = predictor.card
        enforcement.check_finder(card.class_names, card.task, name=card.name)

        def find(image_rgb: NDArray[np.uint8], score: float) -> ImagePredictions:
            found: ImagePredictions = predictor.predict(image_rgb, conf=score)[0]
            return found

        yield find
