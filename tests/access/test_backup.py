# SPDX-License-Identifier: Apache-2.0
"""Backup and restore: between both kinds of database, whole or not at all, and nothing that was changed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select
from tests.access.conftest import KINDS, Clock, KeptEvents, PostgresServer
from tests.access.store import rows

from shipsight.access import SERVER, EventKind, Grant, Principal, PrincipalKind, Role
from shipsight.access.backup import Backup, BackupLock, check_backup, create_backup, open_backup, restore_backup
from shipsight.access.directory import Directory
from shipsight.access.keys import Keys
from shipsight.access.permissions import Action
from shipsight.access.store import Database, SecretBox, metadata, open_database, read_revision, tables
from shipsight.errors import CorruptError, ForbiddenError, LimitError, UnsupportedError, UsageError

KEY, OTHER_KEY = b"k" * 32, b"x" * 32
LOCK = BackupLock(keys=(KEY,))
HERE, THERE = SecretBox([b"h" * 32]), SecretBox([b"t" * 32])
SEED = b"JBSWY3DPEHPK3PXP"
LEFT_OUT = {"sessions", "challenges", "throttles", "known_devices", "invitations"}


def inhabit(database: Database, box: SecretBox, clock: Clock, events: KeptEvents) -> str:
    """People, roles, grants, factors, keys and sessions; returns a key's text."""
    directory = Directory(database, events, clock)
    user, _ = directory.add_user(SERVER, "ada", display_name="Ada Löve 🛰", grants=[Grant("admin")])
    directory.apply_role(SERVER, Role("labels", frozenset({Action.LABELS_READ})))
    _, text = Keys(database, events, clock).add(SERVER, "ci", grants=[Grant("labels", ("cars", "ships-*"))])
    with database.write() as connection:
        connection.execute(
            insert(tables.totps).values(
                id="1", user_id=user.id, secret=box.seal(SEED, belongs_to="1"), is_confirmed=True, created_at=clock()
            )
        )
        connection.execute(
            insert(tables.sessions).values(
                token_hash=b"s" * 32, handle="s", user_id=user.id, csrf="c", factors={}, created_at=clock(),
                seen_at=clock(), expires_at=clock(), proved_at=clock(),
            )
        )  # fmt: skip
    return text


def make(database: Database, box: SecretBox, clock: Clock, events: KeptEvents, lock: BackupLock = LOCK) -> bytes:
    return create_backup(database, box, lock=lock, actor=SERVER, events=events, now=clock)


def put(
    database: Database, box: SecretBox, backup: Backup, clock: Clock, events: KeptEvents, *, force: bool = False
) -> None:
    restore_backup(database, box, backup, actor=SERVER, events=events, now=clock, replace=force)


def held(database: Database, box: SecretBox) -> dict[str, list[dict[str, Any]]]:
    """All that lasts, with secrets opened; without the number that a restore lets grow."""
    found = {}
    with database.read() as connection:
        for table in metadata.sorted_tables:
            if table.name in LEFT_OUT or table.name == "settings" or not table.info.get("backed_up", True):
                continue
            found[table.name] = [
                dict(one) for one in connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()
            ]
    for row in found["totps"]:
        row["secret"] = box.open(row["secret"], belongs_to=row["id"])
    return found


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Another database of each kind, empty."""
    if request.param == "sqlite":
        url = str(tmp_path / "target.db")
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.make_database()
    opened = open_database(url)
    yield opened
    opened.close()


def test_everything_that_lasts_comes_back_in_either_kind_of_database(
    database: Database, target: Database, clock: Clock, events: KeptEvents
) -> None:
    """notes/security 1.2; portable between SQLite and PostgreSQL."""
    text = inhabit(database, HERE, clock, events)
    before = held(database, HERE)
    data = make(database, HERE, clock, events)
    backup = open_backup(data, lock=LOCK)
    assert (backup.made_from, backup.made_by) == (database.kind, "server:this server")
    assert backup.digest == hashlib.sha256(data).hexdigest()
    put(target, THERE, backup, clock, events)
    assert held(target, THERE) == before
    directory = Directory(target, events, clock)
    assert Keys(target, events, clock).authenticate(text).may(Action.LABELS_READ, "ships-2")
    assert directory.user("ada").display_name == "Ada Löve 🛰"
    # And once more around, by the other's own file.
    after = held(target, THERE)
    again = open_backup(make(target, THERE, clock, events), lock=LOCK)
    put(database, HERE, again, clock, events, force=True)
    assert held(database, HERE) == after


def test_sessions_and_challenges_are_not_in_it(
    database: Database, target: Database, clock: Clock, events: KeptEvents
) -> None:
    """Nobody is signed in after a restore, with what was taken before (ASVS 7.4)."""
    inhabit(database, HERE, clock, events)
    with database.write() as connection:
        rows.fill(connection, metadata_of(connection), rows=1)
    backup = open_backup(make(database, HERE, clock, events, lock=LOCK), lock=LOCK)
    assert backup.rows.keys().isdisjoint(LEFT_OUT)
    put(target, THERE, backup, clock, events)
    with target.read() as connection:
        for name in LEFT_OUT:
            assert connection.execute(select(metadata.tables[name])).all() == [], name
    # Those that were there end, too.
    put(database, HERE, backup, clock, events, force=True)
    with database.read() as connection:
        assert connection.execute(select(tables.sessions)).all() == []


def metadata_of(connection: Any) -> Any:
    """Tables whose rows need not make sense."""
    found = rows.reflect(connection)
    for name in [
        one for one in found.tables if one not in ("sessions", "challenges", "throttles", "known_devices", "users")
    ]:
        found.remove(found.tables[name])
    return found


def test_every_table_is_in_it_or_says_that_it_is_not() -> None:
    assert {one.name for one in metadata.sorted_tables if not one.info.get("backed_up", True)} >= LEFT_OUT


def test_rows_of_all_tables_come_back_whatever_they_are(clock: Clock, events: KeptEvents, tmp_path: Path) -> None:
    """A table that is added later is in it without a word here."""
    first, second = open_database(str(tmp_path / "1.db")), open_database(str(tmp_path / "2.db"))
    with first.write() as connection:
        found = rows.reflect(connection)
        for name in ("totps", "roles", "settings"):  # those that have a form of their own
            found.remove(found.tables[name])
        rows.fill(connection, found, rows=4)
    put(second, THERE, open_backup(make(first, HERE, clock, events), lock=LOCK), clock, events)
    assert held(second, THERE) == held(first, HERE)
    assert all(len(found) == 4 for name, found in held(second, THERE).items() if name not in ("totps", "roles"))
    first.close()
    second.close()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file that a key opens."""
    database = open_database(str(tmp_path_factory.mktemp("sample") / "access.db"))
    inhabit(database, HERE, Clock(), KeptEvents())
    data = make(database, HERE, Clock(), KeptEvents())
    database.close()
    return data


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_refused(sample: bytes, data: st.DataObject) -> None:
    """ASVS 11.3.3."""
    changed = bytearray(sample)
    place = data.draw(st.one_of(st.integers(0, 60), st.integers(0, len(sample) - 1)))
    changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises((CorruptError, UsageError, UnsupportedError)):
        open_backup(bytes(changed), lock=LOCK)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_changed_byte_is_refused_also_with_a_digest_that_fits(sample: bytes, data: st.DataObject) -> None:
    """Who changes it can reckon a digest, too: what counts is that they have no key."""
    changed = bytearray(sample[:-32])
    place = data.draw(st.one_of(st.integers(0, 60), st.integers(0, len(changed) - 1)))
    changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises((UsageError, UnsupportedError)):
        open_backup(bytes(changed) + hashlib.sha256(changed).digest(), lock=LOCK)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_what_is_cut_or_longer_is_refused(sample: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(sample) - 1))
    with pytest.raises((CorruptError, UsageError)):
        open_backup(sample[:cut], lock=LOCK)
    with pytest.raises(CorruptError):
        open_backup(sample + data.draw(st.binary(min_size=1, max_size=40)), lock=LOCK)


def test_other_key_or_passphrase_opens_nothing(sample: bytes) -> None:
    with pytest.raises(UsageError, match="not opened"):
        open_backup(sample, lock=BackupLock(keys=(OTHER_KEY,)))
    with pytest.raises(UsageError, match="a key file"):
        open_backup(sample, lock=BackupLock(passphrase="correct horse battery"))
    assert open_backup(sample, lock=BackupLock(keys=(OTHER_KEY, KEY))).rows["users"] == 1


def test_passphrase_opens_what_it_encrypted(database: Database, clock: Clock, events: KeptEvents) -> None:
    inhabit(database, HERE, clock, events)
    lock = BackupLock(passphrase="correct horse bättery")
    data = make(database, HERE, clock, events, lock)
    assert open_backup(data, lock=lock).rows["users"] == 1
    for wrong in ("correct horse battery", "", "correct horse bättery "):
        with pytest.raises(UsageError, match="not opened"):
            open_backup(data, lock=BackupLock(passphrase=wrong))
    with pytest.raises(UsageError, match="at least 12"):
        make(database, HERE, clock, events, BackupLock(passphrase="too short"))
    with pytest.raises(UsageError, match="one of the two"):
        BackupLock()
    assert "horse" not in repr(lock)


@pytest.mark.parametrize("passphrase", ["correct horse b\udce4ttery", "\ud83d" * 12])
def test_passphrase_that_is_no_text_is_refused(passphrase: str) -> None:
    with pytest.raises(UsageError, match="UTF-8"):
        BackupLock(passphrase=passphrase)


def test_damage_is_found_without_what_opens_it(sample: bytes) -> None:
    """docs/formats/access-backup.md."""
    check_backup(sample)
    for place in (30, 60, len(sample) - 1):
        changed = bytearray(sample)
        changed[place] ^= 1
        with pytest.raises(CorruptError):
            check_backup(bytes(changed))
    for other, error in (
        (b"PK" + sample, UsageError),
        (sample[:60], CorruptError),
        (sample[:24] + b"\2" + sample[25:], UnsupportedError),
    ):
        with pytest.raises(error):
            check_backup(other)


def test_secrets_are_nowhere_to_be_read(database: Database, clock: Clock, events: KeptEvents) -> None:
    """ASVS 14.2.4."""
    inhabit(database, HERE, clock, events)
    data = make(database, HERE, clock, events)
    backup = open_backup(data, lock=LOCK)
    for told in (data, repr(backup).encode(), repr(events.kept).encode(), repr(LOCK).encode()):
        assert SEED not in told
        assert base64.b64encode(SEED) not in told
        assert "Löve".encode() not in told
    assert make(database, HERE, clock, events) != data  # salt and nonce are fresh


def test_making_and_restoring_are_told_and_refused_when_they_cannot_be(
    database: Database, clock: Clock, events: KeptEvents
) -> None:
    """ASVS 16.2.1 and 16.5.3."""
    inhabit(database, HERE, clock, events)
    data = make(database, HERE, clock, events)
    digest = hashlib.sha256(data).hexdigest()
    assert [one.details["digest"] for one in events.of(EventKind.BACKED_UP)] == [digest]
    backup, before = open_backup(data, lock=LOCK), held(database, HERE)
    put(database, HERE, backup, clock, events, force=True)
    assert [one.details["digest"] for one in events.of(EventKind.RESTORED)] == [digest]
    Directory(database, events, clock).add_user(SERVER, "grace")
    after = held(database, HERE)
    assert after != before
    events.fails = True
    with pytest.raises(OSError, match="no space"):
        put(database, HERE, backup, clock, events, force=True)
    with pytest.raises(OSError, match="no space"):
        make(database, HERE, clock, events)
    assert held(database, HERE) == after


def test_only_who_may_change_access_makes_and_restores(database: Database, clock: Clock, events: KeptEvents) -> None:
    inhabit(database, HERE, clock, events)
    backup = open_backup(make(database, HERE, clock, events), lock=LOCK)
    auditor = Principal(PrincipalKind.PERSON, "grace", id="1")
    with pytest.raises(ForbiddenError):
        create_backup(database, HERE, lock=LOCK, actor=auditor, events=events, now=clock)
    with pytest.raises(ForbiddenError):
        restore_backup(database, HERE, backup, actor=auditor, events=events, now=clock, replace=True)


def test_nobody_is_replaced_unless_that_is_said(database: Database, clock: Clock, events: KeptEvents) -> None:
    inhabit(database, HERE, clock, events)
    backup = open_backup(make(database, HERE, clock, events), lock=LOCK)
    with pytest.raises(UsageError, match="somebody is known"):
        put(database, HERE, backup, clock, events)
    put(database, HERE, backup, clock, events, force=True)


def test_what_was_inhabited_stays_closed_when_nobody_is_in_the_file(
    database: Database, target: Database, clock: Clock, events: KeptEvents
) -> None:
    empty = open_backup(make(target, THERE, clock, events), lock=LOCK)
    directory = Directory(database, events, clock)
    user, _ = directory.add_user(SERVER, "ada")
    directory.remove_user(SERVER, user.id)
    with pytest.raises(UsageError, match="somebody is known"):
        put(database, HERE, empty, clock, events)
    put(database, HERE, empty, clock, events, force=True)
    assert directory.knows_anyone()
    put(target, THERE, empty, clock, events)
    assert not Directory(target, events, clock).knows_anyone()


def test_servers_see_a_restore_as_a_change_of_rights(database: Database, clock: Clock, events: KeptEvents) -> None:
    """ASVS 8.3.2: a number that came back with the rows would hide it."""
    inhabit(database, HERE, clock, events)
    backup = open_backup(make(database, HERE, clock, events), lock=LOCK)
    directory = Directory(database, events, clock)
    for name in ("grace", "alan"):
        directory.add_user(SERVER, name)
    before = directory.revision()
    put(database, HERE, backup, clock, events, force=True)
    assert directory.revision() > before


RESTORE = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from shipsight.access import SERVER
from shipsight.access.backup import BackupLock, open_backup, restore_backup
from shipsight.access.store import SecretBox, open_database
class Waits:
    def record(self, event):
        print("all rows are written", flush=True)
        time.sleep(600)
backup = open_backup(Path(sys.argv[2]).read_bytes(), lock=BackupLock(keys=(b"k" * 32,)))
database = open_database(sys.argv[1])
restore_backup(database, SecretBox([b"h" * 32]), backup, actor=SERVER, events=Waits(), now=lambda: datetime.now(UTC), replace=True)
"""


def test_killed_in_the_middle_a_restore_changes_nothing(
    database_url: str, database: Database, clock: Clock, events: KeptEvents, tmp_path: Path
) -> None:
    """notes/security 3.7: whole or not at all."""
    inhabit(database, HERE, clock, events)
    (tmp_path / "backup").write_bytes(make(database, HERE, clock, events))
    Directory(database, events, clock).add_user(SERVER, "grace")
    before = held(database, HERE)
    command = [sys.executable, "-c", RESTORE, database_url, str(tmp_path / "backup")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"all rows are written\n"
    assert held(database, HERE) == before  # nobody sees half of it
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert held(database, HERE) == before
    Directory(database, events, clock).add_user(SERVER, "alan")  # and writing goes on


def encrypt(told: object) -> bytes:
    """A file as somebody who has the key could make it."""
    salt, nonce = b"s" * 16, b"n" * 12
    head = b"shipsight-access-backup\n\x01\x02" + salt + nonce
    cipher = AESGCM(HKDF(SHA256(), 32, salt, b"shipsight access backup 1").derive(KEY))
    packed = told if isinstance(told, bytes) else zlib.compress(json.dumps(told).encode())
    body = head + cipher.encrypt(nonce, packed, head)
    return body + hashlib.sha256(body).digest()


GOOD: dict[str, Any] = {"made_at": "x", "made_by": "y", "made_from": "sqlite", "revision": "0001", "tables": {}}
SETTING = {"columns": ["name", "value"], "rows": [["a", "b"]]}


def test_documented_form_can_be_made_by_others() -> None:
    """docs/formats/access-backup.md."""
    assert open_backup(encrypt({**GOOD, "tables": {"settings": SETTING}}), lock=LOCK).rows["settings"] == 1


@pytest.mark.parametrize(
    ("told", "error"),
    [
        pytest.param({**GOOD, "revision": "9999"}, UnsupportedError, id="newer"),
        pytest.param({**GOOD, "revision": None}, UnsupportedError, id="no revision"),
        pytest.param({key: one for key, one in GOOD.items() if key != "tables"}, CorruptError, id="no tables"),
        pytest.param([], CorruptError, id="list"),
        pytest.param({**GOOD, "tables": {"sqlite_master": SETTING}}, CorruptError, id="another table"),
        pytest.param({**GOOD, "tables": {"settings": {**SETTING, "columns": ["name", "x"]}}}, CorruptError, id="column"),
        pytest.param({**GOOD, "tables": {"settings": {**SETTING, "rows": [["a"]]}}}, CorruptError, id="short row"),
        pytest.param({**GOOD, "tables": {"settings": {**SETTING, "rows": [["a", None]]}}}, CorruptError, id="null"),
        pytest.param({**GOOD, "tables": {"settings": {**SETTING, "rows": [["a", "b"]] * 2}}}, CorruptError, id="twice"),
        pytest.param(
            {**GOOD, "tables": {"recovery_codes": {"columns": ["id", "user_id", "code_hash"], "rows": [["1", "2", "3"]]}}},
            CorruptError,
            id="link to nobody",
        ),
        pytest.param(b"no zlib", CorruptError, id="not packed"),
        pytest.param(zlib.compress(b"{"), CorruptError, id="not JSON"),
    ],
)  # fmt: skip
def test_file_that_holds_something_else_is_refused(told: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_backup(encrypt(told), lock=LOCK)


def test_file_that_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipsight.access.backup.MOST_BYTES", 1 << 20)
    with pytest.raises(LimitError):
        open_backup(encrypt(zlib.compress(b"[" * (1 << 21))), lock=LOCK)
    with pytest.raises(LimitError):
        open_backup(b"shipsight-access-backup\n" + bytes(1 << 21), lock=LOCK)


def test_old_shape_is_brought_to_that_of_now(tmp_path: Path, clock: Clock, events: KeptEvents) -> None:
    """A file of the first version opens in every later one."""
    user = {
        "columns": ["id", "name", "display_name", "is_disabled", "webauthn_handle", "created_at"],
        "rows": [["1" * 16, "ada", "Ada", False, base64.b64encode(b"handle").decode(), 1_700_000_000_000]],
    }
    grant = {
        "columns": ["id", "holder_kind", "holder_id", "role", "models"],
        "rows": [["2", "user", "1" * 16, "admin", ["*"]]],
    }
    backup = open_backup(encrypt({**GOOD, "tables": {"users": user, "grants": grant}}), lock=LOCK)
    database = open_database(str(tmp_path / "access.db"))
    put(database, HERE, backup, clock, events)
    directory = Directory(database, events, clock)
    assert directory.rights_of_user("1" * 16).allows(Action.ACCESS_CHANGE)
    assert directory.user("ada").created_at.year == 2023
    with database.read() as connection:
        assert read_revision(connection) == 1
    database.close()


def test_lock_of_a_file_is_not_told() -> None:
    assert "kkkk" not in repr(replace(LOCK))
