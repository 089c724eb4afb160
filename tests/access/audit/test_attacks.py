# SPDX-License-Identifier: Apache-2.0
"""Somebody who can write where the log is kept changes it: what a verification says, and what it needs from elsewhere to say it."""

from __future__ import annotations

import re
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.access.audit.logs import BEGAN, QUICK, Place, Ticking, fill, make_log, open_log, signed_in

from shipsight.access.audit.checkpoint import Signer, sign
from shipsight.access.audit.following import newest_path
from shipsight.access.audit.log_keys import new_key_path
from shipsight.access.audit.merkle import Frontier, leaf_hash
from shipsight.access.audit.record import FIELDS, write_time
from shipsight.access.audit.verify import Status, Verification
from shipsight.errors import AuditError, EnvironmentLackError

COLUMNS = ("record", "actor", "address", "details", "subject", "salts", "erased", "at", "kind", "outcome", "server")
RECORD_KEYS = (
    "actor", "address", "at", "clock", "details", "factor", "kind", "log", "outcome", "prev", "seq", "server", "subject", "v",
    "why", "written",
)  # fmt: skip


def codes(found: Verification) -> set[str]:
    return {one.code for one in found.findings}


def checkpoint_of(place: Place, size: int | None = None) -> str:
    where = "" if size is None else f"WHERE size = {size}"
    return str(place.rows(f"SELECT text FROM audit_checkpoints {where} ORDER BY size DESC, id DESC LIMIT 1")[0][0])


def set_head(place: Place, upto: int) -> None:
    """Makes the head fit the records that are there, as a careful attacker does."""
    frontier, leaf = Frontier(), "0" * 64
    for row in place.rows(f"SELECT record FROM audit_records WHERE seq < {upto} ORDER BY seq"):
        one = leaf_hash(row[0].encode())
        frontier.append(one)
        leaf = one.hex()
    place.run(
        "UPDATE audit_head SET size = :size, leaf = :leaf, frontier = :frontier",
        size=upto,
        leaf=leaf,
        frontier=frontier.to_bytes(),
    )


def test_log_that_nobody_changed_is_ok(place: Place) -> None:
    found = place.verify()
    assert (found.status, found.findings, found.size, found.covered) == (Status.OK, [], 33, 33)


@pytest.mark.parametrize("key", RECORD_KEYS)
def test_record_with_a_changed_byte_in_a_field_is_found(place: Place, key: str) -> None:
    (record,) = place.rows("SELECT record FROM audit_records WHERE seq = 5")[0]
    begin = record.index(f'"{key}":') + len(key) + 3
    letter = record[begin + 1]
    changed = record[: begin + 1] + ("1" if letter == "0" else "0") + record[begin + 2 :]
    place.run("UPDATE audit_records SET record = :record WHERE seq = 5", record=changed)
    found = place.verify()
    assert found.status is Status.FAILED
    assert 5 in {one.seq for one in found.findings} | {one.seq - 1 for one in found.findings if one.seq}
    assert "wrong-root" in codes(found)


@pytest.mark.parametrize("column", FIELDS)
def test_personal_value_that_was_changed_is_found(place: Place, column: str) -> None:
    seq = {"subject": 3}.get(column, 2)
    place.run(f"UPDATE audit_records SET {column} = :value WHERE seq = {seq}", value='"person:eve"')
    found = place.verify()
    assert [(one.code, one.seq) for one in found.findings] == [("value-changed", seq)]


def test_personal_value_that_was_taken_away_is_found(place: Place) -> None:
    place.run("UPDATE audit_records SET actor = NULL, salts = :salts WHERE seq = 3", salts=bytes(64))
    assert "value-missing" in codes(place.verify())


def test_personal_value_said_to_be_erased_by_an_entry_that_tells_no_such_thing_is_found(place: Place) -> None:
    place.run(
        "UPDATE audit_records SET actor = NULL, salts = :salts, erased = 'actor:5' WHERE seq = 4", salts=bytes(64)
    )
    assert codes(place.verify()) == {"value-missing"}


def test_personal_value_where_none_was_is_found(place: Place) -> None:
    place.run("UPDATE audit_records SET address = :value WHERE seq = 3", value='"192.0.2.1"')
    assert codes(place.verify()) == {"value-changed"}


@pytest.mark.parametrize(
    ("column", "value"),
    [("at", "2026-01-01T00:00:00.000000Z"), ("kind", "stopped"), ("outcome", "refused"), ("server", '"two"')],
)
def test_copy_for_filters_that_was_changed_is_found(place: Place, column: str, value: str) -> None:
    place.run(f"UPDATE audit_records SET {column} = :value WHERE seq = 7", value=value)
    assert [(one.code, one.seq) for one in place.verify().findings] == [("copy-changed", 7)]


@pytest.mark.parametrize("seq", [0, 16, 32], ids=["first", "middle", "last"])
def test_record_that_was_deleted_is_found(place: Place, seq: int) -> None:
    place.run(f"DELETE FROM audit_records WHERE seq = {seq}")
    found = place.verify()
    assert codes(found) & {"record-missing", "log-cut"}
    assert found.status is Status.FAILED


def test_records_from_the_beginning_that_were_deleted_and_called_archived_are_found(place: Place) -> None:
    frontier = Frontier()
    for row in place.rows("SELECT record FROM audit_records WHERE seq < 10 ORDER BY seq"):
        frontier.append(leaf_hash(row[0].encode()))
    leaf = leaf_hash(place.rows("SELECT record FROM audit_records WHERE seq = 9")[0][0].encode()).hex()
    place.run(
        "DELETE FROM audit_records WHERE seq < 10",
        "DELETE FROM audit_checkpoints WHERE size < 10",
        "UPDATE audit_head SET first = 10, first_frontier = :frontier, first_prev = :leaf",
        frontier=frontier.to_bytes(),
        leaf=leaf,
    )
    assert codes(place.verify()) == {"beginning-missing"}


def cut_after_the_last_checkpoint(place: Place) -> None:
    """A server is torn off with five entries after its last checkpoint; somebody deletes those and makes the head fit."""
    log = place.open(server="two", settings=QUICK)
    size = log.state.checkpoint_size
    fill(log, 5)
    log._buffer.close()  # as SIGKILL leaves it: no word that it stopped, no checkpoint
    log._session = None
    database = log._database
    log._thread.join()
    database.close()
    place.run(f"DELETE FROM audit_checkpoints WHERE size > {size}", f"DELETE FROM audit_records WHERE seq >= {size}")
    set_head(place, size)
    newest_path(place.key_path).write_text(checkpoint_of(place))  # as it lay there when the server was torn off


def test_records_after_the_last_checkpoint_are_an_unverifiable_tail(place: Place) -> None:
    place.run("DELETE FROM audit_checkpoints WHERE size > 32")
    found = place.verify()
    assert (found.status, found.size - found.covered, found.findings) == (Status.TAIL, 1, [])
    assert not found.is_ok


def test_log_cut_back_to_its_last_checkpoint_is_an_unverifiable_tail_and_not_ok(place: Place) -> None:
    cut_after_the_last_checkpoint(place)
    found = place.verify()
    assert found.findings == []
    assert found.status is Status.TAIL
    assert "two" in str(found.tail)


def test_log_cut_at_an_older_checkpoint_is_found_by_one_from_elsewhere(place: Place) -> None:
    outside = checkpoint_of(place)
    place.run(
        "DELETE FROM audit_checkpoints WHERE size > 22",
        "DELETE FROM audit_records WHERE seq >= 22",
        "DELETE FROM audit_sessions",
    )
    set_head(place, 22)
    alone = place.verify()
    assert (alone.status, alone.findings) == (Status.TAIL, [])  # that something is missing cannot be known
    assert codes(place.verify(checkpoints=[outside])) == {"log-cut"}


def test_records_cut_off_without_making_the_head_fit_are_found(place: Place) -> None:
    place.run("DELETE FROM audit_records WHERE seq >= 31")
    assert "log-cut" in codes(place.verify())


@pytest.mark.parametrize("left", [0.2, 0.5, 0.9])
def test_file_that_was_truncated_is_not_ok(folder: Path, left: float) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key", entries=200)
    path = Path(place.url)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * left)])
    try:
        found = place.verify()
    except EnvironmentLackError as error:
        assert "does not answer" in str(error)  # noqa: PT017 - either is right: how far it can be opened hangs on the cut
    else:
        assert found.status is Status.FAILED


def test_two_records_in_each_others_place_are_found(place: Place) -> None:
    place.run(
        "UPDATE audit_records SET seq = 999 WHERE seq = 4",
        "UPDATE audit_records SET seq = 4 WHERE seq = 5",
        "UPDATE audit_records SET seq = 5 WHERE seq = 999",
    )
    found = place.verify()
    assert {(one.code, one.seq) for one in found.findings} >= {("record-moved", 4), ("record-moved", 5)}


def copy_row(seq: int, to: int) -> str:
    names = ", ".join(COLUMNS)
    return f"INSERT INTO audit_records (seq, {names}) SELECT {to}, {names} FROM audit_records WHERE seq = {seq}"


def test_record_that_is_there_twice_is_found(folder: Path) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key")
    # Who can write there can take away what forbids it.
    database = sqlite3.connect(place.url)
    database.executescript(
        "CREATE TABLE copied AS SELECT * FROM audit_records; INSERT INTO copied SELECT * FROM audit_records WHERE seq = 6;"
        "DROP TABLE audit_records; ALTER TABLE copied RENAME TO audit_records;"
    )
    database.close()
    assert "duplicate" in codes(place.verify())


def test_record_that_was_inserted_is_found(place: Place) -> None:
    place.run(copy_row(32, 33))
    assert "record-outside" in codes(place.verify())
    set_head(place, 34)
    assert {"record-moved", "chain-broken"} <= codes(place.verify())


def rewrite(place: Place, *, change: bool = True) -> None:
    """Writes the whole chain anew with what somebody likes better, with hashes, frontiers and head that fit; not the signatures."""
    frontier, prev = Frontier(), "0" * 64
    for seq, record in place.rows("SELECT seq, record FROM audit_records ORDER BY seq"):
        new = re.sub(r'"prev":"[0-9a-f]{64}"', f'"prev":"{prev}"', record)
        if change and seq == 7:
            new = re.sub(r'"outcome":"done"', '"outcome":"refused"', new)
        leaf = leaf_hash(new.encode())
        frontier.append(leaf)
        prev = leaf.hex()
        copy = ", outcome = 'refused'" if change and seq == 7 else ""
        place.run(f"UPDATE audit_records SET record = :record{copy} WHERE seq = :seq", record=new, seq=seq)
    place.run("UPDATE audit_head SET leaf = :leaf, frontier = :frontier", leaf=prev, frontier=frontier.to_bytes())


def sign_anew(place: Place) -> None:
    """Signs a first checkpoint with the key that lies there, in place of all others, as who has that key can; the log's next one covers all."""
    signer = Signer.load(place.key_path)
    frontier = Frontier(1, [leaf_hash(place.rows("SELECT record FROM audit_records WHERE seq = 0")[0][0].encode())])
    made = sign(signer, origin=signer.key.name, size=1, root=frontier.root(), at=BEGAN)
    place.run(
        "DELETE FROM audit_checkpoints",
        "INSERT INTO audit_checkpoints (id, size, at, text, frontier) VALUES (1, 1, :at, :text, :frontier)",
        at=write_time(BEGAN),
        text=made.text,
        frontier=frontier.to_bytes(),
    )
    newest_path(place.key_path).unlink()


def test_chain_rewritten_without_the_key_is_found_by_its_own_checkpoints(place: Place) -> None:
    rewrite(place)
    assert codes(place.verify()) == {"wrong-root"}


def test_chain_rewritten_without_checkpoints_is_no_verified_log(place: Place) -> None:
    rewrite(place)
    place.run("DELETE FROM audit_checkpoints")
    found = place.verify()
    assert (found.status, found.covered) == (Status.TAIL, 0)


def test_chain_rewritten_and_signed_with_the_key_is_found_by_a_checkpoint_from_elsewhere_alone(place: Place) -> None:
    outside = checkpoint_of(place, 22)
    rewrite(place)
    sign_anew(place)
    place.open(has_session=False).checkpoint()
    assert place.verify().is_ok  # what a bare chain, or one that its keeper signs, is worth
    assert codes(place.verify(checkpoints=[outside])) == {"fork"}


def test_chain_signed_with_another_key_is_found(place: Place) -> None:
    trusted = place.key
    rewrite(place)
    other = Signer.generate(trusted.name)
    place.key_path.unlink()
    other.save(place.key_path)
    sign_anew(place)
    place.run("UPDATE audit_keys SET key = :key", key=other.key.text)
    place.open(has_session=False).checkpoint()
    assert "foreign-key" in codes(place.verify(keys=[trusted]))


def test_old_log_with_its_old_checkpoint_put_back_is_found_by_a_newer_one_from_elsewhere(folder: Path) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key")
    shutil.copy(folder / "log.db", folder / "old.db")
    with place.open() as log:
        fill(log, 20)
    outside = checkpoint_of(place)
    shutil.copy(folder / "old.db", folder / "log.db")
    assert place.verify().is_ok
    assert codes(place.verify(checkpoints=[outside])) == {"log-cut"}


def test_fork_is_found_by_the_other_ones_checkpoint(folder: Path) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key")
    for name in ("log.db", "log.key", "log.key.newest"):
        shutil.copy(folder / name, folder / name.replace("log", "other"))
    other = Place(str(folder / "other.db"), folder / "other.key")
    for one in (place, other):
        with one.open(now=Ticking()) as log:
            fill(log, 20)
    assert place.verify().is_ok
    assert other.verify().is_ok
    assert codes(place.verify(checkpoints=[checkpoint_of(other)])) == {"fork"}


def test_checkpoint_from_elsewhere_that_nobody_trusted_has_signed_is_refused(place: Place) -> None:
    text = checkpoint_of(place).replace("\n33\n", "\n34\n")
    assert codes(place.verify(checkpoints=[text])) == {"outside-checkpoint"}


def test_log_of_another_origin_in_its_place_is_found(folder: Path) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key")
    other = make_log(str(folder / "other.db"), folder / "other.key")
    assert "other-log" in codes(place.verify(keys=[place.key, other.key], checkpoints=[checkpoint_of(other)]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_any_row_is_refused(
    whole_log: Path, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    for name in ("log.db", "log.key"):
        shutil.copy(whole_log / name, folder / name)
    place = Place(str(folder / "log.db"), folder / "log.key")
    table, column, where = data.draw(
        st.sampled_from(
            [("audit_records", one, "seq") for one in COLUMNS]
            + [("audit_checkpoints", one, "id") for one in ("text", "size", "at", "frontier")]
            + [("audit_head", one, "id") for one in ("log", "size", "frontier", "leaf", "first", "first_frontier")]
        )
    )
    rows = [
        row
        for row in place.rows(f"SELECT {where}, {column} FROM {table} ORDER BY {where}")
        if row[1] not in (None, "", b"")
    ]
    if not rows:
        return
    number, value = data.draw(st.sampled_from(rows))
    if isinstance(value, int):
        changed: object = value + data.draw(st.integers(-3, 3).filter(bool))
    else:
        at = data.draw(st.integers(0, len(value) - 1))
        if isinstance(value, str):
            new = data.draw(st.characters(min_codepoint=32, max_codepoint=126).filter(lambda one: one != value[at]))
            changed = value[:at] + new + value[at + 1 :]
        else:
            changed = value[:at] + bytes([value[at] ^ data.draw(st.integers(1, 255))]) + value[at + 1 :]
    place.run(f"UPDATE {table} SET {column} = :value WHERE {where} = :number", value=changed, number=number)
    assert place.verify().status is not Status.OK
    shutil.rmtree(folder)


def test_clock_that_goes_back_is_noted_and_the_number_counts(empty: Place) -> None:
    clock = Ticking()
    with empty.open(now=clock) as log:
        log.record(signed_in("before"))
        clock.time -= timedelta(days=400)
        log.record(signed_in("after"))
        entries = list(log.entries(kinds=["sign-in"]))
    assert [one.event.actor for one in entries] == ["person:before", "person:after"]
    assert [one.is_clock_back for one in entries] == [False, True]
    found = empty.verify(now=clock)
    assert found.findings == []
    assert [(one.code, one.seq) for one in found.notes] == [("clock-back", entries[1].seq)]


def test_server_of_1970_is_read(empty: Place) -> None:
    with open_log(empty.url, empty.key_path, now=lambda: datetime(1970, 1, 1, tzinfo=UTC)) as log:
        log.record(signed_in())
    assert empty.verify(now=lambda: datetime(1970, 1, 1, tzinfo=UTC)).is_ok


def empty_out(place: Place) -> None:
    place.run("DELETE FROM audit_records", "DELETE FROM audit_checkpoints", "DELETE FROM audit_sessions")
    set_head(place, 0)


def test_log_that_was_emptied_is_found(place: Place) -> None:
    empty_out(place)
    assert codes(place.verify()) == {"log-cut"}


@pytest.mark.parametrize("forgets_keys", [False, True])
def test_log_that_was_emptied_is_not_gone_on_with(place: Place, forgets_keys: bool) -> None:
    empty_out(place)
    if forgets_keys:
        place.run("DELETE FROM audit_keys")
    with pytest.raises(AuditError, match="emptied"):
        place.open()
    assert place.rows("SELECT * FROM audit_records") == []


def test_log_that_does_not_begin_with_its_key_is_found(place: Place) -> None:
    found = place.rows("SELECT record FROM audit_records WHERE seq = 0")[0][0]
    changed = found.replace('"kind":"audit-key-added"', '"kind":"started"')
    place.run("UPDATE audit_records SET record = :record, kind = 'started' WHERE seq = 0", record=changed)
    assert "log-cut" in codes(place.verify())


def test_beginning_that_was_torn_off_before_its_key_was_in_place_is_finished(empty: Place) -> None:
    with empty.open():
        pass
    empty.key_path.rename(new_key_path(empty.key_path))
    with empty.open():
        pass
    assert empty.verify().is_ok
