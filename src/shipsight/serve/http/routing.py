# SPDX-License-Identifier: Apache-2.0
"""The key by which requests that name no version stay with one, as HTTP has it. Private to the room."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from shipsight.serve.routing import KEY_HEADER, check_key

__all__ = ["read_key"]


def read_key(request: HTTPConnection) -> dict[str, str]:
    """Returns the key of a request as an argument of `Target`; nothing where the client gives none.

    Raises:
        UsageError: it is too long.
    """
    return check_key(request.headers.get(KEY_HEADER))
