# SPDX-License-Identifier: Apache-2.0
"""Secrets of receivers, each in a file that its owner alone may read. They are read when they are used first, and never shown. Private to the room."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

from shipsight.errors import EnvironmentLackError, UsageError

__all__ = ["read_hmac_key", "read_secret"]

_MOST_BYTES = 4096
_PREFIX = "whsec_"
_LEAST_KEY, _MOST_KEY = 24, 64


def read_secret(path: Path, what: str) -> str:
    """Returns the one line in a file, without the blanks around it.

    Args:
        path: of the file.
        what: that is in it, for messages.

    Raises:
        UsageError: the file holds something else: nothing, several lines, or characters beyond ASCII's printable ones.
        EnvironmentLackError: it cannot be read, or others may read it.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise EnvironmentLackError(f"{what} cannot be read", where=path, got="not a file")
            if found.st_mode & 0o077:
                raise EnvironmentLackError(f"others may read {what}", where=path, hint=f"Run: chmod 600 {path}")
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise EnvironmentLackError(f"{what} cannot be read", where=path, got=error.strerror) from error
    text = data.decode("latin-1").strip()
    if not text or len(data) > _MOST_BYTES or not (text.isascii() and text.isprintable()):
        raise UsageError(f"not {what}", where=path, expected="one line of printable ASCII characters")
    return text


def read_hmac_key(path: Path) -> bytes:
    """Returns the key in a file, 24 to 64 bytes: in base64, with or without `whsec_` before it, as Standard Webhooks has keys.

    Raises:
        UsageError: the file holds something else.
        EnvironmentLackError: it cannot be read, or others may read it.
    """
    what = "the webhook's key"
    text = read_secret(path, what).removeprefix(_PREFIX)
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if not _LEAST_KEY <= len(key) <= _MOST_KEY:
        raise UsageError(
            f"not {what}",
            where=path,
            expected=f"{_LEAST_KEY} to {_MOST_KEY} bytes in base64, after whsec_ or alone",
            hint=f"Run: (umask 077; openssl rand -base64 32 > {path})",
        )
    return key
