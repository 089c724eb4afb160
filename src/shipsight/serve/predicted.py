# SPDX-License-Identifier: Apache-2.0
"""Tells of every prediction, where the operator asked for it: who asked which model, with what, and how much was found; never pixels.

What was sent is told by its digest, made in a thread of its own, since large bodies would keep the event loop. Invariants: no
prediction waits for a disk here; none is left out: where that thread cannot keep up, the caller makes the digest; what cannot be
kept at the end is counted by the sink. Leaves to others: keeping them (`access.audit`). Stable.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from shipsight.access import Event, EventKind, EventSink, Outcome, Principal
from shipsight.access.events import client_address
from shipsight.errors import ShipsightError
from shipsight.serve.request_notes import Digest, current_body

__all__ = ["Asked", "PredictionLog", "recording"]

_log = logging.getLogger("shipsight.serve")
_MOST_BYTES = 64 * 2**20  # of bodies that wait
_MOST_WAITING = 4096
_LONGEST = 100  # letters of a name that a client made up


@dataclass(slots=True)
class Asked:
    """One request to predict.

    Attributes:
        principal: who asks.
        model: that is asked, in the words of whoever asks.
        version: that is asked for, then the one that answered; None where neither is known.
        images: that were sent.
        variant: that answered.
        predictions: that were found in all images; None where raw outputs were asked for, or nothing was answered.
    """

    principal: Principal
    model: str
    version: str | None
    images: int
    variant: str | None = None
    predictions: int | None = None

    def answered(self, version: str, variant: str, predictions: int | None) -> None:
        """Notes who answered, and how much was found."""
        self.version, self.variant, self.predictions = version, variant, predictions


@contextmanager
def recording(
    log: PredictionLog | None, principal: Principal, model: str, version: str | None, images: int
) -> Iterator[Asked]:
    """Records what is asked within, once it is answered or refused.

    Args:
        log: takes it, None for nobody.
        principal: who asks.
        model: that is asked.
        version: that is asked for, None for none.
        images: that were sent.
    """
    asked = Asked(principal, model[:_LONGEST], None if version is None else version[:_LONGEST], images)
    try:
        yield asked
    except BaseException as error:
        if log is not None:
            log.tell(asked, why=_code_of(error))
        raise
    if log is not None:
        log.tell(asked)


def _code_of(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "client-left"
    return error.code if isinstance(error, ShipsightError) else "internal"


class PredictionLog:
    """Takes them.

    Args:
        events: takes the events; must not wait for a disk with those of this kind.
        now: tells the time.
    """

    def __init__(self, events: EventSink, *, now: Callable[[], datetime]) -> None:
        self._events, self._now = events, now
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Callable[[str | None], Event], bytes | memoryview]] = deque()
        self._bytes = 0
        self._thread: threading.Thread | None = None
        self._closing = False

    def tell(self, asked: Asked, *, why: str | None = None) -> None:
        """Records a prediction that was answered, or refused; to be called in the task of the request.

        Args:
            asked: by whom, what, and what was found.
            why: code of what refused it, None where it was answered.
        """
        at, address, body = self._now(), client_address(), current_body()
        details: dict[str, str | int | None] = {
            "version": asked.version,
            "variant": asked.variant,
            "images": asked.images,
            "predictions": asked.predictions,
            "bytes": None if body is None else body.bytes if isinstance(body, Digest) else len(body),
            "id": asked.principal.id,
        }

        def event(digest: str | None) -> Event:
            return Event(
                at=at,
                kind=EventKind.PREDICTED,
                outcome=Outcome.DONE if why is None else Outcome.REFUSED,
                actor=asked.principal.told(),
                subject=f"model:{asked.model}",
                why=why,
                address=address,
                details=_told({**details, "sha256": digest}),
            )

        if body is None or isinstance(body, Digest):
            self._events.record(event(None if body is None else body.sha256))
        elif not self._queue(event, body):
            self._events.record(event(hashlib.sha256(body).hexdigest()))

    def close(self) -> None:
        """Ends the thread once what waits is told."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _queue(self, event: Callable[[str | None], Event], body: bytes | memoryview) -> bool:
        with self._changed:
            is_full = len(self._waiting) >= _MOST_WAITING or self._bytes + len(body) > _MOST_BYTES
            if self._closing or is_full:
                return False
            self._waiting.append((event, body))
            self._bytes += len(body)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="shipsight-predicted", daemon=True)
                self._thread.start()
            self._changed.notify()
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closing:
                        return
                    self._changed.wait()
                event, body = self._waiting.popleft()
                self._bytes -= len(body)
            try:
                self._events.record(event(hashlib.sha256(body).hexdigest()))
            except Exception:  # noqa: BLE001 - the edge of the thread: a sink may raise anything
                _log.exception("a prediction could not be recorded")


def _told(details: Mapping[str, str | int | None]) -> dict[str, str | int | float | bool | list[str] | None]:
    return {name: one for name, one in details.items() if one is not None}
