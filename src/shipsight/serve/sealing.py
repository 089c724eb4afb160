# SPDX-License-Identifier: Apache-2.0
"""A server's sealing, opened: its keys, and which requests were seen. Private to the room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from shipsight.access.events import EventSink
from shipsight.protect import OpenedRequest, SealedFor, open_request
from shipsight.serve.sealing_keys import SealingKeys
from shipsight.serve.sealing_options import SealingOptions
from shipsight.serve.seen_requests import FolderSeen, LocalSeen, RedisSeen, SeenRequests

__all__ = ["Sealing", "open_sealing"]


@dataclass(frozen=True, eq=False)
class Sealing:
    """What a server opens requests with.

    Attributes:
        keys: of it.
        seen: ids that were taken.
    """

    keys: SealingKeys
    seen: SeenRequests

    def open(self, sealed: bytes, sealed_for: SealedFor) -> OpenedRequest:
        """Opens a request; its id is not taken by that.

        Raises:
            SealedRequestError: it cannot be opened.
        """
        return open_request(sealed, keys=self.keys.living, sealed_for=sealed_for, now_ms=self.keys.now_ms())

    async def take(self, opened: OpenedRequest, *, owner: str | None = None) -> None:
        """Takes an opened request's id.

        Args:
            opened: the request.
            owner: who asks, None for those who are not told apart.

        Raises:
            SealedRequestError: it was taken before.
            OverloadedError: it cannot be kept.
        """
        await self.seen.take(opened.id, opened.at_ms, now_ms=self.keys.now_ms(), owner=owner)

    async def give_back(self, opened: OpenedRequest) -> None:
        """Gives back the id of a request with which no model was asked."""
        await self.seen.give_back(opened.id, opened.at_ms)


def open_sealing(
    options: SealingOptions, *, events: EventSink, now: Callable[[], datetime], store: str | None
) -> Sealing:
    """Returns a server's sealing.

    Args:
        options: of the server.
        events: is told of keys that are made.
        now: tells the time.
        store: Redis that servers share, None for none.

    Raises:
        EnvironmentLackError, CorruptError: the folder of keys cannot be used.
        MissingDependencyError: the package redis is not installed.
    """
    keys = SealingKeys(options, events=events, now=now)
    seen: SeenRequests
    local = LocalSeen()
    if keys.folder is None:
        seen = local  # nobody else can open what is sealed to this server
    elif store is not None:
        seen = RedisSeen(store, local, servers=keys.identity.pin.raw.hex())
    else:
        seen = FolderSeen(keys.folder.path, local)
    return Sealing(keys, seen)
