# SPDX-License-Identifier: Apache-2.0
"""Second places that take the audit log's checkpoints as they come: a file, and syslog; and reading them back from there.

A place is worth what its keeper is: a file on the same disk with the same owner stops nobody who can write the log. Leaves to
others: when to deliver (`witnesses`), places that answer (`witness_client`). Stable: what is written is documented in
`docs/formats/audit-checkpoint.md`. Sources: RFC 5424 (messages), RFC 6587 3.4.1 and RFC 5425 (TCP, TLS), RFC 5426 (UDP).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from shipsight.access.audit.checkpoint import Checkpoint
from shipsight.errors import UsageError

__all__ = ["Consistency", "Copy", "FileCopy", "SyslogCopy", "SyslogPlace", "Transport", "read_checkpoints"]

_KEY = "shipsight-checkpoint"
_PRIORITY = 13 * 8 + 5  # facility "log audit", severity "notice"
_TORN = "(torn)\n"
_MOST_CHARACTERS = 128 * 1024
_MOST_LINES = 256
_LAST_BYTES = 4096  # more than a signature's line has
_DASH = "\N{EM DASH} "


Consistency = Callable[[int, int], list[bytes]]
"""Two sizes of a log -> the proof that it has only grown from one to the other; in any thread."""


class Copy(Protocol):
    """A second place; used from one thread."""

    def deliver(self, checkpoint: Checkpoint) -> Checkpoint:
        """Has a checkpoint kept there; returns it, with what the place signed.

        Raises:
            OSError, ShipsightError: it is not kept, as far as is known.
        """

    def close(self) -> None:
        """Lets go of what it holds."""


class FileCopy:
    """Appends to a file; who made it keeps its owner and mode, so that it can be another's who lets this one only append."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._was_whole = False

    def deliver(self, checkpoint: Checkpoint) -> Checkpoint:
        """Appends a checkpoint, and returns once the disk has it."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        file = os.open(self._path, flags, 0o640)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise UsageError("not a file", where=self._path)
            fcntl.flock(file, fcntl.LOCK_EX)
            data = b"" if self._is_whole() else f"\n{_TORN}\n".encode()
            data += checkpoint.text.encode() + b"\n"
            self._was_whole = False
            while data:
                data = data[os.write(file, data) :]
            os.fsync(file)
            self._was_whole = True
        finally:
            os.close(file)
        return checkpoint

    def close(self) -> None:
        """Holds nothing."""

    def _is_whole(self) -> bool:
        """Whether the file ends with a whole checkpoint, and not with the beginning of one that did not fit, or did not come to its end."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(size - _LAST_BYTES, 0))
                end = file.read()
                # A blank line ends a checkpoint's body, too: its last line must be a signature.
                return size == 0 or (end.endswith(b"\n\n") and end[:-2].rpartition(b"\n")[2].startswith(_DASH.encode()))
        except PermissionError:  # it may be written, not read: what this object did is all that is known
            return self._was_whole


class Transport(StrEnum):
    """How syslog is reached."""

    UNIX = "unix"
    UDP = "udp"
    TCP = "tcp"
    TLS = "tls"


@dataclass(frozen=True)
class SyslogPlace:
    """Where syslog is.

    Attributes:
        transport: how it is reached.
        host: name or address; the socket's path for `UNIX`.
        port: 0 for `UNIX`.
        ca: authorities that sign for it, in PEM; None for the system's.
    """

    transport: Transport
    host: str
    port: int = 0
    ca: Path | None = None


class SyslogCopy:
    """Sends to syslog, which never says whether it has kept something: an error is told where sending itself fails.

    Args:
        place: where it is.
        timeout_s: longest that one step of sending takes.
    """

    def __init__(self, place: SyslogPlace, *, timeout_s: float = 10.0) -> None:
        self._place, self._timeout_s = place, timeout_s
        self._host = socket.gethostname() or "-"
        self._socket: socket.socket | None = None

    def deliver(self, checkpoint: Checkpoint) -> Checkpoint:
        """Sends a checkpoint."""
        message = self._message(checkpoint)
        if self._place.transport in (Transport.TCP, Transport.TLS):
            message = b"%d %s" % (len(message), message)  # octet counting: a text with line ends stays one message
        try:
            if self._socket is None or self._is_closed():
                self.close()
                self._socket = self._connect()
            if self._place.transport in (Transport.TCP, Transport.TLS):
                self._socket.sendall(message)
            elif self._socket.send(message) != len(message):
                raise OSError("syslog took a part of a message")
        except OSError:
            self.close()
            raise
        return checkpoint

    def close(self) -> None:
        """Closes the connection."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def _message(self, checkpoint: Checkpoint) -> bytes:
        at = checkpoint.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        told = json.dumps({_KEY: checkpoint.text}, ensure_ascii=True)
        return f"<{_PRIORITY}>1 {at} {self._host} shipsight {os.getpid()} audit-checkpoint - {told}".encode("ascii")

    def _connect(self) -> socket.socket:
        place = self._place
        if place.transport in (Transport.UNIX, Transport.UDP):
            family: int = socket.AF_UNIX
            address: str | tuple[object, ...] = place.host
            if place.transport is Transport.UDP:
                family, _, _, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_DGRAM)[0]
            made = socket.socket(family, socket.SOCK_DGRAM)
            made.settimeout(self._timeout_s)
            try:
                made.connect(address)
            except BaseException:
                made.close()
                raise
            return made
        made = socket.create_connection((place.host, place.port), timeout=self._timeout_s)
        if place.transport is Transport.TCP:
            return made
        try:
            context = ssl.create_default_context(cafile=place.ca)
            return context.wrap_socket(made, server_hostname=place.host)
        except BaseException:
            made.close()
            raise

    def _is_closed(self) -> bool:
        """Whether the other side has hung up: then sending would fail only with the message after the lost one."""
        if self._socket is None or self._place.transport not in (Transport.TCP, Transport.TLS):
            return False
        self._socket.setblocking(False)
        try:
            return self._socket.recv(1) == b""
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(self._timeout_s)


def read_checkpoints(path: Path, *, torn: Callable[[str], None] | None = None) -> Iterator[str]:
    """Yields the checkpoints in a file that `FileCopy` or a server of syslog wrote, unverified, in the order of the file.

    Args:
        path: of the file; other lines of syslog may stand in it.
        torn: told of pieces that are no whole checkpoint.

    Raises:
        OSError: it cannot be read.
    """
    piece: list[str] = []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        while line := file.readline(_MOST_CHARACTERS):
            begin = line.find(f'{{"{_KEY}"')
            if begin >= 0:
                yield _of_syslog(line[begin:])
            elif line == _TORN:
                if piece and torn is not None:
                    torn("".join(piece))
                piece = []
            elif line != "\n" or (piece and not piece[-1].startswith(_DASH)):
                piece.append(line)
            else:
                yield from _whole(piece, torn)
                piece = []
            if len(piece) > _MOST_LINES:
                yield from _whole(piece, torn)
                piece = []
        yield from _whole(piece, torn)


def _of_syslog(text: str) -> str:
    try:
        value = json.JSONDecoder().raw_decode(text)[0][_KEY]
    except ValueError:
        value = None
    return value if isinstance(value, str) else text


def _whole(piece: list[str], torn: Callable[[str], None] | None) -> Iterator[str]:
    text = "".join(piece)
    if "\n\n" in text and text.endswith("\n") and piece[-1].startswith(_DASH):
        yield text
    elif piece and torn is not None:
        torn(text)
