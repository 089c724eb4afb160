# SPDX-License-Identifier: Apache-2.0
"""Who runs next: a queue for each model, threads that take from them, and no work for answers that would come too late.

Invariants: a thread is idle only while nothing waits (work-conserving); among models with waiting work the one that has
been served least runs next, so that one model's flood delays another by at most the work already begun, and within a model
the same holds among those who ask (`turns`): who floods it is refused first, and waits for nobody's jobs but their own; with
`own_threads` each model has threads of its own, so that one that hangs keeps none from another; what cannot be
answered before its deadline is refused at once, from the times measured so far; what was cancelled or has expired costs
nothing more. Leaves to others: what the work is, which engine runs it. Stable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shipsight.errors import DeadlineError, NotReadyError, OverloadedError, UsageError
from shipsight.serve.turns import Turns, has_room

__all__ = ["Lane", "LaneClosedError", "Load", "Scheduler"]

T = TypeVar("T")
Clock = Callable[[], float]
"""Monotonic seconds."""

_SMOOTHING = 0.1  # weight of the latest run in the running mean of service times


class LaneClosedError(Exception):
    """The lane takes no more jobs; another may have taken its place. Between the rooms of a server, never a user's."""


@dataclass(frozen=True)
class Load:
    """What a lane carries.

    Attributes:
        waiting: jobs in its queue.
        running: jobs begun and not ended.
        service_s: running mean of how long a job takes from beginning to end, None before the first.
        wait_s: how long a job given now would wait, as estimated.
    """

    waiting: int
    running: int
    service_s: float | None
    wait_s: float


@dataclass(eq=False)
class _Job:
    future: Future[Any]
    run: Callable[[], Any]
    deadline_s: float
    queued_s: float
    owner: str | None
    expected_s: float = 0.0


@dataclass(eq=False)
class Lane:
    """The queue of one model. Made by `Scheduler.open_lane`; its fields belong to the scheduler.

    Attributes:
        name: for messages.
        weight: share of the threads while others wait too, above 0.
        queue: jobs that wait, by owner.
        running: jobs begun and not ended.
        served_s: seconds of thread time that it had, over its weight.
        service_s: running mean of a job's time, None before the first.
        borrowed: work outside of the scheduler's threads that needs the lane open.
        is_open: whether it takes jobs.
        changed: told when a job waits or the lane closes, for threads of its own; None where all lanes share theirs.
    """

    name: str
    weight: float = 1.0
    queue: Turns[_Job] = field(default_factory=Turns, repr=False)
    running: int = field(default=0, repr=False)
    served_s: float = field(default=0.0, repr=False)
    service_s: float | None = field(default=None, repr=False)
    borrowed: int = field(default=0, repr=False)
    is_open: bool = field(default=True, repr=False)
    changed: threading.Condition | None = field(default=None, repr=False)


class Scheduler:
    """Runs jobs of several lanes on a fixed number of threads.

    Args:
        threads: how many, 1 and more.
        own_threads: whether each lane has that many of its own; else all share them.
        most_waiting: most jobs that wait in a lane, whatever their deadlines.
        clock: monotonic seconds.
    """

    def __init__(
        self, threads: int, *, own_threads: bool = False, most_waiting: int = 1024, clock: Clock = time.monotonic
    ) -> None:
        if threads < 1:
            raise UsageError("too few threads", where="scheduler", expected="1 or more", got=threads)
        self.threads = threads
        self._most_waiting = most_waiting
        self._clock = clock
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)  # for workers: a job waits, or they may leave
        self._emptied = threading.Condition(self._lock)  # for those who close a lane: one has less work
        self._lanes: list[Lane] = []
        self._served_s = 0.0
        self._closing = False
        self._own_threads = own_threads
        self._workers: list[threading.Thread] = []
        if not own_threads:
            self._start_workers(None)

    def open_lane(self, name: str, *, weight: float = 1.0) -> Lane:
        """Adds a queue."""
        lane = Lane(name, weight)
        with self._changed:
            self._lanes.append(lane)
        if self._own_threads:
            # The same lock for all: what a lane carries is looked at together.
            lane.changed = threading.Condition(self._lock)
            self._start_workers(lane)
        return lane

    def close_lane(self, lane: Lane) -> None:
        """Takes no more jobs for a lane, and returns when those it has and what borrowed it are done."""
        with self._changed:
            lane.is_open = False
            while lane.queue or lane.running or lane.borrowed:
                self._emptied.wait()
            if lane in self._lanes:
                self._lanes.remove(lane)
            if lane.changed is not None:
                lane.changed.notify_all()
                self._workers = [worker for worker in self._workers if worker.is_alive()]

    @contextmanager
    def borrow(self, lane: Lane) -> Iterator[None]:
        """Holds a lane open for work in a thread that is not the scheduler's.

        Raises:
            LaneClosedError: the lane is closed.
        """
        with self._changed:
            if not lane.is_open:
                raise LaneClosedError(lane.name)
            lane.borrowed += 1
        try:
            yield
        finally:
            with self._changed:
                lane.borrowed -= 1
                self._emptied.notify_all()

    def submit(self, lane: Lane, run: Callable[[], T], *, deadline_s: float, owner: str | None = None) -> Future[T]:
        """Queues a job.

        Args:
            lane: whose.
            run: does it, in one of the threads.
            deadline_s: on the scheduler's clock; a job that is not begun by then fails with `DeadlineError`.
            owner: who takes turns with the others that wait in the lane; None for who is not told apart.

        Returns:
            Its future; cancelling it before it begins takes it out of the queue.

        Raises:
            OverloadedError: it would come too late, or too many wait, or too many of its owner's.
            LaneClosedError: the lane is closed.
            NotReadyError: the scheduler is.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._closing:
                raise NotReadyError("the server is leaving")
            if not lane.is_open:
                raise LaneClosedError(lane.name)
            now = self._clock()
            wait_s = self._estimate(lane, lane.queue.before(owner))
            late_s = now + wait_s + (lane.service_s or 0.0) - deadline_s
            # An idle lane takes one whatever the last ones took: how long a job takes now is only learnt from a job.
            is_late = late_s > 0 and bool(lane.queue or lane.running)
            waiting = len(lane.queue)
            is_full = waiting >= self._most_waiting or (
                owner is not None and not has_room(lane.queue.waiting(owner), waiting, self._most_waiting)
            )
            if is_late or is_full:
                error = OverloadedError(
                    "the answer would come too late",
                    where=lane.name,
                    expected=f"within {max(deadline_s - now, 0.0):.3g} s",
                    got=f"about {wait_s + (lane.service_s or 0.0):.3g} s",
                    hint=f"Ask again in {max(1, round(wait_s)):d} s.",
                )
                error.retry_after_s = max(1, round(wait_s))
                raise error
            if not lane.queue and not lane.running:
                # A lane that was idle does not bring its idle time along: it would starve the others.
                lane.served_s = max(lane.served_s, self._served_s)
            lane.queue.add(owner, _Job(future, run, deadline_s, now, owner))
            (lane.changed or self._changed).notify()
        return future

    def load(self, lane: Lane) -> Load:
        """Returns what a lane carries now."""
        with self._changed:
            waiting = len(lane.queue)
            return Load(waiting, lane.running, lane.service_s, self._estimate(lane, waiting))

    def is_idle(self, lane: Lane) -> bool:
        """Tells whether a lane has no work: none waits, none runs, nobody borrowed it."""
        with self._changed:
            return not (lane.queue or lane.running or lane.borrowed)

    def is_busy(self) -> bool:
        """Tells whether a job waits for a thread."""
        with self._changed:
            return any(one.queue for one in self._lanes)

    def is_alone(self) -> bool:
        """Tells a job that is running whether it has the machine for itself: nothing else runs or waits."""
        with self._changed:
            return sum(one.running + len(one.queue) for one in self._lanes) <= 1

    def close(self) -> None:
        """Takes no more jobs, ends those waiting with `NotReadyError`, and waits for those begun."""
        with self._changed:
            self._closing = True
            waiting = [(lane, job) for lane in self._lanes for job in lane.queue]
            for lane in self._lanes:
                lane.queue.clear()
            self._emptied.notify_all()
            for changed in (self._changed, *(lane.changed for lane in self._lanes)):
                if changed is not None:
                    changed.notify_all()
            workers = list(self._workers)
        for lane, job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(NotReadyError("the server is leaving", where=lane.name))
        for worker in workers:
            worker.join()

    def _estimate(self, lane: Lane, waiting: int) -> float:
        """Returns the expected wait of a new job: those that run or wait before it, at the lane's share of the threads."""
        if lane.service_s is None:
            return 0.0
        # The lane itself may be closed, and gone from the list.
        busy = lane.weight + sum(one.weight for one in self._lanes if one is not lane and (one.queue or one.running))
        share = self.threads * lane.weight / busy
        before = waiting + max(lane.running - share + 1, 0.0) if lane.running else waiting
        return before * lane.service_s / share

    def _start_workers(self, own: Lane | None) -> None:
        name = "shipsight-worker" if own is None else f"shipsight-{own.name}"
        started = [
            threading.Thread(target=self._work, args=(own,), name=f"{name}-{index}", daemon=True)
            for index in range(self.threads)
        ]
        with self._lock:
            self._workers += started
        for worker in started:
            worker.start()

    def _next(self, own: Lane | None) -> tuple[Lane, _Job] | None:
        """Takes the next job that is still wanted, of one lane or of all; the lock is held."""
        while True:
            waiting = [lane for lane in (self._lanes if own is None else (own,)) if lane.queue]
            if not waiting:
                return None
            lane = min(waiting, key=lambda one: one.served_s)
            expected_s = lane.service_s or 0.0
            job = lane.queue.take(expected_s)
            job.expected_s = expected_s
            if not job.future.set_running_or_notify_cancel():
                lane.queue.end(job.owner, -expected_s)
                self._emptied.notify_all()
                continue
            now = self._clock()
            if now > job.deadline_s:
                lane.queue.end(job.owner, -expected_s)
                job.future.set_exception(
                    DeadlineError(
                        "the answer's time passed while it waited", where=lane.name, got=f"{now - job.queued_s:.3g} s"
                    )
                )
                self._emptied.notify_all()
                continue
            self._served_s = max(self._served_s, lane.served_s)
            lane.running += 1
            return lane, job

    def _work(self, own: Lane | None) -> None:
        changed = self._changed if own is None or own.changed is None else own.changed
        while True:
            with changed:
                taken = self._next(own)
                while taken is None:
                    if self._closing or (own is not None and not own.is_open):
                        return
                    changed.wait()
                    taken = self._next(own)
            lane, job = taken
            begin = self._clock()
            try:
                result = job.run()
            except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the job
                self._end(lane, job, self._clock() - begin, is_done=False)
                job.future.set_exception(error)
            else:
                self._end(lane, job, self._clock() - begin, is_done=True)
                job.future.set_result(result)

    def _end(self, lane: Lane, job: _Job, took_s: float, *, is_done: bool) -> None:
        with self._changed:
            lane.running -= 1
            lane.queue.end(job.owner, took_s - job.expected_s)
            lane.served_s += took_s / lane.weight
            old = lane.service_s
            if is_done:  # how long a failure took says nothing of how long an answer takes
                lane.service_s = took_s if old is None else old + _SMOOTHING * (took_s - old)
            self._emptied.notify_all()
