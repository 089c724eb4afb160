# SPDX-License-Identifier: Apache-2.0
"""Passkeys against a software authenticator: registration, sign-in, and whose they are. OWASP ASVS 5.0, chapter 6."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from tests.access.authenticator import (
    EDDSA,
    ES256,
    IS_BACKED_UP,
    MAY_BE_BACKED_UP,
    PRESENT,
    RS256,
    VERIFIED,
    SoftAuthenticator,
    decode,
    encode,
)
from tests.access.ceremonies import ORIGIN, make_world, refused, register, sign_in
from tests.access.identities import acting

from shipsight.access.directory import Directory
from shipsight.access.events import EventKind
from shipsight.access.principal import SERVER
from shipsight.access.sessions import Sessions
from shipsight.access.store import Database
from shipsight.access.store.tables import challenges, passkeys, totps, users
from shipsight.errors import AuthenticationError, ForbiddenError, NotFoundError, StepUpError, UsageError


@pytest.fixture
def world(database: Database, clock: Any, events: Any) -> Any:
    return make_world(database, clock, events)


# Registration and sign-in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [ES256, EDDSA, RS256], ids=["ES256", "EdDSA", "RS256"])
@pytest.mark.parametrize("form", ["none", "packed"])
def test_passkey_signs_in_alone_after_it_was_registered(world: Any, algorithm: int, form: str) -> None:
    """ASVS 6.3.3: a factor that resists phishing."""
    world.device = SoftAuthenticator(ORIGIN, algorithm=algorithm, format=form)
    made = register(world)
    assert sign_in(world) == world.ada.id
    assert [one.id for one in world.passkeys.list(world.ada.id)] == [made.id]
    assert world.passkeys.count(world.ada.id) == 1
    assert [one.kind for one in world.events.kept] == [EventKind.FACTOR_ADDED]


def test_passkey_is_a_second_factor_without_user_verification(world: Any) -> None:
    register(world)
    world.device.verifies = False
    assert sign_in(world, world.ada) == world.ada.id


def test_options_offer_what_is_accepted_and_ask_for_no_attestation(world: Any) -> None:
    register(world)
    options, challenge = world.passkeys.begin_registration(world.ada)
    assert options["rp"] == {"id": "vision.example.com", "name": "shipsight"}
    assert options["attestation"] == "none"
    assert [one["alg"] for one in options["pubKeyCredParams"]] == [EDDSA, ES256, RS256]
    assert [one["id"] for one in options["excludeCredentials"]] == [encode(world.device.credentials[0].id)]
    assert options["challenge"] == challenge
    assert json.loads(json.dumps(options)) == options


def test_options_of_a_passkey_that_stands_alone_name_nobody_and_require_verification(world: Any) -> None:
    """ASVS 6.3.8: options tell nothing of who is known."""
    register(world)
    options, _ = world.passkeys.begin_authentication(None)
    assert options["allowCredentials"] == []
    assert options["userVerification"] == "required"


def test_options_require_verification_where_it_is_needed(world: Any) -> None:
    asked = [
        world.passkeys.begin_authentication(world.ada.id, needs_verification=one)[0]["userVerification"]
        for one in (False, True)
    ]
    assert asked == ["preferred", "required"]
    registering = world.passkeys.begin_registration(world.ada)[0]["authenticatorSelection"]
    assert registering == {"residentKey": "preferred", "requireResidentKey": False, "userVerification": "required"}


def test_challenge_has_256_random_bits_and_is_kept_as_a_hash(world: Any) -> None:
    """ASVS 6.7.2."""
    found = {world.passkeys.begin_authentication(None)[1] for _ in range(20)}
    assert len(found) == 20
    assert {len(decode(one)) for one in found} == {32}
    with world.database.read() as connection:
        kept = b"".join(row.token_hash for row in connection.execute(select(challenges)))
    assert not [one for one in found if decode(one) in kept or one.encode() in kept]


def test_counter_of_an_authenticator_that_does_not_count_stays_zero(world: Any) -> None:
    world.device.counts = False
    register(world)
    assert [sign_in(world), sign_in(world)] == [world.ada.id] * 2


def test_backup_is_told_as_it_is_at_the_last_use(world: Any) -> None:
    assert not register(world).is_backed_up
    flags = PRESENT | VERIFIED | MAY_BE_BACKED_UP | IS_BACKED_UP
    sign_in(world, flags=flags)
    assert [(one.is_backed_up, one.used_at) for one in world.passkeys.list(world.ada.id)] == [(True, world.clock())]


# Whose they are ------------------------------------------------------------------------------------------------------


def test_disabled_user_does_not_sign_in_with_a_passkey(world: Any) -> None:
    """ASVS 7.4.2."""
    register(world)
    with world.database.write() as connection:
        connection.execute(update(users).where(users.c.id == world.ada.id).values(is_disabled=True))
    with pytest.raises(AuthenticationError):
        sign_in(world)
    refused(world, "passkey-unknown")


def test_passkey_is_added_by_its_owner_alone(world: Any) -> None:
    options, challenge = world.passkeys.begin_registration(world.ada)
    answer = world.device.create(options)
    for actor in (acting(world, world.grace, "admin"), SERVER):
        with pytest.raises(ForbiddenError):
            world.passkeys.finish_registration(actor, world.ada.id, challenge, answer, name="key")
    assert world.passkeys.count(world.ada.id) == 0


@pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines", "bell\x07"])
def test_name_that_does_not_fit_is_refused_and_the_challenge_stays(world: Any, name: str) -> None:
    options, challenge = world.passkeys.begin_registration(world.ada)
    answer = world.device.create(options)
    with pytest.raises(UsageError):
        world.passkeys.finish_registration(acting(world, world.ada), world.ada.id, challenge, answer, name=name)
    assert (
        world.passkeys.finish_registration(acting(world, world.ada), world.ada.id, challenge, answer, name="key").name
        == "key"
    )


def test_user_has_at_most_twenty_passkeys(world: Any) -> None:
    for _ in range(20):
        register(world, device=SoftAuthenticator(ORIGIN))
    with pytest.raises(ForbiddenError):
        register(world, device=SoftAuthenticator(ORIGIN))
    assert world.passkeys.count(world.ada.id) == 20


def test_passkey_that_was_removed_signs_in_no_more(world: Any) -> None:
    """ASVS 6.5.6."""
    made = register(world)
    world.passkeys.remove(acting(world, world.ada, "predictor"), world.ada.id, made.id)
    with pytest.raises(AuthenticationError):
        sign_in(world)
    assert [one.kind for one in world.events.kept[:2]] == [EventKind.FACTOR_ADDED, EventKind.FACTOR_REMOVED]


def test_last_second_factor_is_not_removed_by_who_needs_one(world: Any) -> None:
    """ASVS 6.4.3."""
    made = register(world)
    with pytest.raises(ForbiddenError):
        world.passkeys.remove(acting(world, world.ada, "deployer"), world.ada.id, made.id)
    with world.database.write() as connection:
        connection.execute(
            insert(totps).values(
                id="t", user_id=world.ada.id, secret=b"x", last_step=0, is_confirmed=True, created_at=world.clock()
            )
        )
    world.passkeys.remove(acting(world, world.ada, "deployer"), world.ada.id, made.id)
    assert world.passkeys.count(world.ada.id) == 0


def test_factors_are_changed_after_a_fresh_proof_alone(world: Any) -> None:
    """ASVS 7.5.1."""
    made = register(world)
    actor = acting(world, world.ada)
    world.clock.pass_s(301)
    options, challenge = world.passkeys.begin_registration(world.ada)
    with pytest.raises(StepUpError):
        world.passkeys.finish_registration(
            actor, world.ada.id, challenge, SoftAuthenticator(ORIGIN).create(options), name="key"
        )
    with pytest.raises(StepUpError):
        world.passkeys.remove(actor, world.ada.id, made.id)


def test_session_with_a_password_alone_is_whole_after_a_passkey_was_added_in_it(world: Any) -> None:
    sessions = Sessions(
        world.database,
        Directory(world.database, world.events, world.clock),
        world.events,
        world.clock,
        idle_s=1800,
        absolute_s=3600,
        fresh_s=300,
    )
    acting(world, world.ada, "deployer")
    mine = sessions.begin(world.ada.id, factors=["password"])
    stolen = sessions.begin(world.ada.id, factors=["password"])
    actor, _ = sessions.find(mine.token)
    assert actor.must_enrol
    options, challenge = world.passkeys.begin_registration(world.ada)
    world.passkeys.finish_registration(actor, world.ada.id, challenge, world.device.create(options), name="key")
    assert not sessions.find(mine.token)[0].must_enrol
    assert sessions.find(stolen.token) is None


def test_passkey_of_another_is_removed_by_who_may_change_access_alone(world: Any) -> None:
    made = register(world)
    for role in ("deployer", "auditor", "viewer"):
        with pytest.raises(ForbiddenError):
            world.passkeys.remove(acting(world, world.grace, role), world.ada.id, made.id)
    with pytest.raises(NotFoundError):
        world.passkeys.remove(acting(world, world.grace, "admin"), world.grace.id, made.id)
    world.passkeys.remove(acting(world, world.grace, "admin"), world.ada.id, made.id)
    assert world.passkeys.count(world.ada.id) == 0


def test_nothing_is_changed_when_the_event_cannot_be_kept(world: Any) -> None:
    """ASVS 16.5.3."""
    made = register(world)
    world.events.fails = True
    with pytest.raises(OSError, match="no space"):
        register(world, device=SoftAuthenticator(ORIGIN))
    with pytest.raises(OSError, match="no space"):
        world.passkeys.remove(acting(world, world.ada), world.ada.id, made.id)
    assert world.passkeys.count(world.ada.id) == 1


def test_events_and_errors_hold_no_challenge_and_no_key(world: Any) -> None:
    """ASVS 16.2.5."""
    register(world)
    options, challenge = world.passkeys.begin_authentication(None)
    answer = world.device.get(options, rp_id="evil.test")
    with pytest.raises(AuthenticationError) as caught:
        world.passkeys.finish_authentication(challenge, answer, user_id=None, needs_verification=True)
    told = str(caught.value) + repr(world.events.kept)
    with world.database.read() as connection:
        key = connection.scalar(select(passkeys.c.public_key))
    assert challenge not in told
    assert repr(key) not in told
    assert "evil" not in str(caught.value)


def test_unused_challenges_do_not_pile_up(world: Any) -> None:
    for _ in range(30):
        world.passkeys.begin_authentication(None)
    world.clock.pass_s(301)
    world.passkeys.begin_authentication(None)
    with world.database.read() as connection:
        assert len(connection.execute(select(challenges)).all()) == 1
