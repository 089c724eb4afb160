# SPDX-License-Identifier: Apache-2.0
"""What a serving process tells its supervisor: lines of JSON on a pipe, signs of life among them. Private to the room.

    {"ready": [...]}                      every model answers
    {"error": {...}, "exit_code": 2}      it cannot begin
    {"alive": true}                       its event loop runs; about every second

Invariant: a sign of life never holds up the serving process; where the pipe is full, it is left out.
"""

from __future__ import annotations

import json
import os
import select
import threading
import time
from typing import Any

__all__ = ["SIGN_S", "Reporter", "Reports"]

SIGN_S = 1.0
_ALIVE = b'{"alive": true}\n'
_LINE_BYTES = 65536


class Reporter:
    """The serving process's end.

    Args:
        fd: of the pipe.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._lock = threading.Lock()

    def tell(self, value: object) -> None:
        """Tells something that must arrive; where nobody reads any more, nobody."""
        rest = json.dumps(value).encode() + b"\n"
        with self._lock:
            while rest:
                select.select([], [self._fd], [])
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:  # the supervisor died; what becomes of this process is not its affair any more
                    return

    def alive(self) -> None:
        """Gives a sign of life, where there is room for one."""
        if self._lock.acquire(blocking=False):
            try:
                os.write(self._fd, _ALIVE)
            except (BlockingIOError, BrokenPipeError):
                pass
            finally:
                self._lock.release()


class Reports:
    """The supervisor's end.

    Args:
        fd: of the pipe; closed by `close`.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._read = b""

    def next(self, timeout_s: float | None) -> dict[str, Any] | None:
        """Returns what is told next; None where the pipe is closed.

        Raises:
            TimeoutError: nothing was told for so long.
        """
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._read:
            left_s = None if until_s is None else max(until_s - time.monotonic(), 0.0)
            if not select.select([self._fd], [], [], left_s)[0]:
                raise TimeoutError
            more = os.read(self._fd, _LINE_BYTES)
            if not more:
                return None
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        """Gives the pipe back."""
        os.close(self._fd)
