# SPDX-License-Identifier: Apache-2.0
"""What may be used once is used once, whoever else uses it at the same moment: threads of one server, and two servers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from tests.access.conftest import Clock, KeptEvents
from tests.access.people import KEY, PASSWORD, People

from shipsight.access import Grant
from shipsight.access.principal import SERVER
from shipsight.access.store import Database, open_database
from shipsight.errors import AuthenticationError, ForbiddenError, RateLimitError, UsageError

CROWD = 8


@pytest.fixture
def people(database: Database, clock: Clock, events: KeptEvents) -> People:
    return People(database, clock, events)


def succeed(act: Callable[[int], Any], crowd: int = CROWD) -> int:
    """How many of a crowd succeed that act at the same moment."""
    begin = Barrier(crowd)

    def one(number: int) -> bool:
        begin.wait()
        try:
            return bool(act(number))
        except (AuthenticationError, ForbiddenError, RateLimitError, UsageError):
            return False

    with ThreadPoolExecutor(crowd) as pool:
        return sum(pool.map(one, range(crowd)))


def pending(people: People) -> str:
    token = people.sign_in.begin("ada", PASSWORD).pending
    assert token is not None
    return token


def test_a2_one_code_signs_in_once_with_many_pending_sign_ins(people: People) -> None:
    """A2, ASVS 6.5.1."""
    ada = people.add_with_codes("ada")
    tokens, code = [pending(people) for _ in range(4)], people.code(ada.id)
    assert succeed(lambda number: people.sign_in.finish_code(tokens[number], code), 4) == 1
    assert len(people.sessions.list(ada.id)) == 1


def test_pending_sign_in_ends_once_with_many_codes(people: People) -> None:
    """A6: one sign-in, one session; codes that lost are not used up."""
    ada = people.add_with_codes("ada")
    person, _ = people.enter_with_codes(ada)
    codes = people.factors.make_recovery_codes(person, ada.id)
    people.sessions.end_all(SERVER, ada.id)
    token = pending(people)
    assert succeed(lambda number: people.sign_in.finish_code(token, codes[number])) == 1
    assert len(people.sessions.list(ada.id)) == 1
    assert people.factors.of(ada.id).recovery_left == 9


def test_pending_sign_in_ends_once_with_code_and_passkey(people: People) -> None:
    ada = people.add_with_codes("ada")
    token = pending(people)
    challenges = [people.passkeys.challenge() for _ in range(CROWD)]
    credential = {"user_id": ada.id, "verified": True}

    def act(number: int) -> object:
        if number % 2:
            return people.sign_in.finish_passkey(token, challenges[number], credential)
        return people.sign_in.finish_code(token, people.code(ada.id))

    assert succeed(act) == 1
    assert len(people.sessions.list(ada.id)) == 1


def test_invitation_is_taken_once(people: People) -> None:
    """ASVS 6.4.1."""
    ada, code = people.directory.add_user(SERVER, "ada")
    assert succeed(lambda _: people.sign_in.accept_invitation(code, PASSWORD)) == 1
    assert len(people.sessions.list(ada.id)) == 1


def test_a8_setup_code_makes_one_administrator(people: People) -> None:
    """A8: whoever else has it comes too late."""
    code = people.directory.setup_code()
    names = [f"ada-{number}" for number in range(CROWD)]
    assert succeed(lambda number: people.sign_in.accept_invitation(code, PASSWORD, name=names[number])) == 1
    assert len(people.directory.users()) == 1


def test_a5_two_administrators_cannot_remove_each_other(people: People) -> None:
    """A5: the last one stays."""
    users = [people.add("ada", "admin"), people.add("grace", "admin")]
    actors = [people.find(people.sessions.begin(user.id, factors=("password", "totp"))) for user in users]

    def act(number: int) -> bool:
        people.directory.set_disabled(actors[number], users[1 - number].id, True)
        return True

    assert succeed(act, 2) == 1
    assert people.directory.has_administrator()


def test_name_is_given_once(people: People) -> None:
    def act(_: int) -> bool:
        people.directory.add_user(SERVER, "ada", grants=[Grant("viewer")])
        return True

    assert succeed(act) == 1
    assert len(people.directory.users()) == 1


def test_rights_of_a_disabled_person_do_not_come_back_by_a_sign_in_at_the_same_moment(people: People) -> None:
    """A6, ASVS 7.4.2."""
    ada = people.add_with_codes("ada")
    token, code = pending(people), people.code(ada.id)

    def act(number: int) -> object:
        if number:
            return people.sign_in.finish_code(token, code)
        people.directory.set_disabled(SERVER, ada.id, True)
        return None

    succeed(act, 2)
    assert people.sessions.list(ada.id) == []


def test_password_that_was_just_changed_does_not_sign_in(people: People) -> None:
    """A6, ASVS 7.4.3: one that was right when it was compared, and is not any more when the session would begin."""
    ada = people.add("ada")
    person = people.enter(people.sign_in.begin("ada", PASSWORD))
    matches = people.passwords.matches

    def slow(password: str, kept: str | None) -> bool:
        found = matches(password, kept)
        people.passwords.matches = matches  # type: ignore[method-assign]
        people.sign_in.change_password(person, PASSWORD, "seven kites over a lake")
        return found

    people.passwords.matches = slow  # type: ignore[method-assign]
    with pytest.raises(AuthenticationError):
        people.sign_in.begin("ada", PASSWORD)
    assert [one.handle for one in people.sessions.list(ada.id)] == [person.session]


# ---- two servers on one database


def race(url: str, people: People, act: str, *arguments: list[Any]) -> list[bool]:
    """Lets two processes do one thing at the same moment, and returns how each went."""
    told = [
        {"url": url, "at": people.clock().isoformat(), "key": KEY.hex(), "act": act, "arguments": one}
        for one in arguments
    ]
    script = Path(__file__).with_name("racing.py")
    servers = [
        subprocess.Popen(
            [sys.executable, script, json.dumps(one)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for one in told
    ]
    for server in servers:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
    for server in servers:
        assert server.stdin is not None
        server.stdin.write("go\n")
        server.stdin.flush()
    return [json.loads(server.communicate(timeout=60)[0]) for server in servers]


def test_a2_two_servers_take_each_secret_once(database_url: str, clock: Clock, events: KeptEvents) -> None:
    """A2, A8, ASVS 6.4.1, 6.5.1: a code, a recovery code, a sign-in that waits, an invitation, a setup code."""
    database = open_database(database_url)
    people = People(database, clock, events)
    setup = people.directory.setup_code()
    both = [[setup, PASSWORD, "ada"], [setup, PASSWORD, "grace"]]
    assert sorted(race(database_url, people, "setup", *both)) == [False, True]
    for user in people.directory.users():
        with database.write() as connection:
            connection.exec_driver_sql("DELETE FROM grants")
        people.directory.remove_user(SERVER, user.id)
    ada = people.add_with_codes("ada")
    person, _ = people.enter_with_codes(ada)
    recovery = people.factors.make_recovery_codes(person, ada.id)
    _, invitation = people.directory.add_user(SERVER, "alan")

    code = people.code(ada.id)
    assert sorted(race(database_url, people, "totp", [ada.id, code], [ada.id, code])) == [False, True]
    one = [ada.id, recovery[0]]
    assert sorted(race(database_url, people, "recovery", one, one)) == [False, True]
    clock.pass_s(60)
    token = pending(people)
    ways = [[token, people.code(ada.id)], [token, recovery[1]]]
    assert sorted(race(database_url, people, "code", *ways)) == [False, True]
    one = [invitation, PASSWORD]
    assert sorted(race(database_url, people, "invitation", one, one)) == [False, True]
    database.close()
