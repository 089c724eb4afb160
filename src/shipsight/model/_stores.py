# SPDX-License-Identifier: Apache-2.0
"""Where a bundle's bytes lie: a folder, or the same folder zipped. Lists names and reads files, trusting nothing.

Leaves to others: what the names and bytes should be (`model.bundle`). Invariants: no link is followed, in no part of a
path; nothing but regular files with one name is read; never more bytes are taken than were asked for; a zip is read in
place, its members stored, one behind the other from the first byte on, told the same by both of its directories.
Private to `model`. Sources: PKWARE APPNOTE 6.3.10 sections 4.3.7, 4.3.12, 4.3.16; open(2), openat(2).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shipsight.errors import CorruptError, EscapingPathError, LimitError, LinkError, MissingFileError, UsageError
from shipsight.model.manifest import LIMIT_FILES, LIMIT_MANIFEST_BYTES, MANIFEST_NAME

__all__ = ["FolderStore", "Store", "ZipStore", "open_store"]

_LIMIT_DEPTH = 10
_LIMIT_ENTRIES = LIMIT_FILES + 1_000
_PIECE_BYTES = 2**20


class Store(Protocol):
    """Where a bundle's bytes lie."""

    path: Path

    def sizes(self) -> dict[str, int]:
        """Returns every file by name with its size in bytes, in stored order; folders that hold no file count as files."""

    def read(self, name: str, limit_bytes: int) -> bytes:
        """Returns a file's bytes, at most `limit_bytes` + 1 of them."""

    def pieces(self, name: str, limit_bytes: int) -> Iterator[bytes]:
        """Yields them in pieces of at most 1 MiB."""


def open_store(path: Path) -> Store:
    """Opens the folder or zip file at `path`.

    Raises:
        UsageError: there is nothing, or neither a folder nor a file.
        CorruptError: a file that is not a zip as shipsight writes it.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError("no bundle here", where=path, got=error.strerror) from error
    if stat.S_ISDIR(mode):
        return FolderStore(path.resolve())
    if stat.S_ISREG(mode):
        return ZipStore(path.resolve())
    raise UsageError("not a bundle", where=path, expected="a folder or a zip file")


class FolderStore:
    """A bundle as a folder. The folder itself may be reached through a link, nothing in it may be one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with self._opened("", os.O_DIRECTORY) as folder:
            try:
                self._walk(folder, "", found)
            except FileNotFoundError as error:
                raise MissingFileError("a file vanished while the bundle was listed", where=self.path) from error
        return found

    def _walk(self, folder: int, prefix: str, found: dict[str, int]) -> None:
        if prefix.count("/") > _LIMIT_DEPTH:
            raise LimitError("folders are nested too deeply", where=self.path / prefix)
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
        if not names and prefix:
            found[prefix] = 0  # an empty folder is something that the manifest does not name
        for name in names:
            if len(found) >= _LIMIT_ENTRIES:
                raise LimitError("too many files", where=self.path, expected=f"at most {_LIMIT_ENTRIES}")
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                with self._opened_in(folder, name, os.O_DIRECTORY, prefix + name) as inner:
                    self._walk(inner, f"{prefix}{name}/", found)
            else:
                self._check_plain(status, prefix + name)
                found[prefix + name] = status.st_size

    def read(self, name: str, limit_bytes: int) -> bytes:
        with self._opened(name, 0) as file:
            status = os.fstat(file)
            self._check_plain(status, name)
            return _read_at_most(file, limit_bytes + 1)

    def pieces(self, name: str, limit_bytes: int) -> Iterator[bytes]:
        with self._opened(name, 0) as file:
            self._check_plain(os.fstat(file), name)
            yield from _pieces_of(file, limit_bytes + 1)

    @contextmanager
    def _opened(self, name: str, flags: int) -> Iterator[int]:
        """Opens a path part by part, each relative to the folder opened before and none through a link."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise MissingFileError("the bundle is gone", where=self.path, got=error.strerror) from error
        try:
            parts = name.split("/") if name else []
            for position, part in enumerate(parts, start=1):
                if part in ("", ".", ".."):
                    raise EscapingPathError("not a path inside the bundle", where=self.path, got=repr(name))
                kind = os.O_DIRECTORY if position < len(parts) else flags
                previous, descriptor = descriptor, self._open_part(descriptor, part, kind, name)
                os.close(previous)
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _opened_in(self, folder: int, part: str, flags: int, name: str) -> Iterator[int]:
        descriptor = self._open_part(folder, part, flags, name)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _open_part(self, folder: int, part: str, flags: int, name: str) -> int:
        try:  # O_NONBLOCK: a FIFO must not hold us up before fstat tells that it is one
            return os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, dir_fd=folder)
        except FileNotFoundError as error:
            raise MissingFileError("the bundle lacks a file", where=self.path, got=repr(name)) from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
                raise LinkError("the bundle holds a link or a special file", where=self.path, got=repr(name)) from error
            raise CorruptError("a file cannot be opened", where=self.path / name, got=error.strerror) from error

    def _check_plain(self, status: os.stat_result, name: str) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise LinkError("the bundle holds a link or a special file", where=self.path, got=repr(name))
        if status.st_nlink > 1:
            raise LinkError(
                "the bundle holds a hard link: the file has a second name elsewhere",
                where=self.path,
                got=repr(name),
                hint="Copy the bundle without links, for example with 'cp -r --no-preserve=links'",
            )


def _read_at_most(file: int, limit: int) -> bytes:
    chunks: list[bytes] = []
    while limit > 0:
        chunk = os.read(file, min(limit, 1 << 22))
        if not chunk:
            break
        chunks.append(chunk)
        limit -= len(chunk)
    return b"".join(chunks)


def _pieces_of(file: int, limit: int) -> Iterator[bytes]:
    while limit > 0:
        piece = os.read(file, min(limit, _PIECE_BYTES))
        if not piece:
            return
        yield piece
        limit -= len(piece)


_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_ALLOWED_FLAGS = 0x0800  # names in UTF-8; no encryption, no sizes behind the data
_FILE_TYPE = 0o170000 << 16


@dataclass(frozen=True)
class _Member:
    name: str
    start: int
    size: int


class ZipStore:
    """A bundle as a zip file, read in place: nothing is unpacked.

    A reader of its own, since the standard one takes far more than the format allows: what is compressed, encrypted,
    in another place than it says, or told twice is refused here before one byte of it is used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            members = self._members(file.fileno(), os.fstat(file.fileno()).st_size)
        self._members_by_name = {member.name: member for member in members}
        if len(self._members_by_name) != len(members):
            raise EscapingPathError("the zip file holds a name twice", where=path)

    def sizes(self) -> dict[str, int]:
        return {member.name: member.size for member in self._members_by_name.values()}

    def read(self, name: str, limit_bytes: int) -> bytes:
        member = self._member_of(name)
        with self.path.open("rb") as file:
            file.seek(member.start)
            return file.read(min(member.size, limit_bytes + 1))

    def pieces(self, name: str, limit_bytes: int) -> Iterator[bytes]:
        member = self._member_of(name)
        with self.path.open("rb", buffering=0) as file:
            file.seek(member.start)
            yield from _pieces_of(file.fileno(), min(member.size, limit_bytes + 1))

    def _member_of(self, name: str) -> _Member:
        member = self._members_by_name.get(name)
        if member is None:
            raise MissingFileError("the bundle lacks a file", where=self.path, got=repr(name))
        return member

    def _members(self, file: int, size: int) -> list[_Member]:
        tail = os.pread(file, _END.size, max(0, size - _END.size))
        if len(tail) != _END.size or tail[:4] != b"PK\5\6":
            raise self._refusal("not a zip file, or one with a comment or of 4 GiB and more")
        _, disk, first_disk, here, count, central_size, central_start, comment = _END.unpack(tail)
        if disk or first_disk or comment or here != count or central_start + central_size + _END.size != size:
            raise self._refusal("the zip file's end does not fit")
        if count > _LIMIT_ENTRIES or central_size > _LIMIT_ENTRIES * 512:
            raise LimitError("too many files", where=self.path, expected=f"at most {_LIMIT_ENTRIES}", got=count)
        central = os.pread(file, central_size, central_start)
        members: list[_Member] = []
        position = expected_start = 0
        for _ in range(count):
            member, position, expected_start = self._member(file, central, position, expected_start)
            members.append(member)
        if position != len(central) or expected_start != central_start:
            raise self._refusal("bytes stand between or behind the members")
        return members

    def _member(self, file: int, central: bytes, position: int, start: int) -> tuple[_Member, int, int]:
        """Reads one entry of the central directory; its data must start where the one before ended."""
        if position + _CENTRAL.size > len(central):
            raise self._refusal("the directory is cut off")
        fields = _CENTRAL.unpack_from(central, position)
        magic, flags, method, crc, packed, size = fields[0], fields[3], fields[4], *fields[7:10]
        name_size, extra, comment, disk, attributes, header = *fields[10:14], fields[15], fields[16]
        raw = central[position + _CENTRAL.size : position + _CENTRAL.size + name_size]
        if magic != b"PK\1\2" or disk or extra or comment or header != start or len(raw) != name_size:
            raise self._refusal("a directory entry does not fit, or carries extra fields")
        name = raw.decode("ascii", "replace")
        if flags & ~_ALLOWED_FLAGS or method != 0 or packed != size:
            raise self._refusal("members must be stored, neither compressed nor encrypted", got=repr(name[:120]))
        if attributes & _FILE_TYPE and stat.S_IFMT(attributes >> 16) not in (stat.S_IFREG, stat.S_IFDIR):
            raise LinkError("the bundle holds a link or a special file", where=self.path, got=repr(name[:120]))
        local = os.pread(file, _LOCAL.size + name_size, start)
        wanted = (b"PK\3\4", flags, method, crc, packed, size, name_size, 0)
        if len(local) != _LOCAL.size + name_size or local[_LOCAL.size :] != raw:
            raise self._refusal("a member's two headers differ", got=repr(name[:120]))
        told = _LOCAL.unpack_from(local)
        if (told[0], told[2], told[3], *told[6:11]) != wanted:
            raise self._refusal("a member's two headers differ", got=repr(name[:120]))
        data = start + len(local)
        return _Member(name, data, size), position + _CENTRAL.size + name_size, data + size

    def _refusal(self, what: str, *, got: str | None = None) -> CorruptError:
        return CorruptError(
            what, where=self.path, got=got, hint="Zip a bundle with shipsight, members stored in manifest order"
        )


def read_manifest_bytes(store: Store) -> bytes:
    """Returns the bytes of the manifest, one more than the limit at most."""
    return store.read(MANIFEST_NAME, LIMIT_MANIFEST_BYTES)
