# SPDX-License-Identifier: Apache-2.0
"""Tells whoever watches production of each image that was answered, in a thread of its own, after the caller has the answer.

Recording is such a watcher, and looking for drift. Invariants: a request waits for nothing here; what the thread cannot keep up with is dropped and
counted; what no watcher wants is not even kept for it. Knows of no watcher what it does. Stable.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shipsight.monitor.answered import Answered

__all__ = ["Watcher", "Watching"]

_log = logging.getLogger("shipsight.serve")
_PAUSE_S = 0.02


@dataclass(frozen=True)
class Watcher:
    """Who looks at what was answered.

    Attributes:
        look: is told of an image; must not wait for a disk or a network. What it returns counts for nothing.
        wants: tells of a model, its version and variant whether the next image would be looked at; asked for each request, in its way.
    """

    look: Callable[[Answered], object]
    wants: Callable[[str, str, str], bool] = lambda model, version, variant: True


class Watching:
    """Takes what was answered, once there is a watcher.

    Args:
        most: images that may wait.
        most_bytes: bytes that may wait.

    Attributes:
        subject_header: name of the request's header, in lower case, that says whom an image is of; None for none.
        is_drifting: tells of a model, by name, whether its drift alarm is on.
    """

    def __init__(self, *, most: int = 128, most_bytes: int = 64 << 20) -> None:
        self.subject_header: str | None = None
        self.is_drifting: Callable[[str], bool] = lambda model: False
        self._watchers: tuple[Watcher, ...] = ()
        self._most, self._most_bytes = most, most_bytes
        self._changed = threading.Condition()
        self._waiting: deque[Answered] = deque()
        self._bytes = self._told = self._done = self._dropped = 0
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, watcher: Watcher) -> None:
        """Adds who looks, before the first image is told."""
        self._watchers = (*self._watchers, watcher)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="shipsight-watching", daemon=True)
            self._thread.start()

    def wants(self, model: str, version: str, variant: str) -> bool:
        """Tells whether anybody would look at an image."""
        return any(one.wants(model, version, variant) for one in self._watchers)

    @property
    def told(self) -> int:
        """Images that it was told of, those that were dropped included."""
        return self._told + self._dropped

    @property
    def dropped(self) -> int:
        """Images that found no room."""
        return self._dropped

    def tell(self, images: Sequence[Answered]) -> None:
        """Queues images; returns at once.

        Args:
            images: of a request, with its answers.
        """
        with self._changed:
            was_empty = not self._waiting
            for one in images:
                if (
                    self._closing.is_set()
                    or len(self._waiting) >= self._most
                    or self._bytes + one.size > self._most_bytes
                ):
                    self._dropped += 1
                    continue
                self._waiting.append(one)
                self._bytes += one.size
                self._told += 1
            if was_empty:
                self._changed.notify_all()

    def flush(self, timeout_s: float = 30.0) -> bool:
        """Waits until the watchers have seen all that they were told of until now; tells whether they have."""
        with self._changed:
            told = self._told
            return self._changed.wait_for(lambda: self._done >= told, timeout_s)

    def close(self) -> None:
        """Ends the thread once what waits is seen."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._closing.is_set())
            # A thread that woke for each answer would take the interpreter from the requests as often.
            self._closing.wait(_PAUSE_S)
            with self._changed:
                batch, is_last = list(self._waiting), self._closing.is_set()
                self._waiting.clear()
                self._bytes = 0
            if not batch and is_last:
                return
            for one in batch:
                self._show(one)
            with self._changed:
                self._done += len(batch)
                self._changed.notify_all()

    def _show(self, one: Answered) -> None:
        for watcher in self._watchers:
            try:
                watcher.look(one)
            except Exception:  # noqa: BLE001 - the edge of the thread: one watcher that fails keeps nothing from the others
                _log.exception("an answer could not be looked at")
