# SPDX-License-Identifier: Apache-2.0
"""Logs: one event a line on standard error, as JSON for collectors or as text for people.

What clients send cannot forge a line: control characters, line separators and direction marks are escaped, and long
values are cut. Lines are written by a thread of their own: a reader that has stopped reading costs lines, which are
counted and told, and never an answer. No image, tensor or body ever comes here. Stable: keys of the JSON form are
documented in `docs/commands/serve.md`. Source: OWASP ASVS 5.0, 16.4.1.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from shipsight.errors import UsageError
from shipsight.printable import printable
from shipsight.serve.request_notes import current_note

__all__ = ["LogFormat", "LogSettings", "configure_logs", "fields", "log_events"]

_MOST_CHARACTERS = 1000
_MOST_OF_A_TRACE = 20_000
_MOST_LINES = 10_000
_LAST_WORDS_S = 2.0
_GATHER_S = 0.02


class LogFormat(StrEnum):
    """How a line is written."""

    JSON = "json"
    TEXT = "text"


@dataclass(frozen=True)
class LogSettings:
    """What is logged, and how.

    Attributes:
        format: of a line.
        requests: whether each request is told.
    """

    format: LogFormat = LogFormat.JSON
    requests: bool = True

    @classmethod
    def of(cls, name: str, *, requests: bool) -> LogSettings:
        """Makes settings of what an operator gave.

        Raises:
            UsageError: no such format.
        """
        if name not in {one.value for one in LogFormat}:
            raise UsageError("no such format", where="--log-format", expected="json or text", got=name)
        return cls(LogFormat(name), requests)


def fields(**told: object) -> dict[str, Any]:
    """Returns what `extra=` of a logging call takes, so that a line holds these fields; those that are None are left out."""
    return {"shipsight": {name: value for name, value in told.items() if value is not None}}


def configure_logs(settings: LogSettings, stream: TextIO) -> None:
    """Sends everything that this process logs, libraries' warnings included, to a stream."""
    handler = _Lines(stream)
    handler.setFormatter(_formatter(settings.format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # The first two remark on what clients send; they are told themselves, and cannot fill the log. The third tells each of its steps.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    threading.excepthook = lambda told: logging.getLogger("shipsight.serve").critical(
        "a thread died", exc_info=told.exc_value, extra=fields(thread=getattr(told.thread, "name", None))
    )


@contextmanager
def log_events(form: LogFormat, stream: TextIO) -> Iterator[None]:
    """Sends what happens to identities and rights to a stream, for a command: each line is written before the event counts as kept."""
    log = logging.getLogger("shipsight.access")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(form))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


def _formatter(form: LogFormat) -> logging.Formatter:
    return _AsJson() if form is LogFormat.JSON else _AsText()


def _told(record: logging.LogRecord) -> dict[str, Any]:
    """Returns a record's fields, its request's id among them, all of them short."""
    told: Mapping[str, Any] = getattr(record, "shipsight", {})
    note = current_note()
    found = dict(told) if note is None or "request" in told else {"request": note.id, **told}
    return {name: _cut(value) if isinstance(value, str) else value for name, value in found.items()}


def _cut(text: str, most: int = _MOST_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _AsJson(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _cut(record.getMessage()),
            **_told(record),
        }
        if record.exc_info:
            line["exception"] = _cut(self.formatException(record.exc_info), _MOST_OF_A_TRACE)
        # ASCII alone: separators and direction marks of Unicode are escaped with all the rest.
        return json.dumps(line, ensure_ascii=True, default=str)


class _AsText(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        told = "".join(f" {name}={_quoted(value)}" for name, value in _told(record).items())
        line = f"{_time(record)} {record.levelname} {printable(_cut(record.getMessage()))}{told}"
        if record.exc_info:
            trace = _cut(self.formatException(record.exc_info), _MOST_OF_A_TRACE)
            line += "".join(f"\n    {printable(one)}" for one in trace.splitlines())
        return line


def _quoted(value: object) -> str:
    text = printable(str(value))
    return json.dumps(text, ensure_ascii=False) if " " in text or '"' in text or not text else text


class _Lines(logging.Handler):
    """Writes lines in a thread of its own."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lost = 0
        self._writer = threading.Thread(target=self._write, name="shipsight-logs", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._waiting.qsize() >= _MOST_LINES:
            self._lost += 1
            return
        try:
            self._waiting.put(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - logging's own way: what cannot be written is told by it, and the caller goes on
            self.handleError(record)

    def close(self) -> None:
        self._waiting.put(None)
        self._writer.join(_LAST_WORDS_S)
        super().close()

    def _write(self) -> None:
        is_open = True
        while is_open:
            lines = [self._waiting.get()]
            time.sleep(_GATHER_S)  # waking for each line would cost more than writing it
            while not self._waiting.empty():
                lines.append(self._waiting.get())
            is_open = None not in lines
            told = [one for one in lines if one is not None]
            try:
                self._stream.write("".join(told))
                self._stream.flush()
            except (OSError, ValueError):  # nobody reads: there is no other place to say so
                self._lost += len(told)
                continue
            if self._lost:
                lost, self._lost = self._lost, 0
                self.handle(_lost_lines(lost))


def _lost_lines(count: int) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": "shipsight.serve",
            "levelname": "WARNING",
            "levelno": logging.WARNING,
            "msg": "lines of this log were lost",
            **fields(lines=count),
        }
    )
