# SPDX-License-Identifier: Apache-2.0
"""What a server was started with, compared with its start before: so that nobody weakens one unseen.

Both come from the audit log itself, where each start tells its options. Invariants: no secret is among them: of an address the
password and the values of its query are left out, of a file its name alone is told. Private to the room.
Source: OWASP ASVS 5.0, 16.2.1 and 16.2.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from shipsight.access import EventKind
from shipsight.access.audit import Entry

__all__ = ["OPTIONS", "PastStarts", "changes_since", "told_options", "without_secrets"]

OPTIONS = "options"
"""Detail of `started`: one text an option, `--host=127.0.0.1`."""


class PastStarts(Protocol):
    """What is asked of the audit log."""

    def entries(
        self,
        *,
        kinds: tuple[EventKind, ...] = (),
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
        server: name of this one there.
        options: of now, with their values.

    Returns:
        Option -> its value before and now, `none -> proxy`. Nothing at a first start.
    """
    before = next(iter(log.entries(kinds=(EventKind.STARTED,), server=server, newest_first=True, limit=1)), None)
    told = None if before is None else before.event.details.get(OPTIONS)
    if not isinstance(told, list):
        return {}  # a first start; or its texts were erased since, and the record of that says so
    return _differences(dict(one.partition("=")[::2] for one in told), dict(options))


def _differences(was: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    names = [*was, *(name for name in now if name not in was)]
    both = {name: (was.get(name) or "none", now.get(name) or "none") for name in names}
    return {name: " -> ".join(pair) for name, pair in both.items() if pair[0] != pair[1]}


def without_secrets(text: str) -> str:
    """Returns an option's value without what would open something.

    In an address, that is a password and the values of the query, where drivers take passwords, too.
    """
    if "://" not in text:
        return text
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
