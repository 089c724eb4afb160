# SPDX-License-Identifier: Apache-2.0
"""A witness as operators run it: the command, in a process of its own; and servers that only pretend to be one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shipsight.access.audit.witness_client import WitnessPlace


@dataclass
class WitnessServer:
    """One witness, started, stopped, held and killed at will; always on one port."""

    folder: Path
    logs: Sequence[str]
    options: Sequence[str] = ()
    port: int = 0
    told: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    def start(self) -> WitnessServer:
        command = [sys.executable, "-m", "shipsight", "audit", "witness", "--state", str(self.folder), "--json"]
        command += ["--port", str(self.port), *(f"--log={one}" for one in self.logs), *self.options]
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.logged()
        self.told = json.loads(line)
        self.port = int(self.told["url"].rpartition(":")[2])
        return self

    def place(self, ca: Path | None = None) -> WitnessPlace:
        found = WitnessPlace.parse(self.told["audit_copy"])
        return WitnessPlace(found.url, found.key, ca)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        self.send(signal.SIGCONT)
        self.send(number)
        status = self.process.wait(30)
        self.process.stdout.close()
        self.process = None
        return status

    def logged(self) -> str:
        return (self.folder.parent / f"{self.folder.name}.log").read_text()


@contextmanager
def witness_server(folder: Path, *logs: str, options: Sequence[str] = ()) -> Iterator[WitnessServer]:
    """Runs one until the end of the block."""
    server = WitnessServer(folder, logs, options)
    try:
        yield server.start()
    finally:
        if server.process is not None:
            server.stop()


@contextmanager
def pretender(answer: Callable[[socket.socket, bytes], None]) -> Iterator[str]:
    """Runs a server that hands each connection with the first bytes of its request to a function; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = listener.accept()[0]
                    with connection, contextlib.suppress(OSError):
                        answer(connection, connection.recv(65536))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
