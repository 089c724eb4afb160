# SPDX-License-Identifier: Apache-2.0
"""Frames of a source, read in a thread of its own.

Of a live source only the newest frame is kept: whoever is slow gets the present, and the count of what was left out. A
live source that breaks, ends or hangs is opened again, after pauses that grow. A file gives every frame, in order, or
plays in its own time. Leaves to others: what is done with frames. Decoding is OpenCV's (its bundled FFmpeg). Stable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import ImageUnreadableError, StreamLostError, UsageError
from shipsight.vision import import_cv2
from shipsight.watch.source import Source, SourceKind

__all__ = ["Capture", "CaptureOptions", "Connected", "Frame", "SourceBroken"]

_POLL_S = 0.1  # a signal's handler only sets a flag: who waits looks at it this often
_JOIN_S = 2.0


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    Attributes:
        index: its place among all frames that came, from 0.
        image_rgb: (height, width, 3) uint8 RGB.
        captured_s: when it was decoded, seconds since 1970.
        position_s: seconds from the beginning of a file, None of a live source.
        dropped: frames left out before it, since the beginning.
    """

    index: int
    image_rgb: NDArray[np.uint8]
    captured_s: float
    position_s: float | None = None
    dropped: int = 0


@dataclass(frozen=True)
class Connected:
    """A source was opened.

    Attributes:
        width: of its frames in pixels.
        height: of its frames in pixels.
        fps: frames a second that it promises, None where it does not say.
    """

    width: int
    height: int
    fps: float | None


@dataclass(frozen=True)
class SourceBroken:
    """A live source gives no more frames.

    Attributes:
        reason: in words.
        pause_s: seconds until it is opened again.
    """

    reason: str
    pause_s: float


@dataclass(frozen=True)
class CaptureOptions:
    """How a source is read.

    Attributes:
        timeout_s: seconds without an answer after which a stream counts as broken, when opening and when reading.
        first_pause_s: seconds before a broken source is opened again; doubled each time it fails anew.
        longest_pause_s: where doubling ends.
        give_up_s: seconds without a frame after which it is given up; None for never.
        is_realtime: whether a file plays in its own time, as a live source would.
    """

    timeout_s: float = 10.0
    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0
    give_up_s: float | None = None
    is_realtime: bool = False

    def __post_init__(self) -> None:
        for name in ("timeout_s", "first_pause_s", "longest_pause_s", "give_up_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError("time out of range", where=name, expected="above 0", got=value)


class Capture:
    """Reads a source until it ends or is closed.

    Args:
        source: what is read.
        options: how.
        on_event: told, in the reading thread, of what happens to the source.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        source: Source,
        options: CaptureOptions = CaptureOptions(),
        *,
        on_event: Callable[[Connected | SourceBroken], None] = lambda event: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.options = options
        self.keeps_every_frame = not source.is_live and not options.is_realtime
        self.connected: Connected | None = None
        self.reconnects = 0
        self._on_event, self._clock = on_event, clock
        self._slot = _Slot(self.keeps_every_frame)
        self._closing = threading.Event()
        self._error: Exception | None = None
        self._count = 0
        # A library that hangs in spite of its time-outs must not keep the process from leaving.
        self._thread = threading.Thread(target=self._run, name="shipsight-capture", daemon=True)

    def frames(self, is_wanted: Callable[[], bool] = lambda: True) -> Iterator[Frame]:
        """Yields frames until the source ends or nobody wants more.

        Args:
            is_wanted: asked several times a second while waiting.

        Raises:
            ImageUnreadableError: a file is no video.
            StreamLostError: a live source gave no frame for `give_up_s`.
        """
        while (frame := self._slot.take(is_wanted)) is not None:
            yield frame
        if self._error is not None and is_wanted():
            raise self._error

    @property
    def dropped(self) -> int:
        """Frames left out so far."""
        return self._slot.dropped

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._slot.end()
        self._thread.join(_JOIN_S)

    def _run(self) -> None:
        try:
            if self.source.is_live:
                self._read_live()
            else:
                self._read_file()
        except Exception as error:  # noqa: BLE001 - handed to whoever takes the frames
            self._error = error
        finally:
            self._slot.end()

    def _read_file(self) -> None:
        if self._read() is None:
            raise ImageUnreadableError("not a video that can be read", where=self.source.name)
        if self._count == 0:
            raise ImageUnreadableError("the video has no frame that can be read", where=self.source.name)

    def _read_live(self) -> None:
        pause_s, last_frame_s = self.options.first_pause_s, self._clock()
        while not self._closing.is_set():
            before, began_s = self._count, self._clock()
            last_read_s = self._read()
            now_s = self._clock()
            if self._closing.is_set():
                return
            if self._count > before:
                last_frame_s = now_s
                if now_s - began_s >= pause_s:
                    pause_s = self.options.first_pause_s
            reason = "it cannot be opened" if last_read_s is None else "it ended"
            if last_read_s is not None and last_read_s >= 0.9 * self.options.timeout_s:
                reason = f"no frame for {last_read_s:.3g} s"
            left_s = None if self.options.give_up_s is None else last_frame_s + self.options.give_up_s - now_s
            if left_s is not None and left_s <= 0:
                raise StreamLostError(
                    "the source gives no frames",
                    where=self.source.name,
                    expected=f"one within {self.options.give_up_s:g} s",
                    got=reason,
                )
            self._on_event(SourceBroken(reason, pause_s))
            self._closing.wait(pause_s if left_s is None else min(pause_s, left_s))
            pause_s = min(2 * pause_s, self.options.longest_pause_s)

    def _read(self) -> float | None:
        """Reads until the source gives no more; returns how long the last try took, None where it was not opened."""
        cv2 = import_cv2()
        video = self._open(cv2)
        try:
            if not video.isOpened():
                return None
            self._tell_connected(cv2, video)
            began_s, in_source = self._clock(), 0
            while not self._closing.is_set():
                asked_s = self._clock()
                is_there, image_bgr = video.read()
                if not is_there:
                    return self._clock() - asked_s
                position_s = None if self.source.is_live else self._position(cv2, video, in_source)
                if position_s is not None and self.options.is_realtime:
                    self._closing.wait(max(began_s + position_s - self._clock(), 0.0))
                image_rgb = cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB)
                self._slot.put(Frame(self._count, image_rgb, time.time(), position_s))
                self._count += 1
                in_source += 1
            return 0.0
        finally:
            video.release()

    def _open(self, cv2: Any) -> Any:  # noqa: ANN401 - OpenCV has no types
        target = self.source.target
        if self.source.kind is SourceKind.CAMERA:
            return cv2.VideoCapture(target, cv2.CAP_V4L2)
        # FFmpeg by name: the backends that OpenCV would try next print the whole address.
        timeout_ms = max(int(self.options.timeout_s * 1e3), 1)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
        return cv2.VideoCapture(target, cv2.CAP_FFMPEG, limits)

    def _tell_connected(self, cv2: Any, video: Any) -> None:  # noqa: ANN401 - OpenCV has no types
        fps = float(video.get(cv2.CAP_PROP_FPS))
        if self.connected is not None:
            self.reconnects += 1
        self.connected = Connected(
            int(video.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(video.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            # Streams without a rate of their own say 90000, the clock of RTP.
            fps if 1 <= fps <= 240 else None,
        )
        self._on_event(self.connected)

    def _position(self, cv2: Any, video: Any, index: int) -> float:  # noqa: ANN401 - OpenCV has no types
        told_s = float(video.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
        if told_s > 0 or index == 0 or self.connected is None or self.connected.fps is None:
            return max(told_s, 0.0)
        return index / self.connected.fps


class _Slot:
    """Hands frames from one thread to another: the newest alone, or every one."""

    def __init__(self, keeps_all: bool) -> None:
        self._keeps_all = keeps_all
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self._is_ended = False
        self.dropped = 0

    def put(self, frame: Frame) -> None:
        with self._changed:
            while self._keeps_all and self._frame is not None and not self._is_ended:
                self._changed.wait()
            if self._frame is not None:
                self.dropped += 1
            self._frame = frame
            self._changed.notify_all()

    def take(self, is_wanted: Callable[[], bool]) -> Frame | None:
        """Returns the next frame; None where there is none any more, or nobody wants it."""
        with self._changed:
            while self._frame is None and not self._is_ended and is_wanted():
                self._changed.wait(_POLL_S)
            frame, self._frame = self._frame, None
            self._changed.notify_all()
            return None if frame is None or not is_wanted() else replace(frame, dropped=self.dropped)

    def end(self) -> None:
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()
