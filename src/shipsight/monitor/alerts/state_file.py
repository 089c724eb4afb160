# SPDX-License-Identifier: Apache-2.0
"""How alerts stand and what still waits to be sent, in a file: so that a restart neither repeats nor loses an alert. Private to the room.

Written whole or not at all, and readable for its owner alone. One process has it at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shipsight.errors import CorruptError, EnvironmentLackError, UsageError
from shipsight.monitor.alerts.message import Message
from shipsight.monitor.alerts.standings import Key, Standing

__all__ = ["KeptState", "StateFile"]

_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class KeptState:
    """What is kept.

    Attributes:
        source: names the file, by chance, so that two files make no message with one id.
        standings: of every alert that is pending, fires, or was resolved lately.
        waiting: messages, the oldest first, each with the names of the receivers that it still waits for.
    """

    source: str = field(default_factory=lambda: secrets.token_hex(8))
    standings: Mapping[Key, Standing] = field(default_factory=dict)
    waiting: Sequence[tuple[Message, tuple[str, ...]]] = ()


class StateFile:
    """The file, held against other processes until it is closed.

    Args:
        path: of the file, made with its folder where there is none.

    Raises:
        UsageError: another process has it.
        EnvironmentLackError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EnvironmentLackError(
                "the state of alerts cannot be kept here", where=path, got=error.strerror
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise UsageError("another process keeps its alerts here", where=path) from error
        self._lock = lock

    def read(self) -> KeptState:
        """Returns what was kept; a new state where nothing was.

        Raises:
            CorruptError: the file holds something else.
            EnvironmentLackError: it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return KeptState()
        except OSError as error:
            raise EnvironmentLackError(
                "the state of alerts cannot be read", where=self.path, got=error.strerror
            ) from error
        try:
            return _parse(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, CorruptError) as error:
            raise CorruptError(
                "not the state of alerts",
                where=self.path,
                got=error.got if isinstance(error, CorruptError) else type(error).__name__,
                hint="Move it away: what fires is then told again.",
            ) from error

    def write(self, state: KeptState) -> None:
        """Replaces what was kept; it is on the disk on return.

        Raises:
            EnvironmentLackError: it cannot be written; what was kept before still is.
        """
        told = {
            "schema": 1,
            "source": state.source,
            "standings": [[*key, one.to_state()] for key, one in state.standings.items()],
            "waiting": [[message.to_state(), list(names)] for message, names in state.waiting],
        }
        new = self.path.with_name(f".{self.path.name}.new")
        try:
            new.unlink(missing_ok=True)
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.write(json.dumps(told, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode())
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise EnvironmentLackError(
                "the state of alerts cannot be written", where=self.path, got=error.strerror
            ) from error

    def close(self) -> None:
        """Lets another process have it."""
        os.close(self._lock)


def _parse(told: Any) -> KeptState:  # noqa: ANN401 - whatever a file held; it is checked as it is used
    if told["schema"] != 1:
        raise CorruptError("another schema", got=f"schema {told['schema']}")
    source = told["source"]
    if not isinstance(source, str):
        raise CorruptError("not a source", got=type(source).__name__)
    standings = {}
    for subject, name, one in told["standings"]:
        if not (isinstance(subject, str) and isinstance(name, str)):
            raise CorruptError("not what an alert is about", got=type(name).__name__)
        standings[Key(subject, name)] = Standing.from_state(one)
    waiting = []
    for message, names in told["waiting"]:
        if not all(isinstance(one, str) for one in names):
            raise CorruptError("not names of receivers", got=type(names).__name__)
        waiting.append((Message.from_state(message), tuple(names)))
    return KeptState(source, standings, waiting)
