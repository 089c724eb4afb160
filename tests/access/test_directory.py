# SPDX-License-Identifier: Apache-2.0
"""People, roles and grants: who may change them, and what nobody may."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select
from tests.access.conftest import Clock, KeptEvents
from tests.access.people import FRESH_S, PASSWORD, People

from shipsight.access import ROLES, Action, EventKind, Grant, Principal, PrincipalKind, Role
from shipsight.access.directory import User
from shipsight.access.principal import LOOPBACK, NOBODY, SERVER
from shipsight.access.store import Database
from shipsight.access.store.tables import api_keys, certificates, grants, invitations
from shipsight.errors import AuthenticationError, ForbiddenError, NotFoundError, UsageError

RELEASER = Role("releaser", frozenset({Action.KEYS_RELEASE}))
STEWARD = Role("steward", frozenset({Action.ACCESS_CHANGE, Action.ACCESS_READ}))


@pytest.fixture
def people(database: Database, clock: Clock, events: KeptEvents) -> People:
    return People(database, clock, events)


def person(people: People, user: User) -> Principal:
    """Somebody signed in, with both factors."""
    return people.find(people.sessions.begin(user.id, factors=("password", "totp")))


def put_key(people: People, owner_id: str | None, *roles: str) -> str:
    """A key that somebody has, as a row."""
    with people.database.write() as connection:
        connection.execute(
            insert(api_keys).values(
                id="00000000000000aa",
                name="camera",
                owner_id=owner_id,
                secret_hash=b"x",
                created_by="person:ada",
                created_at=people.clock(),
            )
        )
        for role in roles:
            connection.execute(
                insert(grants).values(
                    id=f"g-{role}", holder_kind="key", holder_id="00000000000000aa", role=role, models=["*"]
                )
            )
    return "00000000000000aa"


def put_certificate(people: People) -> str:
    with people.database.write() as connection:
        connection.execute(
            insert(certificates).values(
                id="00000000000000bb",
                name="camera",
                kind="device",
                field="subject",
                value="CN=camera",
                created_by="person:ada",
                created_at=people.clock(),
            )
        )
    return "00000000000000bb"


def test_new_person_is_known_by_name_and_id_without_a_password(people: People) -> None:
    user, code = people.directory.add_user(SERVER, " Ada ", display_name="Ada L.", grants=[Grant("viewer")])
    assert (user.name, user.display_name, user.is_disabled, user.has_password, user.signed_in_at, user.openid) == (
        "ada",
        "Ada L.",
        False,
        False,
        None,
        False,
    )
    assert people.directory.user("ADA") == people.directory.user(user.id) == user
    assert people.directory.users() == [user]
    assert people.directory.grants("user", user.id) == (Grant("viewer"),)
    assert len(code) == 43
    assert code not in repr(people.dump())


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "ada\n", "\u0430da", "-ada", "a" * 65, "0123456789abcdef", "ada:x", "../ada", "ada\u202e"],
)
def test_name_that_could_be_read_otherwise_is_refused(people: People, name: str) -> None:
    """Other alphabets' look-alikes, ids, control characters."""
    if name == "ada\n":
        name = "ada\nb"
    before = people.dump()
    with pytest.raises(UsageError):
        people.directory.add_user(SERVER, name)
    assert people.dump() == before


def test_name_is_taken_whatever_its_case(people: People) -> None:
    people.add("ada")
    with pytest.raises(UsageError, match="taken"):
        people.directory.add_user(SERVER, "ADA")


@pytest.mark.parametrize("shown", [" \t ", "x" * 101, "a\nb", "\u202eada"])
def test_name_to_be_shown_is_printable(people: People, shown: str) -> None:
    with pytest.raises(UsageError):
        people.directory.add_user(SERVER, "ada", display_name=shown)


def test_person_who_is_not_there_is_not_found(people: People) -> None:
    for act in (
        lambda: people.directory.user("nobody"),
        lambda: people.directory.invite(SERVER, "nobody"),
        lambda: people.directory.set_disabled(SERVER, "nobody", True),
        lambda: people.directory.remove_user(SERVER, "nobody"),
        lambda: people.directory.set_grants(SERVER, "user", "nobody", []),
        lambda: people.directory.set_grants(SERVER, "key", "nobody", []),
        lambda: people.directory.set_grants(SERVER, "certificate", "nobody", []),
        lambda: people.directory.remove_role(SERVER, "nothing"),
    ):
        with pytest.raises(NotFoundError):
            act()


def changes(people: People, actor: Principal, target: User) -> dict[str, Any]:
    directory = people.directory
    return {
        "add_user": lambda: directory.add_user(actor, "mallory"),
        "invite": lambda: directory.invite(actor, target.id),
        "set_grants": lambda: directory.set_grants(actor, "user", target.id, [Grant("admin")]),
        "set_group": lambda: directory.set_grants(actor, "group", "crew", [Grant("admin")]),
        "set_disabled": lambda: directory.set_disabled(actor, target.id, True),
        "remove_user": lambda: directory.remove_user(actor, target.id),
        "apply_role": lambda: directory.apply_role(actor, RELEASER),
        "remove_role": lambda: directory.remove_role(actor, "steward"),
    }


CHANGES = ("add_user", "invite", "set_grants", "set_group", "set_disabled", "remove_user", "apply_role", "remove_role")


@pytest.mark.parametrize("act", CHANGES)
@pytest.mark.parametrize(
    "role", [*(name for name in ROLES if name != "admin"), "steward@team-a-*", "nobody", "loopback"]
)
def test_a5_only_administrators_change_people_and_rights(people: People, role: str, act: str) -> None:
    """A5, ASVS 8.2.1, 8.3.1: also nobody who may on some models only."""
    people.directory.apply_role(SERVER, STEWARD)
    target = people.add("grace", "viewer")
    others = {"nobody": NOBODY, "loopback": LOOPBACK}
    actor = others[role] if role in others else person(people, people.add("ada", role))
    before = people.dump()
    with pytest.raises(ForbiddenError):
        changes(people, actor, target)[act]()
    assert people.dump() == before


@pytest.mark.parametrize("act", CHANGES)
@pytest.mark.parametrize("who", ["admin", "server"])
def test_administrators_and_the_server_itself_change_people_and_rights(people: People, who: str, act: str) -> None:
    people.directory.apply_role(SERVER, STEWARD)
    target = people.add("grace", "viewer")
    actor = SERVER if who == "server" else person(people, people.add("ada", "admin"))
    before = people.directory.revision(), len(people.events.kept)
    changes(people, actor, target)[act]()
    told = people.events.kept[before[1] :]
    assert [event.actor for event in told] == [actor.told()]
    assert people.directory.revision() > before[0] or act == "invite"


def test_a5_administrator_without_second_factor_changes_nothing(people: People) -> None:
    """A5, ASVS 6.3.3."""
    people.add("ada", "admin")
    step = people.sign_in.begin("ada", PASSWORD)
    actor = people.enter(step)
    assert step.kind == "enrol"
    for act in changes(people, actor, people.add("grace")).values():
        with pytest.raises(ForbiddenError):
            act()


def test_a5_nobody_changes_their_own_rights(people: People) -> None:
    """A5: self-promotion, in each way that leads to oneself."""
    people.directory.apply_role(SERVER, RELEASER)
    people.directory.apply_role(SERVER, STEWARD)
    ada, _ = people.add("ada", "admin", "releaser@boats"), people.add("grace", "admin")
    people.directory.set_grants(SERVER, "group", "crew", [Grant("viewer")])
    people.directory.set_grants(SERVER, "group", "others", [Grant("steward", ("x",))])
    me = people.find(people.sessions.begin(ada.id, factors=("oidc", "mfa"), groups=("crew", "others")))
    before = people.dump()
    more = Role("releaser", RELEASER.actions | {Action.DATA_EXPORT})
    for act in (
        lambda: people.directory.set_grants(me, "user", ada.id, [Grant("admin"), Grant("deployer")]),
        lambda: people.directory.set_grants(me, "user", ada.id, [Grant("viewer")]),
        lambda: people.directory.set_grants(me, "group", "crew", [Grant("deployer")]),
        lambda: people.directory.apply_role(me, more),
        lambda: people.directory.apply_role(me, Role("steward", STEWARD.actions | {Action.KEYS_RELEASE})),
        lambda: people.directory.invite(me, ada.id),
    ):
        with pytest.raises(ForbiddenError):
            act()
    assert people.dump() == before
    people.directory.set_grants(me, "group", "strangers", [Grant("deployer")])


def test_administrator_may_take_from_a_role_that_they_hold(people: People) -> None:
    more = Role("releaser", RELEASER.actions | {Action.DATA_EXPORT})
    people.directory.apply_role(SERVER, more)
    people.add("grace", "admin")
    ada = people.add("ada", "admin", "releaser")
    people.directory.apply_role(person(people, ada), RELEASER)
    assert not people.directory.rights_of_user(ada.id).allows(Action.DATA_EXPORT)


@pytest.mark.parametrize("way", ["disable", "remove", "take", "less", "role"])
@pytest.mark.parametrize("others", ["none", "disabled", "invited", "on-a-model", "by-group", "key"])
def test_a5_last_administrator_stays(people: People, way: str, others: str) -> None:
    """A5: also where others could be taken for administrators who cannot sign in, or not on everything."""
    people.directory.apply_role(SERVER, STEWARD)
    ada = people.add("ada", "steward")
    if others == "disabled":
        people.directory.set_disabled(SERVER, people.add("grace", "admin").id, True)
    elif others == "invited":
        people.directory.add_user(SERVER, "grace", grants=[Grant("steward")])
    elif others == "on-a-model":
        people.add("grace", "admin@boats")
    elif others == "by-group":
        people.directory.set_grants(SERVER, "group", "crew", [Grant("admin")])
    elif others == "key":
        put_key(people, None, "admin")
    before = people.dump()
    with pytest.raises(ForbiddenError, match="nobody would be left"):
        {
            "disable": lambda: people.directory.set_disabled(SERVER, ada.id, True),
            "remove": lambda: people.directory.remove_user(SERVER, ada.id),
            "take": lambda: people.directory.set_grants(SERVER, "user", ada.id, []),
            "less": lambda: people.directory.set_grants(SERVER, "user", ada.id, [Grant("admin", ("boats",))]),
            "role": lambda: people.directory.apply_role(SERVER, Role("steward", frozenset({Action.ACCESS_READ}))),
        }[way]()
    assert people.dump() == before


def test_one_of_two_administrators_may_go(people: People) -> None:
    ada, grace = people.add("ada", "admin"), people.add("grace", "admin")
    people.directory.remove_user(person(people, ada), grace.id)
    assert people.directory.has_administrator()
    with pytest.raises(ForbiddenError):
        people.directory.remove_user(person(people, ada), ada.id)


def test_role_that_is_unknown_is_refused(people: People) -> None:
    ada = people.add("ada")
    for act in (
        lambda: people.directory.set_grants(SERVER, "user", ada.id, [Grant("captain")]),
        lambda: people.directory.add_user(SERVER, "grace", grants=[Grant("captain")]),
    ):
        with pytest.raises(UsageError, match="no such role"):
            act()
    assert [user.name for user in people.directory.users()] == ["ada"]


@pytest.mark.parametrize("kind", ["", "robot", "User"])
def test_kind_of_holder_that_there_is_not_is_refused(people: People, kind: str) -> None:
    with pytest.raises(UsageError):
        people.directory.set_grants(SERVER, kind, "x", [])


@pytest.mark.parametrize("name", ["", "x" * 257, "a\nb"])
def test_name_of_a_group_is_printable(people: People, name: str) -> None:
    with pytest.raises(UsageError):
        people.directory.set_grants(SERVER, "group", name, [])


@pytest.mark.parametrize("role", ["admin", "auditor"])
def test_machines_are_not_granted_what_is_for_people(people: People, role: str) -> None:
    """A5: nor by a role that gets it later."""
    people.directory.apply_role(SERVER, RELEASER)
    for kind, holder in (("key", put_key(people, None)), ("certificate", put_certificate(people))):
        with pytest.raises(UsageError, match="only people"):
            people.directory.set_grants(SERVER, kind, holder, [Grant(role)])
        people.directory.set_grants(SERVER, kind, holder, [Grant("releaser")])
        with pytest.raises(UsageError, match="only people"):
            people.directory.apply_role(SERVER, Role("releaser", ROLES[role].actions))
        assert people.directory.grants(kind, holder) == (Grant("releaser"),)
        people.directory.set_grants(SERVER, kind, holder, [])


def test_nobody_reads_the_audit_log_and_changes_things(people: People) -> None:
    """ASVS 8.2.1: refused where it is granted; where groups add up to it, the log stays shut."""
    ada = people.add("ada", "auditor")
    with pytest.raises(UsageError, match="may change nothing"):
        people.directory.set_grants(SERVER, "user", ada.id, [Grant("auditor"), Grant("deployer", ("boats",))])
    people.directory.set_grants(SERVER, "group", "crew", [Grant("deployer")])
    alone, together = people.directory.rights_of_user(ada.id), people.directory.rights_of_user(ada.id, ("crew",))
    assert alone.allows(Action.AUDIT_READ)
    assert not together.allows(Action.AUDIT_READ)
    assert together.allows(Action.ROLLOUT_PROMOTE, "boats")
    assert together.allows(Action.ACCESS_READ)


def test_role_of_ones_own_is_added_changed_and_removed(people: People) -> None:
    ada = people.add("ada")
    people.directory.apply_role(SERVER, RELEASER)
    people.directory.set_grants(SERVER, "user", ada.id, [Grant("releaser", ("boats",))])
    assert people.directory.rights_of_user(ada.id).allows(Action.KEYS_RELEASE, "boats")
    people.directory.apply_role(SERVER, Role("releaser", frozenset({Action.DATA_EXPORT})))
    assert not people.directory.rights_of_user(ada.id).allows(Action.KEYS_RELEASE, "boats")
    assert people.directory.roles()["releaser"].actions == {Action.DATA_EXPORT}
    with pytest.raises(UsageError, match="holds this role"):
        people.directory.remove_role(SERVER, "releaser")
    people.directory.set_grants(SERVER, "user", ada.id, [])
    people.directory.remove_role(SERVER, "releaser")
    assert set(people.directory.roles()) == set(ROLES)


@pytest.mark.parametrize("name", list(ROLES))
def test_roles_of_our_own_stay_as_they_are(people: People, name: str) -> None:
    with pytest.raises(UsageError):
        people.directory.apply_role(SERVER, Role(name, frozenset({Action.ACCESS_READ})))
    with pytest.raises(UsageError):
        people.directory.remove_role(SERVER, name)
    assert people.directory.roles()[name] == ROLES[name]


def test_rights_of_who_is_disabled_or_gone_are_none(people: People) -> None:
    ada = people.add("ada", "deployer")
    people.directory.set_grants(SERVER, "group", "crew", [Grant("operator")])
    assert people.directory.rights_of_user(ada.id).grants
    people.directory.set_disabled(SERVER, ada.id, True)
    assert not people.directory.rights_of_user(ada.id, ("crew",)).grants
    people.directory.set_disabled(SERVER, ada.id, False)
    people.directory.remove_user(SERVER, ada.id)
    assert not people.directory.rights_of_user(ada.id, ("crew",)).grants


def test_all_that_is_a_persons_goes_with_them(people: People) -> None:
    ada = people.add_with_codes("ada", "deployer")
    people.enter_with_codes(ada)
    key = put_key(people, ada.id, "predictor")
    people.directory.remove_user(SERVER, ada.id)
    left = {name: rows for name, rows in people.dump().items() if rows and name not in ("settings", "throttles")}
    assert ada.id not in repr(left)
    assert key not in repr(left)


def test_person_of_the_same_name_later_is_another(people: People) -> None:
    ada = people.add("ada", "deployer")
    people.directory.remove_user(SERVER, ada.id)
    again = people.add("ada")
    assert again.id != ada.id
    assert not people.directory.rights_of_user(again.id).grants


# ---- codes of invitation, and the first administrator


def test_a8_nobody_is_known_at_first(people: People) -> None:
    """A8, ASVS 6.3.2: no account that anyone knows the password of, none at all."""
    assert people.directory.users() == []
    assert not people.directory.knows_anyone()
    assert not people.directory.has_administrator()
    for name in ("admin", "root", "user", "sa", "shipsight", ""):
        for password in ("", "admin", "password", "shipsight"):
            with pytest.raises(AuthenticationError):
                people.sign_in.begin(name, password)
            people.clock.pass_s(3600)


def test_a8_setup_code_makes_one_administrator_who_must_add_a_factor(people: People) -> None:
    """A8, ASVS 6.4.1: it works once."""
    code = people.directory.setup_code()
    step = people.sign_in.accept_invitation(code, PASSWORD, name="Ada")
    assert step.kind == "enrol"
    ada = people.directory.user("ada")
    assert people.directory.grants("user", ada.id) == (Grant("admin"),)
    before = people.dump()
    for name in (None, "ada", "mallory"):
        with pytest.raises(AuthenticationError):
            people.sign_in.accept_invitation(code, PASSWORD, name=name)
    assert people.dump() == before


def test_a8_setup_code_ends_after_its_time(people: People) -> None:
    """A8, ASVS 6.4.1."""
    code = people.directory.setup_code(lives_s=3600)
    people.clock.pass_s(3600)
    with pytest.raises(AuthenticationError):
        people.sign_in.accept_invitation(code, PASSWORD, name="ada")
    assert not people.directory.knows_anyone()


def test_a8_setup_code_of_before_ends_when_another_is_made(people: People) -> None:
    """A8: what an earlier start printed."""
    old, new = people.directory.setup_code(), people.directory.setup_code()
    with pytest.raises(AuthenticationError):
        people.sign_in.accept_invitation(old, PASSWORD, name="ada")
    assert people.sign_in.accept_invitation(new, PASSWORD, name="ada").session is not None


@pytest.mark.parametrize("who", ["person", "key", "certificate"])
def test_a8_setup_code_is_refused_once_anyone_is_known(people: People, who: str) -> None:
    """A8: neither made nor taken."""
    code = people.directory.setup_code()
    if who == "person":
        people.directory.add_user(SERVER, "grace")
    elif who == "key":
        put_key(people, None)
    else:
        put_certificate(people)
    assert people.directory.knows_anyone()
    before = people.dump()
    with pytest.raises(ForbiddenError):
        people.sign_in.accept_invitation(code, PASSWORD, name="ada")
    with pytest.raises(ForbiddenError):
        people.directory.setup_code()
    assert people.dump() == before


def test_a8_setup_code_needs_a_name_and_a_password_and_stays_until_they_fit(people: People) -> None:
    """A8: a slip of the keyboard uses nothing up."""
    code = people.directory.setup_code()
    for name, password in ((None, PASSWORD), ("a b", PASSWORD), ("ada", "short"), ("ada", "password")):
        with pytest.raises(UsageError):
            people.sign_in.accept_invitation(code, password, name=name)
    assert not people.directory.knows_anyone()
    people.sign_in.accept_invitation(code, PASSWORD, name="ada")


def test_invitation_works_once_and_for_a_time(people: People) -> None:
    """ASVS 6.4.1."""
    _, code = people.directory.add_user(SERVER, "ada", lives_s=60)
    people.clock.pass_s(60)
    with pytest.raises(AuthenticationError):
        people.sign_in.accept_invitation(code, PASSWORD)
    ada = people.directory.user("ada")
    code = people.directory.invite(SERVER, ada.id)
    people.sign_in.accept_invitation(code, PASSWORD)
    with pytest.raises(AuthenticationError):
        people.sign_in.accept_invitation(code, "another long password")


def test_older_invitation_ends_with_a_newer_one_and_with_the_person_disabled(people: People) -> None:
    ada, first = people.directory.add_user(SERVER, "ada")
    second = people.directory.invite(SERVER, ada.id)
    with pytest.raises(AuthenticationError):
        people.sign_in.accept_invitation(first, PASSWORD)
    people.directory.set_disabled(SERVER, ada.id, True)
    third = people.directory.invite(SERVER, ada.id)
    for code in (second, third):
        with pytest.raises(AuthenticationError):
            people.sign_in.accept_invitation(code, PASSWORD)


@pytest.mark.parametrize("lives_s", [0, -1, 31 * 86400, float("nan"), float("inf")])
def test_invitation_lives_for_a_time_that_ends(people: People, lives_s: float) -> None:
    """ASVS 6.4.1."""
    with pytest.raises(UsageError):
        people.directory.add_user(SERVER, "ada", lives_s=lives_s)
    assert people.directory.users() == []


def test_code_of_invitation_is_kept_as_a_hash_and_told_nowhere(people: People) -> None:
    """ASVS 16.2.5."""
    ada, code = people.directory.add_user(SERVER, "ada")
    again = people.directory.invite(SERVER, ada.id)
    setup_less = repr(people.events.kept) + repr(people.dump())
    assert code not in setup_less
    assert again not in setup_less


def test_a5_invitation_carries_no_rights_of_its_own(people: People) -> None:
    """A5, ASVS 15.3.3: mass assignment; a name with an invitation is refused, grants are those of the administrator."""
    ada, code = people.directory.add_user(SERVER, "ada", grants=[Grant("viewer")])
    with pytest.raises(UsageError):
        people.sign_in.accept_invitation(code, PASSWORD, name="root")
    people.sign_in.accept_invitation(code, PASSWORD)
    assert people.directory.user(ada.id).name == "ada"
    assert people.directory.grants("user", ada.id) == (Grant("viewer"),)


# ---- whatever happens


def test_nothing_is_changed_when_it_cannot_be_told(people: People) -> None:
    """ASVS 16.5.3: fail closed."""
    people.directory.apply_role(SERVER, STEWARD)
    ada, target = people.add("ada", "admin"), people.add("grace", "viewer")
    actor = person(people, ada)
    code = people.directory.invite(SERVER, target.id)
    before = people.dump()
    people.events.fails = True
    acts = {**changes(people, actor, target), "accept": lambda: people.sign_in.accept_invitation(code, PASSWORD)}
    for act in acts.values():
        with pytest.raises(OSError, match="no space"):
            act()
    assert people.dump() == before


def test_setup_code_is_not_made_when_it_cannot_be_told(people: People) -> None:
    people.events.fails = True
    with pytest.raises(OSError, match="no space"):
        people.directory.setup_code()
    assert people.dump()["invitations"] == []


def test_changes_are_told_with_who_did_them_and_what_was_before(people: People) -> None:
    """ASVS 16.2.1, 16.3.3."""
    ada, grace = people.add("ada", "admin"), people.add("grace", "viewer")
    people.events.kept.clear()
    actor = person(people, ada)
    people.directory.set_grants(actor, "user", grace.id, [Grant("deployer", ("team-a-*",))])
    people.directory.set_disabled(actor, grace.id, True)
    found = [(event.kind, event.actor, event.subject, dict(event.details)) for event in people.events.kept[1:]]
    assert found == [
        (
            EventKind.GRANTS_CHANGED,
            "person:ada",
            "user:grace",
            {"before": ["viewer"], "after": ["deployer@team-a-*"]},
        ),
        (EventKind.USER_CHANGED, "person:ada", "person:grace", {"is_disabled": True}),
    ]
    assert all(isinstance(event.at, datetime) and event.at.tzinfo is not None for event in people.events.kept)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=20
)
@given(
    given_grants=st.lists(
        st.builds(
            Grant,
            st.sampled_from([name for name in ROLES if name != "auditor"]),
            st.lists(st.text("abc*?-.", min_size=1, max_size=8), min_size=1, max_size=3).map(tuple),
        ),
        max_size=5,
    )
)
def test_grants_come_back_as_they_were_given(people: People, given_grants: list[Grant]) -> None:
    if not people.directory.users():
        people.add("grace", "admin")
        people.add("ada")
    ada = people.directory.user("ada")
    people.directory.set_grants(SERVER, "user", ada.id, given_grants)
    assert set(people.directory.grants("user", ada.id)) == set(given_grants)


def test_revision_is_seen_by_another_process(database_url: str, clock: Clock, events: KeptEvents) -> None:
    from shipsight.access.store import open_database

    first, second = open_database(database_url), open_database(database_url)
    here, there = People(first, clock, events), People(second, clock, events)
    before = there.directory.revision()
    here.directory.add_user(SERVER, "ada")
    assert there.directory.revision() > before
    first.close()
    second.close()


def test_freshness_is_the_edges_to_check(people: People) -> None:
    """`Principal.require` with the time does it; here an act needs the right alone."""
    ada = people.add("ada", "admin")
    actor = person(people, ada)
    people.clock.pass_s(FRESH_S)
    people.directory.add_user(actor, "grace")
    assert people.directory.user("grace").name == "grace"


def test_invitations_in_the_store_are_one_a_person(people: People) -> None:
    ada, _ = people.directory.add_user(SERVER, "ada")
    for _ in range(3):
        people.directory.invite(SERVER, ada.id)
    with people.database.read() as connection:
        assert len(connection.execute(select(invitations)).all()) == 1


def test_holder_that_looks_like_a_person_is_not_one(people: People) -> None:
    """A key whose id an administrator has, too, would change itself; ids are drawn, and kinds are compared."""
    grace = people.add("grace", "admin")
    machine = Principal(PrincipalKind.KEY, "camera", id=grace.id)
    with pytest.raises(ForbiddenError):
        people.directory.set_grants(machine, "user", grace.id, [Grant("admin")])
