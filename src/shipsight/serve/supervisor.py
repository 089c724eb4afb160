# SPDX-License-Identifier: Apache-2.0
"""A small process that keeps the listening socket and a serving process behind it.

The socket stays open while the serving process is started anew: clients that connect meanwhile wait, none is refused. A
serving process that dies after it was ready is started again, at first at once, then with growing pauses; one that
cannot begin to serve ends the supervisor with its reason. One that gives no sign of life is killed, and started again like
one that died; the service manager hears of life only while there is some. Nothing heavy is imported here. Stable.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from shipsight.errors import EnvironmentLackError, UsageError
from shipsight.serve.logs import fields
from shipsight.serve.options import ServeOptions
from shipsight.serve.signs import SIGN_S, Reports
from shipsight.serve.systemd import ServiceManager
from shipsight.spawning import ServingProcess

__all__ = ["Supervisor", "bind_listener", "bind_unix_listener", "reserve_port"]

_LONGEST_PAUSE_S = 30.0
_log = logging.getLogger("shipsight.serve")
_LAST_S = 15.0  # beyond the drain, to give memory back and end
_CALM_S = 60.0  # served this long, a death is no sequel of the one before


def bind_listener(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """Returns a listening socket.

    Args:
        host: address.
        port: TCP port, 0 for any free one.
        option: that names the port, for the message.

    Raises:
        UsageError: the port is taken.
        EnvironmentLackError: it cannot be opened.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if isinstance(error, PermissionError):
            raise EnvironmentLackError("this port cannot be opened", where=f"{host}:{port}", got=error) from error
        raise UsageError(
            "this port cannot be opened", where=f"{host}:{port}", got=error.strerror, hint=f"Give another {option}."
        ) from error
    return listener


def bind_unix_listener(path: Path) -> socket.socket:
    """Returns a listening socket on a path, which its owner and their group may connect to.

    A socket that nobody listens on any more is taken away; whatever else is there stays.

    Args:
        path: of the socket.

    Raises:
        UsageError: something else is there, or another server listens.
        EnvironmentLackError: it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not _is_listened_on(path):
            path.unlink()
        before = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError("something is there already", where=f"--uds {path}", hint="Give another path.") from error
        raise EnvironmentLackError("this socket cannot be made", where=f"--uds {path}", got=error) from error
    return listener


def _is_listened_on(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        return asking.connect_ex(str(path)) == 0


def reserve_port(host: str, port: int) -> socket.socket:
    """Returns a socket that keeps a port while it is open, and takes no connection itself.

    A serving process may open the port beside it, with SO_REUSEPORT, and so may the next one: gRPC cannot take a
    listening socket from another process.

    Args:
        host: address.
        port: TCP port, 0 for any free one.

    Raises:
        UsageError: the port is taken.
        EnvironmentLackError: it cannot be opened.
    """
    if port:
        # Among sockets with SO_REUSEPORT the second would get in, and a share of the first one's connections.
        bind_listener(host, port, option="--grpc-port").close()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kept = socket.socket(family, socket.SOCK_STREAM)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        kept.bind((host, port))
    except OSError as error:
        kept.close()
        raise EnvironmentLackError("this port cannot be opened", where=f"{host}:{port}", got=error) from error
    return kept


class Supervisor:
    """Keeps one serving process alive.

    Args:
        options: of the server.
        listener: bound socket.
        on_ready: told, each time a serving process is ready, what it serves.
        on_death: told the exit status of a serving process that died, and the pause before the next.
        manager: of services, told how the server is.
        first: serving process that was started already; None starts one.
    """

    def __init__(
        self,
        options: ServeOptions,
        listener: socket.socket,
        *,
        on_ready: Callable[[list[dict[str, Any]]], None],
        on_death: Callable[[int, float], None],
        manager: ServiceManager | None = None,
        first: ServingProcess | None = None,
    ) -> None:
        self._options = options
        self._listener = listener
        self._on_ready = on_ready
        self._on_death = on_death
        self._manager = manager or ServiceManager(None)
        self._first = first
        self._child: subprocess.Popen[bytes] | None = None
        self._reports: Reports | None = None
        self._leave_by_s: float | None = None
        self._is_ready = False
        self._was_alive = False

    def run(self) -> dict[str, Any] | None:
        """Serves until SIGTERM or SIGINT; with TLS, SIGHUP has the certificates taken anew.

        Returns:
            None, or why the serving process could not begin: `{"error": ..., "exit_code": ...}`.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)
        if self._options.tls is not None:
            signal.signal(signal.SIGHUP, self._refresh)
        pause_s = 0.0
        while True:
            begin = time.monotonic()
            reported = self._start()
            if reported is None or "error" in reported:
                status = self._wait()
                if self._leave_by_s is not None:
                    return None
                if reported is not None:
                    return reported
                return {
                    "error": {
                        "code": "internal",
                        "what": f"the serving process ended with {status} before it was ready",
                    },
                    "exit_code": 70,
                }
            self._options = self._options.after_start()
            self._is_ready = True
            self._on_ready(reported["ready"])
            self._manager.ready("serving " + ", ".join(f"{one['name']} {one['version']}" for one in reported["ready"]))
            status = self._wait()
            self._is_ready = False
            if self._leave_by_s is not None:
                return None
            pause_s = 0.0 if time.monotonic() - begin > _CALM_S else min(max(pause_s * 2, 0.1), _LONGEST_PAUSE_S)
            self._on_death(status, pause_s)
            self._manager.status(f"the serving process ended with {status}; the next is started")
            time.sleep(pause_s)

    def _start(self) -> dict[str, Any] | None:
        """Lets a serving process begin and waits for its report; None where it died without one."""
        serving, self._first = self._first or ServingProcess(), None
        self._child = serving.process
        serving.hand(self._listener, self._options.to_json())
        self._reports = Reports(serving.reports)
        self._was_alive = False
        return self._next()

    def _next(self) -> dict[str, Any] | None:
        """Returns what the serving process tells next but signs of life; None once it is gone, killed here if need be."""
        assert self._child is not None
        assert self._reports is not None
        # Counted in waits, not by the clock: a machine that slept, or a frozen container, proves nothing.
        waits = 0
        while True:
            try:
                told = self._reports.next(SIGN_S)
            except TimeoutError:
                waits += self._was_alive  # until the first sign it imports and opens files
            else:
                if told is None or "alive" not in told:
                    return told
                waits, self._was_alive = 0, True
                if self._is_ready:
                    self._manager.alive()
            if waits * SIGN_S >= self._options.hang_s:
                _log.error(
                    "the serving process gives no sign of life and is killed", extra=fields(silent_s=waits * SIGN_S)
                )
                self._child.kill()
                waits = 0
            elif self._leave_by_s is not None and time.monotonic() > self._leave_by_s:
                _log.error("the serving process does not leave and is killed")
                self._child.kill()

    def _wait(self) -> int:
        """Returns the serving process's exit status once it is gone."""
        assert self._child is not None
        assert self._reports is not None
        while self._next() is not None:
            continue
        self._reports.close()
        return self._child.wait()

    def _refresh(self, number: int, frame: FrameType | None) -> None:
        # One that is still starting reads the files anyway.
        if self._is_ready and self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGHUP)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        self._leave_by_s = time.monotonic() + self._options.drain_s + _LAST_S
        self._manager.stopping()
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGTERM)
