# SPDX-License-Identifier: Apache-2.0
"""Secrets that operators give in files: read where their owner alone may read them. Never shown. Private."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from shipsight.errors import EnvironmentLackError, UsageError

__all__ = ["read_secret"]

_MOST_BYTES = 4096


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
