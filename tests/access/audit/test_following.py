# SPDX-License-Identifier: Apache-2.0
"""A log that was cut or written anew, met by who would go on with it: nothing is added to it, nothing of it is signed."""

from __future__ import annotations

import json
import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection
from tests.access.audit.logs import Place, Ticking, fill, make_log, signed_in
from tests.access.audit.test_attacks import checkpoint_of, codes, cut_after_the_last_checkpoint, rewrite, set_head

from shipsight.access.audit import following
from shipsight.access.audit.following import newest_path
from shipsight.access.audit.log import AuditLog
from shipsight.access.audit.merkle import leaf_hash
from shipsight.access.audit.record import Row
from shipsight.access.audit.store.rows import read_after
from shipsight.access.audit.verify import Status
from shipsight.errors import AuditError


def grow(place: Place, *, by: int = 3) -> None:
    """Adds entries without the key, with hashes and a head that fit."""
    rows = place.rows("SELECT seq, record FROM audit_records ORDER BY seq DESC LIMIT 1")
    seq, record = rows[0]
    names = "actor, address, details, subject, salts, erased, at, kind, outcome, server"
    for _ in range(by):
        record = re.sub(r'"prev":"[0-9a-f]{64}"', f'"prev":"{leaf_hash(record.encode()).hex()}"', record)
        record = record.replace(f'"seq":{seq}', f'"seq":{seq + 1}')
        place.run(
            f"INSERT INTO audit_records (seq, record, {names}) SELECT :to, :record, {names} FROM audit_records WHERE seq = :seq",
            to=seq + 1,
            seq=seq,
            record=record,
        )
        seq += 1
    set_head(place, seq + 1)


def assert_not_gone_on_with(log: AuditLog, place: Place) -> None:
    size = place.rows("SELECT size FROM audit_head")[0][0]
    signed = place.rows("SELECT count(*) FROM audit_checkpoints")[0][0]
    with pytest.raises(AuditError):
        log.record(signed_in("late"))
    with pytest.raises(AuditError):
        log.checkpoint()
    assert place.rows("SELECT size FROM audit_head")[0][0] == size
    assert place.rows("SELECT count(*) FROM audit_checkpoints")[0][0] == signed


@pytest.mark.parametrize("longer", [0, 1, 7])
@pytest.mark.parametrize("keeps_checkpoints", [False, True])
def test_log_rewritten_without_the_key_while_it_is_open_is_not_gone_on_with(
    empty: Place, longer: int, keeps_checkpoints: bool
) -> None:
    log = empty.open()
    fill(log, 15)
    log.checkpoint()
    rewrite(empty)
    if longer:
        grow(empty, by=longer)
    if not keeps_checkpoints:
        empty.run("DELETE FROM audit_checkpoints")
    assert_not_gone_on_with(log, empty)
    log.close()


def test_entries_added_without_the_rest_being_changed_are_followed(empty: Place) -> None:
    """Whoever can write there can add entries, as the servers of the log do: what stands there is what the log says from then on."""
    with empty.open() as log:
        fill(log, 5)
        grow(empty)
        log.record(signed_in("after"))
    assert empty.verify().is_ok


def test_two_that_write_by_turns_follow_each_other(empty: Place) -> None:
    with empty.open(server="one") as one, empty.open(server="two") as two:
        for turn in range(10):
            fill(one, 1 + turn % 3)
            fill(two, 1 + turn % 2)
    assert empty.verify().is_ok


def test_log_whose_beginning_another_moved_to_an_archive_is_gone_on_with(empty: Place, tmp_path: Path) -> None:
    clock = Ticking()
    with empty.open(server="one", now=clock) as one, empty.open(server="two", now=clock) as two:
        fill(one, 5)
        seen = two.size
        fill(one, 40)
        clock.time += timedelta(days=1)
        one.archive(clock.time - timedelta(seconds=1), tmp_path / "old.archive", actor="person:ada")
        assert one.reader.head().first > seen
        fill(two, 3)
    assert empty.verify(archives=[tmp_path / "old.archive"]).is_ok


def test_archive_that_nobody_with_the_key_made_is_not_gone_on_with(empty: Place) -> None:
    """Entries that a server has not seen yet are taken away, and called archived."""
    with empty.open(server="one") as one:
        fill(one, 2)
        with empty.open(server="two", has_session=False) as two:
            fill(two, 40)
        empty.run("DELETE FROM audit_checkpoints", "UPDATE audit_head SET first = size - 1")
        with pytest.raises(AuditError):
            one.record(signed_in())


@pytest.mark.parametrize("size", [11, 22])
def test_log_cut_at_an_older_checkpoint_is_not_gone_on_with(place: Place, size: int) -> None:
    place.run(
        f"DELETE FROM audit_checkpoints WHERE size > {size}",
        f"DELETE FROM audit_records WHERE seq >= {size}",
        "DELETE FROM audit_sessions",
    )
    set_head(place, size)
    for has_session in (True, False):
        with pytest.raises(AuditError, match="shorter"):
            place.open(has_session=has_session)


def test_log_cut_to_its_first_entries_is_not_gone_on_with(place: Place) -> None:
    place.run("DELETE FROM audit_checkpoints", "DELETE FROM audit_records WHERE seq >= 1")
    set_head(place, 1)
    with pytest.raises(AuditError, match="shorter"):
        place.open()


def test_log_rewritten_between_two_starts_is_not_gone_on_with(place: Place) -> None:
    rewrite(place)
    place.run("DELETE FROM audit_checkpoints")
    with pytest.raises(AuditError, match="not the one that was written"):
        place.open()


def test_log_without_its_checkpoints_is_not_gone_on_with_where_none_lies_beside_the_key(place: Place) -> None:
    newest_path(place.key_path).unlink()
    place.run("DELETE FROM audit_checkpoints")
    with pytest.raises(AuditError, match="checkpoints of the audit log are gone"):
        place.open()


def test_checkpoints_that_were_lost_do_not_keep_a_log_that_is_whole_from_going_on(place: Place) -> None:
    place.run("DELETE FROM audit_checkpoints")
    with place.open() as log:
        fill(log, 1)
    assert place.verify().is_ok


def test_old_copy_that_was_put_back_is_taken_where_somebody_says_so_and_that_stays_visible(folder: Path) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key")
    shutil.copy(folder / "log.db", folder / "old.db")
    with place.open() as log:
        fill(log, 20)
    shutil.copy(folder / "old.db", folder / "log.db")
    with pytest.raises(AuditError, match="shorter") as caught:
        place.open()
    assert "*.newest" in str(caught.value.hint)
    newest_path(place.key_path).unlink()
    place.open().close()
    found = place.verify()
    assert found.is_ok
    assert [one.code for one in found.notes if one.code != "clock-back"] == ["checkpoint-unknown"]


def test_newest_checkpoint_lies_beside_the_key_and_is_of_all_that_was_written(place: Place) -> None:
    assert newest_path(place.key_path).read_text() == checkpoint_of(place)
    assert newest_path(place.key_path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("lost", [False, True])
def test_newest_checkpoint_is_taken_after_the_key_was_changed(place: Place, lost: bool) -> None:
    before = newest_path(place.key_path).read_text()
    with place.open(has_session=False) as log:
        log.rotate_key(actor="person:ada", lost=lost)
    newest_path(place.key_path).write_text(before)  # of another server, that was not there meanwhile
    with place.open() as log:
        fill(log, 1)
    assert place.verify().is_ok


def test_newest_checkpoint_of_another_log_is_refused(folder: Path) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key")
    other = make_log(str(folder / "other.db"), folder / "other.key")
    shutil.copy(newest_path(other.key_path), newest_path(place.key_path))
    with pytest.raises(AuditError, match="not this log's"):
        place.open()


def test_newest_checkpoint_that_cannot_be_written_is_told_and_stops_nothing(
    empty: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with empty.open() as log:
        newest_path(empty.key_path).unlink()
        newest_path(empty.key_path).mkdir()  # so that nothing can be put in its place, for root neither
        (newest_path(empty.key_path) / "kept").touch()
        fill(log, 3)
        log.checkpoint()
    assert "cannot be kept beside the key" in caplog.text
    assert empty.verify().is_ok


def test_start_after_unsigned_entries_were_cut_with_every_trace_of_the_session_is_found(place: Place) -> None:
    cut_after_the_last_checkpoint(place)
    place.run("DELETE FROM audit_sessions")
    place.open(server="two").close()
    found = place.verify()
    assert codes(found) == {"session-torn"}
    assert "two" in found.findings[0].what


def test_start_after_a_session_that_was_torn_off_says_how_many_entries_nobody_had_signed(place: Place) -> None:
    log = place.open(server="two")
    fill(log, 4)
    log._buffer.close()  # as SIGKILL leaves it
    log._session = None
    log._thread.join()
    log._database.close()
    newest = newest_path(place.key_path).read_text()
    place.run("DELETE FROM audit_checkpoints WHERE size > 35")
    newest_path(place.key_path).write_text(checkpoint_of(place))
    assert newest != checkpoint_of(place)
    with place.open(server="two") as again:
        told = [dict(one.event.details) for one in again.entries(kinds=["audit-recovered", "audit-started"], first=36)]
    assert [one["unsigned"] for one in told] == [4, 4]
    found = place.verify()
    assert found.findings == []
    (recovered,) = [one for one in found.notes if one.code == "recovered"]
    assert "4 entries" in recovered.what


def test_checkpoint_signed_for_a_verification_does_not_make_a_dead_server_live(place: Place) -> None:
    cut_after_the_last_checkpoint(place)
    with place.open(has_session=False) as log:
        signed = log.checkpoint()
    found = place.verify(signed=signed)
    assert found.status is Status.TAIL
    assert "two" in str(found.tail)


def test_session_that_has_no_room_to_say_that_it_ends_counts_as_torn_off(empty: Place) -> None:
    log = empty.open()
    log._buffer._most = 0
    log.close()
    with empty.open() as again:
        kinds = [one.event.kind.value for one in again.entries()]
    assert "stopped" not in kinds[:-1]
    assert "audit-recovered" in kinds
    assert empty.verify().findings == []


def test_start_says_what_it_knew(empty: Place) -> None:
    for _ in range(2):
        empty.open().close()
    rows = empty.rows("SELECT details FROM audit_records WHERE kind = 'audit-started' ORDER BY seq")
    told = [json.loads(row[0]) for row in rows]
    assert [(one["known"], one["unsigned"]) for one in told] == [(None, 1), (3, 0)]


def test_log_is_followed_from_its_newest_checkpoint_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies under it is not read again at each start: that takes no longer with the years."""
    asked: list[int] = []

    def look(connection: Connection, after: int, end: int, most: int) -> list[Row]:
        asked.append(after)
        return read_after(connection, after, end, most)

    monkeypatch.setattr(following, "read_after", look)
    place.run("DELETE FROM audit_checkpoints WHERE size > 32")
    newest_path(place.key_path).write_text(checkpoint_of(place))
    place.open(server="two", has_session=False).close()
    assert asked
    assert min(asked) == 31


def test_place_where_nothing_can_be_read_is_no_log(place: Place) -> None:
    place.run("DELETE FROM audit_head")
    with pytest.raises(AuditError, match="not here"):
        place.open()
