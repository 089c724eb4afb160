# SPDX-License-Identifier: Apache-2.0
"""uvicorn's HTTP/1.1 with a limit on how long a request's head may take: else a few slow clients hold all connections.

The first head's time begins with the connection, a later one's with its first byte.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["PunctualProtocol"]


class PunctualProtocol(HttpToolsProtocol):
    """A connection that is closed when a request's head is not complete in time.

    Attributes:
        head_s: seconds that a head may take.
    """

    head_s: ClassVar[float]
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(self.head_s, self._hang_up)

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._head_timer = self.loop.call_later(self.head_s, self._hang_up)
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._forget_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    def _hang_up(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
