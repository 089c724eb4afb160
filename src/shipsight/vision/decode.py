# SPDX-License-Identifier: Apache-2.0
"""From a file to pixels: RGB, uint8, upright.

Leaves to others: fetching files, telling videos from images. Rules: the pixels equal `cv2.imread` (what Ultralytics
reads) after EXIF orientation; JPEG goes through libjpeg-turbo directly, which is bit-equal and faster. Whatever the
bytes, the result is an image or an `ImageError`; the pixel limit is checked before anything is decoded.

    grayscale   the level in all three channels
    palette     its colours
    alpha       dropped, not composited: the colours beneath stay, as in `cv2.IMREAD_COLOR`
    16 bit      the high byte
    CMYK        R = K - (255 - C) * K / 256 and so on for inverted (Adobe) CMYK; colour profiles are ignored
    animated    the first frame

Stable.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import ImageTooLargeError, ImageUnreadableError, MissingDependencyError
from shipsight.vision._opencv import import_cv2
from shipsight.vision.image_header import ImageFormat, ImageHeader, read_header, strip_png

__all__ = ["DEFAULT_MAX_PIXELS", "decode_image", "turn"]

DEFAULT_MAX_PIXELS = 100_000_000
"""Most pixels of an image: 300 MB decoded, beyond any camera that feeds a detector, well before memory runs out."""

# What libjpeg says of harmless oddities; all else that it warns of means damaged pixels.
_HARMLESS = ("extraneous bytes before marker", "unknown Adobe color transform", "Invalid SOS parameters")


def decode_image(data: bytes | memoryview | Path | str, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> NDArray[np.uint8]:
    """Decodes a JPEG, PNG, WebP or BMP image.

    Args:
        data: the file's bytes, or its path.
        max_pixels: most pixels (width x height) that the header may promise.

    Returns:
        (height, width, 3) uint8 RGB, upright, C-contiguous, owned by the caller.

    Raises:
        ImageUnreadableError: the file cannot be read, is damaged or ends early.
        ImageFormatError: the format or flavour is not accepted.
        ImageTooLargeError: the header promises more than `max_pixels`.
    """
    if isinstance(data, str | Path):
        where = str(data)
        content = _read_file(Path(data))
    else:
        where, content = "image", bytes(data)
    header = read_header(content, where)
    if header.width * header.height > max_pixels:
        got = f"{header.width}x{header.height}"
        raise ImageTooLargeError("the image has too many pixels", where=where, expected=f"<= {max_pixels}", got=got)
    if header.format is ImageFormat.JPEG:
        pixels = _decode_jpeg(content, header, where)
    else:
        pixels = _decode_other(strip_png(content) if header.format is ImageFormat.PNG else content, where)
    if pixels.shape[:2] != (header.height, header.width):
        raise ImageUnreadableError(
            "the pixels do not fit the header",
            where=where,
            expected=f"{header.width}x{header.height}",
            got=f"{pixels.shape[1]}x{pixels.shape[0]}",
        )
    return turn(pixels, header.orientation)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ImageUnreadableError("the file cannot be read", where=path, got=error) from error


def _decode_jpeg(content: bytes, header: ImageHeader, where: str) -> NDArray[np.uint8]:
    try:
        import simplejpeg
    except ImportError as error:
        raise MissingDependencyError(
            "simplejpeg is not installed", where="simplejpeg", got=error, hint="Run: pip install simplejpeg"
        ) from error
    space = "CMYK" if header.channels == 4 else "RGB"
    is_strict = True
    while True:
        try:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, space, strict=is_strict)
            break
        except ValueError as error:
            if not is_strict or not any(text in str(error) for text in _HARMLESS):
                raise ImageUnreadableError("the file is truncated or damaged", where=where, got=error) from error
            is_strict = False
    return _cmyk_to_rgb(pixels) if space == "CMYK" else pixels


def _cmyk_to_rgb(pixels_cmyk: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Converts inverted CMYK in integers exactly as OpenCV does."""
    black = pixels_cmyk[..., 3:].astype(np.int32)
    colours = black - ((255 - pixels_cmyk[..., :3].astype(np.int32)) * black >> 8)
    return colours.astype(np.uint8)


def _decode_other(content: bytes, where: str) -> NDArray[np.uint8]:
    cv2 = import_cv2()
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels: NDArray[np.uint8] | None = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flags)
    except cv2.error as error:
        raise ImageUnreadableError("the file is damaged", where=where, got=error.err or error.code) from error
    if pixels is None:
        raise ImageUnreadableError("the file is damaged", where=where)
    return pixels


def turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Brings pixels upright that lie as an EXIF orientation says.

    Args:
        pixels: (H, W, C) uint8.
        orientation: 1 to 8; 2 to 4 mirror or turn by half, 5 to 8 also swap the axes.

    Returns:
        (H, W, C) uint8, or (W, H, C) for 5 to 8.
    """
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
