# SPDX-License-Identifier: Apache-2.0
"""One-time codes and recovery codes: taken once, by whom they belong to, and put in force by them alone."""

from __future__ import annotations

import hashlib
import math
import re
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select
from tests.access.conftest import Clock, KeptEvents
from tests.access.people import PASSWORD, People

from shipsight.access import EventKind, Principal, PrincipalKind
from shipsight.access.factors import Factors, TotpSetup, looks_like_recovery
from shipsight.access.principal import LOOPBACK, NOBODY, SERVER
from shipsight.access.store import Database, SecretBox
from shipsight.access.store.tables import recovery_codes, totps
from shipsight.errors import AuthenticationError, CorruptError, ForbiddenError, NotFoundError, StepUpError


@pytest.fixture
def people(database: Database, clock: Clock, events: KeptEvents) -> People:
    return People(database, clock, events)


def test_code_is_right_for_its_step_and_the_ones_beside_it_alone(people: People) -> None:
    """ASVS 6.5.5: thirty seconds, and as RFC 6238, 5.2 allows one step of drift; ASVS 6.5.8: by the server's clock."""
    ada = people.add_with_codes("ada")
    taken = {steps: people.factors.check_totp(ada.id, people.code(ada.id, steps=steps)) for steps in range(-3, 4)}
    assert taken == {-3: False, -2: False, -1: True, 0: True, 1: True, 2: False, 3: False}


def test_a2_code_is_taken_once(people: People) -> None:
    """A2, ASVS 6.5.1: the same code twice."""
    ada = people.add_with_codes("ada")
    code = people.code(ada.id)
    assert people.factors.check_totp(ada.id, code)
    for _ in range(3):
        assert not people.factors.check_totp(ada.id, code)
        people.clock.pass_s(10)


def test_a2_older_step_is_refused_after_a_newer_one(people: People) -> None:
    """A2: even though it was never shown."""
    ada = people.add_with_codes("ada")
    older, newer = people.code(ada.id), people.code(ada.id, steps=1)
    assert people.factors.check_totp(ada.id, newer)
    assert not people.factors.check_totp(ada.id, older)


def test_a2_clock_that_goes_back_brings_no_code_back(people: People) -> None:
    """A2."""
    ada = people.add_with_codes("ada")
    code = people.code(ada.id)
    assert people.factors.check_totp(ada.id, code)
    for back_s in (30, 60, 3600):
        people.clock.pass_s(-back_s)
        assert not people.factors.check_totp(ada.id, people.code(ada.id))
    assert not people.factors.check_totp(ada.id, code)
    people.clock.pass_s(3690 + 30)
    assert people.factors.check_totp(ada.id, people.code(ada.id))


def test_a2_code_that_confirmed_a_seed_does_not_sign_in(people: People) -> None:
    """A2: it was used."""
    ada = people.add("ada")
    people.enrol(people.enter(people.sign_in.begin("ada", PASSWORD)))
    assert not people.factors.check_totp(ada.id, people.code(ada.id))


@pytest.mark.parametrize(
    "write",
    [
        lambda code: f" {code[:3]} {code[3:]}\n",
        lambda code: "\t" + code,
    ],
    ids=["grouped", "tab"],
)
def test_a2_blanks_in_a_code_are_passed_over(people: People, write: object) -> None:
    """A2: as authenticators show it."""
    ada = people.add_with_codes("ada")
    assert people.factors.check_totp(ada.id, write(people.code(ada.id)))  # type: ignore[operator]


ARABIC = str.maketrans("0123456789", "\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669")
WIDE = str.maketrans("0123456789", "\uff10\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19")


def test_a2_only_ascii_digits_are_a_code(people: People) -> None:
    """A2: other digits, signs, more or fewer, and anything that a number could be read from."""
    ada = people.add_with_codes("ada")
    code = people.code(ada.id)
    for hostile in (
        code.translate(ARABIC),
        code.translate(WIDE),
        code[:5],
        code + "0",
        "0" + code,
        "+" + code[1:],
        f"{code}.0",
        f"{code}\0",
        code[:3] + "_" + code[3:],
        "",
        "\ud800" * 6,
        "9" * 100_000,
    ):
        assert not people.factors.check_totp(ada.id, hostile), hostile[:20]
    assert people.factors.check_totp(ada.id, code)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(st.text(max_size=12))
def test_text_that_is_no_recovery_code_is_not_taken_for_one(text: str) -> None:
    assert not looks_like_recovery(text)


@pytest.mark.parametrize("crowd", [2, 12])
def test_a2_code_is_taken_once_when_many_use_it_at_once(people: People, crowd: int) -> None:
    """A2, ASVS 6.5.1: parallel requests."""
    ada = people.add_with_codes("ada")
    code, begin = people.code(ada.id), Barrier(crowd)

    def use(_: int) -> bool:
        begin.wait()
        return people.factors.check_totp(ada.id, code)

    with ThreadPoolExecutor(crowd) as pool:
        assert sum(pool.map(use, range(crowd))) == 1


def test_a2_recovery_code_is_taken_once_when_many_use_it_at_once(people: People) -> None:
    """A2, ASVS 6.5.1."""
    ada = people.add_with_codes("ada")
    person, _ = people.enter_with_codes(ada)
    code, begin = people.factors.make_recovery_codes(person, ada.id)[3], Barrier(8)

    def use(_: int) -> bool:
        begin.wait()
        return people.factors.use_recovery_code(ada.id, code)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(8))) == 1


def test_recovery_codes_are_ten_of_140_bits_each_kept_as_hashes(people: People) -> None:
    """ASVS 6.5.2: with 112 bits and more a plain hash is enough; ASVS 6.5.3: from a secure generator; ASVS 11.5.1: 128 and more."""
    ada = people.add_with_codes("ada")
    person, _ = people.enter_with_codes(ada)
    codes = people.factors.make_recovery_codes(person, ada.id)
    assert len(set(codes)) == 10
    assert all(re.fullmatch(r"([A-Z2-7]{4}-){6}[A-Z2-7]{4}", code) for code in codes)
    assert 28 * math.log2(32) >= 128
    assert len(set("".join(codes)) - {"-"}) >= 28, "all letters come, but for chance"
    with people.database.read() as connection:
        kept = connection.execute(select(recovery_codes.c.code_hash)).scalars().all()
    assert all(len(one) == 64 for one in kept)
    assert not any(code.replace("-", "") in one.upper() for code in codes for one in kept)


def test_a2_recovery_code_is_taken_once_however_it_is_written(people: People) -> None:
    """A2: recovery code twice."""
    ada = people.add_with_codes("ada")
    person, _ = people.enter_with_codes(ada)
    codes = people.factors.make_recovery_codes(person, ada.id)
    assert people.factors.use_recovery_code(ada.id, f" {codes[0].lower().replace('-', ' ')} ")
    assert not people.factors.use_recovery_code(ada.id, codes[0])
    assert people.factors.use_recovery_code(ada.id, codes[1])
    assert people.factors.of(ada.id).recovery_left == 8


def test_shorter_recovery_codes_that_were_given_before_are_taken(people: People) -> None:
    ada = people.add_with_codes("ada")
    code = "ABCD-EFGH-IJKL-MNOP-QRST-UVWX"
    assert looks_like_recovery(code)
    with people.database.write() as connection:
        connection.execute(
            insert(recovery_codes).values(
                id="1",
                user_id=ada.id,
                code_hash=hashlib.sha256(f"{ada.id}:{code.replace('-', '')}".encode()).hexdigest(),
            )
        )
    step = people.sign_in.begin("ada", PASSWORD)
    assert step.pending is not None
    assert people.sign_in.finish_code(step.pending, code.lower()).session is not None
    assert not people.factors.use_recovery_code(ada.id, code)


def test_recovery_codes_of_before_or_of_another_are_not_taken(people: People) -> None:
    ada, grace = people.add_with_codes("ada"), people.add_with_codes("grace")
    person, _ = people.enter_with_codes(ada)
    old = people.factors.make_recovery_codes(person, ada.id)
    new = people.factors.make_recovery_codes(person, ada.id)
    assert not any(people.factors.use_recovery_code(ada.id, code) for code in old)
    assert not any(people.factors.use_recovery_code(grace.id, code) for code in new)
    assert people.factors.of(ada.id).recovery_left == 10


def test_seed_is_not_in_force_before_it_is_confirmed(people: People) -> None:
    ada = people.add("ada")
    setup = people.factors.begin_totp(ada.id)
    assert not people.factors.check_totp(ada.id, pyotp.TOTP(setup.secret).at(people.clock()))
    assert not people.factors.of(ada.id).has_totp


def test_seed_has_160_bits_and_its_uri_names_account_and_issuer(people: People) -> None:
    """ASVS 6.5.3; RFC 4226, 4."""
    ada = people.add("ada")
    setup = people.factors.begin_totp(ada.id)
    parts = urlsplit(setup.uri)
    assert len(setup.secret) * 5 == 160
    assert (parts.scheme, parts.netloc, parts.path) == ("otpauth", "totp", "/shipsight:ada")
    assert parse_qs(parts.query)["secret"] == [setup.secret]


def test_seed_is_encrypted_and_bound_to_its_row(people: People, clock: Clock, events: KeptEvents) -> None:
    """ASVS 13.3 and 14.2: a row of somebody else, or a database without its key, is worth nothing."""
    ada, grace = people.add_with_codes("ada"), people.add_with_codes("grace")
    with people.database.read() as connection:
        rows = {row.user_id: row for row in connection.execute(select(totps))}
    for seed in people.seeds.values():
        assert all(seed.encode() not in row.secret for row in rows.values())
    other = Factors(people.database, SecretBox([bytes(32)]), events, clock)
    with pytest.raises(CorruptError):
        other.check_totp(ada.id, people.code(ada.id))
    with people.database.write() as connection:
        connection.execute(totps.update().where(totps.c.user_id == grace.id).values(secret=rows[ada.id].secret))
    with pytest.raises(CorruptError):
        people.factors.check_totp(grace.id, people.code(ada.id))


def test_seed_that_was_asked_for_again_replaces_the_one_that_waits(people: People) -> None:
    ada = people.add("ada")
    person = people.enter(people.sign_in.begin("ada", PASSWORD))
    first = people.factors.begin_totp(ada.id)
    second = people.factors.begin_totp(ada.id)
    with pytest.raises(AuthenticationError):
        people.factors.confirm_totp(person, ada.id, pyotp.TOTP(first.secret).at(people.clock()))
    people.factors.confirm_totp(person, ada.id, pyotp.TOTP(second.secret).at(people.clock()))
    assert people.factors.of(ada.id).has_totp


def test_seed_that_waited_too_long_is_not_confirmed(people: People) -> None:
    """ASVS 6.4.1 for seeds: what was shown long ago may have been seen."""
    ada = people.add("ada")
    setup = people.factors.begin_totp(ada.id)
    people.clock.pass_s(901)
    person = people.enter(people.sign_in.begin("ada", PASSWORD))
    with pytest.raises(AuthenticationError):
        people.factors.confirm_totp(person, ada.id, pyotp.TOTP(setup.secret).at(people.clock()))


def test_a2_new_seed_replaces_the_old_one_when_it_is_confirmed(people: People) -> None:
    """A2: seed rotation; until then the old one is in force."""
    ada = people.add_with_codes("ada")
    old = people.seeds[ada.id]
    person, _ = people.enter_with_codes(ada)
    new = people.factors.begin_totp(ada.id).secret
    assert people.factors.check_totp(ada.id, pyotp.TOTP(old).at(people.clock()))
    people.clock.pass_s(60)
    people.factors.confirm_totp(person, ada.id, pyotp.TOTP(new).at(people.clock()))
    people.clock.pass_s(60)
    assert not people.factors.check_totp(ada.id, pyotp.TOTP(old).at(people.clock()))
    assert people.factors.check_totp(ada.id, pyotp.TOTP(new).at(people.clock()))


def test_a2_factors_are_changed_after_a_fresh_proof_alone(people: People) -> None:
    """A2, ASVS 7.5.1: enrolling needs a proof of a short while ago."""
    ada = people.add_with_codes("ada")
    person, _ = people.enter_with_codes(ada)
    setup = people.factors.begin_totp(ada.id)
    people.clock.pass_s(300)
    before = people.dump()
    with pytest.raises(StepUpError):
        people.factors.confirm_totp(person, ada.id, pyotp.TOTP(setup.secret).at(people.clock()))
    with pytest.raises(StepUpError):
        people.factors.remove_totp(person, ada.id)
    with pytest.raises(StepUpError):
        people.factors.make_recovery_codes(person, ada.id)
    assert people.dump() == before


@pytest.mark.parametrize("who", ["administrator", "other", "nobody", "server", "loopback"])
def test_nobody_sets_up_factors_of_another(people: People, who: str) -> None:
    """ASVS 8.2.2: neither an administrator, who could sign in as them."""
    ada = people.add_with_codes("ada")
    actor = {"nobody": NOBODY, "server": SERVER, "loopback": LOOPBACK}.get(who)
    if actor is None:
        other = people.add_with_codes("grace", "admin" if who == "administrator" else "viewer")
        actor, _ = people.enter_with_codes(other)
    setup = people.factors.begin_totp(ada.id)
    before = people.dump()
    with pytest.raises(ForbiddenError):
        people.factors.confirm_totp(actor, ada.id, pyotp.TOTP(setup.secret).at(people.clock()))
    with pytest.raises(ForbiddenError):
        people.factors.make_recovery_codes(actor, ada.id)
    assert people.dump() == before


def test_machine_with_the_id_of_a_person_is_not_that_person(people: People) -> None:
    """A5: a service account used as a person."""
    ada = people.add_with_codes("ada")
    machine = Principal(PrincipalKind.KEY, "ada", id=ada.id)
    with pytest.raises(ForbiddenError):
        people.factors.make_recovery_codes(machine, ada.id)
    with pytest.raises(ForbiddenError):
        people.factors.remove_totp(machine, ada.id)


def test_last_second_factor_stays_when_rights_need_one(people: People) -> None:
    """ASVS 6.3.3."""
    ada = people.add_with_codes("ada", "deployer")
    person, _ = people.enter_with_codes(ada)
    with pytest.raises(ForbiddenError, match="need a second factor"):
        people.factors.remove_totp(person, ada.id)
    assert people.factors.of(ada.id).has_totp


def test_last_second_factor_goes_with_its_recovery_codes_when_no_right_needs_one(people: People) -> None:
    ada = people.add_with_codes("ada", "viewer")
    person, _ = people.enter_with_codes(ada)
    people.factors.make_recovery_codes(person, ada.id)
    people.factors.remove_totp(person, ada.id)
    found = people.factors.of(ada.id)
    assert (found.has_totp, found.has_second, found.recovery_left) == (False, False, 0)
    with pytest.raises(NotFoundError):
        people.factors.remove_totp(person, ada.id)


def test_administrator_takes_a_lost_factor_away_and_the_person_has_to_add_another(people: People) -> None:
    """ASVS 6.5.6: factors can be revoked; ASVS 6.3.3: rights that need one do nothing until there is one."""
    boss, ada = people.add_with_codes("grace", "admin"), people.add_with_codes("ada", "deployer")
    person, _ = people.enter_with_codes(ada)
    actor, _ = people.enter_with_codes(boss)
    people.factors.remove_totp(actor, ada.id)
    assert people.sessions.by_handle(str(person.session)) is None
    step = people.sign_in.begin("ada", PASSWORD)
    assert step.kind == "enrol"
    assert people.enter(step).must_enrol


def test_recovery_codes_need_a_factor_that_they_stand_in_for(people: People) -> None:
    ada = people.add("ada")
    person = people.enter(people.sign_in.begin("ada", PASSWORD))
    with pytest.raises(ForbiddenError):
        people.factors.make_recovery_codes(person, ada.id)


def test_adding_a_factor_ends_sessions_that_have_none(people: People) -> None:
    """ASVS 7.4.3: one that somebody began with a stolen password does not become whole with the owner's."""
    people.add("ada", "deployer")
    thief = people.sign_in.begin("ada", PASSWORD)
    owner = people.enter(people.sign_in.begin("ada", PASSWORD))
    people.enrol(owner)
    assert thief.session is not None
    assert people.sessions.find(thief.session.token) is None
    still = people.sessions.by_handle(str(owner.session))
    assert still is not None
    assert not still.must_enrol
    assert still.factors == ("password", "totp")


def test_begin_totp_of_nobody_is_refused(people: People) -> None:
    with pytest.raises(NotFoundError):
        people.factors.begin_totp("0123456789abcdef")


def test_secrets_are_not_in_representations_nor_in_events(people: People) -> None:
    """ASVS 16.2.5."""
    ada = people.add_with_codes("ada")
    person, _ = people.enter_with_codes(ada)
    codes = people.factors.make_recovery_codes(person, ada.id)
    setup = people.factors.begin_totp(ada.id)
    told = repr(people.events.kept) + repr(setup) + repr(TotpSetup("seed", "uri"))
    assert not any(secret in told for secret in (*codes, setup.secret, people.seeds[ada.id], "otpauth"))


def test_changes_of_factors_are_told(people: People) -> None:
    """ASVS 16.3.3."""
    ada = people.add_with_codes("ada")
    person, _ = people.enter_with_codes(ada)
    people.factors.make_recovery_codes(person, ada.id)
    people.factors.remove_totp(person, ada.id)
    told = [
        (event.kind, event.actor, event.subject, event.factor)
        for event in people.events.kept
        if event.kind in (EventKind.FACTOR_ADDED, EventKind.CODES_MADE, EventKind.FACTOR_REMOVED)
    ]
    assert told == [
        (EventKind.FACTOR_ADDED, "person:ada", "person:ada", "totp"),
        (EventKind.CODES_MADE, "person:ada", "person:ada", "recovery"),
        (EventKind.FACTOR_REMOVED, "person:ada", "person:ada", "totp"),
    ]
