# SPDX-License-Identifier: Apache-2.0
"""Talking to a server from Python, plain or sealed (`docs/client.md`).

`Client` and `AsyncClient` need the extra `client`; `ServerControl` needs nothing but the standard library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shipsight.client.control import ServerControl

if TYPE_CHECKING:
    from shipsight.client.async_client import AsyncClient
    from shipsight.client.client import Client

__all__ = ["AsyncClient", "Client", "ServerControl"]

_HOMES = {"AsyncClient": "shipsight.client.async_client", "Client": "shipsight.client.client"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the room exports
    if name not in _HOMES:
        raise AttributeError(f"module 'shipsight.client' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
