# SPDX-License-Identifier: Apache-2.0
"""What is watched: a camera, a file, or an address, told from the text that a user gave.

Invariant: `Source.name` is what may be logged and written; it holds no user name, password or query. Stable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from shipsight.errors import UsageError

__all__ = ["Source", "SourceKind", "parse_source"]

_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "srt", "udp", "rtp", "tcp")


class SourceKind(StrEnum):
    """Where frames come from."""

    CAMERA = "camera"
    FILE = "file"
    STREAM = "stream"


@dataclass(frozen=True)
class Source:
    """Something that gives frames.

    Attributes:
        kind: where they come from.
        name: for messages and answers; without credentials.
        target: what is opened: a camera's index, a device, a path, an address. May hold a password.
    """

    kind: SourceKind
    name: str
    target: str | int = field(repr=False)

    @property
    def is_live(self) -> bool:
        """Tells whether frames come at their own time and are gone when they are not taken."""
        return self.kind is not SourceKind.FILE


def parse_source(text: str) -> Source:
    """Tells what a source is.

    Args:
        text: digits for a camera's index, `/dev/video*`, an address, or the path of a file.

    Raises:
        UsageError: it is none of these.
    """
    if text.isascii() and text.isdecimal():
        return Source(SourceKind.CAMERA, f"camera {int(text)}", int(text))
    if text.startswith("/dev/video"):
        return Source(SourceKind.CAMERA, text, text)
    if "://" in text:
        return Source(SourceKind.STREAM, _shown(text), text)
    if not Path(text).is_file():
        raise UsageError(
            "no such video", where=text, expected="a file, a camera's index, /dev/video*, or an address such as rtsp://"
        )
    return Source(SourceKind.FILE, text, text)


def _shown(address: str) -> str:
    """Returns an address without what may be secret.

    User and password stand before the host; some cameras take them in the query or in `name=value` parts of the path.
    """
    scheme = address.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise UsageError(
            "streams of this kind are not watched", where=f"{scheme[:20]}://", expected=", ".join(_SCHEMES)
        )
    try:
        parts = urlsplit(address)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    if not host:
        raise UsageError("the address names no host", where=f"{scheme}://", expected=f"{scheme}://host/path")
    if "@" in parts.path or "@" in parts.query or "@" in parts.fragment:
        # A password with a slash in it: where the host begins is not known.
        return f"{scheme}://..."
    path = "/".join("..." if "=" in part else part for part in parts.path.split("/"))
    return f"{scheme}://{host}{path}"
