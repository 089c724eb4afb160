# SPDX-License-Identifier: Apache-2.0
"""What a server was started with, compared with its start before: so that nobody weakens one unseen.

Both come from the audit log itself, where each start tells its options. Invariants: no secret is among them: of an address the
password and the values of its query are left out, of a file its name alone is told. Private to the room.
Source: OWASP ASVS 5.0, 16.2.1 and 16.2.5.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from shipsight.access import EventKind, Outcome
from shipsight.access.audit import Entry

__all__ = ["MACHINE", "OPTIONS", "PastStarts", "changes_since", "told_options", "without_secrets"]

OPTIONS = "options"
"""Detail of `started`: one text an option, `--host=127.0.0.1`."""
MACHINE = "machine"
"""Detail of `started`: what the machine calls itself."""
_STARTS, _DONE = (EventKind.STARTED,), (Outcome.DONE,)
_MOST_STARTS = 1000


class PastStarts(Protocol):
    """What is asked of the audit log."""

    def entries(
        self,
        *,
        kinds: tuple[EventKind, ...] = (),
        outcomes: tuple[Outcome, ...] = (),
        server: str | None = None,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[Entry]:
        """Yields entries that fit."""


def told_options(options: Iterable[tuple[str, str]]) -> list[str]:
    """Returns options as `started` tells them."""
    return [f"{name}={value}" for name, value in options]


def changes_since(log: PastStarts, server: str, options: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Returns what differs from the start before.

    Args:
        log: tells of that.
        server: name of this one there. Where none of this name started yet, the newest on this machine counts.
        options: of now, with their values.

    Returns:
        Option -> its value before and now, `none -> proxy`. Nothing at a first start.
    """
    starts = log.entries(kinds=_STARTS, outcomes=_DONE, server=server, newest_first=True, limit=1)
    before = next(iter(starts), None)
    if before is None:
        before = _newest_of_host(log, server)  # else another name or port would make every change a first start
    told = None if before is None else before.event.details.get(OPTIONS)
    if not isinstance(told, list):
        return {}  # a first start; or its texts were erased since, and the record of that says so
    return _differences(dict(one.partition("=")[::2] for one in told), dict(options))


def _newest_of_host(log: PastStarts, server: str) -> Entry | None:
    name = server.partition(":")[0]
    for entry in log.entries(kinds=_STARTS, outcomes=_DONE, newest_first=True, limit=_MOST_STARTS):
        if entry.server.partition(":")[0] == name or entry.event.details.get(MACHINE) == socket.gethostname():
            return entry
    return None


def _differences(was: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    names = [*was, *(name for name in now if name not in was)]
    both = {name: (was.get(name) or "none", now.get(name) or "none") for name in names}
    return {name: " -> ".join(pair) for name, pair in both.items() if pair[0] != pair[1]}


def _of_database(text: str) -> str:
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        return "an address that cannot be read"
    # What was read as a name, port or host may be a piece of a password in the query, which no server would answer to.
    if any(one in text.rpartition("@")[0] for one in "?&=") or not url.host:
        return f"{url.drivername}://..."
    names = "&".join(url.query)
    told = URL.create(url.drivername, url.username or None, host=url.host, port=url.port, database=url.database)
    return f"{told.render_as_string()}?{names}" if names else told.render_as_string()


def without_secrets(text: str) -> str:
    """Returns an option's value without what would open something.

    In an address, that is a password and the values of the query, where drivers take passwords, too. A password may hold `/`, `?`
    or `#`: a database's address is read as the database's driver reads it; of any other of which it cannot be told where the
    password ends, nothing is told but what kind it is.
    """
    if "://" not in text:
        return text
    scheme, _, rest = text.partition("://")
    ends = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    if rest.rfind("@") > ends:
        return _of_database(text) if scheme.startswith(("postgresql", "sqlite")) else f"{scheme}://..."
    try:
        parts = urlsplit(text)
        user = parts.username
        place = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "an address that cannot be read"
    if user is not None:
        place = f"{user}@{place}"
    names = "&".join(one.partition("=")[0] for one in parts.query.split("&")) if parts.query else ""
    return urlunsplit((parts.scheme, place, parts.path, names, parts.fragment))
