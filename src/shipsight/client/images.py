# SPDX-License-Identifier: Apache-2.0
"""Images as they are sent: files and encoded bytes as they are, pixels encoded here. Private to the room."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shipsight.errors import ImageError, ImageUnreadableError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Image", "PixelForm", "SentImages", "encode_images"]

Image = "str | Path | bytes | NDArray[np.uint8]"
PixelForm = Literal["png", "jpeg"]

_BYTES = bytes | bytearray | memoryview
_JPEG_QUALITY = 95
_PNG_EFFORT = 1  # most of what there is to gain, in a fraction of the time


@dataclass(frozen=True)
class SentImages:
    """Images of one request.

    Attributes:
        sources: what the caller calls each, None for nothing. It is not sent.
        body: of the request.
        content_type: of the body.
    """

    sources: tuple[str | None, ...]
    body: bytes = field(repr=False)
    content_type: str


def encode_images(images: Any, form: PixelForm = "png") -> SentImages:  # noqa: ANN401 - one image, or several
    """Returns images as a body.

    Args:
        images: a path, encoded bytes or (height, width, 3) uint8 RGB pixels, or a sequence of these.
        form: what pixels are encoded as: `png` loses nothing, `jpeg` is smaller.

    Raises:
        ImageError: a file cannot be read, or pixels are none.
        UsageError: it is no image, or there is none.
        MissingDependencyError: pixels are to be encoded and nothing is installed that does it.
    """
    if form not in ("png", "jpeg"):
        raise UsageError("no such form for pixels", where="pixels_as", expected="png or jpeg", got=form)
    several = list(images) if isinstance(images, Sequence) and not isinstance(images, _BYTES | str) else [images]
    if not several:
        raise UsageError("there is no image", where="images")
    read = [_read(one, form) for one in several]
    sources = tuple(source for source, _ in read)
    if len(read) == 1:
        return SentImages(sources, read[0][1], "application/octet-stream")
    boundary = secrets.token_hex(16)
    head = b'Content-Disposition: form-data; name="image"; filename=""\r\n\r\n'
    parts = [b"--" + boundary.encode() + b"\r\n" + head + content + b"\r\n" for _, content in read]
    body = b"".join((*parts, b"--", boundary.encode(), b"--\r\n"))
    return SentImages(sources, body, f"multipart/form-data; boundary={boundary}")


def _read(image: Any, form: PixelForm) -> tuple[str | None, bytes]:  # noqa: ANN401 - whatever the caller gave
    if isinstance(image, _BYTES):
        return None, bytes(image)
    if isinstance(image, str | Path):
        try:
            return str(image), Path(image).read_bytes()
        except OSError as error:
            raise ImageUnreadableError("the file cannot be read", where=image, got=error.strerror) from error
    if hasattr(image, "__array_interface__"):
        return None, _encode(image, form)
    raise UsageError("not an image", expected="path, bytes or uint8 array", got=type(image).__name__)


def _encode(pixels: NDArray[np.uint8], form: PixelForm) -> bytes:
    if pixels.dtype.str != "|u1" or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageError(
            "pixels have another shape or type",
            expected="(height, width, 3) uint8, RGB",
            got=f"{pixels.shape} {pixels.dtype}",
        )
    try:
        if form == "jpeg":
            import simplejpeg

            contiguous = pixels.copy() if not pixels.flags.c_contiguous else pixels
            encoded = simplejpeg.encode_jpeg(
                contiguous, quality=_JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"
            )
            return bytes(encoded)
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "nothing is installed that encodes pixels", got=error, hint="Send the bytes of a file instead."
        ) from error
    is_done, encoded = cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, _PNG_EFFORT])
    if not is_done:
        raise ImageError("these pixels cannot be encoded", got=f"{pixels.shape}")
    return bytes(encoded.tobytes())
