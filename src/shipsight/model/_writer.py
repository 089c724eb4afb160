# SPDX-License-Identifier: Apache-2.0
"""Writing a bundle so that it exists whole or not at all.

All is written to a temporary folder beside the final name, synced to the disk, and then renamed. The writer holds a
lock on that folder, which the system lets go when the writer dies, however it dies: a folder without a holder is
a dead writer's, and the next writer of the same name removes it. Leaves to others: what stands in the manifest. Private
to `model`. Sources: rename(2), renameat2(2), flock(2), fsync(2); APPNOTE 6.3.10 for the zip.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shipsight.errors import LimitError, UsageError
from shipsight.model.manifest import LIMIT_FILE_BYTES, MANIFEST_NAME, FileEntry, check_paths

__all__ = ["remove_stale", "write_folder", "write_zip"]

_CHUNK = 1 << 20
_RENAME_EXCHANGE = 2
_LIMIT_DIRECTORY = 1 << 24  # room for a zip's own directory


def write_folder(
    out: Path,
    files: Mapping[str, bytes | Path],
    manifest_of: Callable[[tuple[FileEntry, ...]], bytes],
    *,
    force: bool,
) -> Path:
    """Writes the files and then the manifest, and gives the whole its name at once; returns that name."""
    out = Path(os.path.abspath(out))  # noqa: PTH100 - resolve() would follow a link at the last part
    names = sorted(files)
    check_paths(names)
    _check_free(out, force=force)
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(out)
    with _temporary(out, Path.mkdir) as folder:
        entries = tuple(_write_entry(folder, name, files[name]) for name in names)
        _write_synced(folder / MANIFEST_NAME, manifest_of(entries))
        for path, _, _ in os.walk(folder, topdown=False):
            _sync_folder(Path(path))
        _check_free(out, force=force)
        _publish(folder, out, force=force)
    _sync_folder(out.parent)
    return out


def _check_free(out: Path, *, force: bool) -> None:
    if not os.path.lexists(out):
        return
    if not force:
        raise UsageError("something stands here already", where=out, hint="Choose another name or use --force")
    if out.is_symlink() or not out.is_dir() or not (out / MANIFEST_NAME).is_file():
        raise UsageError("this is not a bundle and will not be replaced", where=out, hint="Choose another name")


def _write_entry(folder: Path, name: str, content: bytes | Path) -> FileEntry:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        size, digest = len(content), hashlib.sha256(content).hexdigest()
        if size <= LIMIT_FILE_BYTES:
            _write_synced(path, content)
    else:
        size, digest = _copy_synced(content, path)
    if size > LIMIT_FILE_BYTES:
        raise LimitError("file is too large for a bundle", where=name, expected=f"at most {LIMIT_FILE_BYTES} bytes")
    return FileEntry(name=name, size=size, sha256=digest)


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _copy_synced(source: Path, path: Path) -> tuple[int, str]:
    """Copies a file; what is hashed is what is written. Returns size and digest."""
    hashed, size = hashlib.sha256(), 0
    with source.open("rb") as reader, path.open("xb") as writer:
        if not stat.S_ISREG(os.fstat(reader.fileno()).st_mode):
            raise UsageError("not a regular file", where=source)
        while chunk := reader.read(_CHUNK):
            hashed.update(chunk)
            size += len(chunk)
            if size > LIMIT_FILE_BYTES:
                break
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return size, hashed.hexdigest()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _partial_prefix(out: Path) -> str:
    return f".{out.name}.partial-"


@contextmanager
def _temporary(out: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Makes a locked folder or file beside `out`; what is left of it at the end is removed."""
    while True:
        path = out.parent / f"{_partial_prefix(out)}{secrets.token_hex(8)}"
        make(path)
        lock = _lock(path)
        if lock is not None:
            break
    try:
        yield path
    finally:
        if os.path.lexists(path):  # not published, or what was replaced
            _remove(path)
        os.close(lock)


def _lock(path: Path) -> int | None:
    """Locks a temporary folder or file; None where another process holds it, it is gone, or it is neither."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return None
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):  # held, or removed between the two calls
        os.close(descriptor)
        return None
    os.close(descriptor)
    return None


def remove_stale(out: Path) -> None:
    """Removes what dead writers of `out` left beside it; what a living writer holds stays."""
    pattern = re.compile(re.escape(_partial_prefix(out)) + r"[0-9a-f]{16}")
    for path in sorted(out.parent.iterdir()):
        if not pattern.fullmatch(path.name):
            continue
        lock = _lock(path)
        if lock is not None:
            _remove(path)
            os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _publish(folder: Path, out: Path, *, force: bool) -> None:
    """Gives the finished folder its name; an older bundle there changes places with it and is removed after.

    Where the file system cannot exchange two names, the older one steps aside first, and for a moment nothing stands
    at the name.
    """
    if not force or not os.path.lexists(out):
        try:
            folder.rename(out)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise UsageError("another writer was faster", where=out) from error
            raise
    elif not _exchange(folder, out):
        aside = folder.with_name(f"{_partial_prefix(out)}{secrets.token_hex(8)}")
        out.rename(aside)
        folder.rename(out)
        shutil.rmtree(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Lets two names change places in one step; False where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    at_cwd = -100  # both paths are absolute
    if renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


_DATE_1980 = (0, 33)  # time and date of every member: midnight, 1 January 1980
_MODE = (stat.S_IFREG | 0o644) << 16


def write_zip(out: Path, names: list[str], read: Callable[[str], bytes], *, force: bool) -> None:
    """Writes members stored, in the order given, one behind the other; the file gets its name when it is whole."""
    out = Path(os.path.abspath(out))  # noqa: PTH100 - resolve() would follow a link at the last part
    if os.path.lexists(out) and (not force or out.is_symlink() or not out.is_file()):
        raise UsageError("something stands here already", where=out, hint="Choose another name or use --force")
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(out)
    with _temporary(out, lambda path: path.touch(exist_ok=False)) as partial:
        with partial.open("r+b") as file:
            for piece in _zip_pieces(names, read):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(out)
    _sync_folder(out.parent)


def _zip_pieces(names: list[str], read: Callable[[str], bytes]) -> Iterator[bytes]:
    central: list[bytes] = []
    position = 0
    for name in names:
        data = read(name)
        raw = name.encode("ascii")
        common = (0, 0, *_DATE_1980, zlib.crc32(data), len(data), len(data), len(raw))
        local = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 10, *common, 0) + raw
        entry = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 0x0314, 10, *common, 0, 0, 0, 0, _MODE, position)
        central.append(entry + raw)
        position += len(local) + len(data)
        if position > LIMIT_FILE_BYTES - _LIMIT_DIRECTORY:
            raise LimitError("the zip file would be too large", where=name, expected="less than 4 GiB")
        yield local
        yield data
    directory = b"".join(central)
    yield directory
    yield struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, len(names), len(names), len(directory), position, 0)
