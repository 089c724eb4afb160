# SPDX-License-Identifier: Apache-2.0
"""Sends messages, each receiver's in a thread of its own: one that hangs holds up neither the others nor whoever has something to tell.

Of each receiver a bounded number waits, in order; where there are more the oldest is dropped, and counted. What fails is tried again, later each
time and never in step with others, until it is too old; what is refused is not. Leaves to others: how one is sent (`webhook`, `mail`), and what is kept
(`alerts`). Private to the room.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shipsight.errors import AlertRefusedError, ShipsightError
from shipsight.monitor.alerts.message import Message
from shipsight.monitor.alerts.settings import Email, Receiver

__all__ = ["Deliverer", "Pace", "ReceiverState", "Sender", "error_text", "open_sender"]

_log = logging.getLogger("shipsight.monitor")
_MOST_DOUBLINGS = 30


class Sender(Protocol):
    """What can send a message to one receiver; used from one thread at a time."""

    def send(self, message: Message, now: datetime) -> None:
        """Sends a message once.

        Raises:
            AlertRefusedError: it will not be taken.
            OSError, ShipsightError: it is not taken now, as far as is known.
        """


@dataclass(frozen=True)
class Pace:
    """How often something is tried, and how much waits.

    Attributes:
        first_wait_s: after a first failure; doubled each time.
        longest_wait_s: at most. What is waited is between half of that and all of it, by chance.
        give_up_s: a message that is older is dropped as failed.
        most_waiting: messages of a receiver, at least 2.
    """

    first_wait_s: float = 2.0
    longest_wait_s: float = 300.0
    give_up_s: float = 86400.0
    most_waiting: int = 100


@dataclass(frozen=True)
class ReceiverState:
    """How a receiver fares, since this process began.

    Attributes:
        name: of it.
        waiting: messages.
        sent: that it took.
        failed: that it refused, or that became too old.
        dropped: that found no room.
        error: why the latest attempt failed, None where it did not.
    """

    name: str
    waiting: int = 0
    sent: int = 0
    failed: int = 0
    dropped: int = 0
    error: str | None = None


class Deliverer:
    """One receiver, its queue, and the thread that serves it.

    Args:
        name: of the receiver.
        sender: that sends.
        changed: lock of the queue, shared by all receivers and by whoever keeps their queues.
        kept: called with the lock held, when the queue has changed.
        waiting: messages that wait already.
        pace: how often, how much.
        now: tells the time, UTC.
    """

    def __init__(
        self,
        name: str,
        sender: Sender,
        changed: threading.Condition,
        kept: Callable[[], None],
        waiting: list[Message],
        *,
        pace: Pace,
        now: Callable[[], datetime],
    ) -> None:
        self.name, self._sender, self._changed, self._kept = name, sender, changed, kept
        self._pace, self._now = pace, now
        self._queue = deque(waiting)
        self._current: Message | None = None
        self._sent = self._failed = self._dropped = self._tries = 0
        self._error: str | None = None
        self._is_leaving = False
        # A daemon: a receiver that hangs does not keep a server from ending.
        self._thread = threading.Thread(target=self._serve, name="shipsight-alerts", daemon=True)

    # --- with the lock held

    def offer(self, message: Message) -> None:
        """Takes a message; drops the oldest that waits where there is no room. With the lock held."""
        self._queue.append(message)
        if len(self._queue) > self._pace.most_waiting:
            # What is just being sent may arrive yet.
            del self._queue[1 if self._queue[0] is self._current else 0]
            self._dropped += 1
            _log.error("an alert is dropped: too many wait for %s", self.name)

    def waiting(self) -> list[Message]:
        """Returns what waits, the oldest first; also what is just being sent. With the lock held."""
        return list(self._queue)

    def state(self) -> ReceiverState:
        """Returns how it fares. With the lock held."""
        return ReceiverState(self.name, len(self._queue), self._sent, self._failed, self._dropped, self._error)

    def leave(self) -> None:
        """Has the thread end, once what waits has had one more chance. With the lock held."""
        self._is_leaving = True
        self._changed.notify_all()

    # --- without

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Waits for the thread's end; tells whether it came."""
        self._thread.join(max(timeout_s, 0.0))
        return not self._thread.is_alive()

    def _serve(self) -> None:
        while (message := self._next()) is not None:
            error = self._try(message)
            with self._changed:
                self._current = None
                self._note(message, error)
                is_head = bool(self._queue) and self._queue[0] is message
                if not is_head:
                    self._tries = 0
                elif self._is_leaving:
                    return
                else:
                    self._tries += 1
                    self._changed.wait_for(lambda: self._is_leaving, self._wait_s())

    def _next(self) -> Message | None:
        """Waits for something to send; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) or self._is_leaving)
            self._current = self._queue[0] if self._queue else None
            return self._current

    def _try(self, message: Message) -> Exception | None:
        try:
            self._sender.send(message, self._now())
        except Exception as error:  # noqa: BLE001 - the edge of a thread that must go on: told, counted, tried again
            return error
        return None

    def _note(self, message: Message, error: Exception | None) -> None:
        """Takes down what became of an attempt, and takes the message from the queue where nothing is tried any more."""
        text = None if error is None else error_text(error)
        is_old = self._now().timestamp() - message.at >= self._pace.give_up_s
        is_over = error is None or is_old or isinstance(error, AlertRefusedError)
        if text is not None and (text != self._error or is_over):
            level = logging.ERROR if is_over else logging.WARNING
            _log.log(level, "an alert is not sent%s: %s", ", nor will be" if is_over else " yet", text)
        elif text is None and self._error is not None:
            _log.info("alerts are sent to %s again", self.name)
        self._error = text
        if error is None:
            self._sent += 1
        elif is_over:
            self._failed += 1
        if is_over:
            self._queue.remove(message)
        self._kept()

    def _wait_s(self) -> float:
        most = min(self._pace.first_wait_s * 2.0 ** min(self._tries - 1, _MOST_DOUBLINGS), self._pace.longest_wait_s)
        return most * random.uniform(0.5, 1.0)  # noqa: S311 - spreads attempts, keeps no secret


def error_text(error: Exception) -> str:
    """Returns what may be told of an error: ours in full, of others the kind and what the system says."""
    if isinstance(error, ShipsightError):
        return str(error)
    told = error.strerror or str(error) if isinstance(error, OSError) else ""
    return f"{type(error).__name__}: {told}" if told else type(error).__name__


def open_sender(receiver: Receiver) -> Sender:
    """Returns what sends to a receiver.

    Raises:
        UsageError, CertificateError, EnvironmentLackError: a file that its settings name cannot be used.
    """
    # As each is wanted: who sends no mail needs nothing of mail.
    if isinstance(receiver, Email):
        from shipsight.monitor.alerts.mail import EmailSender

        return EmailSender(receiver)
    from shipsight.monitor.alerts.webhook import WebhookSender

    return WebhookSender(receiver)
