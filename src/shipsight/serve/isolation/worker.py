# SPDX-License-Identifier: Apache-2.0
"""A worker, from the inside: takes connections from its control socket and answers each in a thread of its own.

Leaves to others: what a request means (`engine_worker`, `steps.worker`). Invariants: it ends when the process that
started it ends, whatever it is busy with; signals meant for the server's whole group (an orchestrator's SIGTERM, a
terminal's Ctrl-C) do not end it, the server does. Stable. Source: prctl(2), PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from shipsight.errors import ShipsightError
from shipsight.serve.isolation.channel import Arrays, Channel, ChannelClosedError

__all__ = ["Handle", "answer_connections", "end_with_parent"]

Handle = Callable[[dict[str, Any], dict[str, NDArray[Any]]], tuple[Any, Arrays]]
"""A request and its arrays -> the answer and its arrays."""

_PR_SET_PDEATHSIG = 1
_MOST_TRACE = 8000  # characters of a traceback that travel


def end_with_parent(number: int) -> None:
    """Has the kernel send this process a signal when the thread that started it ends.

    Args:
        number: of the signal.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def answer_connections(control: int, handle: Handle) -> None:
    """Answers until the control socket closes, then ends the process.

    Args:
        control: descriptor of the control socket; each packet on it brings the socket of a connection.
        handle: answers one request; called from several threads where there are several connections.
    """
    end_with_parent(signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    listener = socket.socket(fileno=control)
    listener.set_inheritable(False)
    while True:
        data, handles, _, _ = socket.recv_fds(listener, 64, 1, socket.MSG_CMSG_CLOEXEC)
        for each in handles:
            channel = Channel(socket.socket(fileno=each))
            threading.Thread(target=_answer, args=(channel, handle), daemon=True).start()
        if not data:
            break
    sys.stderr.flush()
    # Not by way of destructors: native ones may wait for threads that never end.
    os._exit(0)


def _answer(channel: Channel, handle: Handle) -> None:
    try:
        while True:
            message, arrays = channel.receive()
            channel.send(*_handled(handle, message, arrays))
    except ChannelClosedError:
        channel.close()


def _handled(handle: Handle, message: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> tuple[Any, Arrays]:
    try:
        answer, given = handle(message, arrays)
        return {"answer": answer}, given
    except ShipsightError as error:
        trace = None if error.__cause__ is None else traceback.format_exc()[-_MOST_TRACE:]
        return {"error": error.to_dict(), "trace": trace}, {}
    except BaseException as error:  # noqa: BLE001 - the edge of a process; `sys.exit` in a user's code included
        trace = traceback.format_exc()[-_MOST_TRACE:]
        return {"failed": f"{type(error).__name__}: {error}"[:_MOST_TRACE], "trace": trace}, {}
