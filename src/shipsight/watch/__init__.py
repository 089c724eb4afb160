# SPDX-License-Identifier: Apache-2.0
"""Predictions on video as it comes: a camera, a file, a stream from the network.

Leaves to others: prediction and tracking (`predictor`, `vision`), the terminal (`cli.watch`). Invariants: a live source is
never fallen behind, only its newest frame is kept; one that breaks is opened again; what is written is whole when it ends.
Importing this does not load OpenCV. Stable.
"""

from shipsight.watch.capture import Capture, CaptureOptions, Connected, Frame, SourceBroken
from shipsight.watch.source import Source, SourceKind, parse_source
from shipsight.watch.watching import FrameSink, WatchSummary, watch
from shipsight.watch.writing import JsonLines, VideoFile

__all__ = [
    "Capture",
    "CaptureOptions",
    "Connected",
    "Frame",
    "FrameSink",
    "JsonLines",
    "Source",
    "SourceBroken",
    "SourceKind",
    "VideoFile",
    "WatchSummary",
    "parse_source",
    "watch",
]
