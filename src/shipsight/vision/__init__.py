# SPDX-License-Identifier: Apache-2.0
"""Pixels to predictions: decoding, fitting, postprocessing, drawing.

Leaves to others: running the model (`engines`). Conversion to and from `supervision` is in
`shipsight.vision.supervision`. Invariant: importing this loads neither OpenCV nor a runtime. Stable.
"""

from shipsight.vision.decode import DEFAULT_MAX_PIXELS, decode_image
from shipsight.vision.draw import draw
from shipsight.vision.geometry import Geometry
from shipsight.vision.postprocess import TASKS, TaskFunction, postprocess
from shipsight.vision.prepare import prepare, to_tensor
from shipsight.vision.settings import PredictSettings
from shipsight.vision.suppression import suppress, suppress_rotated

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "TASKS",
    "Geometry",
    "PredictSettings",
    "TaskFunction",
    "decode_image",
    "draw",
    "postprocess",
    "prepare",
    "suppress",
    "suppress_rotated",
    "to_tensor",
]
