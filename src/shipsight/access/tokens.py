# SPDX-License-Identifier: Apache-2.0
"""Secrets that are shown once and kept as a hash: sessions, invitations, pending sign-ins, known devices.

256 random bits, so that a plain SHA-256 is enough and nothing has to be compared in constant time: a hash is looked up, and
what somebody can choose about a hash tells them nothing of another. Leaves to others: what they stand for. Private to the room.
Source: OWASP ASVS 5.0, 7.2.3 and 6.5.2.
"""

from __future__ import annotations

import hashlib
import re
import secrets

__all__ = ["digest", "is_id", "new_id", "new_token"]

_BYTES = 32
_ID = re.compile(r"[0-9a-f]{16}")


def new_token() -> str:
    """Returns a token, 43 characters of base64url."""
    return secrets.token_urlsafe(_BYTES)


def digest(token: str) -> bytes:
    """Returns what is kept of a token; any text has one."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def new_id() -> str:
    """Returns a name for a row, 16 hexadecimal digits; no secret."""
    return secrets.token_hex(8)


def is_id(text: str) -> bool:
    """Whether a text could be a name for a row; what could not is not looked for, since databases refuse some characters."""
    return _ID.fullmatch(text) is not None
