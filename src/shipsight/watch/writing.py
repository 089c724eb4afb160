# SPDX-License-Identifier: Apache-2.0
"""What is written of a video: a line of JSON a frame (`docs/commands/watch.md`), a video with the predictions drawn. Stable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import UsageError
from shipsight.model import ImagePredictions
from shipsight.vision import draw, import_cv2
from shipsight.watch.capture import Capture, Frame

__all__ = ["JsonLines", "VideoFile"]

_CODECS: Mapping[str, str] = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_USUAL_FPS = 25.0


class JsonLines:
    """Writes a line of JSON a frame, each at once and whole.

    Args:
        stream: takes the lines; closing it is its owner's affair.
        name: of the stream, for messages.
        head: what every line says of the model: `model`, `version`, `variant`.
    """

    def __init__(self, stream: TextIO, name: str, head: Mapping[str, object]) -> None:
        self._stream, self._name, self._head = stream, name, dict(head)

    def write(self, frame: Frame, predictions: ImagePredictions) -> None:
        """Writes a frame's line.

        Raises:
            UsageError: the line cannot be written (a full disk).
            BrokenPipeError: the reader left.
        """
        moment = datetime.fromtimestamp(frame.captured_s, UTC)
        line = {
            "frame": frame.index,
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "position_s": None if frame.position_s is None else round(frame.position_s, 4),
            "dropped": frame.dropped,
            **self._head,
            "images": [predictions.to_dict()],
        }
        text = json.dumps(line, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UsageError("the line cannot be written", where=self._name, got=error) from error


class VideoFile:
    """Writes a video of frames with their predictions drawn.

    Args:
        path: ends in .mp4, .mkv (MPEG-4) or .avi (Motion JPEG).
        capture: gives the frames. Where it keeps every frame, each is one of the file; else they stand where they
            stood in time, repeated where others were left out, so that the video plays as fast as the world did. A
            gap of more than a second is cut out.

    Raises:
        UsageError: another suffix.
    """

    def __init__(self, path: Path, capture: Capture) -> None:
        if path.suffix.lower() not in _CODECS:
            raise UsageError("not a kind of video that is written", where=path, expected=", ".join(_CODECS))
        self.path = path
        self._capture = capture
        self._writer: Any = None
        self._size_wh = (0, 0)
        self._fps = _USUAL_FPS
        self._begin_s = 0.0
        self._written = 0
        self._last: NDArray[np.uint8] | None = None

    def write(self, frame: Frame, predictions: ImagePredictions) -> None:
        """Writes a frame.

        Raises:
            UsageError: the file cannot be written.
        """
        cv2 = import_cv2()
        drawn = cv2.cvtColor(draw(frame.image_rgb, predictions), cv2.COLOR_RGB2BGR)
        moment_s = frame.captured_s if frame.position_s is None else frame.position_s
        if self._writer is None:
            self._open(cv2, drawn, moment_s)
        if drawn.shape[1::-1] != self._size_wh:
            # A file has one size; a camera may come back with another.
            drawn = cv2.resize(drawn, self._size_wh, interpolation=cv2.INTER_AREA)
        for _ in range(self._repeats(moment_s)):
            self._writer.write(self._last)
            self._written += 1
        self._last = drawn
        if self._capture.keeps_every_frame or moment_s >= self._begin_s + self._written / self._fps:
            self._writer.write(drawn)
            self._written += 1

    def close(self) -> None:
        """Completes the file."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def _open(self, cv2: Any, drawn: NDArray[np.uint8], moment_s: float) -> None:  # noqa: ANN401 - no types
        self._size_wh = (drawn.shape[1], drawn.shape[0])
        told = self._capture.connected
        self._fps = (told.fps if told is not None else None) or _USUAL_FPS
        codec = cv2.VideoWriter.fourcc(*_CODECS[self.path.suffix.lower()])
        writer = cv2.VideoWriter(str(self.path), cv2.CAP_FFMPEG, codec, self._fps, self._size_wh)
        if not writer.isOpened():
            raise UsageError("the video cannot be written", where=self.path)
        self._writer, self._begin_s = writer, moment_s

    def _repeats(self, moment_s: float) -> int:
        """Returns how often the last frame is shown again before one of this moment stands in its place."""
        if self._capture.keeps_every_frame or self._last is None:
            return 0
        missing = int((moment_s - self._begin_s) * self._fps) - self._written
        if missing > self._fps:
            self._begin_s += missing / self._fps
            return 0
        return max(missing, 0)
