# SPDX-License-Identifier: Apache-2.0
"""The table of rights: who may what, where, and that nothing else is allowed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shipsight.access import (
    LOOPBACK,
    NO_RIGHTS,
    NOBODY,
    OPEN_RIGHTS,
    ROLES,
    SERVER,
    Action,
    Grant,
    Principal,
    PrincipalKind,
    Rights,
    Role,
)
from shipsight.access.permissions import ALL_MODELS
from shipsight.errors import ForbiddenError, StepUpError, UsageError

NOW = datetime(2026, 1, 2, tzinfo=UTC)
AUDIT = {Action.AUDIT_READ, Action.AUDIT_REVIEW}
CHANGING = {action for action in Action if action.changes}

# The whole table, written a second time: a right that moves has to be moved here, too.
TABLE = {
    "viewer": "models.read rollout.read metrics.read",
    "predictor": "models.read models.predict",
    "operator": "models.read models.predict models.load rollout.read metrics.read recordings.read",
    "deployer": "models.read models.predict models.load rollout.read rollout.share rollout.promote metrics.read golden.read",
    "auditor": "models.read rollout.read metrics.read access.read audit.read audit.review",
    "admin": "models.read rollout.read metrics.read access.read access.change",
}
patterns = st.text("abcz09-_.*?", min_size=1, max_size=12)
grants = st.builds(Grant, st.sampled_from(sorted(ROLES)), st.lists(patterns, min_size=1, max_size=3).map(tuple))
# Few patterns and names, so that they meet.
meeting = st.builds(
    Grant,
    st.sampled_from(sorted(ROLES)),
    st.lists(st.sampled_from(["*", "a", "ab", "a*", "a?", "*b", "??", "b-*"]), min_size=1, max_size=2).map(tuple),
)
models = st.sampled_from(["a", "ab", "abc", "b", "b-a", "c"])
many_rights = st.lists(meeting, max_size=3).map(lambda given_grants: Rights.of(given_grants, ROLES))


def rights(*texts: str) -> Rights:
    return Rights.of([Grant.parse(text) for text in texts], ROLES)


def person(held: Rights, **more: object) -> Principal:
    return Principal(PrincipalKind.PERSON, "ada", rights=held, id="x", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize("role", list(ROLES))
def test_a5_role_allows_what_the_table_says_and_nothing_else(role: str, action: Action) -> None:
    """A5, ASVS 8.1.1, 8.2.1."""
    held = rights(role)
    expected = action.value in TABLE[role].split()
    assert held.allows(action) == held.allows(action, "boats") == held.allows_somewhere(action) == expected


def test_table_names_every_role() -> None:
    assert set(TABLE) == set(ROLES)


@pytest.mark.parametrize("action", list(Action))
def test_nobody_has_rights_at_first(action: Action) -> None:
    """ASVS 8.3.1: denied by default."""
    for held in (NO_RIGHTS, Rights.of([Grant("unknown")], ROLES), NOBODY.rights, person(NO_RIGHTS).rights):
        assert not held.allows(action)
        assert not held.allows(action, "boats")
        assert not held.allows_somewhere(action)


def test_who_may_change_anything_may_not_read_the_audit_log_and_the_other_way_round() -> None:
    """ASVS 8.2.1, 16.4.2."""
    for role in ROLES.values():
        assert not (role.actions & AUDIT and role.actions & CHANGING)
    assert not any(role.actions & AUDIT for role in ROLES.values() if role.name != "auditor")
    for action in CHANGING:
        with pytest.raises(UsageError, match="may change nothing"):
            Role("both", frozenset({action, Action.AUDIT_READ}))


def test_data_of_a_model_is_apart_from_the_model() -> None:
    """ASVS 8.2.3: golden images, recordings, labels, exports and keys need a right each."""
    for role in ("viewer", "predictor", "auditor", "admin"):
        for action in (Action.GOLDEN_READ, Action.RECORDINGS_READ, Action.LABELS_READ, Action.DATA_EXPORT):
            assert not rights(role).allows(action, "boats")
    assert not any(
        rights(role).allows(action, "boats")
        for role in ROLES
        for action in (Action.LABELS_READ, Action.DATA_EXPORT, Action.KEYS_RELEASE)
    )


def test_a5_grant_on_some_models_allows_nothing_on_others() -> None:
    """A5, ASVS 8.2.2: another team's model."""
    held = rights("deployer@team-a-*,shared", "viewer@team-b-?")
    for action in ROLES["deployer"].actions:
        if action.concerns_model:
            assert held.allows(action, "team-a-boats")
            assert held.allows(action, "shared")
        assert not held.allows(action, "team-c-boats")
        assert not held.allows(action)
    assert held.allows(Action.MODELS_READ, "team-b-1")
    assert not held.allows(Action.MODELS_READ, "team-b-12")
    assert not held.allows(Action.MODELS_LOAD, "team-b-1")


@pytest.mark.parametrize("model", ["Team-a-boats", "xteam-a-boats", "team-a", "", "team-a-\n", "shared ", "SHARED"])
def test_pattern_is_on_whole_names_as_they_are_written(model: str) -> None:
    held = rights("deployer@team-a-b*,shared")
    assert not held.allows(Action.MODELS_READ, model)


@pytest.mark.parametrize("action", [action for action in Action if not action.concerns_model])
def test_what_concerns_no_model_needs_a_grant_on_all(action: Action) -> None:
    role = Role("one", frozenset({action}))
    for models, expected in ((ALL_MODELS, True), (("boats",), False), (("*", "boats"), False), (("**",), False)):
        assert Rights.of([Grant("one", models)], {"one": role}).allows(action) == expected


@pytest.mark.parametrize("text", ["", "*,", "a b", "a/b", "../x", "a\n", "\u0430", "[a-z]", "a" * 129])
def test_pattern_that_could_be_read_otherwise_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Grant("viewer", tuple(text.split(",")) if text else ())


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(grants)
def test_grant_is_read_back_as_it_is_told(one: Grant) -> None:
    assert Grant.parse(one.told()) == one


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(st.lists(st.sampled_from(sorted(Action)), min_size=1).map(lambda found: frozenset(map(Action, found))))
def test_role_is_read_back_as_it_is_told(actions: frozenset[Action]) -> None:
    try:
        role = Role("mine", actions)
    except UsageError:
        assert actions & AUDIT
        assert actions & CHANGING
        return
    assert Role.from_dict("mine", role.to_dict()) == role
    assert role.needs_factors == bool(actions & (CHANGING | AUDIT))


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        {},
        {"actions": []},
        {"actions": "models.read"},
        {"actions": ["models.destroy"]},
        {"actions": ["*"]},
        {"actions": [1]},
        {"actions": ["models.read"], "is_admin": True},
    ],
)
def test_role_told_otherwise_is_refused(told: object) -> None:
    """ASVS 15.3.3: unknown keys, too."""
    with pytest.raises(UsageError):
        Role.from_dict("mine", told)


@pytest.mark.parametrize("name", ["", "Admin", "a b", "-a", "1a", "a" * 33, "\u0430dmin", "admin\n"])
def test_name_of_a_role_is_plain(name: str) -> None:
    with pytest.raises(UsageError):
        Role(name, frozenset({Action.MODELS_READ}))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(many_rights, many_rights, st.sampled_from(sorted(Action)), st.none() | models)
@example(Rights.of([Grant("admin")], ROLES), Rights.of([Grant("admin", ("*", "*"))], ROLES), "access.change", None)
def test_a5_key_never_may_more_than_its_owner(key: Rights, owner: Rights, action: str, model: str | None) -> None:
    """A5, ASVS 8.3.3: the rights of whom it acts for."""
    both = key.within(owner)
    if both.allows(Action(action), model):
        assert key.allows(Action(action), model)
        assert owner.allows(Action(action), model)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(many_rights, st.sampled_from(sorted(Action)), models)
def test_key_with_its_owners_grants_may_the_same(owner: Rights, action: str, model: str) -> None:
    assert owner.within(owner).allows(Action(action), model) == owner.allows(Action(action), model)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(many_rights, many_rights)
def test_rights_within_come_to_the_same_when_taken_twice(key: Rights, owner: Rights) -> None:
    assert key.within(owner).within(owner) == key.within(owner)
    assert key.within(NO_RIGHTS) == NO_RIGHTS


def test_who_has_to_add_a_factor_may_nothing() -> None:
    """ASVS 6.3.3."""
    ada = person(rights("admin", "deployer"), must_enrol=True)
    assert not any(ada.may(action, model) for action in Action for model in (None, "boats"))


@pytest.mark.parametrize("action", list(Action))
def test_sensitive_acts_need_a_fresh_proof_of_people_alone(action: Action) -> None:
    """ASVS 7.5.3."""
    held = Rights(((frozenset(Action), Grant("all")),))
    stale = person(held, fresh_until=NOW)
    person(held, fresh_until=NOW + timedelta(seconds=1)).require(action, now=NOW)
    Principal(PrincipalKind.KEY, "camera", rights=held).require(action, now=NOW)
    stale.require(action)
    if action.is_sensitive:
        with pytest.raises(StepUpError):
            stale.require(action, now=NOW)
        with pytest.raises(StepUpError):
            person(held).require(action, now=NOW)
    else:
        stale.require(action, now=NOW)


def test_right_that_is_missing_is_told_before_a_proof_is_asked_for() -> None:
    with pytest.raises(ForbiddenError) as caught:
        person(rights("viewer"), fresh_until=NOW).require(Action.ROLLOUT_PROMOTE, "boats", now=NOW)
    assert caught.value.expected == "rollout.promote"
    assert caught.value.where == "boats"


def test_sensitive_acts_are_those_that_cannot_be_taken_back() -> None:
    """ASVS 7.5.3: promotion and what comes near it, erasure, export, release of keys, change of access."""
    assert {action for action in Action if action.is_sensitive} == {
        Action.ROLLOUT_SHARE,
        Action.ROLLOUT_PROMOTE,
        Action.RECORDINGS_CHANGE,
        Action.DATA_EXPORT,
        Action.KEYS_RELEASE,
        Action.ACCESS_CHANGE,
        Action.AUDIT_REVIEW,
    }
    # Who signs a review off changes nothing that is served; their word stays for good.
    sensitive = {action for action in Action if action.is_sensitive}
    assert {action for action in sensitive if not action.changes} == {Action.AUDIT_REVIEW}


def test_open_server_lets_nobody_read_an_audit_log() -> None:
    assert not any(OPEN_RIGHTS.allows(action) for action in AUDIT)
    assert LOOPBACK.may(Action.MODELS_PREDICT, "boats")


def test_a8_who_reaches_an_open_server_does_not_say_who_is_somebody() -> None:
    """Else another user of the machine is its administrator before its owner is, without the setup code."""
    assert LOOPBACK.may(Action.ACCESS_READ)
    assert not LOOPBACK.may(Action.ACCESS_CHANGE)
    assert SERVER.may(Action.ACCESS_CHANGE)
    before = {action for actions, _ in SERVER.rights.grants for action in actions}
    assert {action for actions, _ in LOOPBACK.rights.grants for action in actions} == before - {Action.ACCESS_CHANGE}


def test_principal_is_told_by_kind_and_name() -> None:
    assert [one.told() for one in (LOOPBACK, NOBODY, person(NO_RIGHTS))] == ["loopback", "nobody", "person:ada"]
