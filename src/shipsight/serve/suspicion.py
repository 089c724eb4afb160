# SPDX-License-Identifier: Apache-2.0
"""Tells the watch for copied models what was asked and answered, in a thread of its own, after the caller has the answer.

Invariants: a request waits for nothing here; what the thread cannot keep up with is dropped and counted. Leaves to others: what
is suspicious (`access.extraction`). Stable.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

from shipsight.access import Principal
from shipsight.access.extraction import Extraction, Samples, look_at, seen_in
from shipsight.model import ImagePredictions

__all__ = ["Suspicion"]

_log = logging.getLogger("shipsight.serve")
_MOST_WAITING = 1024


class Suspicion:
    """Takes answers.

    Args:
        extraction: looks at them.
    """

    def __init__(self, extraction: Extraction) -> None:
        self.extraction = extraction
        self.dropped = 0
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Principal, str, Samples, ImagePredictions | None, float]] = deque()
        self._thread: threading.Thread | None = None
        self._closing = False

    def tell(
        self, principal: Principal, model: str, samples: Samples, predictions: ImagePredictions | None, *, conf: float
    ) -> None:
        """Queues an image and its answer; returns at once.

        Args:
            principal: who asked.
            model: that answered.
            samples: of the image.
            predictions: of it, None where the caller had raw outputs.
            conf: threshold that was asked for.
        """
        with self._changed:
            if self._closing or len(self._waiting) >= _MOST_WAITING:
                self.dropped += 1
                return
            self._waiting.append((principal, model, samples, predictions, conf))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="shipsight-suspicion", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Ends the thread once what waits is done."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closing:
                        return
                    self._changed.wait()
                principal, model, samples, one, conf = self._waiting.popleft()
            try:
                seen = None
                if one is not None:
                    seen = seen_in(one.class_ids, one.scores, conf=conf, probabilities=one.probabilities)
                self.extraction.observe(principal, model, look_at(samples), seen)
            except Exception:  # noqa: BLE001 - the edge of the thread: a sink may raise anything
                _log.exception("an answer could not be looked at")
