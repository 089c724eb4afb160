# SPDX-License-Identifier: Apache-2.0
"""Where a tracked box will be: a Kalman filter of constant velocity. Private to `track`.

Over centre x, centre y, width / height, and height, each with its velocity. All noise is independent between the four,
so the 8 x 8 covariance is four 2 x 2 ones, and the filter is arithmetic on arrays of four. The deviations are those of
ByteTrack (arXiv:2110.06864), which took them from DeepSORT (arXiv:1703.07402): a share of the height for lengths,
constants for the aspect ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Motion"]

FloatArray = NDArray[np.float64]

_PLACE = 1 / 20
_SPEED = 1 / 160
_ASPECT, _ASPECT_SPEED, _ASPECT_SEEN = 1e-2, 1e-5, 1e-1


def _squares(height: float, share: float, aspect: float) -> FloatArray:
    """Returns the variances of x, y, aspect, height."""
    length = share * height
    return np.array([length**2, length**2, aspect**2, length**2])


@dataclass
class Motion:
    """A box's place and velocity with their covariances, each (4,) float64.

    Attributes:
        place_xyah: centre x, centre y, width / height, height, in pixels.
        speed_xyah: their change a frame.
        place_variance: of the place.
        covariance: of place and speed.
        speed_variance: of the speed.
    """

    place_xyah: FloatArray
    speed_xyah: FloatArray
    place_variance: FloatArray
    covariance: FloatArray
    speed_variance: FloatArray

    @classmethod
    def begin(cls, seen_xyah: FloatArray) -> Self:
        """Begins with a box seen, at rest."""
        height = float(seen_xyah[3])
        place = _squares(height, 2 * _PLACE, _ASPECT)
        return cls(seen_xyah.copy(), np.zeros(4), place, np.zeros(4), _squares(height, 10 * _SPEED, _ASPECT_SPEED))

    def step(self) -> None:
        """Moves on by a frame."""
        height = float(self.place_xyah[3])
        self.place_xyah = self.place_xyah + self.speed_xyah
        self.place_variance = (
            self.place_variance + 2 * self.covariance + self.speed_variance + _squares(height, _PLACE, _ASPECT)
        )
        self.covariance = self.covariance + self.speed_variance
        self.speed_variance = self.speed_variance + _squares(height, _SPEED, _ASPECT_SPEED)

    def correct(self, seen_xyah: FloatArray) -> None:
        """Learns where the box was seen."""
        spread = self.place_variance + _squares(float(self.place_xyah[3]), _PLACE, _ASPECT_SEEN)
        missed = seen_xyah - self.place_xyah
        place_gain, speed_gain = self.place_variance / spread, self.covariance / spread
        self.place_xyah = self.place_xyah + place_gain * missed
        self.speed_xyah = self.speed_xyah + speed_gain * missed
        self.speed_variance = self.speed_variance - speed_gain * self.covariance
        self.covariance = self.covariance - place_gain * self.covariance
        self.place_variance = self.place_variance - place_gain * self.place_variance

    def box_xyxy(self) -> FloatArray:
        """Returns the box: left, top, right, bottom."""
        x, y, aspect, height = self.place_xyah
        half_width, half_height = aspect * height / 2, height / 2
        return np.array([x - half_width, y - half_height, x + half_width, y + half_height])
