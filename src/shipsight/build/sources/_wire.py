# SPDX-License-Identifier: Apache-2.0
"""Frames between shipsight and its sandboxed child: JSON headers and raw arrays, never a pickle.

A frame is the magic `SHF1`, the header's length and the blobs' number (both unsigned 32 bit, little endian), the
length of each blob (unsigned 64 bit), the header (UTF-8 JSON, an object), the blobs. Both sides hold the limits below,
so that a child that has been taken over cannot make its parent allocate at will. Private.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shipsight.errors import CorruptError

__all__ = ["MAX_BLOB_BYTES", "Frame", "encode_frame", "read_frame"]

MAGIC = b"SHF1"
MAX_HEADER_BYTES = 16 << 20
MAX_BLOB_BYTES = 2 << 30
MAX_BLOBS = 16

Frame = tuple[dict[str, Any], list[bytes]]
"""Header and blobs."""


def encode_frame(header: dict[str, Any], blobs: Sequence[bytes | memoryview] = ()) -> Iterable[bytes | memoryview]:
    """Yields the parts of a frame, blobs uncopied.

    Raises:
        CorruptError: a part is beyond its limit.
    """
    text = json.dumps(header, allow_nan=True, separators=(",", ":")).encode()
    sizes = [memoryview(blob).nbytes for blob in blobs]
    _check(len(text), sizes)
    yield MAGIC + struct.pack("<II", len(text), len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes) + text
    yield from blobs


def read_frame(read_exactly: Callable[[int], bytes]) -> Frame:
    """Reads one frame.

    Args:
        read_exactly: gives exactly as many bytes as asked, or raises (EOFError at the end).

    Raises:
        CorruptError: what arrives is not a frame or is beyond a limit.
    """
    start = read_exactly(12)
    if start[:4] != MAGIC:
        raise CorruptError("the child process answered with something that is not a frame", got=repr(start[:4]))
    header_bytes, count = struct.unpack("<II", start[4:])
    _check(header_bytes, [0] * min(count, MAX_BLOBS + 1))
    sizes = struct.unpack(f"<{count}Q", read_exactly(8 * count))
    _check(header_bytes, sizes)
    try:
        header = json.loads(read_exactly(header_bytes))
    except (ValueError, RecursionError) as error:
        raise CorruptError("the header of a frame is not JSON", got=error) from error
    if not isinstance(header, dict):
        raise CorruptError("the header of a frame is not an object", got=type(header).__name__)
    return header, [read_exactly(size) for size in sizes]


def _check(header_bytes: int, sizes: Sequence[int]) -> None:
    if header_bytes > MAX_HEADER_BYTES or len(sizes) > MAX_BLOBS or any(size > MAX_BLOB_BYTES for size in sizes):
        raise CorruptError(
            "a frame is beyond its limits",
            expected=f"header <= {MAX_HEADER_BYTES}, blobs <= {MAX_BLOBS} of <= {MAX_BLOB_BYTES} bytes",
            got=f"{header_bytes}, {list(sizes)[:20]}",
        )
