# SPDX-License-Identifier: Apache-2.0
"""Arrays and pictures as bytes that are the same every time: `.npz` without pickle, and PNG.

Leaves to others: what they mean (`golden`). Invariants: the same arrays give the same bytes (with the same zlib); nothing
read is unpickled, and no size is believed before the bytes are there. Stable. Sources: NumPy's NEP 1 (`.npy`), RFC 2083
(PNG) sections 3 and 6.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import CorruptError, InternalError

__all__ = ["read_arrays", "write_arrays", "write_png"]

_DATE = (1980, 1, 1, 0, 0, 0)
_LIMIT_BYTES = 2**30
_LIMIT_ARRAYS = 100_000


def write_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Writes arrays as a compressed `.npz`, sorted by name, the same bytes for the same arrays."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name]).reshape(arrays[name].shape)
            if array.dtype.hasobject:
                raise InternalError("an array of objects cannot be written", where=name)
            content = io.BytesIO()
            np.lib.format.write_array(content, array, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=_DATE)
            info.create_system = 3
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content.getvalue())
    return target.getvalue()


def read_arrays(data: bytes, *, where: str) -> dict[str, NDArray[Any]]:
    """Reads what `write_arrays` wrote.

    Raises:
        CorruptError: it is no `.npz`, holds objects, or unpacks to more than 1 GiB.
    """
    arrays: dict[str, NDArray[Any]] = {}
    budget = _LIMIT_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > _LIMIT_ARRAYS:
                raise CorruptError("too many arrays", where=where, got=len(members))
            for member in members:
                with archive.open(member) as file:
                    content = file.read(budget + 1)
                budget -= len(content)
                if budget < 0:
                    raise CorruptError("unpacks to more than allowed", where=where, expected=f"{_LIMIT_BYTES} bytes")
                arrays[member.filename.removesuffix(".npy")] = _read_array(content, f"{where} {member.filename}")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, ValueError, EOFError, RuntimeError) as error:
        raise CorruptError("not readable as arrays", where=where, got=error) from error
    return arrays


def _read_array(content: bytes, where: str) -> NDArray[Any]:
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise CorruptError("an array of an unknown version", where=where)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    size = dtype.itemsize
    for side in shape:
        size *= side
    if dtype.hasobject or fortran or size != len(content) - file.tell():
        raise CorruptError("an array does not fit its header", where=where, got=f"{dtype} {shape}")
    return np.frombuffer(content, dtype=dtype, offset=file.tell()).reshape(shape).copy()


def write_png(image_rgb: NDArray[np.uint8]) -> bytes:
    """Writes an image without loss, the same bytes for the same pixels.

    Args:
        image_rgb: (H, W, 3) uint8 RGB.
    """
    height, width = image_rgb.shape[:2]
    rows = np.ascontiguousarray(image_rgb).reshape(height, width * 3)
    filtered = _filter_rows(rows)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def _filter_rows(rows: NDArray[np.uint8]) -> bytes:
    """Filters each row in the one of PNG's five ways that leaves the least."""
    above = np.zeros_like(rows)
    above[1:] = rows[:-1]
    left, corner = np.zeros_like(rows), np.zeros_like(rows)
    left[:, 3:], corner[:, 3:] = rows[:, :-3], above[:, :-3]
    average = ((left.astype(np.uint16) + above) >> 1).astype(np.uint8)
    ways = [rows, rows - left, rows - above, rows - average, rows - _paeth(left, above, corner)]
    costs = np.stack([np.abs(way.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64) for way in ways])
    chosen = costs.argmin(axis=0)
    result = np.empty((rows.shape[0], rows.shape[1] + 1), dtype=np.uint8)
    result[:, 0] = chosen
    for number, way in enumerate(ways):
        result[chosen == number, 1:] = way[chosen == number]
    return result.tobytes()


def _paeth(left: NDArray[np.uint8], above: NDArray[np.uint8], corner: NDArray[np.uint8]) -> NDArray[np.uint8]:
    a, b, c = left.astype(np.int16), above.astype(np.int16), corner.astype(np.int16)
    to_left, to_above, to_corner = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    picked = np.where((to_left <= to_above) & (to_left <= to_corner), a, np.where(to_above <= to_corner, b, c))
    return picked.astype(np.uint8)
