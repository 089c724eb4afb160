# SPDX-License-Identifier: Apache-2.0
"""Who reads the audit log is decided on the server's own machine; who has groups elsewhere changes none without them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update
from tests.access.conftest import Clock, KeptEvents
from tests.access.people import People

from shipsight.access import SERVER, Action, Grant, Principal, Role
from shipsight.access.store import Database
from shipsight.access.store.tables import users
from shipsight.errors import ForbiddenError

READER = Role("reader", frozenset({Action.AUDIT_READ}))
PLAIN = Role("plain", frozenset({Action.MODELS_READ}))


@pytest.fixture
def people(database: Database, clock: Clock, events: KeptEvents) -> People:
    return People(database, clock, events)


def administrator(people: People, *, factors: tuple[str, ...] = ("password", "totp")) -> Principal:
    user = people.add("ada", "admin")
    return people.find(people.sessions.begin(user.id, factors=factors))


def acts_of(people: People, actor: Principal) -> dict[str, Callable[[], object]]:
    """All ways to become somebody who reads the audit log, or to make somebody one."""
    directory = people.directory
    directory.apply_role(SERVER, READER)
    directory.apply_role(SERVER, PLAIN)
    grace, alan = people.add("grace", "viewer"), people.add_with_codes("alan", "reader")
    directory.set_grants(SERVER, "user", grace.id, [Grant("plain")])
    return {
        "grant": lambda: directory.set_grants(actor, "user", grace.id, [Grant("auditor")]),
        "grant-own-role": lambda: directory.set_grants(actor, "user", grace.id, [Grant("plain"), Grant("reader")]),
        "grant-group": lambda: directory.set_grants(actor, "group", "crew", [Grant("auditor")]),
        "add": lambda: directory.add_user(actor, "mallory", grants=[Grant("auditor")]),
        "add-own-role": lambda: directory.add_user(actor, "mallory", grants=[Grant("reader")]),
        "new-role": lambda: directory.apply_role(actor, Role("second", frozenset({Action.AUDIT_REVIEW}))),
        "held-role": lambda: directory.apply_role(actor, Role("plain", PLAIN.actions | {Action.AUDIT_READ})),
        "invite": lambda: directory.invite(actor, alan.id),
        "reset": lambda: directory.reset_factors(actor, alan.id),
        "totp": lambda: people.factors.remove_totp(actor, alan.id),
    }


ACTS = (
    "grant", "grant-own-role", "grant-group", "add", "add-own-role", "new-role", "held-role", "invite", "reset", "totp",
)  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
def test_a5_administrator_makes_nobody_a_reader_of_the_audit_log(people: People, act: str) -> None:
    """A5, ASVS 8.2.1: nor takes one's place, by a new password or by the factors."""
    acts = acts_of(people, administrator(people))
    assert set(acts) == set(ACTS)
    before = people.dump()
    with pytest.raises(ForbiddenError, match="on the server's own machine") as caught:
        acts[act]()
    assert str(caught.value.hint).startswith("Run on the server: shipsight ")
    assert people.dump() == before


@pytest.mark.parametrize("act", ACTS)
def test_server_itself_decides_who_reads_the_audit_log(people: People, act: str) -> None:
    acts = acts_of(people, SERVER)
    before = people.dump()
    acts[act]()
    assert people.dump() != before


def test_administrator_takes_the_audit_log_away_and_keeps_its_readers_out(people: People) -> None:
    me = administrator(people)
    alan = people.add("alan", "auditor", "viewer")
    people.directory.set_grants(me, "user", alan.id, [Grant("auditor"), Grant("predictor")])  # what was held stays
    assert people.directory.rights_of_user(alan.id).allows(Action.AUDIT_READ)
    people.directory.set_disabled(me, alan.id, True)
    people.directory.set_disabled(me, alan.id, False)
    people.directory.set_grants(me, "user", alan.id, [Grant("predictor")])
    assert not people.directory.rights_of_user(alan.id).allows(Action.AUDIT_READ)
    people.directory.invite(me, alan.id)
    people.directory.remove_user(me, alan.id)
    assert [one.name for one in people.directory.users()] == ["ada"]


def test_reader_of_the_audit_log_removes_a_factor_of_their_own(people: People) -> None:
    alan = people.add_with_codes("alan", "auditor")
    people.directory.set_grants(SERVER, "user", alan.id, [Grant("viewer")])
    me, _ = people.enter_with_codes(alan)
    people.directory.set_grants(SERVER, "user", alan.id, [Grant("auditor")])
    with pytest.raises(ForbiddenError, match="your rights need a second factor"):
        people.factors.remove_totp(me, alan.id)


# --- groups -----------------------------------------------------------------------------------------------------------


def changes_of_groups(people: People, actor: Principal) -> dict[str, Callable[[], object]]:
    people.directory.apply_role(SERVER, PLAIN)
    people.directory.set_grants(SERVER, "group", "crew", [Grant("plain")])
    return {
        "grants": lambda: people.directory.set_grants(actor, "group", "crew", [Grant("deployer")]),
        "role": lambda: people.directory.apply_role(actor, Role("plain", PLAIN.actions | {Action.KEYS_RELEASE})),
    }


@pytest.mark.parametrize("act", ["grants", "role"])
@pytest.mark.parametrize("factors", [("password", "totp"), ("passkey",), ("oidc", "mfa"), ("oidc", "totp")])
def test_a5_who_has_groups_elsewhere_changes_none_without_them(
    people: People, factors: tuple[str, ...], act: str
) -> None:
    """A5: by a passkey of this server they are in no group, and any group may be theirs."""
    me = administrator(people, factors=factors)
    with people.database.write() as connection:
        connection.execute(update(users).where(users.c.id == me.id).values(oidc_issuer="https://i", oidc_subject="1"))
    acts, before = changes_of_groups(people, me), people.dump()
    if "oidc" in factors:
        acts[act]()
        assert people.dump() != before
    else:
        with pytest.raises(ForbiddenError) as caught:
            acts[act]()
        assert caught.value.hint == "Sign in with your organisation first."
        assert people.dump() == before


@pytest.mark.parametrize("act", ["grants", "role"])
def test_who_has_no_groups_elsewhere_changes_groups(people: People, act: str) -> None:
    acts = changes_of_groups(people, administrator(people))
    before = people.dump()
    acts[act]()
    assert people.dump() != before
