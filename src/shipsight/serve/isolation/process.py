# SPDX-License-Identifier: Apache-2.0
"""A worker process as the server sees it: start, ask, see it end.

Leaves to others: starting another in its place (`keeper`). Invariants: whoever waits for an answer is told when the
worker ends, never left waiting; the worker and what it started itself end with the server and with `close`; no
descriptor stays open after it. Stable.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from numpy.typing import NDArray

from shipsight import errors
from shipsight.errors import EnvironmentLackError, InternalError, ShipsightError
from shipsight.serve.isolation.channel import Arrays, Channel, ChannelClosedError

__all__ = ["WorkerEndedError", "WorkerProcess"]

T = TypeVar("T")
_log = logging.getLogger("shipsight.serve")
_LEAVE_S = 2.0  # for a worker that was told to leave
_TELL_S = 5.0  # for the kernel to tell how a worker ended whose sockets are closed

# PR_SET_PDEATHSIG acts when the thread ends that started the child, not the process: one thread that stays starts all.
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="shipsight-starter")


class WorkerEndedError(Exception):
    """The worker ended before it answered; the text says how. Between the rooms of a server, never a user's."""


class WorkerProcess:
    """A worker.

    Args:
        module: run with `python -m`; calls `answer_connections`.
        label: what it is for: stands in the process list and in messages.
        on_end: told, in a thread of its own, once the worker has ended without having been told to.

    Raises:
        EnvironmentLackError: this system cannot run workers.
    """

    def __init__(self, module: str, label: str, *, on_end: Callable[[WorkerProcess], None]) -> None:
        if sys.platform != "linux":
            raise EnvironmentLackError("worker processes need Linux", where=label, got=sys.platform)
        self.label = label
        self._on_end = on_end
        self._lock = threading.Lock()
        self._idle: list[Channel] = []  # the one used last comes first: its memory is warm
        self._used: set[Channel] = set()
        self._why: str | None = None
        self._is_told = False  # to leave
        self._ended = threading.Event()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = _STARTER.submit(_start, module, theirs, label).result()
        except OSError as error:
            self._control.close()
            raise EnvironmentLackError("a worker process cannot be started", where=label, got=error) from error
        finally:
            theirs.close()
        self._watcher = threading.Thread(target=self._watch, name=f"shipsight-watch-{label}", daemon=True)
        self._watcher.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs, as far as is known."""
        return not self._ended.is_set()

    @property
    def why(self) -> str:
        """How it ended, or why it was killed."""
        return self._why or "it was told to leave"

    def call(
        self,
        message: dict[str, Any],
        arrays: Arrays | None = None,
        *,
        timeout_s: float,
        read: Callable[[Any, dict[str, NDArray[Any]]], T],
    ) -> T:
        """Asks one thing and waits for the answer; a worker that takes too long is killed.

        Args:
            message: what is asked.
            arrays: go along.
            timeout_s: how long it may take.
            read: makes the result of the answer and the arrays that came along; they hold only until it returns.

        Raises:
            WorkerEndedError: the worker has ended, or was killed for taking too long.
            ShipsightError: as the worker says.
            InternalError: the worker failed on this; its traceback is in the log.
        """
        channel = self._take()
        try:
            channel.send(message, arrays)
            told, given = channel.receive(timeout_s)
            if "answer" in told:
                return read(told["answer"], given)
        except TimeoutError:
            self.kill(f"it took longer than {timeout_s:g} s and was killed")
            raise WorkerEndedError(self.why) from None
        except ChannelClosedError:
            # Its end of the socket is closed, so it is about to end; one that only says nonsense is ended here.
            if not self._ended.wait(_TELL_S):
                self.kill("it broke off and was killed")
            raise WorkerEndedError(self.why) from None
        finally:
            self._put_back(channel)
        if told["trace"] is not None:
            _log.error("the worker of %s failed: %s", self.label, told["trace"])
        if "error" in told:
            raise _error_of(told["error"])
        raise InternalError("a worker failed", where=self.label, got=told["failed"])

    def _take(self) -> Channel:
        """Returns a connection that nobody uses, a new one where all are in use."""
        with self._lock:
            if self._ended.is_set() or self._is_told:
                raise WorkerEndedError(self.why)
            if self._idle:
                channel = self._idle.pop()
            else:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                channel = Channel(ours)
                with theirs, contextlib.suppress(OSError):  # that the worker is gone shows when it is asked
                    socket.send_fds(self._control, [b"."], [theirs.fileno()])
            self._used.add(channel)
            return channel

    def _put_back(self, channel: Channel) -> None:
        with self._lock:
            self._used.discard(channel)
            if self._ended.is_set() or self._why is not None:
                channel.close()
            else:
                self._idle.append(channel)

    def kill(self, why: str) -> None:
        """Ends it at once; `on_end` is told."""
        if not self._ended.is_set():
            self._why = self._why or why
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def close(self) -> None:
        """Lets it leave, ends it where it does not; `on_end` is not told. Twice is harmless."""
        self._is_told = True
        with self._lock:
            self._control.close()
        if threading.current_thread() is self._watcher:
            return
        if not self._ended.wait(_LEAVE_S):
            self.kill("it did not leave and was killed")
        self._watcher.join()

    def _watch(self) -> None:
        # Seen but not yet collected: until then its number names no other process, and what it started can be ended.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        self._why = self._why or _describe(status)
        with self._lock:
            self._ended.set()
            self._control.close()
            for channel in self._used:
                channel.shut()
            for channel in self._idle:
                channel.close()
            self._idle.clear()
        if not self._is_told:
            self._on_end(self)


def _start(module: str, control: socket.socket, label: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", module, str(control.fileno()), label]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,  # what an engine or a step prints goes to the log: standard output is the server's own
        pass_fds=(control.fileno(),),
        process_group=0,
    )


def _describe(status: int) -> str:
    if status >= 0:
        return f"it ended with status {status}"
    try:
        return f"it was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was ended by signal {-status}"


def _error_of(told: dict[str, Any]) -> ShipsightError:
    """Rebuilds an error that a worker told as `to_dict()` has it."""
    kinds = (getattr(errors, name) for name in errors.__all__)
    kind = next((one for one in kinds if one.code == told["code"]), InternalError)
    found: ShipsightError = kind(**{key: told[key] for key in ("what", "where", "expected", "got", "hint")})
    return found
