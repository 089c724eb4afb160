# SPDX-License-Identifier: Apache-2.0
"""A serving process that is started before its options are known: it imports what it needs while they are read and checked.

The process (`python -m shipsight.serve`) is given one end of a channel; over it come the listening socket and then the options. Where the channel is
closed without either, there is nothing to serve and the process ends. Nothing heavy is imported here. Private.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys

__all__ = ["ServingProcess", "receive"]


class ServingProcess:
    """A process that waits for what to serve.

    Attributes:
        process: it.
        reports: descriptor that its reports are read from; whoever hands over what to serve closes it.
    """

    def __init__(self) -> None:
        self.reports, writing = os.pipe()
        self._channel, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "shipsight.serve", str(theirs.fileno()), str(writing)]
            # Its own process group: a terminal's Ctrl-C reaches the supervisor alone, which then lets the child drain.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), writing), process_group=0
            )
        os.close(writing)
        self._waits = True

    def hand(self, listener: socket.socket, options: str) -> None:
        """Hands over what to serve; a process that has died meanwhile takes nothing, and reports nothing.

        Args:
            listener: bound socket.
            options: as JSON.
        """
        self._waits = False
        with self._channel:
            try:
                socket.send_fds(self._channel, [b"s"], [listener.fileno()])
                self._channel.sendall(options.encode())
            except (BrokenPipeError, ConnectionResetError):
                pass  # told by the missing report

    def dismiss(self) -> None:
        """Ends a process that was handed nothing, and waits for that."""
        if not self._waits:
            return
        self._waits = False
        self._channel.close()
        self.process.kill()
        self.process.wait()
        os.close(self.reports)


def receive(channel: socket.socket) -> tuple[socket.socket, str] | None:
    """Returns the listening socket and the options as JSON, None where there is nothing to serve.

    Args:
        channel: the process's end; it is closed.
    """
    with channel:
        _, handed, _, _ = socket.recv_fds(channel, 1, 1, socket.MSG_CMSG_CLOEXEC)
        if not handed:
            return None
        told = bytearray()
        while piece := channel.recv(65536):
            told += piece
        return socket.socket(fileno=handed[0]), told.decode()
