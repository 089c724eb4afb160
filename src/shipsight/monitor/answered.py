# SPDX-License-Identifier: Apache-2.0
"""What whoever watches a model in production is told of each image: the image and the answer. Stable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.model import ImagePredictions
from shipsight.vision import decode_image

__all__ = ["Answered"]


@dataclass(frozen=True, eq=False)
class Answered:
    """An image that was answered.

    Attributes:
        image: the file's bytes as they came or a view of them, or (height, width, 3) uint8 RGB pixels that nobody changes any more.
        predictions: the answer.
        model: name of who answered.
        version: of it.
        variant: of it.
        subject: what the header of the policy's `subject_header` said, None where it was not there.
        is_sealed: whether the request was sealed.
        is_drifting: whether the model's drift alarm is on.
    """

    image: bytes | memoryview | NDArray[np.uint8]
    predictions: ImagePredictions
    model: str
    version: str
    variant: str
    subject: str | None = None
    is_sealed: bool = False
    is_drifting: bool = False

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return len(self.image) if isinstance(self.image, bytes) else self.image.nbytes

    def image_rgb(self) -> NDArray[np.uint8]:
        """Returns its pixels, (height, width, 3) uint8, decoded anew each time.

        Raises:
            ImageError: the bytes cannot be decoded.
        """
        return self.image if isinstance(self.image, np.ndarray) else decode_image(self.image)
