# SPDX-License-Identifier: Apache-2.0
"""What callers ask of models and what these say, whatever wire it comes over: plain values. Stable."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.model import ImagePredictions, Predictions
from shipsight.vision import PredictSettings, TileSettings

__all__ = ["Answer", "EncodedImage", "Inference", "Pixels", "Question", "Target"]

Pixels = NDArray[np.uint8]
"""(height, width, 3), RGB."""


@dataclass(frozen=True)
class Target:
    """Which model is asked.

    Attributes:
        model: its name.
        version: None for the current one, or the canary.
        variant: None for the model's default.
        key: requests of one key go to one version while none is named; where clients give none, each request has its own.
    """

    model: str
    version: str | None = None
    variant: str | None = None
    key: str = field(default_factory=partial(secrets.token_hex, 8))


@dataclass(frozen=True)
class EncodedImage:
    """An image as it came.

    Attributes:
        data: the file's bytes, or a view of them.
        source: what the caller calls it, or None.
    """

    data: bytes | memoryview
    source: str | None = None


@dataclass(frozen=True)
class Question:
    """What a caller asks.

    Attributes:
        target: of whom.
        images: one and more.
        settings: thresholds.
        deadline_s: seconds from now within which the answer must come, None for the server's default.
        tiles: how images are cut into windows, None for not at all.
        render: makes something of pixels and predictions in the same job (a drawn image), None for nothing.
        subject: whom the images are of, as a header says that a recording policy names; None where it says nothing.
    """

    target: Target
    images: Sequence[EncodedImage]
    settings: PredictSettings = PredictSettings()
    deadline_s: float | None = None
    tiles: TileSettings | None = None
    render: Callable[[Pixels, ImagePredictions], bytes] | None = None
    subject: str | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says.

    Attributes:
        predictions: one entry an image, in order.
        stages_ms: milliseconds by stage, summed over the images.
        rendered: what `render` made, one an image; empty without it.
    """

    predictions: Predictions
    stages_ms: Mapping[str, float]
    rendered: tuple[bytes, ...] = ()


@dataclass(frozen=True, eq=False)
class Inference:
    """What a variant gives for a tensor.

    Attributes:
        outputs: output name -> array.
        stages_ms: milliseconds in `queue` and `infer`, summed over the batch.
    """

    outputs: Mapping[str, NDArray[Any]]
    stages_ms: Mapping[str, float]
