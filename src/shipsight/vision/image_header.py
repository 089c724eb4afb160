# SPDX-License-Identifier: Apache-2.0
"""What an image file says of itself, read before anything is decoded: format, size, orientation.

Leaves to others: decoding the pixels and the limit on them (`decode`). Rules: the format is told by magic bytes alone,
never by a name; every read is bounds-checked, and the steps are counted; a file that ends early is
`ImageUnreadableError`, a format or flavour outside the allow-list `ImageFormatError`. Stable inside the package.

Sources: JPEG ITU-T T.81 annex B; PNG third edition sections 5 and 11; WebP RFC 9649 section 2 and RFC 6386 section 9.1;
BMP MS-WMF 2.2.2.9 and the BITMAPINFOHEADER reference; EXIF 2.32 section 4.6.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum

from shipsight.errors import ImageFormatError, ImageUnreadableError

__all__ = ["ImageFormat", "ImageHeader", "read_header", "strip_png"]

_MOST_STEPS = 100_000
"""Most segments or chunks of a file; cameras write tens, encoders that cut a large PNG into small chunks thousands."""
_MOST_SCANS = 50
"""Most scans of a JPEG: each costs a pass over all pixels, and a few bytes. Encoders write 10, optimizers some more."""
_MOST_EXIF_ENTRIES = 512
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # one that a length follows, or the end of the image
_NOT_FILL = re.compile(rb"[^\xff]")


class ImageFormat(StrEnum):
    """Formats that are accepted."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"
    BMP = "BMP"


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its image.

    Attributes:
        format: told by magic bytes.
        width: in pixels as stored, before orientation.
        height: in pixels as stored, before orientation.
        channels: of a JPEG (1, 3 or 4: CMYK), else 0.
        orientation: EXIF orientation, 1 to 8; 1 where absent or invalid.
    """

    format: ImageFormat
    width: int
    height: int
    channels: int = 0
    orientation: int = 1


def read_header(data: bytes, where: str) -> ImageHeader:
    """Reads the header.

    Args:
        data: the whole file.
        where: what to call the file in errors.

    Raises:
        ImageFormatError: the format or flavour is not accepted.
        ImageUnreadableError: the file is damaged or ends early.
    """
    try:
        if data[:3] == b"\xff\xd8\xff":
            header = _read_jpeg(data, where)
        elif data[:8] == b"\x89PNG\r\n\x1a\n":
            header = _read_png(data, where)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            header = _read_webp(data, where)
        elif data[:2] == b"BM":
            header = _read_bmp(data, where)
        else:
            raise _refuse_unknown(data, where)
    except (struct.error, IndexError) as error:
        raise ImageUnreadableError("the file ends within its header", where=where, got=f"{len(data)} bytes") from error
    if header.width <= 0 or header.height <= 0:
        got = f"{header.width}x{header.height}"
        raise ImageUnreadableError("the header gives no image size", where=where, got=got)
    return header


def _refuse_unknown(data: bytes, where: str) -> ImageFormatError | ImageUnreadableError:
    if any(magic.startswith(data) for magic in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM")):
        return ImageUnreadableError("the file ends within its header", where=where, got=f"{len(data)} bytes")
    if data[:4] == b"RIFF" and len(data) < 12:
        return ImageUnreadableError("the file ends within its header", where=where, got=f"{len(data)} bytes")
    expected = ", ".join(kind.value for kind in ImageFormat)
    return ImageFormatError("not an accepted image format", where=where, expected=expected, got=data[:8].hex(" "))


def _too_scattered(where: str) -> ImageFormatError:
    return ImageFormatError("the file is in too many pieces", where=where, expected=f"at most {_MOST_STEPS}")


def _cut_off(where: str, detail: str) -> ImageUnreadableError:
    return ImageUnreadableError("the file is truncated or damaged", where=where, got=detail)


# --- JPEG ---------------------------------------------------------------------------------------------------------

_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # TEM, RST0-7, SOI: no length follows
_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended sequential, progressive: all Huffman, 8 bit
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # lossless, hierarchical, arithmetic


def _read_jpeg(data: bytes, where: str) -> ImageHeader:
    orientation, position = 1, 2
    for _ in range(_MOST_STEPS):
        position = data.find(b"\xff", position)
        found = _NOT_FILL.search(data, position) if position >= 0 else None  # fill bytes may precede a marker
        if found is None:
            raise _cut_off(where, "no frame header")
        position = found.start()
        marker = data[position]
        position += 1
        if marker in _STANDALONE or marker == 0:
            continue
        if marker in (0xD9, 0xDA):  # end of image, start of scan
            raise _cut_off(where, "no frame header before the image data")
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _OTHER_FRAMES:
            raise ImageFormatError(
                "this kind of JPEG is not accepted",
                where=where,
                expected="baseline, extended or progressive",
                got=f"SOF{marker - 0xC0}",
            )
        if marker in _FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, position + 2)
            if bits != 8 or channels not in (1, 3, 4):
                got = f"{bits} bit, {channels} channels"
                expected = "8 bit with 1, 3 or 4 channels"
                raise ImageFormatError("this kind of JPEG is not accepted", where=where, expected=expected, got=got)
            if marker == 0xC2 or not _is_in_one_scan(data, position, channels):
                _check_scans(data, position, where)
            return ImageHeader(ImageFormat.JPEG, width, height, channels, orientation)
        if marker == 0xE1 and data[position + 2 : position + 8] == b"Exif\0\0" and orientation == 1:
            orientation = _read_orientation(data[position + 8 : position + length])
        position += max(length, 2)
    raise _too_scattered(where)


def _is_in_one_scan(data: bytes, position: int, channels: int) -> bool:
    """Tells whether the first scan behind a sequential frame's header holds all components: decoders refuse a second one."""
    for _ in range(_MOST_STEPS):
        head = data[position : position + 2]
        position += int.from_bytes(head, "big")
        marker = data[position : position + 5]  # a scan's: marker, length, how many components
        if len(marker) < 5 or marker[0] != 0xFF or marker[1] in _STANDALONE or marker[1] == 0xFF:
            return False  # odd, cut off, or fill bytes: looked at more slowly
        if marker[1] == 0xDA:
            return marker[4] == channels
        position += 2
    return False


def _check_scans(data: bytes, position: int, where: str) -> None:
    """Counts the scans behind a frame header."""
    if data.count(b"\xff\xda", position) <= _MOST_SCANS:
        return  # as nearly always; what follows is slower
    scans = 0
    for _ in range(_MOST_STEPS):
        # Past a segment, and past a scan's data: there 0xff is followed by zero or a restart marker.
        (length,) = struct.unpack_from(">H", data, position)
        found = _MARKER.search(data, position + max(length, 2))
        if found is None or data[found.end() - 1] == 0xD9:
            return  # a video or another image may follow
        position = found.end()
        scans += data[position - 1] == 0xDA
        if scans > _MOST_SCANS:
            expected = f"at most {_MOST_SCANS} scans"
            raise ImageFormatError("this kind of JPEG is not accepted", where=where, expected=expected, got="more")
    raise _too_scattered(where)


# --- PNG ----------------------------------------------------------------------------------------------------------


def _read_png(data: bytes, where: str) -> ImageHeader:
    if data[12:16] != b"IHDR":
        raise _cut_off(where, "no IHDR chunk")
    width, height = struct.unpack_from(">II", data, 16)
    orientation, position = 1, 8
    for _ in range(_MOST_STEPS):
        if position + 12 > len(data):
            raise _cut_off(where, "no IEND chunk")
        length, kind = struct.unpack_from(">I4s", data, position)
        body_end = position + 8 + length
        if body_end + 4 > len(data):
            raise _cut_off(where, f"chunk {kind.decode('latin-1')!r} runs past the end")
        if not kind[0] & 0x20:  # critical chunks must be sound; libpng ignores damaged ancillary ones
            (checksum,) = struct.unpack_from(">I", data, body_end)
            if zlib.crc32(memoryview(data)[position + 4 : body_end]) != checksum:
                raise _cut_off(where, f"checksum of chunk {kind.decode('latin-1')!r}")
        if kind == b"IEND":
            return ImageHeader(ImageFormat.PNG, width, height, orientation=orientation)
        if kind == b"eXIf":
            orientation = _read_orientation(data[position + 8 : body_end])
        position = body_end + 4
    raise _too_scattered(where)


def strip_png(data: bytes) -> bytes:
    """Returns a PNG whose header was read without its ancillary chunks: texts, profiles, animations, none of them pixels.

    The decoder then inflates and reports nothing that has no part in the pixels.
    """
    kept, begin, position = [], 0, 8
    kind = b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind[0] & 0x20:
            kept.append(data[begin:position])
            begin = end
        position = end
    return b"".join([*kept, data[begin:position]]) if kept else data


# --- WebP ---------------------------------------------------------------------------------------------------------


def _read_webp(data: bytes, where: str) -> ImageHeader:
    (riff_size,) = struct.unpack_from("<I", data, 4)
    if riff_size + 8 > len(data):
        raise _cut_off(where, f"{len(data)} of {riff_size + 8} bytes")
    size: tuple[int, int] | None = None
    orientation, position = 1, 12
    for _ in range(_MOST_STEPS):
        if position + 8 > riff_size + 8:
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        if body + length > len(data):
            raise _cut_off(where, f"chunk {kind.decode('latin-1')!r} runs past the end")
        if size is None:
            size = _webp_size(data, kind, body, where)
        if kind == b"EXIF":
            exif = data[body : body + length]
            orientation = _read_orientation(exif.removeprefix(b"Exif\0\0"))
        position = body + length + length % 2
    else:
        raise _too_scattered(where)
    if size is None:
        raise _cut_off(where, "no image chunk")
    return ImageHeader(ImageFormat.WEBP, *size, orientation=orientation)


def _webp_size(data: bytes, kind: bytes, body: int, where: str) -> tuple[int, int]:
    if kind == b"VP8X":
        return (
            1 + int.from_bytes(data[body + 4 : body + 7], "little"),
            1 + int.from_bytes(data[body + 7 : body + 10], "little"),
        )
    if kind == b"VP8 " and data[body + 3 : body + 6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, body + 6)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and data[body] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, body + 1)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise _cut_off(where, f"first chunk {kind.decode('latin-1')!r}")


# --- BMP ----------------------------------------------------------------------------------------------------------


def _read_bmp(data: bytes, where: str) -> ImageHeader:
    offset, header_size = struct.unpack_from("<I I", data, 10)
    if header_size == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    elif header_size >= 40:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        raise _cut_off(where, f"header of {header_size} bytes")
    if bits not in (1, 4, 8, 16, 24, 32) or compression not in (0, 1, 2, 3):
        raise ImageFormatError(
            "this kind of BMP is not accepted",
            where=where,
            expected="1 to 32 bit, uncompressed, run-length or bit fields",
            got=f"{bits} bit, compression {compression}",
        )
    height = abs(height)
    if compression in (0, 3) and width > 0:
        needed = offset + (width * bits + 31) // 32 * 4 * height
        if needed > len(data):
            raise _cut_off(where, f"{len(data)} of {needed} bytes")
    return ImageHeader(ImageFormat.BMP, width, height)


# --- EXIF ---------------------------------------------------------------------------------------------------------


def _read_orientation(tiff: bytes) -> int:
    """Returns tag 0x0112 of the first directory; 1 where it is absent, malformed or out of range."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for i in range(min(count, _MOST_EXIF_ENTRIES)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * i)
            if tag == 0x0112:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
