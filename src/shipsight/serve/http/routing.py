# SPDX-License-Identifier: Apache-2.0
"""The key by which requests that name no version stay with one. Private to the room."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from shipsight.errors import UsageError

__all__ = ["KEY_HEADER", "read_key"]

KEY_HEADER = "x-routing-key"
_LONGEST = 256


def read_key(request: HTTPConnection) -> dict[str, str]:
    """Returns the key of a request as an argument of `Target`; nothing where the client gives none.

    Raises:
        UsageError: it is too long.
    """
    key = request.headers.get(KEY_HEADER)
    if not key:
        return {}
    if len(key) > _LONGEST:
        raise UsageError("the key is too long", where=KEY_HEADER, expected=f"{_LONGEST} letters", got=len(key))
    return {"key": key}
