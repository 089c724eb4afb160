# SPDX-License-Identifier: Apache-2.0
"""Cells that hold what their columns never do, and archives that are not the files they are said to be: found, never an error or an endless walk."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.access.audit.logs import Place, Ticking, fill, make_log, open_log, signed_in
from tests.access.audit.test_attacks import codes

from shipsight.access.audit.archive import ArchiveReader, write_archive
from shipsight.access.audit.checkpoint import Signer
from shipsight.access.audit.following import newest_path
from shipsight.access.audit.reading import AuditReader
from shipsight.access.audit.record import write_time
from shipsight.access.audit.verify import Status, verify
from shipsight.errors import CorruptError

CELLS = (
    *(("audit_records", one) for one in ("seq", "record", "actor", "address", "details", "subject", "salts", "erased")),
    *(("audit_records", one) for one in ("at", "kind", "outcome", "server")),
    *(("audit_checkpoints", one) for one in ("size", "at", "text", "frontier")),
    *(("audit_head", one) for one in ("log", "first", "first_frontier", "first_prev", "size", "frontier", "leaf")),
    *(("audit_keys", one) for one in ("key", "added", "retired")),
)
LARGEST = 2**63 - 1
VALUES = st.one_of(
    st.integers(-LARGEST - 1, LARGEST),
    st.floats(),
    st.text(max_size=20).filter(lambda one: "\ud800" not in one),
    st.binary(max_size=80),
    st.sampled_from([-1, LARGEST, 2**40, float("inf"), "", b"", "zz", b"\xff", "9" * 5000, "[" * 200_000, "\x00"]),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cell=st.sampled_from(CELLS), value=VALUES, raw=st.booleans(), data=st.data())
def test_cell_of_any_value_of_any_type_is_never_ok_and_never_an_error(
    whole_log: Path,
    cell: tuple[str, str],
    value: object,
    raw: bool,
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    for name in ("log.db", "log.key"):
        shutil.copy(whole_log / name, folder / name)
    place = Place(str(folder / "log.db"), folder / "log.key")
    table, column = cell
    database = sqlite3.connect(place.url)
    rows = database.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
    number, before = data.draw(st.sampled_from(rows))
    # As text that is none, too: SQLite keeps whatever bytes it is given.
    mark = "CAST(? AS TEXT)" if raw and isinstance(value, bytes) else "?"
    try:
        database.execute(f"UPDATE OR FAIL {table} SET {column} = {mark} WHERE rowid = ?", (value, number))
        after = database.execute(
            f"SELECT typeof({column}), CAST({column} AS BLOB) FROM {table} WHERE rowid = {number}"
        ).fetchone()
    except sqlite3.IntegrityError:
        return  # of a value that stands there already, or none where one must
    finally:
        database.commit()
        database.close()
    is_same = after == (typeof(before), as_blob(before))
    found = place.verify()
    if table == "audit_keys":
        # What the place says of keys is never trusted: it may change what can be read, never make it right.
        assert found.size == 33 or found.status is Status.FAILED
    else:
        assert is_same or found.status is not Status.OK
    shutil.rmtree(folder)


def typeof(value: object) -> str:
    return {int: "integer", str: "text", bytes: "blob", float: "real", type(None): "null"}[type(value)]


def as_blob(value: object) -> object:
    return value if value is None or isinstance(value, bytes) else str(value).encode()


@pytest.mark.parametrize("size", [2**62, LARGEST])
def test_head_that_tells_of_more_entries_than_can_ever_be_does_not_make_it_walk_for_ever(
    place: Place, size: int
) -> None:
    place.run("UPDATE audit_head SET size = :size", size=size)
    assert "log-cut" in codes(place.verify())


def test_entry_of_a_number_that_can_never_be_does_not_make_it_walk_for_ever(place: Place) -> None:
    place.run("UPDATE audit_records SET seq = :seq WHERE seq = 32", seq=2**62)
    place.run("UPDATE audit_head SET size = :size", size=2**62 + 1)
    assert {"record-missing", "record-moved"} <= codes(place.verify())


@pytest.mark.parametrize("kind", ["audit-started", "audit-key-added", "stopped"])
@pytest.mark.parametrize(
    "details", ["[" * 100_000, "[]", "7", '{"key":7,"heartbeat_s":"nan"}', '{"heartbeat_s":1e999}', '{"key":null}']
)
def test_details_that_the_log_never_told_of_itself_are_found(place: Place, kind: str, details: str) -> None:
    place.run("UPDATE audit_records SET details = :details WHERE kind = :kind", details=details, kind=kind)
    assert place.verify().status is Status.FAILED


def test_entry_that_no_reader_takes_is_named_by_who_reads_it(folder: Path) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key")
    place.run("UPDATE audit_records SET details = :details WHERE seq = 3", details="[" * 200_000)
    reader = AuditReader.open(place.url)
    with pytest.raises(CorruptError, match="not an entry"):
        list(reader.entries())
    reader.close()


def make_archived(folder: Path, *, rotates: str | None = None) -> tuple[Place, Path, Signer]:
    """A log whose older half is in an archive; its key may have been changed before or after that."""
    clock = Ticking()
    place = Place(str(folder / "log.db"), folder / "log.key")
    with open_log(place.url, place.key_path, now=clock) as log:
        first = Signer.load(place.key_path)
        fill(log, 20)
        if rotates == "before":
            log.rotate_key(actor="person:ada")
        clock.time += timedelta(days=1)
        until = clock.time
        fill(log, 5)
        for event in range(2):
            log.record(signed_in(f"late{event}", details={"n": event}))
        if rotates == "between":
            log.rotate_key(actor="person:ada")
        log.archive(until, folder / "old.archive", actor="person:ada")
        if rotates == "after":
            log.rotate_key(actor="person:ada")
        fill(log, 3)
    return place, folder / "old.archive", first


@pytest.mark.parametrize("rotates", [None, "before", "between", "after"])
def test_archive_and_its_log_verify_over_a_change_of_keys(tmp_path: Path, rotates: str | None) -> None:
    place, archive, first = make_archived(tmp_path, rotates=rotates)
    assert place.verify(archives=[archive]).is_ok
    assert place.verify(archives=[archive], keys=[first.key]).is_ok


def test_archive_alone_verifies_over_a_change_of_keys_that_it_tells_of(tmp_path: Path) -> None:
    _, archive, first = make_archived(tmp_path, rotates="before")
    assert verify(None, keys=[first.key], archives=[archive]).findings == []


def test_archive_alone_that_a_later_key_has_sealed_needs_that_key(tmp_path: Path) -> None:
    place, archive, first = make_archived(tmp_path, rotates="between")
    assert "foreign-key" in codes(verify(None, keys=[first.key], archives=[archive]))
    assert verify(None, keys=[first.key, place.key], archives=[archive]).findings == []


def write_anew(archive: Path, signer: Signer) -> None:
    """Writes an archive's entries into another that somebody else seals."""
    source = ArchiveReader(archive)
    items = list(source.items(None))
    archive.unlink()
    head = replace(source.head, made_at=write_time(Ticking()()))
    write_archive(archive, items, head=head, signer=signer, now=Ticking()(), lock=None)


def test_archive_sealed_by_a_key_that_only_the_place_names_is_found(tmp_path: Path) -> None:
    place, archive, first = make_archived(tmp_path)
    thief = Signer.generate(first.key.name)
    place.run("INSERT INTO audit_keys (key, added, retired) VALUES (:key, 0, NULL)", key=thief.key.text)
    write_anew(archive, thief)
    assert codes(place.verify(archives=[archive])) == {"archive-changed"}
    assert codes(verify(None, keys=[first.key], archives=[archive])) == {"foreign-key"}


def test_archive_written_anew_with_the_key_is_not_the_file_that_the_log_tells_of(tmp_path: Path) -> None:
    place, archive, first = make_archived(tmp_path)
    shutil.copy(archive, tmp_path / "kept.archive")
    with place.open(has_session=False) as log:
        log.erase_archive("user0", archive, actor="person:ada")
    assert place.verify(archives=[archive]).is_ok
    # The one from before the erasure still holds what was erased: it is not the file any more.
    assert codes(place.verify(archives=[tmp_path / "kept.archive"])) >= {"archive-changed"}
    assert newest_path(place.key_path).exists()
    assert first.key == place.key
