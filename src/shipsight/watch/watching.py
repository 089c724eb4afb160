# SPDX-License-Identifier: Apache-2.0
"""The loop: frames to predictions to whoever writes them. Stable."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from shipsight.model import ImagePredictions
from shipsight.watch.capture import Capture, Frame

__all__ = ["FrameSink", "WatchSummary", "watch"]


class FrameSink(Protocol):
    """Takes frames with their predictions."""

    def write(self, frame: Frame, predictions: ImagePredictions) -> None:
        """Takes one."""


@dataclass(frozen=True)
class WatchSummary:
    """What a watch came to.

    Attributes:
        frames: predicted on.
        dropped: left out.
        reconnects: how often a live source was opened again.
        seconds: from beginning to end.
    """

    frames: int
    dropped: int
    reconnects: int
    seconds: float


def watch(
    capture: Capture,
    answer: Callable[[Frame], ImagePredictions],
    sinks: Sequence[FrameSink],
    *,
    most_frames: int | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] = time.monotonic,
) -> WatchSummary:
    """Predicts on the frames of a source until it ends, enough were seen, or nobody wants more.

    Args:
        capture: gives frames; entered already.
        answer: makes predictions of a frame.
        sinks: take both, in order.
        most_frames: how many frames to predict on, None for all.
        is_wanted: asked before each frame and while waiting for one.
        clock: monotonic seconds.

    Raises:
        ImageUnreadableError, StreamLostError: as `Capture.frames`.
    """
    begin_s = clock()
    count = 0
    for frame in capture.frames(is_wanted):
        predictions = answer(frame)
        for sink in sinks:
            sink.write(frame, predictions)
        count += 1
        if count == most_frames:
            break
    return WatchSummary(
        frames=count,
        dropped=capture.dropped,
        reconnects=capture.reconnects,
        seconds=clock() - begin_s,
    )
