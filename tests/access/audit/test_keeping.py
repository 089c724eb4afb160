# SPDX-License-Identifier: Apache-2.0
"""How long entries and what is personal in them are kept: archives, erasure, and keys that change meanwhile."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.access.audit.logs import BEGAN, Place, Ticking, fill, make_log, signed_in
from tests.access.audit.test_attacks import checkpoint_of, codes

from shipsight.access import Event, EventKind, Outcome
from shipsight.access.audit.archive import ArchiveReader
from shipsight.access.audit.checkpoint import Signer, VerifierKey
from shipsight.access.audit.reading import AuditReader
from shipsight.access.audit.verify import Status, verify
from shipsight.access.backup import BackupLock
from shipsight.errors import AuditError, AuditProofError, ShipsightError, UsageError

LOCKS = {
    "clear": None,
    "passphrase": BackupLock(passphrase="four words and more"),
    "key": BackupLock(keys=(b"k" * 32,)),
}
NOW = BEGAN + timedelta(hours=1)


def later(number: int) -> Event:
    return Event(NOW + timedelta(days=1), EventKind.SIGN_IN, Outcome.DONE, f"person:late{number}")


def archived(place: Place, out: Path, *, lock: BackupLock | None = None) -> int:
    """Adds entries of the next day, archives those before; returns how many went."""
    with place.open(now=Ticking(NOW)) as log:
        for number in range(8):
            log.record(later(number))
        return log.archive(NOW + timedelta(hours=12), out, actor="server:root", lock=lock).size


@pytest.mark.parametrize("kind", LOCKS)
def test_archive_and_the_rest_verify_together_and_apart(place: Place, folder: Path, kind: str) -> None:
    out, lock = folder / "old.archive", LOCKS[kind]
    size = archived(place, out, lock=lock)
    assert out.stat().st_mode & 0o777 == 0o600
    assert (b"person:ada" in out.read_bytes()) is (lock is None)
    rest = place.verify()
    assert (rest.status, rest.first, [one.code for one in rest.notes]) == (Status.OK, size, ["archived"])
    together = place.verify(archives=[out], lock=lock)
    assert (together.status, together.first, together.findings) == (Status.OK, 0, [])
    alone = verify(None, keys=[place.key], archives=[out], lock=lock)
    assert (alone.status, alone.first, alone.size) == (Status.OK, 0, size)
    with place.open(now=Ticking(NOW + timedelta(days=2))) as log:
        fill(log, 12)
        assert min(one.seq for one in log.entries()) == size
    assert place.verify(archives=[out], lock=lock).is_ok


def test_archives_follow_each_other_and_one_that_is_left_out_is_found(place: Place, folder: Path) -> None:
    one, two = folder / "one.archive", folder / "two.archive"
    archived(place, one)
    with place.open(now=Ticking(NOW + timedelta(days=3))) as log:
        log.record(Event(NOW + timedelta(days=3), EventKind.STARTED, Outcome.DONE, "server:root"))
        log.archive(NOW + timedelta(days=2), two, actor="server:root")
    assert place.verify(archives=[two, one]).is_ok
    assert place.verify(archives=[two]).is_ok
    assert codes(place.verify(archives=[one])) == {"archive-missing"}


def test_entry_tells_of_the_archive(place: Place, folder: Path) -> None:
    size = archived(place, folder / "old.archive")
    reader = AuditReader.open(place.url)
    told = next(iter(reader.entries(kinds=["audit-archived"]))).event
    reader.close()
    assert (told.actor, told.details["first"], told.details["size"]) == ("server:root", 0, size)


def test_archive_of_nothing_or_over_a_file_is_refused(place: Place, folder: Path) -> None:
    out = folder / "old.archive"
    with place.open() as log:
        with pytest.raises(UsageError, match="no entry is older"):
            log.archive(BEGAN - timedelta(days=9), out, actor="server:root")
        out.write_text("mine")
        with pytest.raises(UsageError, match="is there already"):
            log.archive(NOW, out, actor="server:root")
    assert out.read_text() == "mine"
    assert place.verify().is_ok


def test_archive_is_not_opened_by_another_passphrase(place: Place, folder: Path) -> None:
    archived(place, folder / "old.archive", lock=LOCKS["passphrase"])
    with pytest.raises(UsageError, match="not opened by this passphrase"):
        ArchiveReader(folder / "old.archive", lock=BackupLock(passphrase="four words and less"))
    with pytest.raises(UsageError, match="is encrypted"):
        ArchiveReader(folder / "old.archive")


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log and its archive, in clear and encrypted by a key."""
    folder = tmp_path_factory.mktemp("archives")
    for kind in ("clear", "key"):
        place = make_log(str(folder / f"{kind}.db"), folder / f"{kind}.key")
        archived(place, folder / f"{kind}.archive", lock=LOCKS[kind])
    return folder


@pytest.mark.parametrize("kind", ["clear", "key"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_an_archive_is_refused(
    archives: Path, kind: str, tmp_path: Path, data: st.DataObject
) -> None:
    whole = (archives / f"{kind}.archive").read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= data.draw(st.integers(1, 255))
    refuses(tmp_path / "changed", bytes(changed), archives / f"{kind}.key", LOCKS[kind])


@pytest.mark.parametrize("kind", ["clear", "key"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_archive_cut_anywhere_is_refused(archives: Path, kind: str, tmp_path: Path, data: st.DataObject) -> None:
    whole = (archives / f"{kind}.archive").read_bytes()
    refuses(tmp_path / "cut", whole[: data.draw(st.integers(0, len(whole) - 1))], archives / f"{kind}.key", LOCKS[kind])


def refuses(path: Path, content: bytes, key: Path, lock: BackupLock | None) -> None:
    path.write_bytes(content)
    try:
        found = verify(None, keys=[Signer.load(key).key], archives=[path], lock=lock)
    except ShipsightError:
        return
    assert found.status is Status.FAILED


def test_lines_of_an_archive_in_another_order_are_found(archives: Path, tmp_path: Path) -> None:
    lines = (archives / "clear.archive").read_bytes().splitlines(keepends=True)
    lines[3], lines[4] = lines[4], lines[3]
    refuses(tmp_path / "moved", b"".join(lines), archives / "clear.key", None)
    refuses(tmp_path / "more", b"".join([*lines, lines[2]]), archives / "clear.key", None)


def test_archive_says_all_that_a_stranger_needs(archives: Path) -> None:
    """What the page on the format says, done with nothing but a hash function."""
    import hashlib

    lines = [json.loads(line) for line in (archives / "clear.archive").read_text().splitlines()]
    prev = lines[0]["prev"]
    for line in lines[1:-1]:
        if "record" not in line:
            continue
        record = json.loads(line["record"])
        assert record["prev"] == prev
        prev = hashlib.sha256(b"\0" + line["record"].encode()).hexdigest()
        for name, one in line["values"].items():
            assert record[name] == hashlib.sha256(bytes.fromhex(one["salt"]) + one["value"].encode()).hexdigest()
    assert lines[-1]["end"] == record["seq"] + 1


def test_person_is_erased_and_the_log_verifies(place: Place) -> None:
    with place.open() as log:
        log.record(signed_in("eva", address="203.0.113.99"))
        log.record(
            Event(BEGAN, EventKind.SIGN_IN, Outcome.REFUSED, "nobody", subject="person:eva", address="203.0.113.98")
        )
        log.record(
            Event(BEGAN, EventKind.KEY_ADDED, Outcome.DONE, "person:ada", subject="key:7", details={"owner": "eva"})
        )
        log.record(
            Event(BEGAN, EventKind.KEY_ADDED, Outcome.DONE, "person:evan", subject="key:8", details={"of": "evan"})
        )
        log.checkpoint()
        done = log.erase("eva", actor="person:auditor")
        entries = {one.seq: one for one in log.entries(first=33)}
        first = next(one.seq for one in entries.values() if one.event.kind is EventKind.SIGN_IN)
        texts = repr([vars(one.event) for one in entries.values()])
    assert "eva'" not in texts
    assert "203.0.113" not in texts
    assert "person:evan" in texts
    assert entries[first].event.actor == f"erased:{done.seq}"
    assert entries[first].erased_by == done.seq
    assert entries[done.seq].event.kind is EventKind.AUDIT_ERASED
    assert entries[done.seq].event.details["person"] == done.pseudonym
    assert "eva" not in repr(entries[done.seq].event)
    assert done.entries == 3
    assert place.verify().is_ok


def test_what_was_erased_is_in_no_file_of_the_log(folder: Path) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key")
    with place.open() as log:
        for number in range(50):
            log.record(signed_in("marguerite", details={"number": number}))
        log.checkpoint()
        assert any(b"marguerite" in path.read_bytes() for path in folder.glob("log.db*"))
        log.erase("marguerite", actor="server:root")
        assert not any(b"marguerite" in path.read_bytes() for path in folder.glob("log.db*"))
    assert not any(b"marguerite" in path.read_bytes() for path in folder.glob("log.db*"))
    assert place.verify().is_ok


@pytest.mark.slow  # waits for another's hold on the log
def test_erasure_beside_a_reader_says_what_its_journal_still_holds(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key")
    with place.open() as log:
        log.record(signed_in("marguerite"))
        reader = AuditReader.open(place.url)
        with reader.database.read() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM audit_records").all()
            log.erase("marguerite", actor="server:root")
        reader.close()
    assert "holds what was erased" in caplog.text
    assert place.verify().is_ok


def test_value_erased_without_being_told_is_found_beside_one_that_was(place: Place) -> None:
    with place.open() as log:
        done = log.erase("user0", actor="server:root")
    place.run(
        "UPDATE audit_records SET actor = NULL, address = NULL, details = NULL, subject = NULL, salts = :salts, "
        f"erased = 'actor:{done.seq}' WHERE seq = 4",
        salts=bytes(64),
    )
    assert codes(place.verify()) == {"value-missing"}


def test_erasure_of_values_that_went_into_two_archives_verifies_and_is_no_quota(place: Place, folder: Path) -> None:
    with place.open(now=Ticking(NOW)) as log:
        log.record(signed_in("eva"))
        log.checkpoint()
    with place.open(now=Ticking(NOW + timedelta(days=1))) as log:
        log.record(signed_in("eva"))
    with place.open(now=Ticking(NOW + timedelta(days=2))) as log:
        log.record(signed_in("eva"))
        log.record(signed_in("ada"))
        done = log.erase("eva", actor="server:root")
    with place.open(now=Ticking(NOW + timedelta(days=3)), has_session=False) as log:
        for number in (1, 2):
            log.archive(NOW + timedelta(days=number), folder / f"{number}.archive", actor="server:root")
    assert (done.entries, done.values) == (3, 6)
    archives = [folder / "1.archive", folder / "2.archive"]
    for some in ([], archives[1:], archives):
        found = place.verify(archives=some)
        assert (found.status, found.findings) == (Status.OK, [])
    seq = place.rows("SELECT max(seq) FROM audit_records WHERE actor LIKE '%person:ada%'")[0][0]
    salts = place.rows(f"SELECT salts FROM audit_records WHERE seq = {seq}")[0][0]
    place.run(
        f"UPDATE audit_records SET actor = NULL, salts = :salts, erased = :erased WHERE seq = {seq}",
        salts=bytes(16) + bytes(salts)[16:],
        erased=f"actor:{done.seq}",
    )
    assert codes(place.verify()) == {"value-missing"}


@pytest.mark.parametrize("seq", ["before", "after"])
def test_erasure_of_an_archive_is_no_quota_for_the_log(place: Place, folder: Path, seq: str) -> None:
    out = folder / "old.archive"
    archived(place, out)
    with place.open(now=Ticking(NOW + timedelta(days=2))) as log:
        done = log.erase_archive("user0", out, actor="server:root")
        log.record(signed_in("zoe"))
    assert place.verify().is_ok
    order = "actor LIKE '%late%'" if seq == "before" else "actor LIKE '%zoe%'"
    changed = place.rows(f"SELECT max(seq) FROM audit_records WHERE {order}")[0][0]
    salts = place.rows(f"SELECT salts FROM audit_records WHERE seq = {changed}")[0][0]
    place.run(
        f"UPDATE audit_records SET actor = NULL, salts = :salts, erased = :erased WHERE seq = {changed}",
        salts=bytes(16) + bytes(salts)[16:],
        erased=f"actor:{done.seq}",
    )
    assert codes(place.verify()) == {"value-missing"}


def test_value_put_back_after_its_erasure_is_found(place: Place) -> None:
    columns = "actor, address, details, subject, salts"
    rows = {one[0]: one[1:] for one in place.rows(f"SELECT seq, {columns} FROM audit_records")}
    with place.open() as log:
        log.erase("user0", actor="server:root")
    (seq,) = place.rows("SELECT min(seq) FROM audit_records WHERE erased IS NOT NULL")[0]
    values = dict(zip(columns.split(", "), rows[seq], strict=True))
    assigned = ", ".join(f"{name} = :{name}" for name in values)
    place.run(f"UPDATE audit_records SET {assigned}, erased = NULL WHERE seq = {seq}", **values)
    assert codes(place.verify()) == {"value-changed"}


def test_erasing_somebody_who_is_not_there_changes_nothing(place: Place) -> None:
    with place.open() as log:
        size = log.size
        with pytest.raises(UsageError, match="nothing is here of this person"):
            log.erase("nobody-of-that-name", actor="server:root")
        assert log.size == size


def test_what_the_log_tells_of_itself_is_not_erased(place: Place) -> None:
    with place.open() as log:
        log.erase("server:one", actor="server:root")
        assert [one.event.details["session"] for one in log.entries(kinds=["audit-started"])]
    assert place.verify().is_ok


def test_who_read_or_lost_or_archived_is_erased_with_their_addresses_and_the_log_verifies(
    place: Place, folder: Path
) -> None:
    with place.open() as log:
        for kind, details in {
            EventKind.AUDIT_READ: {"what": "entries", "filter": "actor=person:eva"},
            EventKind.AUDIT_LOST: {"lost": 1},
        }.items():
            log.record(
                Event(BEGAN, kind, Outcome.DONE, "person:eva", subject="eva", address="203.0.113.99", details=details)
            )
        other = Event(BEGAN, EventKind.AUDIT_READ, Outcome.DONE, "person:ada", details={"filter": "text=eva"})
        log.record(other)
        log.archive(BEGAN + timedelta(seconds=20), folder / "old.archive", actor="person:eva")
        log.erase("eva", actor="person:auditor")
        told = {one.event.kind: vars(one.event) for one in log.entries() if one.event.kind is not EventKind.STARTED}
        assert "eva" not in repr([told[EventKind.AUDIT_READ], told[EventKind.AUDIT_ARCHIVED]])
        assert "203.0.113" not in repr(told)
        assert told[EventKind.AUDIT_LOST]["details"] == {"lost": 1}
    found = place.verify()
    assert (found.status, found.findings) == (Status.OK, [])


def test_name_alone_means_who_runs_commands_too(place: Place) -> None:
    with place.open() as log:
        log.record(Event(BEGAN, EventKind.USER_ADDED, Outcome.DONE, "server:eva", subject="person:bob"))
        log.erase("eva", actor="server:root")
        assert "server:eva" not in repr([one.event for one in log.entries()])
    assert place.verify().is_ok


@pytest.mark.parametrize("kind", LOCKS)
def test_person_is_erased_from_an_archive_and_it_verifies(place: Place, folder: Path, kind: str) -> None:
    out, lock = folder / "old.archive", LOCKS[kind]
    archived(place, out, lock=lock)
    with place.open(now=Ticking(NOW + timedelta(days=2))) as log:
        done = log.erase_archive("user0", out, actor="server:root", lock=lock)
        with pytest.raises(UsageError, match="nothing is here of this person"):
            log.erase_archive("user0", out, actor="server:root", lock=lock)
    assert done.entries == 1
    assert b"person:user0" not in out.read_bytes()
    assert out.stat().st_mode & 0o777 == 0o600
    found = place.verify(archives=[out], lock=lock)
    assert (found.status, found.findings, found.notes) == (Status.OK, [], [])
    assert verify(None, keys=[place.key], archives=[out], lock=lock).is_ok


def test_changed_archive_is_not_written_anew(place: Place, folder: Path) -> None:
    out = folder / "old.archive"
    archived(place, out)
    out.write_bytes(out.read_bytes().replace(b"person:user0", b"person:userX"))
    before = out.read_bytes()
    with place.open() as log, pytest.raises(AuditProofError):
        log.erase_archive("user4", out, actor="server:root")
    assert out.read_bytes() == before
    assert place.verify().is_ok


@pytest.mark.slow  # waits for another's hold on the log
def test_erasure_while_an_archive_is_written_is_not_lost_in_it(
    place: Place, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shipsight.access.audit import archiving

    out, real = folder / "old.archive", archiving.write_archive
    with place.open() as log:

        def slow(*given: object, **named: object) -> str:
            digest = real(*given, **named)  # type: ignore[arg-type]
            log.erase("user0", actor="server:root")
            return digest

        monkeypatch.setattr(archiving, "write_archive", slow)
        with pytest.raises(AuditError, match="meanwhile"):
            log.archive(datetime.now(UTC), out, actor="server:root")
    assert not out.exists()
    assert place.verify().is_ok


def test_key_is_changed_in_the_middle_and_all_verifies_with_either(place: Place) -> None:
    old = place.key
    with place.open() as log:
        new = log.rotate_key(actor="server:root")
        fill(log, 15)
    assert place.key == new != old
    assert place.verify(keys=[new]).is_ok
    assert place.verify(keys=[old]).is_ok  # the old one has signed that the new one follows
    fourth = place.open()
    newest = fourth.rotate_key(actor="server:root")
    fourth.close()
    assert [place.verify(keys=[one]).is_ok for one in (old, new, newest)] == [True, True, True]


def test_old_log_is_verified_with_the_key_that_was_retired_since(folder: Path) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key")
    old = place.key
    shutil.copy(folder / "log.db", folder / "copy.db")
    with place.open() as log:
        log.rotate_key(actor="server:root")
    copy = Place(str(folder / "copy.db"), folder / "log.key")
    assert copy.verify(keys=[old]).is_ok
    assert codes(copy.verify()) == {"foreign-key"}


def test_retired_key_signs_nothing_any_more(place: Place, folder: Path) -> None:
    shutil.copy(place.key_path, folder / "stolen.key")
    with place.open() as log:
        log.rotate_key(actor="server:root")
    stolen = Signer.load(folder / "stolen.key")
    with_old = Place(place.url, folder / "stolen.key")
    with pytest.raises(AuditError, match="retired"):
        with_old.open()
    with place.open() as log:
        fill(log, 3)
        frontier = log.reader.frontier(log.size)
        from shipsight.access.audit.checkpoint import sign

        forged = sign(stolen, origin=log.origin, size=log.size, root=frontier.root(), at=datetime.now(UTC))
        size = log.size
    place.run(
        "INSERT INTO audit_checkpoints (id, size, at, text, frontier) VALUES (9999, :size, :at, :text, :frontier)",
        size=size,
        at=forged.at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        text=forged.text,
        frontier=frontier.to_bytes(),
    )
    assert codes(place.verify()) == {"retired-key"}


def test_key_that_was_lost_is_not_believed_to_name_the_next(place: Place) -> None:
    old = place.key
    with place.open() as log:
        new = log.rotate_key(actor="server:root", lost=True)
    assert place.verify(keys=[new]).is_ok
    assert codes(place.verify(keys=[old])) == {"foreign-key"}


def test_key_named_by_an_entry_that_nobody_signed_is_not_trusted(place: Place) -> None:
    other = Signer.generate(place.key.name)
    with place.open() as log:
        told = {"key": other.key.text, "endorsement": log.key.text}
        log.record(Event(BEGAN, EventKind.AUDIT_KEY_ADDED, Outcome.DONE, "person:eve", details=told))
    with place.open() as log:
        frontier, size = log.reader.frontier(log.size), log.size
    from shipsight.access.audit.checkpoint import sign

    forged = sign(other, origin=place.key.name, size=size, root=frontier.root(), at=datetime.now(UTC))
    found = place.verify(checkpoints=[forged.text])
    assert codes(found) == {"outside-checkpoint"}


def test_running_server_takes_up_the_new_key(place: Place) -> None:
    running = place.open()
    with place.open(server="two", has_session=False) as other:
        new = other.rotate_key(actor="server:root")
    fill(running, 3)
    assert running.checkpoint().signatures[0].key == new
    running.close()
    assert place.verify().is_ok


def test_change_of_keys_that_was_torn_off_is_finished_at_the_next_start(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from shipsight.access.audit import log as module

    before = place.key
    log = place.open()
    with monkeypatch.context() as torn:
        torn.setattr(module, "put_key", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            log.rotate_key(actor="server:root")
    assert place.key == before
    with place.open(server="two") as again:
        assert again.key != before
        assert place.key == again.key
    log.close()
    assert place.verify().is_ok


def test_witness_checkpoint_counts_where_the_log_has_none_of_that_size(place: Place) -> None:
    outside = checkpoint_of(place)
    place.run("DELETE FROM audit_checkpoints WHERE size > 22")
    assert place.verify().status is Status.TAIL
    assert place.verify(checkpoints=[outside]).is_ok
    assert VerifierKey.parse(place.key.text) == place.key
