# SPDX-License-Identifier: Apache-2.0
"""Secrets at rest: encrypted, bound to their row, and encrypted anew when the key changes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert, select

from shipsight.access.store import Database, SecretBox, load_keys, reseal, tables, write_keys
from shipsight.access.store.resealing import check_sealed
from shipsight.errors import CorruptError, EnvironmentLackError, UsageError

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(secret=st.binary(max_size=200), name=st.text(max_size=40))
def test_secret_comes_back(secret: bytes, name: str) -> None:
    """ASVS 11.3.2 and 13.3.1."""
    sealed = SecretBox([OLD]).seal(secret, belongs_to=name)
    assert SecretBox([OLD]).open(sealed, belongs_to=name) == secret
    assert len(secret) < 8 or secret not in sealed


@given(secret=st.binary(min_size=1, max_size=60), data=st.data())
def test_any_changed_byte_is_refused(secret: bytes, data: st.DataObject) -> None:
    """ASVS 11.3.3."""
    sealed = bytearray(SecretBox([OLD]).seal(secret, belongs_to="1"))
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CorruptError):
        SecretBox([OLD]).open(bytes(sealed), belongs_to="1")


@given(secret=st.binary(max_size=60), data=st.data())
def test_shortened_secret_is_refused(secret: bytes, data: st.DataObject) -> None:
    sealed = SecretBox([OLD]).seal(secret, belongs_to="1")
    with pytest.raises(CorruptError):
        SecretBox([OLD]).open(sealed[: data.draw(st.integers(0, len(sealed) - 1))], belongs_to="1")


def test_secret_of_another_row_or_key_is_refused() -> None:
    sealed = SecretBox([OLD]).seal(b"seed", belongs_to="1")
    for box, name in ((SecretBox([OLD]), "2"), (SecretBox([OTHER]), "1")):
        with pytest.raises(CorruptError):
            box.open(sealed, belongs_to=name)


def test_box_with_the_key_before_opens_both() -> None:
    box = SecretBox([NEW, OLD])
    before, after = SecretBox([OLD]).seal(b"seed", belongs_to="1"), box.seal(b"seed", belongs_to="1")
    assert box.open(before, belongs_to="1") == box.open(after, belongs_to="1") == b"seed"
    assert (box.is_current(before), box.is_current(after)) == (False, True)
    assert SecretBox([NEW]).open(after, belongs_to="1") == b"seed"


def fill(database: Database, box: SecretBox, count: int) -> None:
    with database.write() as connection:
        connection.execute(
            insert(tables.users).values(
                id="ada", name="ada", display_name="Ada", is_disabled=False, webauthn_handle=b"1", created_at=NOW
            )
        )
        for number in range(count):
            name = f"{number:016x}"
            sealed = box.seal(f"seed {number}".encode(), belongs_to=name)
            connection.execute(
                insert(tables.totps).values(
                    id=name, user_id="ada", secret=sealed, last_step=0, is_confirmed=True, created_at=NOW
                )
            )


def seeds(database: Database, box: SecretBox) -> list[bytes]:
    with database.read() as connection:
        rows = connection.execute(select(tables.totps.c.id, tables.totps.c.secret).order_by(tables.totps.c.id))
        return [box.open(row.secret, belongs_to=row.id) for row in rows]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_all_secrets_are_encrypted_with_the_new_key(database: Database, count: int) -> None:
    fill(database, SecretBox([OLD]), count)
    both = SecretBox([NEW, OLD])
    assert reseal(database, both, batch=3) == count
    assert seeds(database, SecretBox([NEW])) == [f"seed {number}".encode() for number in range(count)]
    assert reseal(database, both, batch=3) == 0
    with database.read() as connection:
        check_sealed(connection, SecretBox([NEW]))


def test_key_that_is_missing_is_told_and_changes_nothing(database: Database) -> None:
    fill(database, SecretBox([OLD]), 3)
    with pytest.raises(CorruptError, match="another key"):
        reseal(database, SecretBox([NEW, OTHER]))
    assert len(seeds(database, SecretBox([OLD]))) == 3


RESEAL = """
import sys, time
from shipsight.access.store import SecretBox, open_database, reseal
class Slow(SecretBox):
    def seal(self, secret, *, belongs_to):
        print("sealed", flush=True)
        time.sleep(0.005)
        return super().seal(secret, belongs_to=belongs_to)
reseal(open_database(sys.argv[1]), Slow([b"n" * 32, b"o" * 32]), batch=5)
"""


def test_killed_in_the_middle_it_is_taken_up_where_it_was_left(database_url: str, database: Database) -> None:
    """notes/security 3.7: re-wrapping is resumable after a kill; old ciphertext is readable all the while."""
    fill(database, SecretBox([OLD]), 200)
    child = subprocess.Popen([sys.executable, "-c", RESEAL, database_url], stdout=subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(42):
        assert child.stdout.readline() == b"sealed\n"
    child.kill()
    child.wait()
    child.stdout.close()
    both = SecretBox([NEW, OLD])
    expected = [f"seed {number}".encode() for number in range(200)]
    assert seeds(database, both) == expected
    left = reseal(database, both)
    assert 0 < left <= 160  # whole batches were kept
    assert seeds(database, SecretBox([NEW])) == expected


def test_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "state" / "access.key"
    keys: list[bytes] = []
    threads = [threading.Thread(target=lambda: keys.append(load_keys(path, make=True)[0])) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(keys) == 8
    assert len(set(keys)) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["access.key"]


def test_key_file_holds_the_keys_before_too(tmp_path: Path) -> None:
    path = tmp_path / "access.key"
    write_keys(path, [OLD])
    assert load_keys(path, make=True)[0] == OLD
    write_keys(path, [NEW, OLD])
    assert load_keys(path) == [NEW, OLD]
    assert load_keys(path, make=True)[0] == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("held", [b"", b"abcd\n", b"x" * 64, b"\xff" * 40, b"00" * 32 + b"\nab\n"])
def test_what_is_no_key_is_refused(tmp_path: Path, held: bytes) -> None:
    path = tmp_path / "access.key"
    path.write_bytes(held)
    path.chmod(0o600)
    with pytest.raises((UsageError, EnvironmentLackError)):
        load_keys(path, make=True)
    assert path.read_bytes() == held


def test_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "access.key"
    write_keys(path, [OLD])
    os.chmod(path, 0o640)  # noqa: PTH101 - as people do it
    with pytest.raises(EnvironmentLackError, match="others may read"):
        load_keys(path, make=True)
    with pytest.raises(EnvironmentLackError):
        load_keys(tmp_path / "none.key")
    assert not (tmp_path / "none.key").exists()
