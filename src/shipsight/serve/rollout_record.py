# SPDX-License-Identifier: Apache-2.0
"""The record of rollouts: one JSON line for each change, on disk before it takes effect. `docs/formats/rollout-record.md`.

Leaves to others: what may change (`rollout_control`). Invariants: lines are only ever appended; a change of which the
line was not written whole did not happen; one server at a time writes to a folder. Stable.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shipsight.access import Principal
from shipsight.errors import CorruptError, EnvironmentLackError, UsageError
from shipsight.serve.rollout import Rollout

__all__ = ["RECORD_NAME", "Change", "RolloutRecord"]

RECORD_NAME = "rollouts.jsonl"
_SCHEMA = 1
_KEYS = {"schema", "time", "principal", "action", "model", "from", "to", "reason"}
_log = logging.getLogger("shipsight.serve")


@dataclass(frozen=True)
class Change:
    """One line of the record.

    Attributes:
        time: ISO 8601, UTC.
        principal: who decided, `kind:name`.
        action: `promote`, `rollback`, `share` or `end`.
        before: the rollout until then.
        after: the rollout from then on.
        reason: in the words of who decided, or None.
    """

    time: str
    principal: str
    action: str
    before: Rollout
    after: Rollout
    reason: str | None

    def to_dict(self) -> dict[str, Any]:
        """Returns the line's value."""
        return {
            "schema": _SCHEMA,
            "time": self.time,
            "principal": self.principal,
            "action": self.action,
            "model": self.after.model,
            "from": self.before.to_dict(),
            "to": self.after.to_dict(),
            "reason": self.reason,
        }

    @classmethod
    def from_line(cls, line: bytes, where: str) -> Change:
        """Reads a line.

        Raises:
            CorruptError: it is none.
        """
        try:
            told = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorruptError("not a line of a record", where=where, got=error) from error
        if not isinstance(told, dict) or set(told) != _KEYS or told["schema"] != _SCHEMA:
            raise CorruptError(
                "not a line of a record", where=where, expected=f"schema {_SCHEMA} with {', '.join(sorted(_KEYS))}"
            )
        texts = [told[key] for key in ("time", "principal", "action", "model")]
        if not all(isinstance(text, str) for text in texts) or not isinstance(told["reason"], str | None):
            raise CorruptError("not a line of a record", where=where, expected="texts")
        model = told["model"]
        return cls(
            time=told["time"],
            principal=told["principal"],
            action=told["action"],
            before=Rollout.from_dict(model, told["from"]),
            after=Rollout.from_dict(model, told["to"]),
            reason=told["reason"],
        )


class RolloutRecord:
    """The record in a folder, which is made with the first change.

    Args:
        folder: where it lies; None keeps changes in memory alone.
        now: the time of day.

    Raises:
        CorruptError: a line that is not the last one cannot be read.
        UsageError: another server writes to it.
        EnvironmentLackError: it cannot be read.
    """

    def __init__(self, folder: Path | None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.torn: bytes | None = None  # what a crash left of a last line
        self._path = None if folder is None else folder / RECORD_NAME
        self._now = now
        self._lock = threading.Lock()
        self._file: int | None = None
        self._size = 0
        self._changes: list[Change] = []
        if self._path is not None and self._path.exists():
            self._open(self._path)

    def changes(self, model: str | None = None) -> list[Change]:
        """Returns the changes of a model, of all without one, in order."""
        with self._lock:
            return [one for one in self._changes if model in (None, one.after.model)]

    def rollouts(self) -> list[Rollout]:
        """Returns the last rollout of each model."""
        return list({one.after.model: one.after for one in self.changes()}.values())

    def append(self, principal: Principal, action: str, before: Rollout, after: Rollout, reason: str | None) -> Change:
        """Writes a change; it is on disk when this returns.

        Raises:
            EnvironmentLackError: it cannot be written; nothing has changed.
            UsageError: another server writes to this folder.
        """
        time = self._now().isoformat(timespec="milliseconds")
        change = Change(time, f"{principal.kind.value}:{principal.name}", action, before, after, reason)
        with self._lock:
            if self._path is not None:
                if self._file is None:
                    self._make(self._path)
                self._write(json.dumps(change.to_dict(), ensure_ascii=False).encode() + b"\n")
            self._changes.append(change)
        return change

    def close(self) -> None:
        """Lets another server write."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _make(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise self._unusable(error) from error
        self._open(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _open(self, path: Path) -> None:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with os.fdopen(os.dup(file), "rb") as reading:
                data = reading.read()
            whole, _, torn = data.rpartition(b"\n")
            changes = [
                Change.from_line(line, f"{path}:{number}") for number, line in enumerate(whole.splitlines(), start=1)
            ]
            if torn:
                os.ftruncate(file, len(data) - len(torn))
                os.fsync(file)
        except BlockingIOError:
            os.close(file)
            raise UsageError(
                "another server keeps its decisions here", where=path, hint="Give each its own --state."
            ) from None
        except BaseException:
            os.close(file)
            raise
        if torn:
            self.torn = torn
            _log.warning("%s: a change was not written whole, so it did not happen: %r", path, torn[:500])
        self._file, self._size, self._changes = file, len(data) - len(torn), changes

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError as error:
            # Half a line would be read as torn; the next whole one must not be glued to it.
            os.ftruncate(self._file, self._size)
            raise self._unusable(error) from error
        self._size += len(line)

    def _unusable(self, error: OSError) -> EnvironmentLackError:
        return EnvironmentLackError(
            "the record of rollouts cannot be kept",
            where=self._path,
            got=error.strerror,
            hint="Start the server with --state and a folder that it may write to.",
        )
