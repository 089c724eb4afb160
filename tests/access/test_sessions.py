# SPDX-License-Identifier: Apache-2.0
"""Sessions: how they end, and what their tokens are worth."""

from __future__ import annotations

import base64
import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update
from tests.access.conftest import Clock, KeptEvents
from tests.access.people import ABSOLUTE_S, FRESH_S, IDLE_S, OTHER_PASSWORD, PASSWORD, People

from shipsight.access import Action, EventKind, Grant
from shipsight.access.principal import SERVER, Principal, PrincipalKind
from shipsight.access.sessions import Session
from shipsight.access.store import Database
from shipsight.access.store.tables import sessions
from shipsight.errors import AuthenticationError, ForbiddenError, NotFoundError, StepUpError


@pytest.fixture
def people(database: Database, clock: Clock, events: KeptEvents) -> People:
    return People(database, clock, events)


def begin(people: People, user_id: str, **more: str) -> Session:
    return people.sessions.begin(user_id, factors=("password", "totp"), **more)


def test_token_has_256_random_bits_and_is_kept_as_a_hash(people: People) -> None:
    """ASVS 7.2.2, 7.2.3: opaque, random, at least 128 bits."""
    ada = people.add("ada")
    tokens = [begin(people, ada.id).token for _ in range(5)]
    assert len(set(tokens)) == 5
    assert all(len(base64.urlsafe_b64decode(token + "=")) == 32 for token in tokens)
    assert not any(token in repr(people.dump()) for token in tokens)


def test_session_tells_who_it_is_of_and_what_they_may_do_now(people: People) -> None:
    """ASVS 7.2.1: at the server, on each use."""
    ada = people.add("ada", "viewer", "deployer@team-a-*")
    session = begin(people, ada.id)
    found = people.sessions.find(session.token)
    assert found is not None
    person, csrf = found
    assert (person.kind, person.name, person.id, person.session) == (
        PrincipalKind.PERSON,
        "ada",
        ada.id,
        session.handle,
    )
    assert csrf == session.csrf
    assert person.factors == ("password", "totp")
    assert person.may(Action.ROLLOUT_PROMOTE, "team-a-boats")
    assert not person.may(Action.ROLLOUT_PROMOTE, "team-b-boats")


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=40
)
@given(at=st.integers(0, 42), put=st.characters(codec="utf-8"))
def test_any_changed_character_of_a_token_is_refused(people: People, at: int, put: str) -> None:
    session = _known_session(people)
    changed = session.token[:at] + put + session.token[at + 1 :]
    assert (people.sessions.find(changed) is not None) == (changed == session.token)


def _known_session(people: People) -> Session:
    if not hasattr(people, "known_session"):
        people.known_session = begin(people, people.add("ada").id)  # type: ignore[attr-defined]
    return people.known_session  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("token", ["", "\ud800", "x" * 1_000_000, "0", "' OR 1=1 --"])
def test_hostile_token_finds_nothing(people: People, token: str) -> None:
    begin(people, people.add("ada").id)
    assert people.sessions.find(token) is None


def test_handle_and_hash_and_csrf_are_no_tokens(people: People) -> None:
    session = begin(people, people.add("ada").id)
    with people.database.read() as connection:
        kept = connection.execute(select(sessions.c.token_hash)).scalar_one()
    for text in (session.handle, session.csrf, kept.hex(), kept.decode("latin-1")):
        assert people.sessions.find(text) is None


def test_session_ends_when_it_is_not_used(people: People) -> None:
    """ASVS 7.3.1."""
    session = begin(people, people.add("ada").id)
    people.clock.pass_s(IDLE_S - 1)
    assert people.sessions.find(session.token) is not None
    people.clock.pass_s(IDLE_S)
    assert people.sessions.find(session.token) is None
    assert people.sessions.by_handle(session.handle) is None


def test_session_ends_after_a_time_however_much_it_is_used(people: People) -> None:
    """ASVS 7.3.2; proving oneself again makes none longer."""
    session = begin(people, people.add("ada").id)
    until, token = session.expires_at, session.token
    while people.clock() < until:
        assert people.sessions.find(token) is not None
        renewed = people.sessions.prove(token, factors=("passkey",))
        assert renewed.expires_at == until
        token = renewed.token
        people.clock.pass_s(ABSOLUTE_S / 30)
    assert people.sessions.find(token) is None


def test_a_request_that_is_refused_does_not_keep_a_session_alive(people: People) -> None:
    session = begin(people, people.add("ada").id)
    people.clock.pass_s(IDLE_S)
    for _ in range(3):
        assert people.sessions.find(session.token) is None


def test_clock_that_goes_back_makes_no_session_longer(people: People) -> None:
    session = begin(people, people.add("ada").id)
    people.clock.pass_s(-3600)
    assert people.sessions.find(session.token) is None
    people.clock.pass_s(3600 - 30)  # what clocks are set right by
    assert people.sessions.find(session.token) is not None


def test_use_is_written_at_most_once_a_minute(people: People) -> None:
    session = begin(people, people.add("ada").id)

    def seen() -> object:
        with people.database.read() as connection:
            return connection.execute(select(sessions.c.seen_at)).scalar_one()

    at = [people.clock()]
    for _ in range(12):
        people.clock.pass_s(10)
        people.sessions.find(session.token)
        at.append(seen())  # type: ignore[arg-type]
    assert len(set(at)) == 3


def test_a6_session_of_before_signing_in_is_not_the_one_after(people: People) -> None:
    """A6, ASVS 7.2.4: fixation; no token is taken from whoever comes."""
    ada = people.add_with_codes("ada")
    fixed = people.sign_in.begin("ada", PASSWORD)
    assert fixed.pending is not None
    assert people.sessions.find(fixed.pending) is None
    step = people.sign_in.finish_code(fixed.pending, people.code(ada.id))
    assert step.session is not None
    assert step.session.token != fixed.pending
    assert people.sessions.find(fixed.pending) is None


def test_a6_proving_oneself_again_gives_a_new_token_and_the_old_one_ends(people: People) -> None:
    """A6, ASVS 7.2.4."""
    session = begin(people, people.add("ada").id)
    people.clock.pass_s(FRESH_S)
    assert not people.find(session).is_fresh(people.clock())
    renewed = people.sessions.prove(session.token, factors=("passkey",))
    assert renewed.handle == session.handle
    assert len({session.token, renewed.token, session.csrf, renewed.csrf}) == 4
    assert people.sessions.find(session.token) is None
    person = people.find(renewed)
    assert person.is_fresh(people.clock())
    assert person.factors == ("password", "totp", "passkey")
    with pytest.raises(AuthenticationError):
        people.sessions.prove(session.token, factors=("passkey",))


def test_a6_signing_out_ends_a_session_at_once(people: People) -> None:
    """A6, ASVS 7.4.1: reuse after logout."""
    session, other = (begin(people, people.add(name).id) for name in ("ada", "grace"))
    people.sessions.end(session.token, people.find(session))
    assert people.sessions.find(session.token) is None
    assert people.sessions.by_handle(session.handle) is None
    assert people.sessions.find(other.token) is not None
    people.sessions.end(session.token, SERVER)  # again: nothing


def test_a6_disabling_a_person_ends_their_sessions_at_once_and_for_good(people: People) -> None:
    """A6, ASVS 7.4.2: reuse after disable, also once they are let in again."""
    ada = people.add("ada")
    tokens = [begin(people, ada.id).token for _ in range(3)]
    people.directory.set_disabled(SERVER, ada.id, True)
    assert [people.sessions.find(token) for token in tokens] == [None] * 3
    people.directory.set_disabled(SERVER, ada.id, False)
    assert [people.sessions.find(token) for token in tokens] == [None] * 3


def test_disabled_person_has_no_session_even_where_a_row_is_left(people: People) -> None:
    ada = people.add("ada")
    people.directory.set_disabled(SERVER, ada.id, True)
    with pytest.raises(AuthenticationError):
        begin(people, ada.id)
    people.directory.set_disabled(SERVER, ada.id, False)
    session = begin(people, ada.id)
    from shipsight.access.store.tables import users

    with people.database.write() as connection:
        connection.execute(update(users).values(is_disabled=True))
    assert people.sessions.find(session.token) is None
    with pytest.raises(AuthenticationError):
        people.sessions.prove(session.token, factors=("passkey",))


def test_a6_removing_a_person_ends_their_sessions(people: People) -> None:
    """A6, ASVS 7.4.2."""
    ada = people.add("ada")
    session = begin(people, ada.id)
    people.directory.remove_user(SERVER, ada.id)
    assert people.sessions.find(session.token) is None


def test_a6_changing_the_password_ends_all_other_sessions(people: People) -> None:
    """A6, ASVS 7.4.3."""
    ada = people.add("ada")
    mine, other = begin(people, ada.id), begin(people, ada.id)
    people.sign_in.change_password(people.find(mine), PASSWORD, OTHER_PASSWORD)
    assert people.sessions.find(mine.token) is not None
    assert people.sessions.find(other.token) is None


def test_a5_rights_that_change_are_those_of_open_sessions_at_once(people: People) -> None:
    """A5, ASVS 8.3.2."""
    ada = people.add("ada", "deployer")
    session = begin(people, ada.id)
    before = people.directory.revision()
    people.directory.set_grants(SERVER, "user", ada.id, [Grant("viewer")])
    person = people.find(session)
    assert not person.may(Action.ROLLOUT_PROMOTE, "boats")
    assert person.may(Action.MODELS_READ, "boats")
    assert people.directory.revision() > before


def test_groups_of_a_session_give_rights_as_long_as_they_have_them(people: People) -> None:
    ada = people.add("ada")
    people.directory.set_grants(SERVER, "group", "crew", [Grant("operator")])
    session = people.sessions.begin(ada.id, factors=("oidc", "mfa"), groups=("crew", "others"))
    assert people.find(session).may(Action.MODELS_LOAD, "boats")
    people.directory.set_grants(SERVER, "group", "crew", [])
    assert not people.find(session).may(Action.MODELS_LOAD, "boats")


@pytest.mark.parametrize("factors", [("password",), ("oidc",)])
def test_session_of_one_factor_may_do_nothing_where_rights_need_two(people: People, factors: tuple[str, ...]) -> None:
    """ASVS 6.3.3: also where the rights were given after it began."""
    ada = people.add("ada", "viewer")
    session = people.sessions.begin(ada.id, factors=factors)
    assert not people.find(session).must_enrol
    people.directory.set_grants(SERVER, "user", ada.id, [Grant("viewer"), Grant("deployer", ("boats",))])
    person = people.find(session)
    assert person.must_enrol
    assert not any(person.may(action, model) for action in Action for model in (None, "boats"))
    with pytest.raises(ForbiddenError, match="Add a second factor first"):
        person.require(Action.MODELS_READ, "boats")


def test_sensitive_acts_need_a_proof_of_a_short_while_ago(people: People) -> None:
    """ASVS 7.5.3."""
    ada = people.add("ada", "deployer")
    session = begin(people, ada.id)
    people.find(session).require(Action.ROLLOUT_PROMOTE, "boats", now=people.clock())
    people.clock.pass_s(FRESH_S)
    person = people.find(session)
    person.require(Action.MODELS_LOAD, "boats", now=people.clock())
    with pytest.raises(StepUpError):
        person.require(Action.ROLLOUT_PROMOTE, "boats", now=people.clock())


def test_a6_eleventh_session_of_a_person_ends_the_one_not_used_for_longest(people: People) -> None:
    """A6, ASVS 7.1.2: ten at once."""
    ada, grace = people.add("ada"), people.add("grace")
    others = begin(people, grace.id)
    mine = []
    for _ in range(10):
        mine.append(begin(people, ada.id))
        people.clock.pass_s(61)
    people.sessions.find(mine[0].token)
    mine.append(begin(people, ada.id))
    found = [people.sessions.find(one.token) is not None for one in mine]
    assert found == [True, False] + [True] * 9
    assert people.sessions.find(others.token) is not None
    ended = people.events.of(EventKind.SESSION_ENDED)
    assert [(one.actor, one.details["session"]) for one in ended] == [("person:ada", mine[1].handle)]


def test_own_sessions_are_listed_with_what_tells_them_apart_and_nothing_secret(people: People) -> None:
    """ASVS 7.5.2."""
    ada, grace = people.add("ada"), people.add("grace")
    first = begin(people, ada.id, address="192.0.2.7", agent="a browser" * 100)
    people.clock.pass_s(60)
    second = begin(people, ada.id)
    third = begin(people, grace.id)
    found = people.sessions.list(ada.id)
    assert [one.handle for one in found] == [second.handle, first.handle]
    assert (found[1].address, len(found[1].agent or ""), found[1].factors) == ("192.0.2.7", 200, ("password", "totp"))
    told = repr([dataclasses.asdict(one) for one in people.sessions.list()])
    assert third.handle in told
    assert not any(secret in told + repr(first) for secret in (first.token, first.csrf, second.token, third.csrf))
    people.clock.pass_s(IDLE_S)
    assert people.sessions.list() == []


def test_own_sessions_are_ended_one_by_one_or_all_but_this(people: People) -> None:
    """ASVS 7.4.3, 7.5.2."""
    ada = people.add("ada")
    tokens = [begin(people, ada.id) for _ in range(4)]
    me = people.find(tokens[0])
    people.sessions.end_one(me, tokens[1].handle)
    assert [people.sessions.find(one.token) is not None for one in tokens] == [True, False, True, True]
    people.sessions.end_all(me, ada.id, but=me.session)
    assert [people.sessions.find(one.token) is not None for one in tokens] == [True, False, False, False]
    with pytest.raises(NotFoundError):
        people.sessions.end_one(me, tokens[1].handle)


def test_sessions_of_another_are_ended_by_administrators_alone(people: People) -> None:
    """ASVS 7.4.5, 8.2.2; that there is such a session is not told to others."""
    ada, grace, alan = people.add("ada"), people.add("grace", "admin"), people.add("alan", "deployer")
    theirs = begin(people, ada.id)
    admin, other = people.find(begin(people, grace.id)), people.find(begin(people, alan.id))
    with pytest.raises(NotFoundError):
        people.sessions.end_one(other, theirs.handle)
    with pytest.raises(ForbiddenError):
        people.sessions.end_all(other, ada.id)
    assert people.sessions.find(theirs.token) is not None
    people.sessions.end_one(admin, theirs.handle)
    assert people.sessions.find(theirs.token) is None
    theirs = begin(people, ada.id)
    people.sessions.end_all(admin, ada.id)
    assert people.sessions.find(theirs.token) is None


def test_machine_cannot_end_a_session_as_its_owner(people: People) -> None:
    """A5: a service account used as a person."""
    ada = people.add("ada")
    session = begin(people, ada.id)
    machine = Principal(PrincipalKind.KEY, "camera", id="0123456789abcdef")
    with pytest.raises(NotFoundError):
        people.sessions.end_one(machine, session.handle)
    with pytest.raises(ForbiddenError):
        people.sessions.end_all(machine, ada.id)


def test_each_end_makes_the_revision_grow(people: People) -> None:
    """What is kept of sessions in memory goes by it."""
    ada = people.add("ada")
    session, other = begin(people, ada.id), begin(people, ada.id)
    seen = [people.directory.revision()]
    session = people.sessions.prove(session.token, factors=("totp",))
    seen.append(people.directory.revision())
    people.sessions.end(session.token, SERVER)
    seen.append(people.directory.revision())
    people.sessions.end_all(SERVER, ada.id)
    seen.append(people.directory.revision())
    assert seen == sorted(set(seen))
    assert people.sessions.find(other.token) is None


def test_sessions_that_ended_do_not_fill_the_store(people: People) -> None:
    ada = people.add("ada")
    for _ in range(5):
        begin(people, ada.id)
        people.clock.pass_s(IDLE_S)
    assert len(people.dump()["sessions"]) == 1


def test_begin_and_end_are_told_with_factors_and_address(people: People) -> None:
    """ASVS 16.3.1."""
    ada = people.add("ada")
    people.events.kept.clear()
    session = begin(people, ada.id, address="192.0.2.7", agent="a browser")
    people.sessions.end(session.token, people.find(session))
    begun, ended = people.events.kept
    assert (begun.kind, begun.actor, begun.factor, begun.address) == (
        EventKind.SIGN_IN,
        "person:ada",
        "password+totp",
        "192.0.2.7",
    )
    assert (ended.kind, ended.actor) == (EventKind.SIGN_OUT, "person:ada")
    assert begun.details["session"] == ended.details["session"] == session.handle
