# SPDX-License-Identifier: Apache-2.0
"""Keeps a worker process: opens it, sees it end, opens it again, at first at once, then with growing pauses.

Leaves to others: what is opened in it. Invariant: between an end and `on_up` nothing of the worker is in use. Stable.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from shipsight.errors import EngineDiedError, ShipsightError
from shipsight.serve.isolation.process import WorkerEndedError, WorkerProcess

__all__ = ["Keeper", "Pauses"]

T = TypeVar("T")
_log = logging.getLogger("shipsight.serve")


class Pauses:
    """Pauses before the next start: none after a long calm, else each twice the last.

    Args:
        shortest_s: the first that is not none.
        longest_s: no pause is longer.
        calm_s: served this long, an end is no sequel of the one before.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        shortest_s: float = 0.1,
        longest_s: float = 30.0,
        calm_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shortest_s, self._longest_s, self._calm_s, self._clock = shortest_s, longest_s, calm_s, clock
        self._pause_s = 0.0
        self._last_s: float | None = None

    def after_end(self) -> float:
        """Returns the seconds to wait after an end that comes now."""
        now = self._clock()
        is_calm = self._last_s is None or now - self._last_s > self._calm_s
        self._pause_s = 0.0 if is_calm else min(max(self._pause_s * 2, self._shortest_s), self._longest_s)
        self._last_s = now + self._pause_s
        return self._pause_s


class Keeper(Generic[T]):
    """Keeps one worker.

    Args:
        module: of the worker.
        label: what it is for.
        prepare: opens what is wanted in a worker that was just started.
        on_down: told why, when the worker has ended or could not be started again; quick.
        on_up: given what `prepare` made, of the first worker and of each that took its place; quick.
        pauses: between starts.
    """

    def __init__(
        self,
        module: str,
        label: str,
        prepare: Callable[[WorkerProcess], T],
        *,
        on_down: Callable[[ShipsightError], None],
        on_up: Callable[[T], None],
        pauses: Pauses | None = None,
    ) -> None:
        self._module, self._label, self._prepare = module, label, prepare
        self._on_down, self._on_up = on_down, on_up
        self._pauses = pauses or Pauses()
        self._lock = threading.Lock()
        self._leaving = threading.Event()
        self._worker: WorkerProcess | None = None  # the one in service or being prepared
        self._is_up = False
        self._reviving: threading.Thread | None = None

    def open(self) -> None:
        """Starts the first worker; returns once `on_up` was told.

        Raises:
            EngineDiedError: it ended while it was prepared.
            ShipsightError: as `prepare`.
        """
        worker, made = self._open()
        if not self._take_up(worker, made):
            raise EngineDiedError("the worker process ended at its start", where=self._label, got=worker.why)

    def close(self) -> None:
        """Ends the worker and keeps it no more. Twice is harmless."""
        self._leaving.set()
        with self._lock:
            worker, reviving = self._worker, self._reviving
        if worker is not None:
            worker.close()
        if reviving is not None and reviving is not threading.current_thread():
            reviving.join()
        with self._lock:
            worker = self._worker
        if worker is not None:
            worker.close()

    def _open(self) -> tuple[WorkerProcess, T]:
        worker = WorkerProcess(self._module, self._label, on_end=self._ended)
        with self._lock:
            self._worker = worker
        try:
            if self._leaving.is_set():
                raise WorkerEndedError("the server is leaving")
            return worker, self._prepare(worker)
        except WorkerEndedError as error:
            worker.close()
            raise EngineDiedError("the worker process ended at its start", where=self._label, got=error) from error
        except BaseException:
            worker.close()
            raise

    def _take_up(self, worker: WorkerProcess, made: T) -> bool:
        """Takes a prepared worker into service, unless it has ended meanwhile."""
        with self._lock:
            self._is_up = worker.is_alive and not self._leaving.is_set()
            if self._is_up:
                self._on_up(made)
            return self._is_up

    def _ended(self, worker: WorkerProcess) -> None:
        """Opens another in place of one that ended; called in the thread that saw it end."""
        with self._lock:
            if worker is not self._worker or not self._is_up or self._leaving.is_set():
                return  # who prepares it sees its end, too
            self._is_up = False
            self._reviving = threading.current_thread()
        self._down(EngineDiedError("the worker process ended", where=self._label, got=worker.why))
        while not self._leaving.wait(self._pauses.after_end()):
            try:
                if self._take_up(*self._open()):
                    return
            except ShipsightError as error:
                self._down(error)
            except Exception as error:  # noqa: BLE001 - the edge of a thread that must not end
                _log.exception("the worker of %s cannot be prepared", self._label)
                self._down(EngineDiedError("the worker cannot be prepared", where=self._label, got=error))

    def _down(self, error: ShipsightError) -> None:
        with self._lock:
            if not self._leaving.is_set():
                _log.error("%s", error)
                self._on_down(error)
