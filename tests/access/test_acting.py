# SPDX-License-Identifier: Apache-2.0
"""Rights hold at the moment of the act: who was somebody when they asked, and is not any more, changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyotp
import pytest
from sqlalchemy import select
from tests.access.conftest import Clock, KeptEvents
from tests.access.people import OTHER_PASSWORD, PASSWORD, People

from shipsight.access import SERVER, Action, EventKind, Grant, Principal, Role
from shipsight.access.client_certificates import ClientCertificates
from shipsight.access.directory import User
from shipsight.access.keys import Keys
from shipsight.access.sessions import SECOND_FACTORS
from shipsight.access.store import Database
from shipsight.access.store.tables import known_devices, sessions
from shipsight.errors import AuthenticationError, ForbiddenError, StepUpError

PREDICTOR = [Grant("predictor")]
ROLE = Role("labeller", frozenset({Action.LABELS_READ}))


class House(People):
    """People, with keys and certificates."""

    def __init__(self, database: Database, clock: Clock, events: KeptEvents) -> None:
        super().__init__(database, clock, events)
        self.keys, self.certificates = Keys(database, events, clock), ClientCertificates(database, events, clock)


@pytest.fixture
def house(database: Database, clock: Clock, events: KeptEvents) -> House:
    return House(database, clock, events)


def administrations(house: House, actor: Principal, target: User) -> dict[str, Callable[[], object]]:
    """All that takes the right to change access."""
    directory, keys, certificates = house.directory, house.keys, house.certificates
    directory.apply_role(SERVER, ROLE)
    key, _ = keys.add(SERVER, "ci", grants=PREDICTOR)
    entry = certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=PREDICTOR)
    theirs = house.sessions.begin(target.id, factors=("password", "totp"))
    return {
        "add_user": lambda: directory.add_user(actor, "mallory", grants=[Grant("admin")]),
        "invite": lambda: directory.invite(actor, target.id),
        "set_grants": lambda: directory.set_grants(actor, "user", target.id, [Grant("admin")]),
        "set_group": lambda: directory.set_grants(actor, "group", "crew", [Grant("admin")]),
        "set_disabled": lambda: directory.set_disabled(actor, target.id, True),
        "reset_factors": lambda: directory.reset_factors(actor, target.id),
        "remove_user": lambda: directory.remove_user(actor, target.id),
        "apply_role": lambda: directory.apply_role(actor, Role("labeller", frozenset({Action.DATA_EXPORT}))),
        "remove_role": lambda: directory.remove_role(actor, "labeller"),
        "add_key": lambda: keys.add(actor, "more", grants=PREDICTOR),
        "rotate_key": lambda: keys.rotate(actor, key.id),
        "revoke_key": lambda: keys.revoke(actor, key.id),
        "add_certificate": lambda: certificates.add(actor, "c", field="subject", value="CN=c", grants=PREDICTOR),
        "remove_certificate": lambda: certificates.remove(actor, entry.id),
        "remove_totp": lambda: house.factors.remove_totp(actor, target.id),
        "end_one": lambda: house.sessions.end_one(actor, theirs.handle),
        "end_all": lambda: house.sessions.end_all(actor, target.id),
    }


ADMINISTRATIONS = (
    "add_user", "invite", "set_grants", "set_group", "set_disabled", "reset_factors", "remove_user", "apply_role",
    "remove_role", "add_key", "rotate_key", "revoke_key", "add_certificate", "remove_certificate", "remove_totp",
    "end_one", "end_all",
)  # fmt: skip


@pytest.mark.parametrize("act", ADMINISTRATIONS)
@pytest.mark.parametrize("meanwhile", ["disabled", "removed", "signed-out", "reduced"])
def test_a5_administrator_who_is_none_any_more_changes_nothing(house: House, act: str, meanwhile: str) -> None:
    """A5, ASVS 7.4.1, 7.4.2, 8.3.2: with the principal of a request that began before."""
    house.add("root", "admin")
    ada, target = house.add("ada", "admin"), house.add_with_codes("grace", "viewer")
    session = house.sessions.begin(ada.id, factors=("password", "totp"))
    actor = house.find(session)
    acts = administrations(house, actor, target)
    assert set(acts) == set(ADMINISTRATIONS)
    {
        "disabled": lambda: house.directory.set_disabled(SERVER, ada.id, True),
        "removed": lambda: house.directory.remove_user(SERVER, ada.id),
        "signed-out": lambda: house.sessions.end(session.token, actor),
        "reduced": lambda: house.directory.set_grants(SERVER, "user", ada.id, [Grant("viewer")]),
    }[meanwhile]()
    before = house.dump()
    with pytest.raises(ForbiddenError if meanwhile == "reduced" else AuthenticationError):
        acts[act]()
    assert house.dump() == before


@pytest.mark.parametrize("act", ADMINISTRATIONS)
def test_administrator_who_still_is_one_does_it(house: House, act: str) -> None:
    house.add("root", "admin")
    target = house.add_with_codes("grace", "viewer")
    actor = house.find(house.sessions.begin(house.add("ada", "admin").id, factors=("password", "totp")))
    acts, before = administrations(house, actor, target), house.dump()
    acts[act]()
    assert house.dump() != before


def own_affairs(house: House, actor: Principal, ada: User) -> dict[str, Callable[[], object]]:
    """What a person does about themselves."""
    key, _ = house.keys.add(actor, "mine", grants=PREDICTOR, owner_id=ada.id)
    other = house.sessions.begin(ada.id, factors=("password", "totp"))
    seed = house.factors.begin_totp(ada.id).secret
    return {
        "add_key": lambda: house.keys.add(actor, "more", grants=PREDICTOR, owner_id=ada.id),
        "rotate_key": lambda: house.keys.rotate(actor, key.id),
        "revoke_key": lambda: house.keys.revoke(actor, key.id),
        "confirm_totp": lambda: house.factors.confirm_totp(actor, ada.id, pyotp.TOTP(seed).at(house.clock())),
        "remove_totp": lambda: house.factors.remove_totp(actor, ada.id),
        "recovery_codes": lambda: house.factors.make_recovery_codes(actor, ada.id),
        "end_one": lambda: house.sessions.end_one(actor, other.handle),
        "end_all": lambda: house.sessions.end_all(actor, ada.id),
    }


OWN = ("add_key", "rotate_key", "revoke_key", "confirm_totp", "remove_totp", "recovery_codes", "end_one", "end_all")


@pytest.mark.parametrize("act", OWN)
def test_a6_stolen_session_that_has_ended_leaves_nothing_behind(house: House, act: str) -> None:
    """A6, ASVS 7.4.2: its owner ended it while the thief's request was on its way."""
    ada = house.add_with_codes("ada", "predictor")
    stolen = house.find(house.sessions.begin(ada.id, factors=("password", "totp")))
    acts = own_affairs(house, stolen, ada)
    assert set(acts) == set(OWN)
    owner, _ = house.enter_with_codes(ada)
    house.sessions.end_one(owner, stolen.session or "")
    before = house.dump()
    with pytest.raises(AuthenticationError):
        acts[act]()
    assert house.dump() == before


@pytest.mark.parametrize("act", OWN)
def test_person_whose_session_is_there_does_it(house: House, act: str) -> None:
    ada = house.add_with_codes("ada", "predictor")
    me = house.find(house.sessions.begin(ada.id, factors=("password", "totp")))
    acts = own_affairs(house, me, ada)
    before = house.dump()
    acts[act]()
    assert house.dump() != before


def test_a6_password_is_not_changed_in_a_session_that_has_ended(house: House) -> None:
    ada = house.add_with_codes("ada", "viewer")
    session = house.sessions.begin(ada.id, factors=("password", "totp"))
    stolen = house.find(session)
    house.sessions.end(session.token, stolen)
    before = house.dump()
    with pytest.raises(AuthenticationError):
        house.sign_in.change_password(stolen, PASSWORD, OTHER_PASSWORD)
    assert house.dump() == before


def test_session_of_another_is_no_session_of_ones_own(house: House) -> None:
    """A principal is looked at by session and person together."""
    ada, grace = house.add("ada", "admin"), house.add("grace", "admin")
    theirs = house.sessions.begin(grace.id, factors=("password", "totp"))
    me = house.find(house.sessions.begin(ada.id, factors=("password", "totp")))
    mixed = Principal(me.kind, me.name, rights=me.rights, id=me.id, factors=me.factors, session=theirs.handle)
    with pytest.raises(AuthenticationError):
        house.directory.add_user(mixed, "mallory")


# --- a fresh proof for the sessions of others -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["end_one", "end_all"])
def test_sessions_of_another_are_ended_after_a_fresh_proof_alone(house: House, how: str) -> None:
    """ASVS 7.4.5, 7.5.3; one's own may be ended at any time (7.5.2)."""
    grace, ada = house.add("grace", "viewer"), house.add("ada", "admin")
    me = house.find(house.sessions.begin(ada.id, factors=("password", "totp")))
    mine = house.sessions.begin(ada.id, factors=("password", "totp"))
    theirs = house.sessions.begin(grace.id, factors=("password",))
    house.clock.pass_s(301)
    acts: dict[str, Any] = {
        "end_one": lambda session, owner: house.sessions.end_one(me, session.handle),
        "end_all": lambda session, owner: house.sessions.end_all(me, owner.id, but=me.session),
    }
    with pytest.raises(StepUpError):
        acts[how](theirs, grace)
    assert house.sessions.find(theirs.token) is not None
    acts[how](mine, ada)
    assert house.sessions.find(mine.token) is None


# --- what ends is told, and browsers are forgotten --------------------------------------------------------------------


def ended(events: KeptEvents) -> list[tuple[str, str | None, object]]:
    return [(one.actor, one.subject, one.details["session"]) for one in events.of(EventKind.SESSION_ENDED)]


def test_every_session_that_ends_is_told(house: House, events: KeptEvents) -> None:
    """ASVS 16.3.1: by being disabled, by losing factors, and by the owner's first second factor."""
    ada = house.add("ada")
    me = house.enter(house.sign_in.begin("ada", PASSWORD))
    weak = house.sessions.begin(ada.id, factors=("password",))
    house.enrol(me)
    assert ended(events) == [("person:ada", "person:ada", weak.handle)]
    events.kept.clear()
    house.directory.reset_factors(SERVER, ada.id)
    assert ended(events) == [(SERVER.told(), "person:ada", me.session)]
    assert [one.factor for one in events.of(EventKind.FACTOR_REMOVED)] == ["totp"]
    other = house.sessions.begin(ada.id, factors=("password",))
    events.kept.clear()
    house.directory.set_disabled(SERVER, ada.id, True)
    assert ended(events) == [(SERVER.told(), "person:ada", other.handle)]
    with house.database.read() as connection:
        assert connection.execute(select(sessions)).all() == []


def devices(house: House) -> int:
    with house.database.read() as connection:
        return len(connection.execute(select(known_devices)).all())


def test_browsers_are_forgotten_with_a_password_that_may_have_been_stolen(house: House) -> None:
    """ASVS 6.3.1, 7.4.3: a thief who signed in once would have a count of tries of their own for a year."""
    ada = house.add_with_codes("ada")
    me, step = house.enter_with_codes(ada)
    assert step.device is not None
    assert devices(house) > 0
    house.sign_in.change_password(me, PASSWORD, OTHER_PASSWORD)
    assert devices(house) == 0


def test_browsers_are_forgotten_with_the_first_second_factor_and_stay_with_the_next(house: House) -> None:
    house.add("ada")
    me = house.enter(house.sign_in.begin("ada", PASSWORD))
    assert devices(house) > 0
    house.enrol(me)
    assert devices(house) == 0
    house.clock.pass_s(90)
    again, _ = house.enter_with_codes(house.directory.user("ada"))
    assert devices(house) == 1
    house.enrol(again)
    assert devices(house) == 1
    assert SECOND_FACTORS & set(again.factors)
