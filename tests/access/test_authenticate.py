# SPDX-License-Identifier: Apache-2.0
"""Who asks, told fast, and never longer than it is true."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import pytest
from sqlalchemy import event
from tests.access.conftest import Clock, KeptEvents

from shipsight.access import LOOPBACK, SERVER, Action, Certificate, EventKind, Grant, PrincipalKind
from shipsight.access.authenticate import LOOK_S, Authenticator
from shipsight.access.client_certificates import ClientCertificates
from shipsight.access.directory import Directory
from shipsight.access.keys import Keys
from shipsight.access.sessions import Sessions
from shipsight.access.store import Database, open_database
from shipsight.errors import AuthenticationError, EnvironmentLackError

if TYPE_CHECKING:
    from shipsight.access.service import Access

DEPLOYER = Grant("deployer", ("cars",))


class Seconds:
    """A clock of seconds."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Rooms:
    """The part of `Access` that says who asks."""

    database: Database
    events: KeptEvents
    now: Clock
    seconds: Seconds
    directory: Directory
    sessions: Sessions
    keys: Keys
    certificates: ClientCertificates

    def pass_s(self, seconds: float) -> None:
        self.now.pass_s(seconds)
        self.seconds.at += seconds

    def reads(self) -> Reads:
        return Reads(self.database)


class Reads:
    """Counts what is asked of a database while it is entered."""

    def __init__(self, database: Database) -> None:
        self._engine, self.texts = database._engine, []

    def __enter__(self) -> list[str]:
        event.listen(self._engine, "before_cursor_execute", self._tell)
        return self.texts

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._tell)

    def _tell(self, connection: object, cursor: object, text: str, *_: object) -> None:
        self.texts.append(text)


def make_rooms(database: Database, clock: Clock, events: KeptEvents) -> Rooms:
    directory = Directory(database, events, clock)
    sessions = Sessions(database, directory, events, clock, idle_s=1800, absolute_s=43200, fresh_s=300)
    keys, certificates = (
        Keys(database, events, clock),
        ClientCertificates(database, events, clock),
    )
    return Rooms(database, events, clock, Seconds(), directory, sessions, keys, certificates)


@pytest.fixture
def rooms(database: Database, clock: Clock, events: KeptEvents) -> Rooms:
    return make_rooms(database, clock, events)


@pytest.fixture
def elsewhere(database_url: str, clock: Clock, events: KeptEvents, rooms: Rooms) -> Iterator[Rooms]:
    """Another process, as far as the store can tell: an engine of its own on the same database."""
    opened = open_database(database_url)
    yield make_rooms(opened, clock, events)
    opened.close()


@pytest.fixture
def who(rooms: Rooms) -> Iterator[Authenticator]:
    with Authenticator(cast("Access", rooms), clock=rooms.seconds) as authenticator:
        yield authenticator


def a_certificate(rooms: Rooms) -> Certificate:
    ends = rooms.now() + timedelta(hours=1)
    return Certificate("CN=camera-1", (), "CN=authority", "2a", "ab" * 32, ends)


def test_key_is_found_out_once(rooms: Rooms, who: Authenticator) -> None:
    key, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    assert who.known_key(text) is None
    first = who.by_key(text)
    assert first.id == key.id
    who.by_key(text)  # looks once more: that the key was used has been written
    with rooms.reads() as asked:
        assert who.by_key(text) == who.known_key(text) == first
    assert asked == []


def test_refused_key_is_not_kept(rooms: Rooms, who: Authenticator) -> None:
    for _ in range(3):
        with pytest.raises(AuthenticationError):
            who.by_key("ssk_" + "0" * 16 + "_" + "A" * 43)
    assert len(rooms.events.of(EventKind.KEY_REFUSED)) == 3
    assert who._kept == {}


def test_change_in_this_process_counts_at_once(rooms: Rooms, who: Authenticator) -> None:
    """ASVS 8.3.2, attack case A5."""
    key, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    assert who.by_key(text).may(Action.ROLLOUT_PROMOTE, "cars")
    rooms.directory.set_grants(SERVER, "key", key.id, [Grant("viewer")])
    assert who.known_key(text) is None
    assert not who.by_key(text).may(Action.ROLLOUT_PROMOTE, "cars")
    rooms.keys.revoke(SERVER, key.id)
    assert who.known_key(text) is None
    with pytest.raises(AuthenticationError):
        who.by_key(text)


def test_change_elsewhere_counts_within_a_second(rooms: Rooms, elsewhere: Rooms, who: Authenticator) -> None:
    """ASVS 8.3.2 over several servers."""
    key, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    who.by_key(text)
    who.by_key(text)
    elsewhere.keys.revoke(SERVER, key.id)
    rooms.pass_s(LOOK_S / 3)
    assert who.known_key(text) is not None  # that is what is promised: a second
    rooms.pass_s(LOOK_S)
    assert who.known_key(text) is None
    with pytest.raises(AuthenticationError):
        who.by_key(text)


def test_write_that_changes_no_rights_keeps_what_is_known(rooms: Rooms, elsewhere: Rooms, who: Authenticator) -> None:
    _, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    who.by_key(text)
    with rooms.database.write() as connection:
        connection.exec_driver_sql("UPDATE settings SET value = value")
    with rooms.reads() as asked:
        who.by_key(text)
    assert len([one for one in asked if one.startswith("SELECT")]) == 1


def test_change_while_somebody_is_looked_up_is_not_missed(
    rooms: Rooms, elsewhere: Rooms, who: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    check = rooms.keys.check

    def slow_check(shown: str) -> object:
        found = check(shown)
        elsewhere.directory.set_grants(SERVER, "key", key.id, [Grant("viewer")])
        return found

    monkeypatch.setattr(rooms.keys, "check", slow_check)
    who.by_key(text)
    monkeypatch.undo()
    rooms.pass_s(LOOK_S + 0.01)
    assert not who.by_key(text).may(Action.ROLLOUT_PROMOTE, "cars")


def test_key_ends_to_the_second(rooms: Rooms, who: Authenticator) -> None:
    _, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER], expires_at=rooms.now() + timedelta(seconds=10))
    who.by_key(text)
    who.by_key(text)
    rooms.now.pass_s(9)
    assert who.known_key(text) is not None
    rooms.now.pass_s(1)
    assert who.known_key(text) is None
    with pytest.raises(AuthenticationError):
        who.by_key(text)


def test_secret_before_ends_to_the_second(rooms: Rooms, who: Authenticator) -> None:
    key, before = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    rooms.keys.rotate(SERVER, key.id, overlap_s=10)
    who.by_key(before)
    rooms.now.pass_s(10)
    with pytest.raises(AuthenticationError):
        who.by_key(before)


def test_certificate_ends_to_the_second(rooms: Rooms, who: Authenticator) -> None:
    """Attack case A7."""
    rooms.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[DEPLOYER])
    certificate = a_certificate(rooms)
    assert who.by_certificate(certificate).name == "camera-1"
    assert who.by_certificate(certificate) == who.known_certificate(certificate)
    rooms.now.pass_s(3600)
    assert who.known_certificate(certificate) is None
    with pytest.raises(AuthenticationError):
        who.by_certificate(certificate)


def test_certificate_that_becomes_known_is_somebody_at_once(rooms: Rooms, who: Authenticator) -> None:
    certificate = a_certificate(rooms)
    assert who.by_certificate(certificate).rights.grants == ()
    added = rooms.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[DEPLOYER])
    assert who.by_certificate(certificate).id == added.id
    rooms.certificates.remove(SERVER, added.id)
    assert who.by_certificate(certificate).rights.grants == ()


def test_use_is_told_while_a_key_is_known(rooms: Rooms, who: Authenticator) -> None:
    key, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    for _ in range(300):
        who.by_key(text)
        rooms.pass_s(1)
    used_at = rooms.keys.get(key.id).used_at
    assert used_at is not None
    assert rooms.now() - used_at <= timedelta(seconds=111)


def test_session_is_somebody_until_it_ends(rooms: Rooms, who: Authenticator) -> None:
    """ASVS 7.4.1 and 7.4.2, attack case A6: after sign-out, and after being disabled, it is nobody's."""
    user, _ = rooms.directory.add_user(SERVER, "ada", grants=[DEPLOYER])
    session = rooms.sessions.begin(user.id, factors=["password", "totp"])
    found = who.by_session(session.token)
    assert found is not None
    principal, csrf = found
    assert (principal.name, csrf) == ("ada", session.csrf)
    assert who.known_session(session.token) == found
    rooms.sessions.end(session.token, principal)
    assert who.known_session(session.token) is None
    assert who.by_session(session.token) is None
    other = rooms.sessions.begin(user.id, factors=["password", "totp"])
    assert who.by_session(other.token) is not None
    rooms.directory.set_disabled(SERVER, user.id, True)
    assert who.by_session(other.token) is None


def test_idle_session_ends_on_time(rooms: Rooms, who: Authenticator) -> None:
    """ASVS 7.3.1: what is known does not lengthen it."""
    user, _ = rooms.directory.add_user(SERVER, "ada")
    session = rooms.sessions.begin(user.id, factors=["password"])
    assert who.by_session(session.token) is not None
    rooms.pass_s(1801)
    assert who.by_session(session.token) is None


@pytest.mark.parametrize("how", ["key", "certificate", "session"])
def test_open_stream_has_the_rights_of_now(rooms: Rooms, who: Authenticator, how: str) -> None:
    """Attack case A5, ASVS 8.3.2: rights that change while a stream is open."""
    user, _ = rooms.directory.add_user(SERVER, "ada", grants=[DEPLOYER])
    key, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    entry = rooms.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[DEPLOYER])
    session = rooms.sessions.begin(user.id, factors=["password", "totp"])
    if how == "key":
        principal, kind, holder = who.by_key(text), "key", key.id
    elif how == "certificate":
        principal, kind, holder = who.by_certificate(a_certificate(rooms)), "certificate", entry.id
    else:
        found = who.by_session(session.token)
        assert found is not None
        principal, kind, holder = found[0], "user", user.id
    assert who.still(principal) == who.known_still(principal) == principal
    rooms.directory.set_grants(SERVER, kind, holder, [Grant("viewer")])
    now = who.still(principal)
    assert now is not None
    assert now.id == principal.id
    assert now.may(Action.MODELS_READ, "cars")
    assert not now.may(Action.MODELS_PREDICT, "cars")
    rooms.directory.set_grants(SERVER, kind, holder, [])
    assert who.still(principal) is None
    assert who.known_still(principal) is None


def test_stream_ends_with_what_let_it_in(rooms: Rooms, who: Authenticator) -> None:
    user, _ = rooms.directory.add_user(SERVER, "ada", grants=[DEPLOYER])
    key, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    session = rooms.sessions.begin(user.id, factors=["password", "totp"])
    rooms.certificates.add(SERVER, "camera-1", field="subject", value="CN=camera-1", grants=[DEPLOYER])
    person = who.by_session(session.token)
    assert person is not None
    by_key, by_certificate = who.by_key(text), who.by_certificate(a_certificate(rooms))
    assert who.still(by_key) == by_key
    rooms.keys.rotate(SERVER, key.id, overlap_s=0)
    rooms.sessions.end(session.token, person[0])
    assert who.still(by_key) is None
    assert who.still(person[0]) is None
    rooms.pass_s(3600)
    assert who.still(by_certificate) is None


def test_machine_itself_is_somebody_while_nobody_else_is_known(rooms: Rooms, who: Authenticator) -> None:
    """Design, section 8.2: serving openly ends with the first user, also on a stream that is open."""
    assert who.still(LOOPBACK) == LOOPBACK
    rooms.directory.add_user(SERVER, "ada")
    assert who.still(LOOPBACK) is None
    assert who.still(SERVER) == SERVER
    platform = replace(SERVER, kind=PrincipalKind.PLATFORM, name="sagemaker")
    assert who.still(platform) == platform


def test_nobody_is_let_in_for_longer_than_a_second_when_the_database_is_gone(rooms: Rooms, who: Authenticator) -> None:
    """Fail closed, ASVS 16.5.3."""
    _, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    who.by_key(text)
    who.by_key(text)
    gone = EnvironmentLackError("the database does not answer")

    def revision() -> int:
        raise gone

    rooms.directory.revision = revision  # type: ignore[method-assign]
    assert who.known_key(text) is not None
    rooms.pass_s(LOOK_S + 0.01)
    assert who.known_key(text) is None
    with pytest.raises(EnvironmentLackError):
        who.by_key(text)


def test_no_more_is_kept_than_fits(rooms: Rooms, who: Authenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipsight.access.authenticate._MOST", 3)
    for number in range(8):
        who.by_key(rooms.keys.add(SERVER, f"ci-{number}", grants=[DEPLOYER])[1])
    assert len(who._kept) <= 3
    certificate = a_certificate(rooms)
    for number in range(8):
        who.by_certificate(replace(certificate, sha256=f"{number:064x}"))
    assert len(who._kept) == 3


def test_secrets_are_not_kept_in_what_is_known(rooms: Rooms, who: Authenticator) -> None:
    _, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    who.by_key(text)
    assert text not in repr(who._kept)
    assert text[21:] not in repr(who._kept)


def test_thread_looks_before_anybody_has_to(rooms: Rooms) -> None:
    """With the real clock: who asks all the time never waits for the database, and sees a change within a second."""
    _, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    with Authenticator(cast("Access", rooms)) as who:
        who.by_key(text)
        who.by_key(text)
        until, misses = time.monotonic() + 3 * LOOK_S, 0
        while time.monotonic() < until:
            if who.known_key(text) is None:
                misses += 1
                who.by_key(text)
            time.sleep(0.01)
        # On a machine that is busy with something else a look may come late; then who asks looks.
        assert misses <= 2
        assert any(one.name == "access-revision" for one in threading.enumerate())
    assert not any(one.name == "access-revision" for one in threading.enumerate())


def test_revocation_by_another_process_is_seen_within_a_second(rooms: Rooms, database_url: str) -> None:
    """A process, not a thread: what an operator types on the command line."""
    key, text = rooms.keys.add(SERVER, "ci", grants=[DEPLOYER])
    code = (
        "import sys\n"
        "from datetime import UTC, datetime\n"
        "from shipsight.access import SERVER, LoggedEvents\n"
        "from shipsight.access.directory import Directory\n"
        "from shipsight.access.keys import Keys\n"
        "from shipsight.access.store import open_database\n"
        "db, now = open_database(sys.argv[1]), lambda: datetime.now(UTC)\n"
        "Keys(db, LoggedEvents(), now).revoke(SERVER, sys.argv[2])\n"
    )
    with Authenticator(cast("Access", rooms)) as who:
        who.by_key(text)
        subprocess.run([sys.executable, "-c", code, database_url, key.id], check=True, timeout=120)
        ended = time.monotonic()
        while True:
            try:
                if who.known_key(text) is None:
                    who.by_key(text)
            except AuthenticationError:
                break
            assert time.monotonic() - ended < LOOK_S + 4.0  # and what a busy machine adds
            time.sleep(0.01)
