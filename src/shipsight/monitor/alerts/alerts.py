# SPDX-License-Identifier: Apache-2.0
"""Takes what evaluations say, and tells receivers of what began, goes on and has ended.

Invariants: `take` waits for no receiver; what it decided is on the disk before it is sent, and what was sent is taken off the disk after: a process that is
killed loses nothing, and sends at most one message of each receiver twice, under the same id. Where the disk fails alerts are sent all the same, and that
is said. Leaves to others: when an alert is told (`standings`), how (`delivering`). Safe to use from several threads. Stable.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from shipsight.errors import ShipsightError, UsageError
from shipsight.monitor.alerts.delivering import Deliverer, Pace, ReceiverState, error_text, open_sender
from shipsight.monitor.alerts.message import Alert, Message, make_message, trial_message
from shipsight.monitor.alerts.settings import AlertSettings
from shipsight.monitor.alerts.standings import Key, Standing, advance
from shipsight.monitor.alerts.state_file import KeptState, StateFile
from shipsight.monitor.signal import Signal

__all__ = ["Alerts", "AlertsState", "Tried", "try_receivers"]

_log = logging.getLogger("shipsight.monitor")
_CLOSE_S = 5.0


@dataclass(frozen=True)
class AlertsState:
    """How alerts fare.

    Attributes:
        standings: of every alert that is pending, fires, or was resolved lately.
        receivers: in the order of the settings.
        signals: of the latest evaluation that told of each.
        is_kept: whether the latest change is on the disk.
    """

    standings: Mapping[Key, Standing]
    receivers: tuple[ReceiverState, ...]
    signals: Mapping[Key, Signal]
    is_kept: bool


class Alerts:
    """Alerts of one process.

    Args:
        settings: which, when, to whom.
        state_file: that how they stand is kept in; one process has it at a time.
        bundle_of: tells the digest of the bundle behind a subject, None where it is not known.
        pace: how often something is tried, and how much waits.
        now: tells the time, UTC, by which messages are sent.

    Raises:
        UsageError: a file that the settings name does not fit, or another process keeps its alerts here.
        CertificateError: a file of authorities cannot be used.
        EnvironmentLackError: a secret cannot be read, others may read it, or the state cannot be kept here.
        CorruptError: the state is something else.
    """

    def __init__(
        self,
        settings: AlertSettings,
        state_file: Path,
        *,
        bundle_of: Callable[[str], str | None] = lambda subject: None,
        pace: Pace = Pace(),
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings, self._bundle_of = settings, bundle_of
        senders = [(one.name, open_sender(one)) for one in settings.receivers]
        self._file = StateFile(state_file)
        self._changed = threading.Condition()
        self._is_closed = False
        self._is_kept = True
        self._signals: dict[Key, Signal] = {}
        try:
            kept = self._file.read()
            self._source, self._standings = kept.source, dict(kept.standings)
            self._deliverers = [
                Deliverer(
                    name,
                    sender,
                    self._changed,
                    self._keep,
                    [message for message, names in kept.waiting if name in names],
                    pace=pace,
                    now=now,
                )
                for name, sender in senders
            ]
            with self._changed:
                self._file.write(self._kept_state())
                self._state = self._seen_state()
        except BaseException:
            self._file.close()
            raise
        for one in self._deliverers:
            one.start()

    @property
    def state(self) -> AlertsState:
        """How alerts fare; never waits."""
        return self._state

    def take(self, signals: Iterable[Signal], now: datetime) -> tuple[Message, ...]:
        """Takes one evaluation, and returns the messages that are sent because of it. Waits for the disk at most.

        Args:
            signals: in any order; those that fire and those that do not. What could not be judged is left out, not told as quiet.
            now: when it was made, with its zone.

        Raises:
            UsageError: alerts are closed.
        """
        told = list(signals)
        at = now.astimezone(UTC).timestamp()
        with self._changed:
            if self._is_closed:
                raise UsageError("alerts are closed", where=self._file.path)
            standings, alerts = advance(self._standings, told, at, self._settings)
            messages = self._messages(alerts, at)
            self._standings = standings
            self._signals |= {Key(one.subject, one.name): one for one in told}
            for deliverer in self._deliverers:
                for message in messages:
                    deliverer.offer(message)
            self._keep()
            self._changed.notify_all()
        return messages

    def close(self, timeout_s: float = _CLOSE_S) -> bool:
        """Ends, giving what waits one more chance; tells whether all of it was sent. The rest waits on the disk for the next process.

        Args:
            timeout_s: longest that it takes.
        """
        until_s = time.monotonic() + timeout_s
        with self._changed:
            for one in self._deliverers:
                one.leave()
        for one in self._deliverers:
            one.join(until_s - time.monotonic())
        with self._changed:
            if not self._is_closed:
                self._is_closed = True
                self._file.close()
            return not any(one.waiting() for one in self._deliverers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _messages(self, alerts: Mapping[Key, Alert], at: float) -> tuple[Message, ...]:
        grouped: dict[tuple[str, str], list[Alert]] = {}
        for key, alert in alerts.items():
            grouped.setdefault((key.subject, "" if self._settings.group else key.name), []).append(alert)
        return tuple(
            make_message(subject, told, now=at, source=self._source, bundle=self._bundle_of(subject))
            for (subject, _), told in sorted(grouped.items())
        )

    # --- with the lock held

    def _keep(self) -> None:
        """Writes how all stands, and lets it be seen."""
        # A thread that was still sending when this closed: the file may be another process's by now.
        if not self._is_closed:
            try:
                self._file.write(self._kept_state())
                is_kept = True
            except ShipsightError as error:
                is_kept = False
                if self._is_kept:
                    _log.error("alerts are sent, but a restart would not know of them: %s", error)
            self._is_kept = is_kept
        self._state = self._seen_state()

    def _kept_state(self) -> KeptState:
        waiting: dict[str, tuple[Message, list[str]]] = {}
        for deliverer in self._deliverers:
            for message in deliverer.waiting():
                waiting.setdefault(message.id, (message, []))[1].append(deliverer.name)
        ordered = sorted(waiting.values(), key=lambda one: one[0].at)
        return KeptState(self._source, self._standings, [(message, tuple(names)) for message, names in ordered])

    def _seen_state(self) -> AlertsState:
        return AlertsState(
            dict(self._standings),
            tuple(one.state() for one in self._deliverers),
            dict(self._signals),
            self._is_kept,
        )


@dataclass(frozen=True)
class Tried:
    """What became of a test message.

    Attributes:
        receiver: its name.
        error: why it was not sent, None where it was.
    """

    receiver: str
    error: str | None


def try_receivers(settings: AlertSettings, *, now: datetime) -> list[Tried]:
    """Sends a message that says that it is a test to every receiver, once each, one after the other; returns what became of it.

    Args:
        settings: whose receivers.
        now: the time, with its zone.
    """
    message = trial_message(now.astimezone(UTC).timestamp(), secrets.token_hex(8))
    found = []
    for receiver in settings.receivers:
        try:
            open_sender(receiver).send(message, now)
        except (OSError, ShipsightError) as error:
            found.append(Tried(receiver.name, error_text(error)))
        else:
            found.append(Tried(receiver.name, None))
    return found
