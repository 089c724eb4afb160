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
from shipsight.monitor.answered import Answered
from shipsight.monitor.recording.enforcement import Candidate, Finder, classes_in, day_of
from shipsight.monitor.recording.erasing import sweep
from shipsight.monitor.recording.record import Label, Recording, new_id, read_time, write_time
from shipsight.monitor.recording.store import NewRecording, Store

__all__ = ["Answered", "Recorder", "RecorderState"]

_BATCH = 16
_SWEEP_S = 3600.0
_LOOK_S = 60.0
_QUALITY = 90
_OTHER = "application/octet-stream"
_KINDS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp", b"BM": "image/bmp"}
_log = logging.getLogger("shipsight.monitor")


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
        kept_bytes: of all recordings, as of a minute ago at most.
        oldest: when the oldest of them was answered, UTC, likewise; None where there is none.
    """

    waiting: int
    recorded: int
    dropped: int
    failed: int
    left_out: Mapping[str, int]
    last_error: str | None
    kept_bytes: int
    oldest: datetime | None


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
    taken: int = 0
    done: int = 0
    kept_bytes: int = 0
    oldest: datetime | None = None


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
        self._is_closing = False
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
        image, size = answered.image, answered.size
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
            self._counts.taken += 1
            self._changed.notify_all()
        return True

    @property
    def state(self) -> RecorderState:
        """How it fares."""
        with self._changed:
            counts = self._counts
            return RecorderState(
                waiting=len(self._queue),
                recorded=counts.recorded,
                dropped=counts.dropped,
                failed=counts.failed,
                left_out=dict(self._store.enforcement.left_out),
                last_error=counts.last_error,
                kept_bytes=counts.kept_bytes,
                oldest=counts.oldest,
            )

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Waits until all that was taken until now is kept or has failed; tells whether it is. Before an erasure, so that nothing comes after it."""
        with self._changed:
            taken = self._counts.taken
            return self._changed.wait_for(lambda: self._counts.done >= taken, timeout_s)

    def close(self, grace_s: float | None = None) -> None:
        """Keeps what waits, and lets another process write.

        Args:
            grace_s: seconds that there are for it; what then still waits is dropped, and counted. None for as many as it takes.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: not self._queue, grace_s):
                _log.warning("%d images are not recorded: there was no time left", len(self._queue))
                self._counts.dropped += len(self._queue)
                self._counts.done += len(self._queue)
                self._queue.clear()
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
                pause_s = min(self._until_sweep_s(), _LOOK_S)
                self._changed.wait_for(lambda: bool(self._queue) or self._is_closing, pause_s)
                batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
                if not batch and self._is_closing:
                    return
                self._counts.waiting_bytes -= sum(one.size for one in batch)
                self._changed.notify_all()
            try:
                self._keep(batch)
                self._sweep()
            finally:
                with self._changed:
                    self._counts.done += len(batch)
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
        pixels = answered.image_rgb()
        find = None if self._find is None else self._find(answered.model)
        clean = enforcement.redacted(pixels, answered.predictions, find)
        return _encode(clean), "image/jpeg", enforcement.policy.redaction.classes

    def _sweep(self) -> None:
        is_due = not self._until_sweep_s()
        try:
            kept_bytes, oldest = self._store.index.extent()
            if is_due or kept_bytes > self._store.policy.retention.most_bytes:
                self._swept_s = time.monotonic()
                sweep(self._store, actor=self._actor, events=self._events)
                kept_bytes, oldest = self._store.index.extent()
            with self._changed:
                self._counts.kept_bytes, self._counts.oldest = kept_bytes, oldest
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
