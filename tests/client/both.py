# SPDX-License-Identifier: Apache-2.0
"""Both clients under one form, so that each test holds for both: the one for tasks runs on a loop in a thread of its own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anyio.from_thread import start_blocking_portal

from shipsight import AsyncClient, Client

KINDS = ("threads", "tasks")


class _Blocking:
    """A client for tasks, called from a thread."""

    def __init__(self, client: AsyncClient, portal: Any) -> None:
        self._client, self._portal = client, portal

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *args, **named: self._portal.call(lambda: found(*args, **named))

    def __repr__(self) -> str:
        return repr(self._client)


@contextmanager
def opened(kind: str, url: str, **given: Any) -> Iterator[Any]:
    """A client of either kind."""
    if kind == "threads":
        with Client(url, **given) as client:
            yield client
        return
    with start_blocking_portal() as portal:

        async def make() -> AsyncClient:
            return AsyncClient(url, **given)

        client = portal.call(make)
        try:
            yield _Blocking(client, portal)
        finally:
            portal.call(client.close)
