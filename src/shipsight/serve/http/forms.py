# SPDX-License-Identifier: Apache-2.0
"""multipart/form-data whose parts are files, read from a body that has come in whole. Private to the room.

Rules: one pass over the body, in the speed of `bytes.find`; each part is a file with few, short headers; a form that
ends without its last boundary is refused. Sources: RFC 2046 section 5.1.1, RFC 7578.
"""

from __future__ import annotations

from collections.abc import Iterator

from python_multipart.multipart import parse_options_header

from shipsight.errors import LimitError, ShipsightError, UsageError
from shipsight.serve.questions import EncodedImage

__all__ = ["read_form"]

_MOST_TYPE_CHARACTERS = 1024
_MOST_BOUNDARY_BYTES = 70
_MOST_PADDING_BYTES = 64
_MOST_HEAD_BYTES = 8192
_MOST_HEADERS = 16


def read_form(body: bytes, content_type: str, most: int) -> list[EncodedImage]:
    """Returns the files of a form, in order.

    Args:
        body: of the request.
        content_type: header of the request; it names the boundary.
        most: parts that are taken.

    Raises:
        UsageError: it is not a form of files.
        LimitError: it has too many parts, or one with too long a head.
    """
    if len(content_type) > _MOST_TYPE_CHARACTERS:
        raise LimitError("too long", where="Content-Type", expected=f"at most {_MOST_TYPE_CHARACTERS} characters")
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 1 <= len(boundary) <= _MOST_BOUNDARY_BYTES:
        raise _not_a_form(f"a boundary of {len(boundary)} bytes")
    images: list[EncodedImage] = []
    for part in _parts(body, b"--" + boundary):
        if len(images) == most:
            raise LimitError("more than this server allows", where="parts", expected=f"at most {most}")
        images.append(_read_part(part))
    return images


def _parts(body: bytes, delimiter: bytes) -> Iterator[memoryview]:
    view = memoryview(body)
    begin = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if begin == 1:
        raise _not_a_form("no boundary")
    while True:
        begin += len(delimiter)
        if body[begin : begin + 2] == b"--":
            return  # what follows is for nobody
        line_end = body.find(b"\r\n", begin, begin + _MOST_PADDING_BYTES)
        if line_end < 0 or body[begin:line_end].strip(b" \t"):
            raise _not_a_form("more than a boundary in its line")
        end = body.find(b"\r\n" + delimiter, line_end)
        if end < 0:
            raise _not_a_form("no last boundary")
        yield view[line_end + 2 : end]
        begin = end + 2


def _read_part(part: memoryview) -> EncodedImage:
    head = bytes(part[:_MOST_HEAD_BYTES])
    size = head.find(b"\r\n\r\n")
    lines = head[: max(size, 0)].split(b"\r\n")
    if (size < 0 and len(part) > _MOST_HEAD_BYTES) or len(lines) > _MOST_HEADERS:
        expected = f"at most {_MOST_HEADERS} headers, {_MOST_HEAD_BYTES} bytes"
        raise LimitError("the head of a part is too large", where="parts", expected=expected)
    for line in lines:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            kind, options = parse_options_header(value.strip().decode("latin-1"))
            if kind.strip() != b"form-data" or b"name" not in options or b"filename" not in options:
                raise _not_a_form("a part that is no file")
            return EncodedImage(bytes(part[size + 4 :]), _decode(options[b"filename"]) or None)
    raise _not_a_form("a part without Content-Disposition")


def _decode(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def _not_a_form(got: str) -> ShipsightError:
    return UsageError("not a form of files", where="body", expected="multipart/form-data, each part a file", got=got)
