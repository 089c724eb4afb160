# SPDX-License-Identifier: Apache-2.0
"""Callers that wait for a session's requests get them in the order of asking.

The standard library's queues and semaphores give what comes free to whoever is quick, and that is the thread that has just put
it back: under load the others wait for seconds. Private to the room.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["Turns"]

T = TypeVar("T")


class Turns(Generic[T]):
    """Lends things, each to one caller at a time.

    Args:
        things: to lend.
    """

    def __init__(self, things: Iterable[T]) -> None:
        self._lock = threading.Lock()
        self._free: deque[T] = deque(things)
        self._waiting: deque[Future[T]] = deque()

    def get(self) -> T:
        """Returns something that is free, after all who asked before got theirs."""
        with self._lock:
            if self._free:
                return self._free.popleft()
            turn: Future[T] = Future()
            self._waiting.append(turn)
        return turn.result()

    def put(self, thing: T) -> None:
        """Gives it to who has waited longest."""
        with self._lock:
            if not self._waiting:
                self._free.append(thing)
                return
            turn = self._waiting.popleft()
        turn.set_result(thing)
