# SPDX-License-Identifier: Apache-2.0
"""Messages between a server and its workers: small JSON over a socket, arrays in shared memory.

One packet of a Unix socket (`SOCK_SEQPACKET`) is one message: `[message, [[name, dtype, shape, offset], ...]]`. Arrays lie
at those offsets in memory that the sender owns (`memfd_create`), whose descriptor travels with the first packet that
speaks of it (`SCM_RIGHTS`); the same memory is used again until it is too small or far too large. Invariants: nothing is
unpickled; memory is sealed against shrinking, so that the other end cannot make this one fault; what arrives is checked
against the memory's size before it is touched. One user at a time: a request, then its answer. Stable.
Sources: unix(7), memfd_create(2), fcntl(2) file seals.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import socket
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arrays", "Channel", "ChannelClosedError"]

Arrays = Mapping[str, NDArray[Any]]
_MOST_MESSAGE_BYTES = 64 * 1024
_MOST_ARRAYS = 64
_ALIGNMENT = 64
_GRAIN = 1 << 16  # shared memory comes in multiples of this
_LARGE = 16 << 20  # memory beyond this is given back once a quarter of it would do
_DTYPES = frozenset(
    {"bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
)
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class ChannelClosedError(Exception):
    """The other end is gone, or what it says is no message. Between the rooms of a server, never a user's."""


class Channel:
    """One end of a connection.

    Args:
        connection: a connected `SOCK_SEQPACKET` Unix socket; the channel's from now on.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._ours: mmap.mmap | None = None  # what we write
        self._theirs: mmap.mmap | None = None  # what we read

    def send(self, message: object, arrays: Arrays | None = None) -> None:
        """Sends a message.

        Args:
            message: what JSON can say, up to 64 KB.
            arrays: go along, of numbers or truth values.

        Raises:
            ChannelClosedError: the other end is gone.
            ValueError: the message is too long or holds what cannot be sent: a bug of the caller.
        """
        placed, size = _place(arrays or {})
        data = json.dumps([message, placed], allow_nan=False, separators=(",", ":")).encode()
        if len(data) > _MOST_MESSAGE_BYTES:
            raise ValueError(f"a message of {len(data)} bytes is too long for a channel")
        handle = self._make_room(size)
        try:
            for (_, dtype, shape, offset), array in zip(placed, (arrays or {}).values(), strict=True):
                view: NDArray[Any] = np.frombuffer(self._ours, dtype, array.size, offset)  # type: ignore[arg-type]
                view.reshape(shape)[...] = array
            try:
                socket.send_fds(self._socket, [data], [] if handle is None else [handle])
            except OSError as error:
                raise ChannelClosedError(str(error)) from error
        except BaseException:
            self._ours = None  # the other end may not have learnt of it
            raise
        finally:
            if handle is not None:
                os.close(handle)

    def receive(self, timeout_s: float | None = None) -> tuple[Any, dict[str, NDArray[Any]]]:
        """Waits for a message.

        Args:
            timeout_s: how long, None for as long as it takes.

        Returns:
            The message, and the arrays that came along: views of shared memory that hold until the next `send`.

        Raises:
            ChannelClosedError: the other end is gone, or what it says is no message.
            TimeoutError: nothing came in time.
        """
        handles: list[int] = []
        try:
            self._socket.settimeout(timeout_s)
            data, handles, flags, _ = socket.recv_fds(self._socket, _MOST_MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ChannelClosedError("the other end is gone" if not data else "a message is too long")
            for handle in handles:
                self._theirs = _map_sealed(handle)
        except TimeoutError:
            raise
        except OSError as error:
            raise ChannelClosedError(str(error)) from error
        finally:
            for handle in handles:
                os.close(handle)
        try:
            message, placed = json.loads(data)
            return message, self._read(placed)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ChannelClosedError(f"not a message: {error}") from error

    def shut(self) -> None:
        """Ends the connection for whoever waits on it, in any thread."""
        with contextlib.suppress(OSError):  # ended already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Gives back socket and memory."""
        self._socket.close()
        self._ours = self._theirs = None

    def _make_room(self, size: int) -> int | None:
        """Sees to memory that `size` bytes fit in; returns its descriptor where the other end does not know it yet."""
        held = 0 if self._ours is None else len(self._ours)
        if size <= held and not (held > _LARGE and size < held // 4):
            return None
        wanted = -(-size // _GRAIN) * _GRAIN
        handle = os.memfd_create("shipsight", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(handle, wanted)
            fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
            self._ours = mmap.mmap(handle, wanted)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _read(self, placed: list[Any]) -> dict[str, NDArray[Any]]:
        arrays = {}
        if len(placed) > _MOST_ARRAYS:
            raise ValueError("too many arrays")
        for name, dtype, shape, offset in placed:
            if dtype not in _DTYPES or any(type(side) is not int or side < 0 for side in (*shape, offset)):
                raise ValueError(f"no array: {dtype} {shape} at {offset}")
            count = 1
            for side in shape:
                count *= side
            # Raises ValueError where the memory is smaller than that.
            if count:
                flat: NDArray[Any] = np.frombuffer(self._theirs, dtype, count, offset)  # type: ignore[arg-type]
            else:
                flat = np.empty(0, dtype)
            arrays[str(name)] = flat.reshape(shape)
        return arrays


def _place(arrays: Arrays) -> tuple[list[tuple[str, str, tuple[int, ...], int]], int]:
    """Returns where each array goes, and how much memory all of them take."""
    placed, size = [], 0
    for name, array in arrays.items():
        if array.dtype.name not in _DTYPES:
            raise ValueError(f"an array of {array.dtype.name} cannot be sent")
        placed.append((name, array.dtype.name, array.shape, size))
        size += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    return placed, size


def _map_sealed(handle: int) -> mmap.mmap:
    if fcntl.fcntl(handle, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK == 0:
        raise ChannelClosedError("shared memory that could shrink")
    return mmap.mmap(handle, os.fstat(handle).st_size)
