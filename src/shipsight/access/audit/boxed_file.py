# SPDX-License-Identifier: Apache-2.0
"""A file written and read as a stream of lines, in clear or encrypted; piece by piece, so that memory does not grow with it.

Encrypted pieces are 64 KiB under AES-256-GCM, numbered and the last marked: none can be left out, moved or added. Described in
`docs/formats/audit-log.md`. Private to the room. Sources: RFC 9106, RFC 5869, and STREAM (Hoang et al. 2015).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from cryptography.exceptions import InvalidTag

from shipsight.errors import CorruptError, EnvironmentLackError, LimitError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    from shipsight.access.backup import BackupLock

__all__ = ["LineReader", "LineWriter"]

_MAGIC = b"shipsight-audit-archive\n\x01"
_INFO = b"shipsight audit archive 1"
_SALT, _PREFIX, _TAG = 16, 7, 16
_HEAD = len(_MAGIC) + 1 + _SALT + _PREFIX
_PIECE = 64 * 1024
_MOST_LINE = 1 << 20


class LineWriter:
    """Writes a new file for its owner alone; it is there whole, on the disk, or not at all."""

    def __init__(self, path: Path, *, lock: BackupLock | None) -> None:
        """Begins a file.

        Raises:
            UsageError: it is there already, or the passphrase is too short.
            EnvironmentLackError: it cannot be written.
        """
        if path.exists():
            raise UsageError("is there already", where=path, hint="Name a file that is not there yet.")
        self.digest = hashlib.sha256()
        self._path, self._new = path, path.with_name(f".{path.name}.{os.getpid()}.new")
        self._cipher, self._head = _new_cipher(lock)
        self._waiting, self._number = bytearray(), 0
        try:
            self._file: IO[bytes] = os.fdopen(os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except OSError as error:
            raise _not_written(path, error) from error
        self._put(self._head)

    def line(self, text: str) -> None:
        """Writes a line of ASCII, without its end."""
        data = text.encode("ascii") + b"\n"
        self.digest.update(data)
        if self._cipher is None:
            self._put(data)
            return
        self._waiting += data
        while len(self._waiting) > _PIECE:
            self._seal(bytes(self._waiting[:_PIECE]), is_last=False)
            del self._waiting[:_PIECE]

    def finish(self) -> None:
        """Puts the file in its place.

        Raises:
            EnvironmentLackError: it cannot be written.
        """
        try:
            if self._cipher is not None:
                self._seal(bytes(self._waiting), is_last=True)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            # Not replace: one that came there meanwhile stays.
            os.link(self._new, self._path)
            self._new.unlink()
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _not_written(self._path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._new.unlink(missing_ok=True)

    def _seal(self, piece: bytes, *, is_last: bool) -> None:
        assert self._cipher is not None
        nonce = _nonce(self._head, self._number, is_last=is_last)
        self._number += 1
        self._put(self._cipher.encrypt(nonce, piece, self._head))

    def _put(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise _not_written(self._path, error) from error


class LineReader:
    """Reads such a file.

    Args:
        path: of it.
        lock: what opens it, None where it is in clear.
    """

    def __init__(self, path: Path, *, lock: BackupLock | None) -> None:
        self._path, self._lock = path, lock
        self._ciphers: list[AESGCM] | None = None

    def lines(self) -> Iterator[bytes]:
        """Yields lines with their ends.

        Raises:
            UsageError: the file cannot be read, or is not opened by this.
            CorruptError: it was changed or cut.
            LimitError: a line is longer than any that we write.
        """
        waiting = b""
        for piece in self._pieces():
            waiting += piece
            *whole, waiting = waiting.split(b"\n")
            for one in whole:
                yield one + b"\n"
            if len(waiting) > _MOST_LINE:
                raise LimitError("a line is too long", where=self._path, expected=f"at most {_MOST_LINE} bytes")
        if waiting:
            raise CorruptError("an archive that was cut", where=self._path)

    def _pieces(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                head = file.read(len(_MAGIC))
                if head != _MAGIC:
                    yield head
                    while piece := file.read(_PIECE):
                        yield piece
                    return
                yield from self._opened(file, head + file.read(_HEAD - len(head)))
        except OSError as error:
            raise UsageError("not a file that can be read", where=self._path, got=error.strerror) from error

    def _opened(self, file: IO[bytes], head: bytes) -> Iterator[bytes]:
        if len(head) < _HEAD:
            raise CorruptError("an archive that was cut", where=self._path)
        ciphers = self._open(head)
        number, sealed = 0, file.read(_PIECE + _TAG)
        while True:
            after = file.read(_PIECE + _TAG)
            nonce = _nonce(head, number, is_last=not after)
            yield self._decrypt(ciphers, nonce, sealed, head, is_first=number == 0)
            if not after:
                return
            sealed, number = after, number + 1

    def _open(self, head: bytes) -> list[AESGCM]:
        from shipsight.access.backup import ciphers_of

        if self._ciphers is None:
            if self._lock is None:
                raise UsageError("is encrypted", where=self._path, hint="Give what opens it.")
            place = len(_MAGIC)
            salt = head[place + 1 : place + 1 + _SALT]
            self._ciphers = ciphers_of(self._lock, head[place : place + 1], salt, info=_INFO)
        return self._ciphers

    def _decrypt(self, ciphers: list[AESGCM], nonce: bytes, sealed: bytes, head: bytes, *, is_first: bool) -> bytes:
        for cipher in list(ciphers):
            try:
                plain = cipher.decrypt(nonce, sealed, head)
            except (InvalidTag, ValueError):
                continue
            ciphers[:] = [cipher]
            return plain
        if is_first:
            raise UsageError(
                "not opened by this passphrase or key", where=self._path, hint="Or somebody changed it who has neither."
            )
        raise CorruptError("an archive that was changed or cut", where=self._path)


def _new_cipher(lock: BackupLock | None) -> tuple[AESGCM | None, bytes]:
    if lock is None:
        return None, b""
    from shipsight.access.backup import BY_KEY, BY_PASSPHRASE, LEAST_PASSPHRASE, ciphers_of

    if lock.passphrase is not None and len(lock.passphrase) < LEAST_PASSPHRASE:
        raise UsageError("too short", where="passphrase", expected=f"at least {LEAST_PASSPHRASE} characters")
    kind, salt = BY_KEY if lock.passphrase is None else BY_PASSPHRASE, os.urandom(_SALT)
    return ciphers_of(lock, kind, salt, info=_INFO)[0], _MAGIC + kind + salt + os.urandom(_PREFIX)


def _nonce(head: bytes, number: int, *, is_last: bool) -> bytes:
    return head[-_PREFIX:] + number.to_bytes(4, "big") + bytes([is_last])


def _not_written(path: Path, error: OSError) -> EnvironmentLackError:
    return EnvironmentLackError("the archive cannot be written", where=path, got=error.strerror)
