# SPDX-License-Identifier: Apache-2.0
"""Between a client and a server: passes on what comes, keeps it, and cuts what it is told to."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Relay:
    """Passes on what comes, and keeps all of it.

    Args:
        port: on this machine, to which it passes.
        cuts: so many answers to a POST are cut before their first byte, once the server gave them.
    """

    def __init__(self, port: int, *, cuts: int = 0) -> None:
        self._to = ("127.0.0.1", port)
        self._cuts = cuts
        self._lock = threading.Lock()
        self._parts: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._serve, args=(near,)))
            self._threads[-1].start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._to) as far:
            back = threading.Thread(target=self._pump, args=(far, near))
            back.start()
            self._pump(near, far)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # either side may leave
            while data := source.recv(65536):
                if self._is_cut(data):
                    break
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _is_cut(self, data: bytes) -> bool:
        with self._lock:
            is_cut = self._cuts > 0 and data.startswith(b"HTTP/1.1") and b"POST " in b"".join(self._parts)
            self._cuts -= is_cut
            self._parts.append(data)
        return is_cut

    def take(self) -> bytes:
        """Everything since the last time."""
        with self._lock:
            seen, self._parts = b"".join(self._parts), []
        return seen

    def close(self) -> None:
        """Takes no more connections, and waits for those that there are."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._threads:
            one.join(30)
