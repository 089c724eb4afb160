# SPDX-License-Identifier: Apache-2.0
"""Challenges of ceremonies: kept as hashes, taken once, few enough."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, insert, select
from tests.access.conftest import Clock, KeptEvents
from tests.access.people import People

from shipsight.access.challenges import Challenge, make_challenge, take_challenge
from shipsight.access.store import Database
from shipsight.access.store.tables import challenges
from shipsight.errors import AuthenticationError

BEGIN = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
def people(database: Database, clock: Clock, events: KeptEvents) -> People:
    return People(database, clock, events)


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


def test_a_flood_of_strangers_ends_no_ceremony_of_somebody_who_is_known(people: People) -> None:
    """Step-up, second factors, new passkeys: they are another kind of count."""
    user_id = people.add("ada").id
    strangers = [
        {"token_hash": number.to_bytes(32, "big"), "kind": "kind", "told": {}, "expires_at": BEGIN + timedelta(hours=1)}
        for number in range(10_000)
    ]
    with people.database.write() as connection:
        token = make_challenge(connection, "kind", now=BEGIN, lives_s=60, user_id=user_id)
        connection.execute(insert(challenges), strangers)
        for _ in range(3):
            make_challenge(connection, "kind", now=BEGIN, lives_s=60)
    assert take_challenge(people.database, token, "kind", now=lambda: BEGIN).user_id == user_id


def test_oldest_challenges_of_one_person_give_way_to_their_own_alone(people: People) -> None:
    ada, grace = people.add("ada").id, people.add("grace").id
    with people.database.write() as connection:
        others = make_challenge(connection, "kind", now=BEGIN, lives_s=1, user_id=grace)
        other_kind = make_challenge(connection, "other", now=BEGIN, lives_s=1, user_id=ada)
        mine = [make_challenge(connection, "kind", now=BEGIN, lives_s=60 + one, user_id=ada) for one in range(60)]
        kept = connection.scalar(select(func.count()).select_from(challenges).where(challenges.c.user_id == ada))
    assert kept is not None
    assert kept <= 21
    for token, kind in ((others, "kind"), (other_kind, "other"), (mine[-1], "kind")):
        assert take_challenge(people.database, token, kind, now=lambda: BEGIN).user_id is not None
    with pytest.raises(AuthenticationError):
        take_challenge(people.database, mine[0], "kind", now=lambda: BEGIN)


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
