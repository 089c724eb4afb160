# SPDX-License-Identifier: Apache-2.0
"""What a ceremony has to come back with: given out once, taken once, within a few minutes.

Invariants: the token is kept as a hash alone; showing it takes it away, also where what it was shown for then fails, or where
it was made for another kind of ceremony; of several that show it at the same time one gets it. Leaves to others: what the
ceremonies are. Private to the room. Source: OWASP ASVS 5.0, 6.5.1 and 6.7.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from shipsight.access.store import Database
from shipsight.access.store.tables import challenges
from shipsight.access.tokens import digest, new_token
from shipsight.errors import AuthenticationError

__all__ = ["Challenge", "make_challenge", "take_challenge"]

_MOST = 10_000  # of each kind for whoever comes
_MOST_OF_ONE = 20  # of each kind for one user


@dataclass(frozen=True)
class Challenge:
    """What was kept with a challenge.

    Attributes:
        user_id: whom it was made for, None for whoever comes.
        told: plain values.
    """

    user_id: str | None
    told: Mapping[str, Any]


def make_challenge(
    connection: Connection,
    kind: str,
    *,
    now: datetime,
    lives_s: float,
    user_id: str | None = None,
    told: Mapping[str, Any] | None = None,
) -> str:
    """Keeps a new challenge and returns its token, 256 random bits as base64url.

    Those that are over are removed on the way. Where there are too many of a kind the oldest give way, so that the table stays
    small: those for whoever comes to others of these, and those for a user to others for the same user. So nobody who floods
    takes a ceremony from somebody who is known, or from another kind. The edge paces who begins without being known.

    Args:
        connection: in a transaction that writes.
        kind: of the ceremony; taking it names the same.
        now: time.
        lives_s: seconds until it is over.
        user_id: whom it is for.
        told: plain values to find again.
    """
    connection.execute(delete(challenges).where(challenges.c.expires_at <= now))
    alike = (challenges.c.kind == kind) & (challenges.c.user_id == user_id)  # "is null" for whoever comes
    most = _MOST if user_id is None else _MOST_OF_ONE
    waiting = connection.scalar(select(func.count()).select_from(challenges).where(alike)) or 0
    if waiting >= most:
        oldest = select(challenges.c.token_hash).where(alike).order_by(challenges.c.expires_at).limit(most // 10)
        connection.execute(delete(challenges).where(challenges.c.token_hash.in_(oldest.scalar_subquery())))
    token = new_token()
    connection.execute(
        insert(challenges).values(
            token_hash=digest(token),
            kind=kind,
            user_id=user_id,
            told=dict(told or {}),
            expires_at=now + timedelta(seconds=lives_s),
        )
    )
    return token


def take_challenge(database: Database, token: object, kind: str, *, now: Callable[[], datetime]) -> Challenge:
    """Takes a challenge away and returns what was kept with it.

    In a transaction of its own: what fails afterwards does not bring it back.

    Args:
        database: open.
        token: as it was shown; anything that is no text is none.
        kind: of the ceremony.
        now: tells the time.

    Raises:
        AuthenticationError: there is no such challenge, it is over, was taken before, or is of another kind.
    """
    if not isinstance(token, str) or not token.isascii() or len(token) > 100:
        raise _refusal()
    hashed = digest(token)
    with database.write() as connection:
        row = connection.execute(select(challenges).where(challenges.c.token_hash == hashed)).first()
        is_mine = connection.execute(delete(challenges).where(challenges.c.token_hash == hashed)).rowcount == 1
    if row is None or not is_mine or row.kind != kind or row.expires_at <= now():
        raise _refusal()
    return Challenge(row.user_id, row.told)


def _refusal() -> AuthenticationError:
    return AuthenticationError("this sign-in is over", hint="Begin it again.")
