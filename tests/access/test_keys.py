# SPDX-License-Identifier: Apache-2.0
"""Keys of programs: who may make them, what they may do, how they end."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import threading
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as sql_event
from sqlalchemy import select
from tests.access.conftest import Clock, KeptEvents

from shipsight.access import SERVER, Action, EventKind, Grant, Outcome, Principal, PrincipalKind, Role
from shipsight.access import keys as keys_module
from shipsight.access.directory import Directory
from shipsight.access.keys import ApiKey, Keys
from shipsight.access.store import Database, tables
from shipsight.errors import AuthenticationError, ForbiddenError, NotFoundError, StepUpError, UsageError

PREDICTOR = Grant("predictor", ("team-a-*",))


@dataclass
class House:
    db: Database
    clock: Clock
    events: KeptEvents
    directory: Directory
    keys: Keys

    def person(self, name: str, *grants: Grant) -> Principal:
        """A person who is signed in."""
        try:
            user = self.directory.user(name)
        except NotFoundError:
            user, _ = self.directory.add_user(SERVER, name, grants=grants)
        rights = self.directory.rights_of_user(user.id)
        fresh_until = self.clock() + timedelta(seconds=300)
        return Principal(
            PrincipalKind.PERSON,
            user.name,
            rights=rights,
            id=user.id,
            factors=("password", "totp"),
            fresh_until=fresh_until,
        )

    def why_refused(self, text: str) -> str | None:
        """Shows a key that must be refused, and returns what the record says of it."""
        before = len(self.events.kept)
        with pytest.raises(AuthenticationError) as refused:
            self.keys.authenticate(text)
        assert str(refused.value) == "this key is not accepted"
        told = self.events.kept[before:]
        assert [(one.kind, one.outcome) for one in told] == [(EventKind.KEY_REFUSED, Outcome.REFUSED)]
        return told[0].why


@pytest.fixture
def house(database: Database, clock: Clock, events: KeptEvents) -> House:
    directory = Directory(database, events, clock)
    return House(database, clock, events, directory, Keys(database, events, clock))


def test_key_of_a_service_may_do_what_it_was_granted(house: House) -> None:
    key, text = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    found = house.keys.authenticate(text)
    assert found.told() == f"key:ci.{key.id}"
    assert found.id == key.id
    assert found.may(Action.MODELS_PREDICT, "team-a-cars")
    assert not found.may(Action.MODELS_PREDICT, "team-b-cars")
    assert not found.may(Action.ROLLOUT_PROMOTE, "team-a-cars")


def test_key_is_kept_as_a_hash_and_told_once(house: House) -> None:
    """ASVS 11.4.1, 14.2.4: no secret is kept, told in events, or shown again."""
    key, text = house.keys.add(SERVER, "ci", grants=[PREDICTOR], rate="10/second")
    secret = text.rpartition(key.id)[2].removeprefix("_")
    with house.db.read() as connection:
        row = connection.execute(select(tables.api_keys)).one()
    assert row.secret_hash == hashlib.sha256(text.encode()).digest()
    assert secret not in repr(row)
    assert secret not in repr(house.events.kept)
    assert secret not in repr(house.keys.list())
    assert len(secret) == 43


def test_keys_differ(house: House) -> None:
    """ASVS 7.2.3: 256 bits of chance."""
    texts = {house.keys.add(SERVER, "ci", grants=[PREDICTOR])[1] for _ in range(20)}
    assert len(texts) == 20


@pytest.mark.parametrize("change", ["first", "last", "id", "prefix", "short", "long", "empty", "other", "letters"])
def test_another_text_is_refused(house: House, change: str) -> None:
    """Attack case A4: a key that agrees in its beginning is as wrong as any other."""
    _, text = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    head, secret = text[:21], text[21:]
    other = "A" if secret[0] != "A" else "B"
    wrong = {
        "first": head + other + secret[1:],
        "last": text[:-1] + ("A" if text[-1] != "A" else "B"),
        "id": "ssk_" + "0" * 16 + "_" + secret,
        "prefix": "sk_" + text[4:],
        "short": text[:-1],
        "long": text + "A",
        "empty": "",
        "other": "ssk_" + "0" * 16 + "_" + "A" * 43,
        "letters": head + "é" * 43,
    }[change]
    assert house.why_refused(wrong) in ("unknown", "secret")


def test_the_same_work_is_done_for_every_text(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack case A4, ASVS 6.3.8: asserted by what is called, not by the clock."""
    key, text = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    house.keys.authenticate(text)  # its use is told now
    calls: list[str] = []

    class Counted:
        @staticmethod
        def compare_digest(one: bytes, other: bytes) -> bool:
            assert len(one) == len(other) == 32
            calls.append("compare")
            return hmac.compare_digest(one, other)

    def digest(shown: str) -> bytes:
        calls.append("hash")
        return hashlib.sha256(shown.encode()).digest()

    monkeypatch.setattr(keys_module, "hmac", Counted)
    monkeypatch.setattr(keys_module, "digest", digest)
    for shown in (text, text[:-1] + "A", f"ssk_{'0' * 16}_{'A' * 43}", "", "Bearer"):
        calls.clear()
        try:
            house.keys.authenticate(shown)
        except AuthenticationError:
            assert shown != text
        assert calls == ["hash", "compare", "compare"]
    assert key.id


def test_a4_statements_do_not_tell_which_keys_there_are(house: House) -> None:
    """ASVS 6.3.8: an id that there is not, a wrong secret, a person's key and a service's ask the database the same."""
    ada, grace = house.person("ada", Grant("predictor")), house.person("grace", Grant("predictor"))
    service, persons, disableds, revoked = (
        house.keys.add(SERVER, f"key{number}", grants=[PREDICTOR], owner_id=owner)
        for number, owner in enumerate((None, ada.id, grace.id, None))
    )
    assert grace.id is not None
    house.directory.set_disabled(SERVER, grace.id, True)
    house.keys.revoke(SERVER, revoked[0].id)
    for _, text in (service, persons):
        house.keys.authenticate(text)  # their use is told now
    shown = {
        "unknown": f"ssk_{'0' * 16}_{'A' * 43}",
        "no key": "Bearer",
        "service": service[1],
        "person": persons[1],
        "disabled": disableds[1],
        "revoked": revoked[1],
        **{f"{name}, wrong": one[1][:-1] + "!" for name, one in (("s", service), ("p", persons))},
        **{f"wrong {one.id}": f"ssk_{one.id}_{'A' * 43}" for one, _ in (service, persons, disableds, revoked)},
    }
    seen = {}
    for label, text in shown.items():
        statements: list[str] = []

        def note(
            connection: object, cursor: object, statement: str, *rest: object, kept: list[str] = statements
        ) -> None:
            kept.append(statement)

        sql_event.listen(house.db._engine, "before_cursor_execute", note)
        with contextlib.suppress(AuthenticationError):
            house.keys.authenticate(text)
        sql_event.remove(house.db._engine, "before_cursor_execute", note)
        seen[label] = tuple(statements)
    assert len(set(seen.values())) == 1, seen
    assert len(seen["unknown"]) > 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_changed_character_is_refused(house: House, data: st.DataObject) -> None:
    if not house.keys.list():
        house.text = house.keys.add(SERVER, "ci", grants=[PREDICTOR])[1]  # type: ignore[attr-defined]
    text: str = house.text  # type: ignore[attr-defined]
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(blacklist_characters=text[place]))
    with pytest.raises(AuthenticationError):
        house.keys.authenticate(text[:place] + letter + text[place + 1 :])


def test_key_ends_when_it_expires(house: House) -> None:
    """ASVS 6.4.1 by analogy: what is handed out ends."""
    ends = house.clock() + timedelta(hours=1)
    _, text = house.keys.add(SERVER, "ci", grants=[PREDICTOR], expires_at=ends)
    house.clock.pass_s(3599)
    assert house.keys.check(text)[1] == ends
    house.clock.pass_s(1)
    assert house.why_refused(text) == "expired"


def test_key_that_would_have_ended_already_is_not_made(house: House) -> None:
    with pytest.raises(UsageError, match="passed"):
        house.keys.add(SERVER, "ci", grants=[PREDICTOR], expires_at=house.clock())


def test_revoked_key_is_refused_at_once_with_its_secret_before(house: House) -> None:
    """ASVS 6.5.6."""
    key, before = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    after = house.keys.rotate(SERVER, key.id)
    found = house.keys.authenticate(after)
    house.keys.revoke(SERVER, key.id)
    assert house.why_refused(after) == "revoked"
    assert house.why_refused(before) == "secret"
    house.keys.revoke(SERVER, key.id)
    assert len(house.events.of(EventKind.KEY_REVOKED)) == 1
    with pytest.raises(NotFoundError):
        house.keys.rotate(SERVER, key.id)
    assert house.keys.still(found) is None


@pytest.mark.parametrize("shown", ["before", "after"])
def test_what_stays_open_ends_with_the_secret_that_opened_it(house: House, shown: str) -> None:
    """ASVS 7.4.1 by analogy: a leaked secret that was replaced keeps no stream open."""
    key, before = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    with_before = house.keys.authenticate(before)
    after = house.keys.rotate(SERVER, key.id, overlap_s=600)
    principal = with_before if shown == "before" else house.keys.authenticate(after)
    assert before not in repr(principal)
    assert repr(principal.secret) not in repr(principal)
    ends = house.clock() + timedelta(seconds=600)
    assert house.keys.still(principal) == (principal, ends if shown == "before" else None)
    house.clock.pass_s(600)
    assert (house.keys.still(principal) is None) == (shown == "before")
    house.keys.rotate(SERVER, key.id, overlap_s=0)
    assert house.keys.still(principal) is None


def test_rotation_leaves_the_secret_before_good_for_a_while(house: House) -> None:
    key, before = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    after = house.keys.rotate(SERVER, key.id, overlap_s=600)
    assert before != after
    house.clock.pass_s(599)
    assert house.keys.authenticate(before).id == house.keys.authenticate(after).id == key.id
    assert house.keys.check(before)[1] == house.clock() + timedelta(seconds=1)
    assert house.keys.check(after)[1] is None
    house.clock.pass_s(1)
    assert house.why_refused(before) == "expired"
    assert house.keys.authenticate(after).id == key.id


def test_rotation_without_overlap_ends_the_secret_before_at_once(house: House) -> None:
    key, before = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    after = house.keys.rotate(SERVER, key.id, overlap_s=0)
    assert house.why_refused(before) == "secret"
    assert house.keys.authenticate(after).id == key.id


def test_second_rotation_ends_the_first_secret(house: House) -> None:
    key, first = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    second = house.keys.rotate(SERVER, key.id)
    third = house.keys.rotate(SERVER, key.id)
    assert house.why_refused(first) == "secret"
    assert house.keys.authenticate(second).id == house.keys.authenticate(third).id


@pytest.mark.parametrize("overlap_s", [-1.0, 30 * 86400.0 + 1, float("nan")])
def test_overlap_is_finite(house: House, overlap_s: float) -> None:
    key, _ = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    with pytest.raises(UsageError, match="overlap_s"):
        house.keys.rotate(SERVER, key.id, overlap_s=overlap_s)


def test_expiry_stands_when_a_key_is_rotated(house: House) -> None:
    ends = house.clock() + timedelta(hours=1)
    key, _ = house.keys.add(SERVER, "ci", grants=[PREDICTOR], expires_at=ends)
    text = house.keys.rotate(SERVER, key.id, overlap_s=86400)
    house.clock.pass_s(3600)
    assert house.why_refused(text) == "expired"


def test_person_makes_a_key_within_their_own_rights(house: House) -> None:
    ada = house.person("ada", Grant("deployer", ("team-a-*",)))
    key, text = house.keys.add(ada, "laptop", grants=[PREDICTOR], owner_id=ada.id)
    assert key.owner_id == house.keys.authenticate(text).owner_id == ada.id
    assert key.created_by == "person:ada"
    assert house.keys.authenticate(text).may(Action.MODELS_PREDICT, "team-a-cars")


@pytest.mark.parametrize(
    "wanted",
    [Grant("deployer", ("team-a-*",)), Grant("predictor"), Grant("predictor", ("team-b-*",)), Grant("operator")],
    ids=Grant.told,
)
def test_person_makes_no_key_beyond_their_own_rights(house: House, wanted: Grant) -> None:
    """Attack case A5, ASVS 8.2.1: nobody raises themselves by a key."""
    ada = house.person("ada", PREDICTOR)
    with pytest.raises(ForbiddenError, match="no more than you"):
        house.keys.add(ada, "laptop", grants=[wanted], owner_id=ada.id)
    assert house.keys.list() == []
    assert house.directory.grants("key", "") == ()


def test_rights_that_were_taken_meanwhile_give_no_key(house: House) -> None:
    """ASVS 8.3.2: what the store says counts, not what the session began with."""
    ada = house.person("ada", PREDICTOR)
    house.directory.set_grants(SERVER, "user", ada.id or "", [])
    with pytest.raises(ForbiddenError):
        house.keys.add(ada, "laptop", grants=[PREDICTOR], owner_id=ada.id)


def test_person_without_second_factor_makes_no_key(house: House) -> None:
    """ASVS 6.3.4: a key is no way around enrolment."""
    ada = replace(house.person("ada", PREDICTOR), must_enrol=True)
    with pytest.raises(ForbiddenError):
        house.keys.add(ada, "laptop", grants=[PREDICTOR], owner_id=ada.id)


def test_a5_key_is_no_way_around_proving_oneself_again(house: House) -> None:
    """Attack case A5, ASVS 7.5.3: a key is never asked again, so who makes one has proved themselves a short while ago."""
    ada, admin = house.person("ada", Grant("deployer")), house.person("alan", Grant("admin"))
    key, _ = house.keys.add(ada, "laptop", grants=[Grant("deployer")], owner_id=ada.id)
    house.clock.pass_s(300)
    with pytest.raises(StepUpError):
        house.keys.add(ada, "more", grants=[Grant("deployer")], owner_id=ada.id)
    with pytest.raises(StepUpError):
        house.keys.rotate(ada, key.id)
    with pytest.raises(StepUpError):
        house.keys.add(admin, "service", grants=[Grant("deployer")])
    assert len(house.keys.list()) == 1
    house.keys.revoke(ada, key.id)  # to end one is never too early


def test_person_makes_keys_for_themselves_alone(house: House) -> None:
    ada, grace = house.person("ada", PREDICTOR), house.person("grace", PREDICTOR)
    for owner in (None, grace.id):
        with pytest.raises(ForbiddenError):
            house.keys.add(ada, "laptop", grants=[PREDICTOR], owner_id=owner)


def test_key_makes_no_keys(house: House) -> None:
    """Attack case A5: a service's account is not used as a person."""
    key, text = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    machine = house.keys.authenticate(text)
    for owner in (None, key.id):
        with pytest.raises(ForbiddenError):
            house.keys.add(machine, "more", grants=[PREDICTOR], owner_id=owner)
    with pytest.raises(ForbiddenError):
        house.keys.rotate(machine, key.id)


@pytest.mark.parametrize("role", ["admin", "auditor"])
def test_key_holds_nothing_of_access_or_audit(house: House, role: str) -> None:
    """ASVS 6.3.4: what people need two factors for is not open to one."""
    with pytest.raises(UsageError):
        house.keys.add(SERVER, "ci", grants=[Grant(role)])
    admin = house.person("ada", Grant("admin"))
    with pytest.raises(UsageError):
        house.keys.add(admin, "ci", grants=[Grant(role)], owner_id=admin.id)
    assert house.keys.list() == []


def test_key_holds_nothing_of_access_whatever_a_row_says(house: House) -> None:
    key, text = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    with house.db.write() as connection:
        connection.execute(tables.grants.update().where(tables.grants.c.holder_id == key.id).values(role="admin"))
    found = house.keys.authenticate(text)
    assert not found.rights.allows_somewhere(Action.ACCESS_CHANGE)
    assert not found.rights.allows_somewhere(Action.ACCESS_READ)
    assert found.rights.allows_somewhere(Action.MODELS_READ)


def test_role_of_ones_own_is_for_keys_too(house: House) -> None:
    house.directory.apply_role(SERVER, Role("labels", frozenset({Action.LABELS_READ})))
    _, text = house.keys.add(SERVER, "ci", grants=[Grant("labels", ("cars",))])
    assert house.keys.authenticate(text).may(Action.LABELS_READ, "cars")
    house.directory.apply_role(SERVER, Role("labels", frozenset({Action.GOLDEN_READ})))
    assert not house.keys.authenticate(text).may(Action.LABELS_READ, "cars")


def test_unknown_role_gives_no_key(house: House) -> None:
    with pytest.raises(UsageError, match="no such role"):
        house.keys.add(SERVER, "ci", grants=[Grant("nonesuch")])
    with pytest.raises(UsageError):
        house.keys.add(SERVER, "ci", grants=[])


def test_key_is_refused_while_its_owner_is_disabled(house: House) -> None:
    """ASVS 7.4.2 for keys."""
    ada = house.person("ada", PREDICTOR)
    _, text = house.keys.add(ada, "laptop", grants=[PREDICTOR], owner_id=ada.id)
    house.directory.set_disabled(SERVER, ada.id or "", True)
    assert house.why_refused(text) == "owner-disabled"
    house.directory.set_disabled(SERVER, ada.id or "", False)
    assert house.keys.authenticate(text).may(Action.MODELS_PREDICT, "team-a-cars")


def test_key_loses_what_its_owner_loses(house: House) -> None:
    """ASVS 8.3.2 and 8.3.3: the rights of whom it acts for, as they are now."""
    ada = house.person("ada", Grant("deployer"))
    _, text = house.keys.add(ada, "laptop", grants=[Grant("deployer", ("cars",))], owner_id=ada.id)
    assert house.keys.authenticate(text).may(Action.ROLLOUT_PROMOTE, "cars")
    house.directory.set_grants(SERVER, "user", ada.id or "", [Grant("predictor")])
    found = house.keys.authenticate(text)
    assert found.may(Action.MODELS_PREDICT, "cars")
    assert not found.may(Action.ROLLOUT_PROMOTE, "cars")
    house.directory.set_grants(SERVER, "user", ada.id or "", [])
    assert house.keys.authenticate(text).rights.grants == ()


def test_key_goes_with_its_owner(house: House) -> None:
    ada = house.person("ada", PREDICTOR)
    key, text = house.keys.add(ada, "laptop", grants=[PREDICTOR], owner_id=ada.id)
    house.directory.remove_user(SERVER, ada.id or "")
    assert house.why_refused(text) == "unknown"
    assert house.keys.list() == []
    assert house.directory.grants("key", key.id) == ()


def test_key_for_somebody_else_stays_within_their_rights(house: House) -> None:
    admin, grace = house.person("ada", Grant("admin")), house.person("grace", PREDICTOR)
    _, text = house.keys.add(admin, "robot", grants=[Grant("deployer")], owner_id=grace.id)
    assert house.keys.authenticate(text).rights.grants == ()
    with pytest.raises(NotFoundError):
        house.keys.add(admin, "robot", grants=[PREDICTOR], owner_id="0" * 16)


def test_owner_and_administrator_end_a_key_and_nobody_else(house: House) -> None:
    ada, grace, alan = (
        house.person("ada", PREDICTOR),
        house.person("grace", PREDICTOR),
        house.person("alan", Grant("admin")),
    )
    key, _ = house.keys.add(ada, "laptop", grants=[PREDICTOR], owner_id=ada.id)
    for which in (key.id, "0" * 16):
        # Whether there is such a key is not told to whom it does not belong.
        with pytest.raises(ForbiddenError):
            house.keys.revoke(grace, which)
        with pytest.raises(ForbiddenError):
            house.keys.rotate(grace, which)
    with pytest.raises(NotFoundError):
        house.keys.revoke(alan, "0" * 16)
    house.keys.rotate(ada, key.id)
    house.keys.revoke(alan, key.id)
    assert house.keys.get(key.id).revoked_at == house.clock()


def test_use_is_told_once_a_minute(house: House) -> None:
    key, text = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    assert house.keys.get(key.id).used_at is None
    first = house.clock()
    house.keys.authenticate(text)
    writes = house.db.writes
    house.clock.pass_s(59)
    house.keys.authenticate(text)
    assert house.db.writes == writes
    assert house.keys.get(key.id).used_at == first
    house.clock.pass_s(1)
    house.keys.authenticate(text)
    assert house.keys.get(key.id).used_at == first + timedelta(minutes=1)


def test_keys_are_listed_by_name_and_owner(house: House) -> None:
    ada = house.person("ada", PREDICTOR)
    own, _ = house.keys.add(ada, "b", grants=[PREDICTOR], owner_id=ada.id)
    other, _ = house.keys.add(SERVER, "a", grants=[PREDICTOR, Grant("viewer")])
    assert [one.id for one in house.keys.list()] == [other.id, own.id]
    assert [one.id for one in house.keys.list(ada.id)] == [own.id]
    listed: ApiKey = house.keys.list()[0]
    assert {one.told() for one in listed.grants} == {"predictor@team-a-*", "viewer"}


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "ci\n", "a/b"])
def test_name_of_a_key_is_plain(house: House, name: str) -> None:
    with pytest.raises(UsageError, match="not a name"):
        house.keys.add(SERVER, name, grants=[PREDICTOR])


@pytest.mark.parametrize("act", ["add", "rotate", "revoke"])
def test_nothing_is_done_when_it_cannot_be_told(house: House, act: str) -> None:
    """ASVS 16.5.3: fail closed."""
    key, text = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    house.events.fails = True
    with pytest.raises(OSError, match="no space"):
        {
            "add": lambda: house.keys.add(SERVER, "other", grants=[PREDICTOR]),
            "rotate": lambda: house.keys.rotate(SERVER, key.id, overlap_s=0),
            "revoke": lambda: house.keys.revoke(SERVER, key.id),
        }[act]()
    house.events.fails = False
    assert [one.id for one in house.keys.list()] == [key.id]
    assert house.keys.authenticate(text).id == key.id


def test_each_change_makes_the_revision_grow(house: House) -> None:
    seen = [house.directory.revision()]
    key, _ = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    seen.append(house.directory.revision())
    house.keys.rotate(SERVER, key.id)
    seen.append(house.directory.revision())
    house.keys.revoke(SERVER, key.id)
    seen.append(house.directory.revision())
    assert seen == sorted(set(seen))


def test_rotations_side_by_side_leave_one_secret_and_its_predecessor(house: House) -> None:
    key, _ = house.keys.add(SERVER, "ci", grants=[PREDICTOR])
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda: texts.append(house.keys.rotate(SERVER, key.id, overlap_s=600)))
        for _ in range(6)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    good = 0
    for text in texts:
        try:
            house.keys.authenticate(text)
        except AuthenticationError:
            continue
        good += 1
    assert (len(texts), good) == (6, 2)


@pytest.mark.parametrize("hostile", ["\x00", "\ud800", "", "' OR 1=1 --", "a" * 100_000])
def test_text_that_databases_refuse_is_no_key_and_no_person(house: House, hostile: str) -> None:
    with pytest.raises(NotFoundError):
        house.keys.revoke(SERVER, hostile)
    with pytest.raises(NotFoundError):
        house.keys.rotate(SERVER, hostile)
    with pytest.raises(NotFoundError):
        house.keys.get(hostile)
    with pytest.raises(NotFoundError):
        house.keys.add(SERVER, "ci", grants=[PREDICTOR], owner_id=hostile)
    assert house.keys.list(hostile) == []
    assert house.keys.still(Principal(PrincipalKind.KEY, "ci", id=hostile)) is None
    assert house.why_refused(hostile) == "unknown"
