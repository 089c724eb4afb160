# SPDX-License-Identifier: Apache-2.0
"""Proving oneself again, and changing the password."""

from __future__ import annotations

import pytest
from tests.access.conftest import Clock, KeptEvents
from tests.access.people import FRESH_S, OTHER_PASSWORD, PASSWORD, People
from tests.access.ways_in import pending, put_passkey, refusal

from shipsight.access.passwords import Passwords
from shipsight.access.principal import LOOPBACK, NOBODY, SERVER, Principal, PrincipalKind
from shipsight.access.sign_in import SignIn
from shipsight.access.store import Database
from shipsight.errors import (
    ForbiddenError,
    RateLimitError,
    StepUpError,
    UsageError,
)


@pytest.fixture
def people(database: Database, clock: Clock, events: KeptEvents) -> People:
    return People(database, clock, events)


def test_a5_step_up_needs_what_signing_in_needs(people: People) -> None:
    """A5, ASVS 6.3.4, 7.5.3: no weaker way."""
    ada = people.add_with_codes("ada", "deployer")
    person, step = people.enter_with_codes(ada)
    people.clock.pass_s(FRESH_S)
    for password, code in (
        (PASSWORD, None),
        (PASSWORD, ""),
        (PASSWORD, "000000"),
        (OTHER_PASSWORD, people.code(ada.id)),
    ):
        refusal(lambda pair=(password, code): people.sign_in.prove_password(person, *pair))  # type: ignore[misc]
    renewed = people.sign_in.prove_password(person, PASSWORD, people.code(ada.id))
    assert step.session is not None
    assert people.sessions.find(step.session.token) is None
    assert people.find(renewed).is_fresh(people.clock())


def test_step_up_by_password_is_enough_where_that_is_all_there_is(people: People) -> None:
    people.add("ada", "viewer")
    person = people.enter(people.sign_in.begin("ada", PASSWORD))
    people.clock.pass_s(FRESH_S)
    assert people.find(people.sign_in.prove_password(person, PASSWORD)).is_fresh(people.clock())


def test_step_up_by_password_needs_a_code_also_of_who_has_passkeys_alone(people: People) -> None:
    """A5: else a stolen password would do what the passkey guards."""
    ada = people.add("ada", "deployer")
    credential = put_passkey(people, ada.id)
    person = people.enter(people.sign_in.finish_passkey(None, people.passkeys.challenge(), credential))
    refusal(lambda: people.sign_in.prove_password(person, PASSWORD))
    assert people.sign_in.prove_passkey(person, people.passkeys.challenge(), credential).handle == person.session


def test_a5_step_up_by_a_passkey_of_another_or_without_verification_is_refused(people: People) -> None:
    """A5."""
    ada, grace = people.add("ada"), people.add("grace")
    mine, other = put_passkey(people, ada.id), put_passkey(people, grace.id)
    person = people.find(people.sessions.begin(ada.id, factors=("password", "passkey")))
    for credential in (other, {**mine, "verified": False}):
        challenge = people.passkeys.challenge()
        refusal(lambda pair=(challenge, credential): people.sign_in.prove_passkey(person, *pair))  # type: ignore[misc]


def test_a2_step_up_cannot_be_guessed(people: People) -> None:
    """A2: by whoever sits at a session that was left open."""
    ada = people.add_with_codes("ada")
    person, _ = people.enter_with_codes(ada)
    for _ in range(5):
        refusal(lambda: people.sign_in.prove_password(person, OTHER_PASSWORD, "000000"))
    with pytest.raises(RateLimitError):
        people.sign_in.prove_password(person, PASSWORD, people.code(ada.id))
    with pytest.raises(RateLimitError):
        people.sign_in.change_password(person, PASSWORD, OTHER_PASSWORD)
    # Their owner, elsewhere, does not notice.
    assert people.enter_with_codes(ada)[0].name == "ada"


def test_a6_session_that_ended_is_not_renewed(people: People) -> None:
    """A6; and no code is used up for it."""
    ada = people.add_with_codes("ada")
    person, step = people.enter_with_codes(ada)
    assert step.session is not None
    people.sessions.end(step.session.token, person)
    refusal(lambda: people.sign_in.prove_password(person, PASSWORD, people.code(ada.id)))
    assert people.factors.check_totp(ada.id, people.code(ada.id))


@pytest.mark.parametrize("actor", [NOBODY, LOOPBACK, SERVER, Principal(PrincipalKind.KEY, "camera", id="x")])
def test_only_people_who_signed_in_prove_themselves_again(people: People, actor: Principal) -> None:
    for act in (
        lambda: people.sign_in.prove_password(actor, PASSWORD),
        lambda: people.sign_in.prove_passkey(actor, "x", {}),
        lambda: people.sign_in.change_password(actor, PASSWORD, OTHER_PASSWORD),
    ):
        with pytest.raises(ForbiddenError):
            act()


def test_password_is_changed_with_the_current_one(people: People) -> None:
    """ASVS 6.2.2, 6.2.3."""
    ada = people.add("ada")
    person = people.enter(people.sign_in.begin("ada", PASSWORD))
    refusal(lambda: people.sign_in.change_password(person, OTHER_PASSWORD, OTHER_PASSWORD))
    with pytest.raises(UsageError):
        people.sign_in.change_password(person, PASSWORD, "ada-shipsight")
    with pytest.raises(UsageError):
        people.sign_in.change_password(person, PASSWORD, "vision.example")
    people.sign_in.change_password(person, PASSWORD, OTHER_PASSWORD)
    refusal(lambda: people.sign_in.begin("ada", PASSWORD))
    assert people.sign_in.begin("ada", OTHER_PASSWORD).kind == "session"
    assert people.directory.user(ada.id).has_password


def test_password_is_changed_after_a_fresh_proof_alone(people: People) -> None:
    """ASVS 7.5.1: a password that somebody saw, at a session that was left open, is not enough."""
    ada = people.add_with_codes("ada")
    person, _ = people.enter_with_codes(ada)
    people.clock.pass_s(FRESH_S)
    before = people.dump()
    with pytest.raises(StepUpError):
        people.sign_in.change_password(person, PASSWORD, OTHER_PASSWORD)
    assert people.dump() == before


def test_password_change_ends_codes_of_invitation_and_sign_ins_that_wait(people: People) -> None:
    """A6."""
    ada = people.add_with_codes("ada")
    person, _ = people.enter_with_codes(ada)
    waiting = pending(people)
    code = people.directory.invite(SERVER, ada.id)
    people.sign_in.change_password(person, PASSWORD, OTHER_PASSWORD)
    assert people.sign_in.user_of(waiting) is None
    refusal(lambda: people.sign_in.accept_invitation(code, "another long password"))


def test_password_does_not_wear_out(people: People) -> None:
    """ASVS 6.2.10: no change is forced."""
    people.add("ada")
    people.clock.pass_s(5 * 365 * 86400)
    assert people.sign_in.begin("ada", PASSWORD).kind == "session"


def test_hash_of_older_parameters_is_made_anew_at_the_next_sign_in(people: People) -> None:
    people.add("ada")
    before = [row[4] for row in people.dump()["users"]]
    newer = SignIn(
        people.database,
        people.directory,
        people.factors,
        people.passkeys,
        people.sessions,
        people.events,
        people.clock,
        passwords=Passwords(memory_kib=128, passes=1),
    )
    assert newer.begin("ada", PASSWORD).kind == "session"
    after = [row[4] for row in people.dump()["users"]]
    assert before != after
    assert "m=128," in after[0]
    assert people.sign_in.begin("ada", PASSWORD).kind == "session"
