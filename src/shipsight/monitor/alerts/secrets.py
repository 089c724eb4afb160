# SPDX-License-Identifier: Apache-2.0
"""Keys of webhooks, each in a file that its owner alone may read. They are read when they are used first, and never shown. Private to the room."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from shipsight.errors import UsageError
from shipsight.secret_files import read_secret

__all__ = ["read_hmac_key"]

_PREFIX = "whsec_"
_LEAST_KEY, _MOST_KEY = 24, 64


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
