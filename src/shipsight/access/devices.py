# SPDX-License-Identifier: Apache-2.0
"""Browsers that somebody signed in with before: their tokens give them a count of tries of their own, and nothing else.

Within a transaction of the caller's. Private to the room. Source: OWASP, Slow Down Online Guessing Attacks with Device Cookies.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select

from shipsight.access.settings import DEVICE_LIVES_S
from shipsight.access.store.tables import known_devices
from shipsight.access.tokens import digest, new_token

__all__ = ["counted_as", "know_in"]

_LIVES = timedelta(seconds=DEVICE_LIVES_S)
_MOST = 20


def counted_as(connection: Connection, user_id: str | None, whom: str, device: str | None, now: datetime) -> str:
    """Returns the name that tries are counted under: the account's, or that of a browser that its user signed in with."""
    return f"device:{digest(device or '').hex()}" if _is_known(connection, user_id, device, now) else f"account:{whom}"


def know_in(connection: Connection, user_id: str, device: str | bytes | None, now: datetime) -> str | None:
    """Returns the token of a browser that somebody signed in with: what it shows, or a new one.

    None where it is known by the digest of its token alone: it has that, and keeps it.
    """
    if device is not None and _is_known(connection, user_id, device, now):
        return device if isinstance(device, str) else None
    kept = connection.execute(
        select(known_devices.c.token_hash)
        .where(known_devices.c.user_id == user_id)
        .order_by(known_devices.c.created_at.desc())
    ).scalars()
    surplus = list(kept)[_MOST - 1 :]
    gone = known_devices.c.token_hash.in_(surplus) | (known_devices.c.expires_at <= now)
    connection.execute(delete(known_devices).where(gone))
    token = new_token()
    connection.execute(
        insert(known_devices).values(token_hash=digest(token), user_id=user_id, created_at=now, expires_at=now + _LIVES)
    )
    return token


def _is_known(connection: Connection, user_id: str | None, device: str | bytes | None, now: datetime) -> bool:
    token_hash = device if isinstance(device, bytes) else digest(device or "")
    row = connection.execute(
        select(known_devices.c.expires_at).where(
            known_devices.c.token_hash == token_hash, known_devices.c.user_id == (user_id or "")
        )
    ).one_or_none()
    return row is not None and now < row.expires_at
