# SPDX-License-Identifier: Apache-2.0
"""A queue in which owners take turns: whoever has had least of the threads' time goes next, so that a flood waits for itself.

Start-time fair queueing: an owner's tag grows by the time that their jobs took; one who was away begins at the tag of the
job begun last, and brings no idle time along. Of one owner, jobs come in order. Invariant: nothing is kept of an owner
without a job. Leaves to others: locking, deadlines (`scheduler`). Stable. Sources: Goyal, Vin, Cheng, "Start-time fair
queueing" (SIGCOMM 1996); for `has_room` Choudhury, Hahne, "Dynamic queue length thresholds" (IEEE/ACM ToN 6(2), 1998).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Generic, TypeVar

__all__ = ["Turns", "has_room"]

T = TypeVar("T")
_SHARE = 8


def has_room(held: int, all_held: int, most: int) -> bool:
    """Tells whether one of several may hold one more of what is bounded together.

    Each may hold eight times what is free: alone eight ninths, and whatever the others do, something is left for a newcomer.

    Args:
        held: that it holds.
        all_held: that all hold together.
        most: bound.
    """
    return held < _SHARE * (most - all_held)


@dataclass(eq=False, slots=True)
class _Owner(Generic[T]):
    served_s: float
    waiting: deque[T] = field(default_factory=deque)
    running: int = 0


class Turns(Generic[T]):
    """Jobs that wait, by owner; None is an owner like any other."""

    def __init__(self) -> None:
        self._owners: dict[str | None, _Owner[T]] = {}
        self._begun_s = 0.0  # tag of the job begun last
        self._waiting = 0

    def __len__(self) -> int:
        return self._waiting

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(one.waiting for one in self._owners.values())

    def add(self, owner: str | None, job: T) -> None:
        """Queues a job."""
        one = self._owners.get(owner)
        if one is None:
            one = self._owners[owner] = _Owner(self._begun_s)
        elif not one.waiting:
            one.served_s = max(one.served_s, self._begun_s)
        one.waiting.append(job)
        self._waiting += 1

    def take(self, expected_s: float) -> T:
        """Takes the next job; one must wait.

        Args:
            expected_s: seconds that it is expected to take, counted at once, so that several threads take of several owners.
        """
        if len(self._owners) == 1:
            one = next(iter(self._owners.values()))
        else:
            one = min((one for one in self._owners.values() if one.waiting), key=_served_s)
        self._begun_s = max(self._begun_s, one.served_s)
        one.served_s += expected_s
        one.running += 1
        self._waiting -= 1
        return one.waiting.popleft()

    def end(self, owner: str | None, over_s: float) -> None:
        """Counts a job that was taken as ended.

        Args:
            owner: whose it was.
            over_s: seconds that it took more than expected.
        """
        one = self._owners[owner]
        one.running -= 1
        one.served_s += over_s
        if not one.running and not one.waiting:
            del self._owners[owner]

    def waiting(self, owner: str | None) -> int:
        """Returns how many jobs of an owner wait."""
        one = self._owners.get(owner)
        return 0 if one is None else len(one.waiting)

    def before(self, owner: str | None) -> int:
        """Returns how many jobs come before a new one of an owner: theirs, and as many turns of each other."""
        if not self._waiting:
            return 0
        own = self.waiting(owner)
        return own + sum(min(len(one.waiting), own + 1) for name, one in self._owners.items() if name != owner)

    def clear(self) -> None:
        """Forgets all that wait."""
        for one in self._owners.values():
            one.waiting.clear()
        self._owners = {name: one for name, one in self._owners.items() if one.running}
        self._waiting = 0


def _served_s(one: _Owner[T]) -> float:
    return one.served_s
