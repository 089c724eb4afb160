# SPDX-License-Identifier: Apache-2.0
"""A sign-in between its two factors: who it is, what they proved, and until when the rest may follow. Private to the room.

Its token works once, for five minutes, and for nothing else: it is no session. Within a transaction of the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, insert, select

from shipsight.access.store.tables import challenges
from shipsight.access.tokens import digest, new_token

__all__ = ["Pending", "begin_pending_in", "end_pending_in", "find_pending_in", "forget_pending_in"]

_KIND = "sign-in"
_LIVES = timedelta(minutes=5)


@dataclass(frozen=True)
class Pending:
    """A sign-in that waits for its second factor.

    Attributes:
        user_id: who it is of.
        proved: factors so far.
        groups: that a provider said they are in.
        proved_at: when they proved it, None for now.
    """

    user_id: str
    proved: tuple[str, ...]
    groups: tuple[str, ...]
    proved_at: datetime | None = None


def begin_pending_in(connection: Connection, pending: Pending, *, now: datetime) -> str:
    """Returns the token of a new one."""
    connection.execute(delete(challenges).where(challenges.c.kind == _KIND, challenges.c.expires_at <= now))
    token = new_token()
    connection.execute(
        insert(challenges).values(
            token_hash=digest(token),
            kind=_KIND,
            user_id=pending.user_id,
            told={
                "proved": list(pending.proved),
                "groups": list(pending.groups),
                "proved_at": None if pending.proved_at is None else pending.proved_at.timestamp(),
            },
            expires_at=now + _LIVES,
        )
    )
    return token


def find_pending_in(connection: Connection, token: str, now: datetime) -> Pending | None:
    """Returns the one that a token stands for, None where there is none or its time is over."""
    row = connection.execute(
        select(challenges).where(challenges.c.token_hash == digest(token), challenges.c.kind == _KIND)
    ).one_or_none()
    # One that lives longer than any does was made before the clock went back.
    if row is None or not now < row.expires_at <= now + _LIVES + timedelta(minutes=1):
        return None
    at = row.told.get("proved_at")
    proved_at = None if at is None else datetime.fromtimestamp(at, UTC)
    return Pending(row.user_id, tuple(row.told["proved"]), tuple(row.told["groups"]), proved_at)


def end_pending_in(connection: Connection, token: str) -> bool:
    """Uses one up; whether it was there."""
    done = connection.execute(
        delete(challenges).where(challenges.c.token_hash == digest(token), challenges.c.kind == _KIND)
    )
    return done.rowcount == 1


def forget_pending_in(connection: Connection, user_id: str) -> None:
    """Ends all of a person."""
    connection.execute(delete(challenges).where(challenges.c.user_id == user_id))
