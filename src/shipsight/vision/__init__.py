# SPDX-License-Identifier: Apache-2.0
"""Pixels to predictions: decoding, fitting, postprocessing, tiling, tracking, drawing.

Leaves to others: running the model (`engines`). Conversion to and from `supervision` is in
`shipsight.vision.supervision`. Invariant: importing this loads neither OpenCV nor a runtime. Stable.
"""

from shipsight.vision._opencv import import_cv2
from shipsight.vision.decode import DEFAULT_MAX_PIXELS, decode_image
from shipsight.vision.draw import draw
from shipsight.vision.geometry import Geometry
from shipsight.vision.postprocess import TASKS, TaskFunction, postprocess
from shipsight.vision.prepare import prepare, to_tensor
from shipsight.vision.settings import PredictSettings
from shipsight.vision.suppression import suppress, suppress_rotated
from shipsight.vision.tiling import TileSettings, predict_windows
from shipsight.vision.track import TRACK_CONF, ByteTrack, TrackedBoxes, Tracker, TrackSettings

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "TASKS",
    "TRACK_CONF",
    "ByteTrack",
    "Geometry",
    "PredictSettings",
    "TaskFunction",
    "TileSettings",
    "TrackSettings",
    "TrackedBoxes",
    "Tracker",
    "decode_image",
    "draw",
    "import_cv2",
    "postprocess",
    "predict_windows",
    "prepare",
    "suppress",
    "suppress_rotated",
    "to_tensor",
]
