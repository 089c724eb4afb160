# SPDX-License-Identifier: Apache-2.0
"""Takes what was answered and records what the policy picks, beside the requests: whoever is answered never waits for it.

`offer` decides and puts into a queue of bounded length and size; where it is full the recording is dropped, and counted. A thread of its own
decodes, redacts, encodes, seals and writes, and sweeps once an hour. What cannot be redacted is not kept. Leaves to others: asking the model
(the server). Stable.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from shipsight.access import EventSink
from shipsight.errors import MissingDependencyError, ShipsightError
from shipsight.model import ImagePredictions
from shipsight.monitor.recording.enforcement import Candidate, Finder, classes_in, day_of
from shipsight.monitor.recording.erasing import sweep
from shipsight.monitor.recording.record import Label, Recording, new_id, read_time, write_time
from shipsight.monitor.recording.store import NewRecording, Store
from shipsight.vision import decode_image

__all__ = ["Answered", "Recorder", "RecorderState"]

_BATCH = 16
_SWEEP_S = 3600.0
_QUALITY = 90
_OTHER = "application/octet-stream"
_KINDS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp", b"BM": "image/bmp"}
_log = logging.getLogger("shipsight.monitor")


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


@dataclass(frozen=True)
class RecorderState:
    """How recording fares.

    Attributes:
        waiting: images in the queue.
        recorded: that were kept.
        dropped: that found no room in the queue.
        failed: that could not be kept: no room on the disk, or not decoded or redacted.
        left_out: that a rule had picked and a clause forbade, by its name.
        last_error: of the last failure, None where there was none; it holds no content.
    """

    waiting: int
    recorded: int
    dropped: int
    failed: int
    left_out: Mapping[str, int]
    last_error: str | None


@dataclass(frozen=True, eq=False)
class _Waiting:
    answered: Answered
    at: datetime
    reasons: tuple[str, ...]
    size: int


@dataclass
class _Counts:
    recorded: int = 0
    dropped: int = 0
    failed: int = 0
    last_error: str | None = None
    waiting_bytes: int = 0


class Recorder:
    """Records into a store, whose writer it is.

    Args:
        store: open.
        find: gives what finds objects to redact, by the model's name; None where nothing is redacted.
        events: takes that something's time has passed and it was erased.
        actor: who records, as events tell it.
        most: images that may wait.
        most_bytes: bytes that may wait.

    Raises:
        UsageError: another process records there.
        EnvironmentLackError: the store cannot be written.
    """

    def __init__(
        self,
        store: Store,
        *,
        find: Callable[[str], Finder | None] | None = None,
        events: EventSink,
        actor: str = "server:this server",
        most: int = 64,
        most_bytes: int = 64 << 20,
    ) -> None:
        self._store, self._find, self._events, self._actor = store, find, events, actor
        self._most, self._most_bytes = most, most_bytes
        self._queue: deque[_Waiting] = deque()
        self._counts = _Counts()
        self._changed = threading.Condition()
        self._is_busy, self._is_closing = False, False
        self._swept_s: float | None = None
        self._held = ExitStack()
        self._held.enter_context(store.writer())
        day = day_of(store.now())
        store.enforcement.resume(day, store.index.counts(day))
        self._thread = threading.Thread(target=self._run, name="shipsight-recorder", daemon=True)
        self._thread.start()

    def offer(self, answered: Answered) -> bool:
        """Takes an image where the policy picks it and there is room; never waits for a disk. Tells whether it was taken."""
        now = self._store.now()
        candidate = Candidate(
            answered.model, answered.predictions, answered.subject, answered.is_sealed, answered.is_drifting
        )
        reasons = self._store.enforcement.choose(candidate, now)
        if not reasons:
            return False
        image = answered.image
        size = len(image) if isinstance(image, bytes) else image.nbytes
        with self._changed:
            if (
                self._is_closing
                or len(self._queue) >= self._most
                or self._counts.waiting_bytes + size > self._most_bytes
            ):
                self._counts.dropped += 1
                return False
            # A view would keep the whole request in memory, with what is not recorded of it.
            kept = replace(answered, image=bytes(image)) if isinstance(image, memoryview) else answered
            self._queue.append(_Waiting(kept, now, reasons, size))
            self._counts.waiting_bytes += size
            self._changed.notify_all()
        return True

    @property
    def state(self) -> RecorderState:
        """How it fares."""
        with self._changed:
            counts, left_out = self._counts, dict(self._store.enforcement.left_out)
            return RecorderState(
                len(self._queue), counts.recorded, counts.dropped, counts.failed, left_out, counts.last_error
            )

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Waits until all that was taken is kept or has failed; tells whether it is. Before an erasure, so that nothing comes after it."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._is_busy, timeout_s)

    def close(self) -> None:
        """Keeps what waits, and lets another process write."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._queue) or self._is_closing, self._until_sweep_s())
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                if not batch and self._is_closing:
                    return
                self._counts.waiting_bytes -= sum(one.size for one in batch)
                self._is_busy = True
            try:
                self._keep(batch)
                self._sweep()
            finally:
                with self._changed:
                    self._is_busy = False
                    self._changed.notify_all()

    def _until_sweep_s(self) -> float:
        return 0.0 if self._swept_s is None else max(self._swept_s + _SWEEP_S - time.monotonic(), 0.0)

    def _keep(self, batch: list[_Waiting]) -> None:
        made = []
        for one in batch:
            try:
                made.append(self._make(one))
            except Exception as error:  # noqa: BLE001 - the thread's edge: one image that cannot be kept stops no other
                self._failed(1, error)
        if not made:
            return
        try:
            self._store.add(made)
        except Exception as error:  # noqa: BLE001 - likewise: a disk that is full now may have room later
            self._failed(len(made), error)
        else:
            with self._changed:
                self._counts.recorded += len(made)

    def _make(self, one: _Waiting) -> NewRecording:
        answered, enforcement = one.answered, self._store.enforcement
        image, media_type, redacted = self._image(answered)
        label = Label(
            id=new_id(),
            at=read_time(write_time(one.at)),
            model=answered.model,
            version=answered.version,
            variant=answered.variant,
            reasons=one.reasons,
            redacted=redacted,
            policy=enforcement.policy.digest,
            media_type=media_type,
        )
        found = answered.predictions
        # What the caller called the image may name somebody.
        told = {**found.to_dict(), "source": None}
        return NewRecording(Recording(label, told, image), answered.subject, classes_in(found))

    def _image(self, answered: Answered) -> tuple[bytes | None, str | None, tuple[str, ...]]:
        """Returns the image as it is kept, its type, and what was made unrecognizable in it."""
        enforcement = self._store.enforcement
        if not enforcement.keeps_image:
            return None, None, ()
        if enforcement.keeps_bytes and isinstance(answered.image, bytes):
            begin = answered.image[:4]
            return answered.image, next((kind for sign, kind in _KINDS.items() if begin.startswith(sign)), _OTHER), ()
        pixels = answered.image if isinstance(answered.image, np.ndarray) else decode_image(answered.image)
        find = None if self._find is None else self._find(answered.model)
        clean = enforcement.redacted(pixels, answered.predictions, find)
        return _encode(clean), "image/jpeg", enforcement.policy.redaction.classes

    def _sweep(self) -> None:
        is_due = not self._until_sweep_s()
        try:
            if is_due or self._store.index.total_bytes() > self._store.policy.retention.most_bytes:
                self._swept_s = time.monotonic()
                sweep(self._store, actor=self._actor, events=self._events)
        except Exception as error:  # noqa: BLE001 - the thread's edge: what is not swept now is in an hour, and is not shown meanwhile
            self._failed(0, error)

    def _failed(self, count: int, error: Exception) -> None:
        # Of errors that are not ours the kind alone: their texts may quote what they were given.
        text = str(error) if isinstance(error, ShipsightError) else type(error).__name__
        with self._changed:
            self._counts.failed += count
            is_news, self._counts.last_error = text != self._counts.last_error, text
        if is_news:
            _log.warning("recordings are not kept: %s", text)


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    try:
        import simplejpeg
    except ImportError as error:
        raise MissingDependencyError("simplejpeg is not installed", hint="Run: pip install simplejpeg") from error
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=_QUALITY, colorspace="RGB"))
