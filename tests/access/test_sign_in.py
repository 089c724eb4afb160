# SPDX-License-Identifier: Apache-2.0
"""Ways in: what each needs, what it tells, and whom it slows down."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as sql_event
from tests.access.conftest import Clock, KeptEvents
from tests.access.people import OTHER_PASSWORD, PASSWORD, People
from tests.access.ways_in import pending, put_passkey, refusal

from shipsight.access import Action, EventKind, Grant, Outcome
from shipsight.access.principal import SERVER
from shipsight.access.sign_in import Step
from shipsight.access.store import Database
from shipsight.access.store.tables import throttles
from shipsight.access.tokens import digest
from shipsight.errors import (
    AuthenticationError,
    RateLimitError,
    ShipsightError,
)


@pytest.fixture
def people(database: Database, clock: Clock, events: KeptEvents) -> People:
    return People(database, clock, events)


# ---- what is needed


def test_password_alone_is_enough_where_no_right_needs_more(people: People) -> None:
    people.add("ada", "viewer")
    step = people.sign_in.begin(" ADA ", PASSWORD)
    person = people.enter(step)
    assert (step.kind, person.factors, person.must_enrol) == ("session", ("password",), False)
    assert person.may(Action.MODELS_READ, "boats")


@pytest.mark.parametrize("role", ["operator", "deployer@boats", "auditor", "admin"])
def test_who_may_change_anything_has_to_add_a_second_factor_first(people: People, role: str) -> None:
    """ASVS 6.3.3: enrolment is forced."""
    people.add("ada", role)
    step = people.sign_in.begin("ada", PASSWORD)
    person = people.enter(step)
    assert (step.kind, person.must_enrol) == ("enrol", True)
    assert not any(person.may(action, model) for action in Action for model in (None, "boats"))
    people.enrol(person)
    assert step.session is not None
    person = people.find(step.session)
    assert not person.must_enrol
    assert any(person.may(action, "boats") or person.may(action) for action in Action)


@pytest.mark.parametrize("role", ["viewer", "admin"])
def test_who_has_a_second_factor_is_asked_for_it(people: People, role: str) -> None:
    """ASVS 6.3.4: whether a right needs it or not."""
    ada = people.add_with_codes("ada", role)
    token = pending(people)
    assert people.sessions.list(ada.id) == []
    assert people.sign_in.user_of(token) == ada.id
    step = people.sign_in.finish_code(token, people.code(ada.id))
    assert step.kind == "session"
    assert people.enter(step).factors == ("password", "totp")
    assert people.sign_in.user_of(token) is None


def test_recovery_code_stands_in_for_the_authenticator_once(people: People) -> None:
    """ASVS 6.5.1."""
    ada = people.add_with_codes("ada", "deployer")
    person, _ = people.enter_with_codes(ada)
    code = people.factors.make_recovery_codes(person, ada.id)[0]
    assert people.sign_in.begin("ada", PASSWORD).factors == ("totp", "recovery")
    step = people.sign_in.finish_code(pending(people), code)
    assert people.enter(step).factors == ("password", "recovery")
    refusal(lambda: people.sign_in.finish_code(pending(people), code))


def test_passkey_is_a_second_factor(people: People) -> None:
    ada = people.add("ada", "deployer")
    credential = put_passkey(people, ada.id)
    step = people.sign_in.begin("ada", PASSWORD)
    assert (step.kind, step.factors) == ("second-factor", ("passkey",))
    unverified = {**credential, "verified": False}
    step = people.sign_in.finish_passkey(step.pending, people.passkeys.challenge(), unverified)
    assert people.enter(step).factors == ("password", "passkey")
    assert not people.enter(step).must_enrol


def test_passkey_alone_is_enough_when_it_verifies_its_user(people: People) -> None:
    """ASVS 6.3.3, level 3: resistant to phishing."""
    ada = people.add("ada", "admin")
    credential = put_passkey(people, ada.id)
    step = people.sign_in.finish_passkey(None, people.passkeys.challenge(), credential)
    assert (step.kind, people.enter(step).factors, people.enter(step).must_enrol) == ("session", ("passkey",), False)
    refusal(lambda: people.sign_in.finish_passkey(None, people.passkeys.challenge(), {**credential, "verified": False}))


def test_passkey_of_another_is_no_second_factor(people: People) -> None:
    ada, grace = people.add_with_codes("ada"), people.add("grace")
    mine = put_passkey(people, grace.id)
    token = pending(people)
    refusal(lambda: people.sign_in.finish_passkey(token, people.passkeys.challenge(), mine))
    assert people.sessions.list(ada.id) == people.sessions.list(grace.id) == []


def test_passkey_of_a_disabled_person_lets_nobody_in(people: People) -> None:
    """A6."""
    ada = people.add("ada")
    credential = put_passkey(people, ada.id)
    people.directory.set_disabled(SERVER, ada.id, True)
    refusal(lambda: people.sign_in.finish_passkey(None, people.passkeys.challenge(), credential))
    assert people.events.kept[-1].outcome is Outcome.REFUSED


def test_invitation_does_not_pass_by_the_second_factor(people: People) -> None:
    """ASVS 6.4.3: a new password leaves the other factors as they are, and needs them."""
    ada = people.add_with_codes("ada", "deployer")
    code = people.directory.invite(SERVER, ada.id)
    step = people.sign_in.accept_invitation(code, OTHER_PASSWORD)
    assert (step.kind, step.session) == ("second-factor", None)
    assert people.factors.of(ada.id).has_totp
    assert step.pending is not None
    step = people.sign_in.finish_code(step.pending, people.code(ada.id))
    assert step.kind == "session"


def test_invitation_ends_all_that_began_with_the_older_password(people: People) -> None:
    """A6, ASVS 7.4.3: sessions, sign-ins that wait, known browsers."""
    ada = people.add_with_codes("ada")
    person, step = people.enter_with_codes(ada)
    waiting = pending(people)
    code = people.directory.invite(SERVER, ada.id)
    people.sign_in.accept_invitation(code, OTHER_PASSWORD)
    assert people.sessions.by_handle(str(person.session)) is None
    assert people.sign_in.user_of(waiting) is None
    assert step.device is not None
    assert people.dump()["known_devices"] == []
    refusal(lambda: people.sign_in.begin("ada", PASSWORD))


@pytest.mark.parametrize(
    ("factors", "role", "kind"),
    [
        (("oidc", "mfa"), "deployer", "session"),
        (("oidc",), "deployer", "enrol"),
        (("oidc",), "viewer", "session"),
    ],
    ids=["two-factors", "one-where-two-are-needed", "one-where-one-is-enough"],
)
def test_provider_vouches_for_as_many_factors_as_it_says(
    people: People, factors: tuple[str, ...], role: str, kind: str
) -> None:
    """ASVS 6.3.4, 10.5: no way in is weaker than another."""
    ada = people.add("ada")
    people.directory.set_grants(SERVER, "group", "crew", [Grant(role)])
    step = people.sign_in.begin_federated(ada.id, factors=factors, groups=("crew",))
    assert step.kind == kind
    assert people.enter(step).rights.grants
    assert people.enter(step).must_enrol == (kind == "enrol")


def test_second_factor_of_ones_own_is_asked_for_where_the_provider_vouched_for_one(people: People) -> None:
    """ASVS 6.3.4; groups are not forgotten on the way."""
    ada = people.add_with_codes("ada")
    people.directory.set_grants(SERVER, "group", "crew", [Grant("deployer")])
    step = people.sign_in.begin_federated(ada.id, factors=("oidc",), groups=("crew",))
    assert step.kind == "second-factor"
    assert step.pending is not None
    person = people.enter(people.sign_in.finish_code(step.pending, people.code(ada.id)))
    assert person.factors == ("oidc", "totp")
    assert person.may(Action.ROLLOUT_PROMOTE, "boats")


@pytest.mark.parametrize(("ago_s", "is_kept"), [(200.0, True), (-30.0, False)], ids=["before", "ahead-of-us"])
def test_proof_of_a_provider_is_as_old_as_it_says_and_a_code_makes_it_no_younger(
    people: People, ago_s: float, *, is_kept: bool
) -> None:
    """ASVS 7.5.3."""
    ada = people.add_with_codes("ada", "deployer")
    at = people.clock() - timedelta(seconds=ago_s)
    expected = at if is_kept else people.clock()
    step = people.sign_in.begin_federated(ada.id, factors=("oidc", "mfa"), groups=(), proved_at=at)
    assert people.enter(step).proved_at == expected
    step = people.sign_in.begin_federated(ada.id, factors=("oidc",), groups=(), proved_at=at)
    assert step.pending is not None
    assert people.enter(people.sign_in.finish_code(step.pending, people.code(ada.id))).proved_at == expected


def test_passkey_after_a_provider_proves_anew(people: People) -> None:
    """ASVS 7.5.3."""
    ada = people.add_with_codes("ada", "deployer")
    at = people.clock() - timedelta(seconds=200)
    step = people.sign_in.begin_federated(ada.id, factors=("oidc",), groups=(), proved_at=at)
    assert step.pending is not None
    credential = {"user_id": ada.id, "verified": True}
    step = people.sign_in.finish_passkey(step.pending, people.passkeys.challenge(), credential)
    assert people.enter(step).proved_at == people.clock()


def test_browser_that_a_provider_leads_back_is_known_by_the_digest_of_its_token(people: People) -> None:
    ada = people.add("ada")
    first = people.sign_in.begin("ada", PASSWORD)
    assert first.device is not None
    for device, is_kept in ((digest(first.device), True), (digest("another"), False), (None, False)):
        step = people.sign_in.begin_federated(ada.id, factors=("oidc",), groups=(), device=device)
        assert step.session is not None
        assert (step.device is None) == is_kept


def test_disabled_person_does_not_come_in_by_a_provider(people: People) -> None:
    """A6."""
    ada = people.add("ada")
    people.directory.set_disabled(SERVER, ada.id, True)
    refusal(lambda: people.sign_in.begin_federated(ada.id, factors=("oidc", "mfa"), groups=()))


# ---- what is told, and what it costs


def outcomes(people: People) -> dict[str, tuple[Any, ...]]:
    """Each way to be refused at the first step -> what can be seen of it."""
    people.add("ada", "deployer")
    grace, alan = people.add("grace"), people.directory.add_user(SERVER, "alan")[0]
    people.directory.set_disabled(SERVER, grace.id, True)
    seen = {}
    for label, (name, password) in {
        "unknown": ("nobody", PASSWORD),
        "wrong password": ("ada", OTHER_PASSWORD),
        "disabled": ("grace", PASSWORD),
        "no password yet": (alan.name, PASSWORD),
        "empty": ("", ""),
        "hostile": ("\udcff'; --\0", "\ud800\0"),
        "long": ("x" * 100_000, "x" * 100_000),
    }.items():
        statements: list[str] = []
        with people.database.write() as connection:
            connection.execute(throttles.delete())

        def note(
            connection: object, cursor: object, statement: str, *rest: object, kept: list[str] = statements
        ) -> None:
            kept.append(statement)

        sql_event.listen(people.database._engine, "before_cursor_execute", note)
        before, told = people.passwords.compared, len(people.events.kept)
        error = refusal(lambda name=name, password=password: people.sign_in.begin(name, password))  # type: ignore[misc]
        sql_event.remove(people.database._engine, "before_cursor_execute", note)
        events = [(one.kind, one.outcome, one.why, one.factor, one.address) for one in people.events.kept[told:]]
        seen[label] = (
            str(error),
            error.to_dict(),
            people.passwords.compared - before,
            tuple(statements),
            tuple(events),
        )
    return seen


def test_a4_unknown_name_cannot_be_told_from_a_wrong_password(people: People) -> None:
    """A4, ASVS 6.3.8: the same words, one hash, the same statements in the same order, the same event."""
    seen = outcomes(people)
    assert len({repr(one) for one in seen.values()}) == 1, seen
    assert seen["unknown"][2] == 1


def test_a4_unknown_name_is_slowed_down_like_a_known_one(people: People) -> None:
    """A4, ASVS 6.3.8: throttling tells no more."""
    people.add("ada")

    def waits(name: str) -> list[object]:
        found: list[object] = []
        for _ in range(9):
            try:
                people.sign_in.begin(name, OTHER_PASSWORD)
            except RateLimitError as error:
                found.append((str(error), error.retry_after_s))
                people.clock.pass_s(error.retry_after_s)
            except AuthenticationError as error:
                found.append(str(error))
        return found

    assert waits("ada") == waits("nobody")


def test_second_step_tells_no_more_than_that_it_is_not_accepted(people: People) -> None:
    """ASVS 6.3.8: a wrong code, a used one, an unknown sign-in, one whose time is over."""
    ada = people.add_with_codes("ada")
    used = people.code(ada.id)
    people.sign_in.finish_code(pending(people), used)
    late = pending(people)
    people.clock.pass_s(300)
    told = {
        str(refusal(lambda pair=pair: people.sign_in.finish_code(*pair)))  # type: ignore[misc]
        for pair in (
            (pending(people), "000000"),
            (pending(people), used),
            (pending(people), "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA"),
            ("unknown", people.code(ada.id)),
            (late, people.code(ada.id)),
            ("", ""),
        )
    }
    first = str(refusal(lambda: people.sign_in.begin("ada", OTHER_PASSWORD)))
    assert told == {first}


def test_a2_sign_in_that_waits_is_over_after_five_minutes_and_by_a_clock_that_goes_back(people: People) -> None:
    """A2."""
    ada = people.add_with_codes("ada")
    token = pending(people)
    people.clock.pass_s(299)
    assert people.sign_in.user_of(token) == ada.id
    people.clock.pass_s(1)
    assert people.sign_in.user_of(token) is None
    people.clock.pass_s(-7200)
    assert people.sign_in.user_of(token) is None


def test_sign_in_that_waits_is_no_session(people: People) -> None:
    """A6."""
    people.add_with_codes("ada")
    token = pending(people)
    assert people.sessions.find(token) is None
    with pytest.raises(AuthenticationError):
        people.sessions.prove(token, factors=("totp",))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=25
)
@given(name=st.text(max_size=30), password=st.text(max_size=30), code=st.text(max_size=30))
def test_any_text_is_refused_with_a_named_error(people: People, name: str, password: str, code: str) -> None:
    for act in (
        lambda: people.sign_in.begin(name, password),
        lambda: people.sign_in.finish_code(name, code),
        lambda: people.sign_in.accept_invitation(code, password),
        lambda: people.sign_in.accept_invitation(code, password, name=name),
    ):
        with pytest.raises(ShipsightError):
            act()


# ---- guessing


def hammer(people: People, name: str, tries: int) -> list[str]:
    """What somebody sees who guesses passwords without a pause."""
    seen = []
    for number in range(tries):
        try:
            people.sign_in.begin(name, f"a guess, number {number}")
        except (AuthenticationError, RateLimitError) as error:
            seen.append(error.code)
    return seen


def test_a2_owner_gets_in_with_a_known_browser_while_somebody_hammers(people: People) -> None:
    """A2, ASVS 6.3.1: nobody is locked out by others."""
    ada = people.add_with_codes("ada")
    _, step = people.enter_with_codes(ada)
    device = step.device
    assert device is not None
    for _ in range(5):
        assert hammer(people, "ada", 20).count("rate-limit") >= 15
        with pytest.raises(RateLimitError):
            people.sign_in.begin("ada", PASSWORD)
        person, again = people.enter_with_codes(ada, device=device)
        assert person.name == "ada"
        assert again.device == device
        people.clock.pass_s(600)


def test_a2_owner_gets_in_with_passkey_or_recovery_code_while_somebody_guesses_codes(people: People) -> None:
    """A2: somebody who knows the password."""
    ada = people.add_with_codes("ada")
    credential = put_passkey(people, ada.id)
    person, _ = people.enter_with_codes(ada)
    recovery = people.factors.make_recovery_codes(person, ada.id)[0]
    for _ in range(5):
        refusal(lambda: people.sign_in.finish_code(pending(people), "000000"))
    with pytest.raises(RateLimitError):
        people.sign_in.finish_code(pending(people), people.code(ada.id))
    assert people.sign_in.finish_code(pending(people), recovery).kind == "session"
    assert people.sign_in.finish_passkey(None, people.passkeys.challenge(), credential).kind == "session"


def test_a2_browser_that_is_known_is_slowed_down_by_itself(people: People) -> None:
    """A2: its token may have been stolen."""
    people.add("ada")
    device = people.sign_in.begin("ada", PASSWORD).device
    for _ in range(5):
        refusal(lambda: people.sign_in.begin("ada", OTHER_PASSWORD, device=device))
    with pytest.raises(RateLimitError):
        people.sign_in.begin("ada", PASSWORD, device=device)
    assert people.sign_in.begin("ada", PASSWORD).kind == "session"


@pytest.mark.parametrize("what", ["made up", "of another", "over"])
def test_a2_browser_that_is_not_known_counts_for_the_account(people: People, what: str) -> None:
    """A2: no token buys tries on somebody else's account."""
    people.add("ada")
    people.add("grace")
    device: str | None = "x" * 43
    if what == "of another":
        device = people.sign_in.begin("grace", PASSWORD).device
    elif what == "over":
        device = people.sign_in.begin("ada", PASSWORD).device
        people.clock.pass_s(366 * 86400)
    hammer(people, "ada", 5)
    with pytest.raises(RateLimitError):
        people.sign_in.begin("ada", PASSWORD, device=device)


def test_a2_device_token_is_never_taken_from_whoever_comes(people: People) -> None:
    """A6: fixation of what makes a browser known."""
    people.add("ada")
    planted = "x" * 43
    assert people.sign_in.begin("ada", PASSWORD, device=planted).device not in (None, planted)


def test_browsers_that_are_known_are_twenty_at_most(people: People) -> None:
    people.add("ada")
    for _ in range(25):
        people.sign_in.begin("ada", PASSWORD)
        people.clock.pass_s(1)
    assert len(people.dump()["known_devices"]) == 20


def test_a2_codes_are_counted_by_account_over_all_sign_ins_that_wait(people: People) -> None:
    """A2: beginning anew gives no more tries; nor does another address."""
    ada = people.add_with_codes("ada")
    tokens = [pending(people) for _ in range(8)]
    seen = []
    for number, token in enumerate(tokens):
        try:
            people.sign_in.finish_code(token, "000000", address=f"192.0.2.{number}")
        except (AuthenticationError, RateLimitError) as error:
            seen.append(error.code)
    assert seen == ["unauthenticated"] * 5 + ["rate-limit"] * 3
    assert people.sessions.list(ada.id) == []


def test_a2_right_password_does_not_give_more_tries_of_codes(people: People) -> None:
    """A2: a thief of the password has it right each time."""
    people.add_with_codes("ada")
    for _ in range(5):
        refusal(lambda: people.sign_in.finish_code(pending(people), "000000"))
    for _ in range(3):
        with pytest.raises(RateLimitError):
            people.sign_in.finish_code(pending(people), "000000")


def test_right_code_forgives_wrong_ones(people: People) -> None:
    ada = people.add_with_codes("ada")
    for _ in range(3):
        token = pending(people)
        for _ in range(4):
            refusal(lambda token=token: people.sign_in.finish_code(token, "000000"))  # type: ignore[misc]
        people.sign_in.finish_code(token, people.code(ada.id))
        people.clock.pass_s(60)


# ---- events


def test_each_try_is_told_with_factor_address_and_outcome_and_no_secret(people: People) -> None:
    """ASVS 16.3.1, 16.2.5."""
    ada = people.add_with_codes("ada")
    people.events.kept.clear()
    refusal(lambda: people.sign_in.begin("ada", OTHER_PASSWORD, address="192.0.2.1"))
    step = people.sign_in.begin("ada", PASSWORD, address="192.0.2.2")
    assert step.pending is not None
    refusal(lambda: people.sign_in.finish_code(str(step.pending), "000000", address="192.0.2.3"))
    code = people.code(ada.id)
    done = people.sign_in.finish_code(step.pending, code, address="192.0.2.4", agent="a browser")
    told = [(one.kind, one.outcome, one.actor, one.why, one.factor, one.address) for one in people.events.kept]
    sign_in, refused = EventKind.SIGN_IN, Outcome.REFUSED
    assert told == [
        (sign_in, refused, "person:ada", "unauthenticated", "password", "192.0.2.1"),
        (sign_in, refused, "person:ada", "unauthenticated", "totp", "192.0.2.3"),
        (sign_in, Outcome.DONE, "person:ada", None, "password+totp", "192.0.2.4"),
    ]
    assert done.session is not None
    seen = repr(people.events.kept) + repr(step) + repr(done)
    for secret in (PASSWORD, OTHER_PASSWORD, code, step.pending, done.session.token, done.session.csrf, done.device):
        assert str(secret) not in seen


def test_password_typed_into_the_field_for_the_name_is_not_told(people: People) -> None:
    """ASVS 16.2.5: what nobody here is called is told as something that can be counted, and not read."""
    people.add("ada")
    for name in ("hunter2hunter2", "Hunter2hunter2", "another-name", "", "not a name!"):
        refusal(lambda name=name: people.sign_in.begin(name, PASSWORD, address="192.0.2.1"))
    hammer(people, "hunter2hunter2", 5)
    told = [one.actor for one in people.events.kept if one.outcome is Outcome.REFUSED]
    assert "hunter2" not in repr(people.events.kept)
    assert told[0] == told[1] != told[2]
    assert (told[3], told[4]) == ("nobody", "nobody")
    assert re.fullmatch("unknown:[0-9a-f]{12}", told[0])
    assert set(told[5:]) == {told[0]}
    assert {one.actor for one in people.events.of(EventKind.LIMITED)} == {told[0]}


def test_tries_that_come_too_early_are_told(people: People) -> None:
    """ASVS 16.3.3."""
    people.add("ada")
    hammer(people, "ada", 7)
    found = people.events.of(EventKind.LIMITED)
    assert [(one.outcome, one.actor, one.factor) for one in found] == [(Outcome.REFUSED, "person:ada", "password")] * 2


@pytest.mark.parametrize("way", ["password", "code", "passkey", "federated", "invitation", "step-up", "change"])
def test_nobody_gets_in_when_it_cannot_be_told(people: People, way: str) -> None:
    """ASVS 16.5.3: fail closed, and nothing is used up."""
    ada = people.add("ada") if way in ("password", "federated", "change") else people.add_with_codes("ada")
    credential = put_passkey(people, ada.id) if way == "passkey" else {}
    token = pending(people) if way == "code" else ""
    person = people.find(people.sessions.begin(ada.id, factors=("password", "totp")))
    invitation = people.directory.invite(SERVER, ada.id)
    challenge = people.passkeys.challenge()
    before = people.dump()
    people.events.fails = True
    acts: dict[str, Callable[[], Step | object]] = {
        "password": lambda: people.sign_in.begin("ada", PASSWORD),
        "code": lambda: people.sign_in.finish_code(token, people.code(ada.id)),
        "passkey": lambda: people.sign_in.finish_passkey(None, challenge, credential),
        "federated": lambda: people.sign_in.begin_federated(ada.id, factors=("oidc", "mfa"), groups=()),
        "invitation": lambda: people.sign_in.accept_invitation(invitation, OTHER_PASSWORD),
        "step-up": lambda: people.sign_in.prove_password(person, PASSWORD, people.code(ada.id)),
        "change": lambda: people.sign_in.change_password(person, PASSWORD, OTHER_PASSWORD),
    }
    with pytest.raises(OSError, match="no space"):
        acts[way]()
    assert people.dump() == before
