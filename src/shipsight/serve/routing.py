# SPDX-License-Identifier: Apache-2.0
"""The key by which requests that name no version stay with one, whatever wire they come over. Private to the room."""

from __future__ import annotations

from shipsight.errors import UsageError

__all__ = ["KEY_HEADER", "check_key"]

KEY_HEADER = "x-routing-key"
_LONGEST = 256


def check_key(key: str | None) -> dict[str, str]:
    """Returns a request's key as an argument of `Target`; nothing where the client gives none.

    Raises:
        UsageError: it is too long.
    """
    if not key:
        return {}
    if len(key) > _LONGEST:
        raise UsageError("the key is too long", where=KEY_HEADER, expected=f"{_LONGEST} letters", got=len(key))
    return {"key": key}
