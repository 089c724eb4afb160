# SPDX-License-Identifier: Apache-2.0
"""Tells that a key or a certificate is in use: once an hour for each address that it is used from.

So a record of uses stays small, and still shows when a key was used, and from where. Leaves to others: each single request (the
request log, `predicted`). For one event loop. Private to the room. Source: OWASP ASVS 5.0, 16.3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from shipsight.access import Event, EventKind, EventSink, Outcome, Principal, PrincipalKind

__all__ = ["Uses"]

_KINDS = {PrincipalKind.KEY: EventKind.KEY_USED, PrincipalKind.CERTIFICATE: EventKind.CERTIFICATE_USED}
_MOST = 20_000
_Use = tuple[PrincipalKind, str, str | None]


class Uses:
    """Knows which uses were told.

    Args:
        events: takes them; must not wait for a disk with those of these kinds.
        now: tells the time.
    """

    def __init__(self, events: EventSink, *, now: Callable[[], datetime]) -> None:
        self._events, self._now = events, now
        self._told: dict[_Use, None] = {}
        self._hour: datetime | None = None

    def note(self, principal: Principal, address: str | None) -> None:
        """Tells of a credential that was accepted, unless it was told within this hour.

        Args:
            principal: whose it is; others than keys and certificates are not told.
            address: that it came from.
        """
        kind = _KINDS.get(principal.kind)
        if kind is None or not principal.rights.grants:  # a certificate that stands for nobody opens nothing
            return
        at = self._now()
        hour = at.replace(minute=0, second=0, microsecond=0)
        if hour != self._hour:
            self._hour = hour
            self._told.clear()
        use = (principal.kind, principal.id or principal.name, address)
        if use in self._told:
            return
        while len(self._told) >= _MOST:  # told once more rather than not at all
            del self._told[next(iter(self._told))]
        self._told[use] = None
        subject = None if principal.id is None else f"{principal.kind.value}:{principal.id}"
        details = {} if principal.certificate is None else {"sha256": principal.certificate.sha256}
        self._events.record(
            Event(at, kind, Outcome.DONE, principal.told(), subject=subject, address=address, details=details)
        )
