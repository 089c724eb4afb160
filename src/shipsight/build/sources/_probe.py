# SPDX-License-Identifier: Apache-2.0
"""What a sandboxed process can still do, tried out from the inside.

The sandbox's tests ask this of the very process that opens model files; nothing else calls it. Private.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["probe"]


def probe(parameters: dict[str, Any]) -> dict[str, str]:
    """Tries what a hostile file would try; returns action -> `yes` or the error that stopped it."""
    tries: dict[str, Callable[[], object]] = {
        "connect": lambda: socket.create_connection(tuple(parameters["address"]), timeout=3).close(),
        "unix-socket": lambda: _connect_unix(str(parameters["unix_path"])),
        "new-program": lambda: subprocess.run([sys.executable, "-c", ""], check=True, timeout=20),
        "fork": _fork,
        "signal-parent": lambda: os.kill(os.getppid(), signal.SIG_DFL),
        "spin": _spin,
        "allocate": lambda: bytearray(int(parameters.get("allocate_bytes", 0))),
    }
    return {name: _attempt(tries[name]) for name in parameters["actions"]}


def _attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except (OSError, MemoryError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"
    return "yes"


def _connect_unix(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)


def _fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _spin() -> None:
    while True:
        pass
