# SPDX-License-Identifier: Apache-2.0
"""Events on their way into the log: those that an act waits for, and those that may be late, in a bounded buffer. Private to the room.

Leaves to others: writing them (`log`). Invariants: nobody waits longer than they were told; what an act waited for in vain is
not written later; what finds no room is counted.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from shipsight.access.events import Event, EventKind, Outcome
from shipsight.errors import AuditError

__all__ = ["Buffer", "Waiting", "may_be_late"]

_LATE = frozenset(
    {
        EventKind.SIGN_OUT,
        EventKind.SESSION_ENDED,
        EventKind.KEY_USED,
        EventKind.CERTIFICATE_USED,
        EventKind.PREDICTED,
        EventKind.LIMITED,
        EventKind.EXTRACTION_SUSPECTED,
        EventKind.STOPPED,
    }
)
_MOST_AT_ONCE = 1000
_RETRY_S = 1.0  # after a write failed, for what nobody waits for


def may_be_late(event: Event) -> bool:
    """Whether an act goes on before its event is kept: what was refused, and what nobody can misuse by going on."""
    return event.outcome is Outcome.REFUSED or event.kind in _LATE


class _State(Enum):
    WAITS = 1
    TAKEN = 2
    KEPT = 3
    FAILED = 4
    WITHDRAWN = 5


@dataclass(eq=False)
class Waiting:
    """An event that an act waits for; None asks for a checkpoint alone."""

    event: Event | None
    state: _State = _State.WAITS
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Buffer:
    """Events that wait.

    Args:
        most: events that may be late, at most.
        late_s: seconds for which those are gathered.
    """

    def __init__(self, most: int, late_s: float) -> None:
        self._most, self._late_s = most, late_s
        self._changed = threading.Condition()
        self._urgent: deque[Waiting] = deque()
        self._late: deque[Event] = deque()
        self._late_since = self._held_until = 0.0
        self._lost: Counter[str] = Counter()
        self._lost_ever = 0
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._late) + len(self._urgent)

    @property
    def lost(self) -> int:
        """Events that found no room, ever."""
        return self._lost_ever

    def put_late(self, event: Event) -> bool:
        """Takes an event that may be late; tells whether there was room."""
        with self._changed:
            if self._is_closed or len(self._late) >= self._most:
                self._lost[event.kind.value] += 1
                self._lost_ever += 1
                return False
            self._late.append(event)
            if len(self._late) == 1:
                self._late_since = time.monotonic()
                self._changed.notify()
            elif len(self._late) == _MOST_AT_ONCE:
                self._changed.notify()
            return True

    def put(self, waiting: Waiting, *, wait_s: float) -> None:
        """Takes an event and waits until it is kept.

        Raises:
            AuditError: it was not.
        """
        with self._changed:
            if self._is_closed:
                raise AuditError("the audit log is closed")
            self._urgent.append(waiting)
            self._changed.notify()
        if not waiting.done.wait(wait_s):
            with self._changed:
                if waiting.state is _State.WAITS:
                    waiting.state = _State.WITHDRAWN
                    raise AuditError("the audit log does not answer", expected=f"an answer within {wait_s:g} s")
            # It is being written: the place's own limits end that.
            waiting.done.wait()
        if waiting.error is not None:
            raise AuditError("the audit log cannot be written", got=waiting.error) from waiting.error

    def take(self, wait_s: float | None) -> tuple[list[Waiting], list[Event], Counter[str]]:
        """Returns what is to be written now, and what was lost, waiting for something at most so long; for one thread alone."""
        until = None if wait_s is None else time.monotonic() + wait_s
        with self._changed:
            while not self._is_due():
                now = time.monotonic()
                left = [] if until is None else [until - now]
                if self._late:
                    left.append(self._late_due() - now)
                if until is not None and now >= until:
                    break
                self._changed.wait(min(left) if left else None)
            urgent: list[Waiting] = []
            while self._urgent and len(urgent) < _MOST_AT_ONCE:
                one = self._urgent.popleft()
                if one.state is _State.WAITS:
                    one.state = _State.TAKEN
                    urgent.append(one)
            # A checkpoint covers all that was told before it was asked for.
            most = len(self._late) if any(one.event is None for one in urgent) else _MOST_AT_ONCE
            late = [self._late.popleft() for _ in range(min(len(self._late), most))]
            if self._late:
                self._late_since = 0.0
            lost, self._lost = self._lost, Counter()
            return urgent, late, lost

    def kept(self, urgent: list[Waiting]) -> None:
        """Lets acts go on whose events are kept."""
        for one in urgent:
            one.state = _State.KEPT
            one.done.set()

    def give_back(self, urgent: list[Waiting], late: list[Event], lost: Counter[str], error: BaseException) -> None:
        """Takes back what could not be written: acts are told, what may be late waits again, the oldest first."""
        with self._changed:
            self._lost.update(lost)
            for event in reversed(late):
                if len(self._late) >= self._most:
                    self._lost[event.kind.value] += 1
                    self._lost_ever += 1
                else:
                    self._late.appendleft(event)
            self._late_since = time.monotonic()
            self._held_until = self._late_since + _RETRY_S
        for one in urgent:
            one.state, one.error = _State.FAILED, error
            one.done.set()

    def settle(self, kept: Sequence[Event], late: list[Event], lost: Counter[str]) -> None:
        """Learns that events are in the log though their write seemed to fail, and takes them out of what is to be written.

        Args:
            kept: those events.
            late: that were taken to be written now; changed in place.
            lost: likewise: what found no room meanwhile, and is in the log, is not lost.
        """
        known = {id(one) for one in kept}
        with self._changed:
            here = {id(one) for one in (*late, *self._late)}
            self._late = deque(one for one in self._late if id(one) not in known)
            for one in kept:
                if id(one) not in here:
                    lost[one.kind.value] -= 1
                    self._lost_ever -= 1
        late[:] = [one for one in late if id(one) not in known]

    def close(self) -> None:
        """Takes nothing more; whoever takes out is woken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    @property
    def is_closed(self) -> bool:
        """Whether it takes nothing more."""
        return self._is_closed

    def _is_due(self) -> bool:
        if self._urgent or self._is_closed:
            return True
        return bool(self._late) and time.monotonic() >= self._late_due()

    def _late_due(self) -> float:
        """When those that may be late are written: at once where they are many, not where that failed just now."""
        gathered = 0.0 if len(self._late) >= _MOST_AT_ONCE else self._late_since + self._late_s
        return max(gathered, self._held_until)
