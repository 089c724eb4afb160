# SPDX-License-Identifier: Apache-2.0
"""What a service manager is told, by the protocol of sd_notify(3): lines in a datagram to a socket that it names. Stable."""

from __future__ import annotations

import logging
import socket

from shipsight.errors import UsageError

__all__ = ["ServiceManager"]

_log = logging.getLogger("shipsight.serve")


class ServiceManager:
    """Tells systemd, or whoever else speaks its protocol, how the server is; nobody where there is no address.

    Args:
        address: `NOTIFY_SOCKET`: a path, or a name of Linux's abstract ones after `@`; None where nobody listens.
        wants_life: whether signs of life are wanted (`WATCHDOG_USEC` is set, for this process).

    Raises:
        UsageError: not such an address.
    """

    def __init__(self, address: str | None, *, wants_life: bool = False) -> None:
        if address is not None and not (address.startswith(("/", "@")) and len(address) > 1):
            raise UsageError("not an address", where="NOTIFY_SOCKET", expected="/path or @name", got=address)
        self._address = None if address is None else address.replace("@", "\0", 1) if address[0] == "@" else address
        self._wants_life = wants_life

    def ready(self, status: str) -> None:
        """The server answers."""
        self._tell("READY=1", f"STATUS={_line(status)}")

    def status(self, text: str) -> None:
        """Tells people something."""
        self._tell(f"STATUS={_line(text)}")

    def alive(self) -> None:
        """The serving process gave a sign of life."""
        if self._wants_life:
            self._tell("WATCHDOG=1")

    def stopping(self) -> None:
        """The server was told to leave, and drains."""
        self._tell("STOPPING=1", "STATUS=leaving: requests in flight end")

    def _tell(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:  # the server goes on without whoever watches it
            _log.warning("the service manager could not be told %s: %s", lines[0], error)


def _line(text: str) -> str:
    return " ".join(text.split())
