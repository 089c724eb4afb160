# SPDX-License-Identifier: Apache-2.0
"""Challenges of ceremonies: kept as hashes, taken once, few enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, insert, select

from shipsight.access.challenges import Challenge, make_challenge, take_challenge
from shipsight.access.store import Database
from shipsight.access.store.tables import challenges
from shipsight.errors import AuthenticationError

BEGIN = datetime(2026, 6, 1, 12, tzinfo=UTC)


def test_challenge_gives_back_what_was_kept_with_it_once(database: Database) -> None:
    """ASVS 6.5.1."""
    with database.write() as connection:
        token = make_challenge(connection, "kind", now=BEGIN, lives_s=60, told={"a": [1]})
    assert take_challenge(database, token, "kind", now=lambda: BEGIN) == Challenge(None, {"a": [1]})
    with pytest.raises(AuthenticationError):
        take_challenge(database, token, "kind", now=lambda: BEGIN)


@pytest.mark.parametrize("token", [None, 3, "", "x" * 101, "Ä", b"bytes", "\x00"])
def test_what_is_no_challenge_is_refused(database: Database, token: object) -> None:
    with pytest.raises(AuthenticationError):
        take_challenge(database, token, "kind", now=lambda: BEGIN)


def test_oldest_challenges_give_way_when_there_are_too_many(database: Database) -> None:
    rows = [
        {
            "token_hash": number.to_bytes(32, "big"),
            "kind": kind,
            "told": {},
            "expires_at": BEGIN + timedelta(seconds=60 + number),
        }
        for number, kind in [*((one, "kind") for one in range(10_000)), (10_000, "other")]
    ]
    with database.write() as connection:
        connection.execute(insert(challenges), rows)
        token = make_challenge(connection, "kind", now=BEGIN, lives_s=60)
        kept = connection.scalars(select(func.count()).select_from(challenges).group_by(challenges.c.kind)).all()
    assert sorted(kept) == [1, 9001]
    assert take_challenge(database, token, "kind", now=lambda: BEGIN).user_id is None
