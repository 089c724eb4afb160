# SPDX-License-Identifier: Apache-2.0
"""Backups of recordings: sealed, without keys; refused where a byte differs. What erasures do to them is in `test_erasing`."""

from __future__ import annotations

import shutil
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.monitor.recording.recordings import OFFICER, Place, jpeg, principal, sampling

from shipsight.access import Action, EventKind
from shipsight.errors import CorruptError, EnvironmentLackError, ForbiddenError, UnsupportedError, UsageError
from shipsight.monitor.recording import back_up, restore
from shipsight.monitor.recording.policy import Residency, Retention


def backed_up(place: Place, count: int = 3) -> tuple[Path, list[str]]:
    store = place.open()
    names = place.keep(store, count, subject="ada")
    file = place.folder / "recordings.backup"
    done = back_up(store, file, actor=OFFICER, events=place.events)
    assert (done.records, done.size) == (count, file.stat().st_size)
    return file, names


def test_backup_brings_back_files_that_are_gone(place: Place) -> None:
    file, names = backed_up(place)
    shutil.rmtree(place.path / "days")
    store = place.open()
    with store.writer():  # a server that starts meanwhile destroys no key
        pass
    done = restore(store, file, actor=OFFICER, events=place.events)
    assert (done.restored, done.present, done.erased, done.expired) == (3, 0, 0, 0)
    assert {store.open(one).label.id for one in store.entries()} == set(names)
    assert restore(store, file, actor=OFFICER, events=place.events).present == 3


def test_backup_brings_back_an_index_that_is_gone(place: Place) -> None:
    place.open(replace(sampling(), retention=Retention(days=9)))
    file, names = backed_up(place)
    (place.path / "index.db").unlink()
    place.clock.time += timedelta(hours=1)
    longer = replace(sampling(), retention=Retention(days=20))
    store = place.open(longer, is_restored=True)
    assert store.entries() == []
    # A server that starts before the restore has ended takes no key for one of a recording that was never finished.
    with pytest.raises(EnvironmentLackError, match="a restore has not ended"), place.open().writer():
        pass
    assert restore(store, file, actor=OFFICER, events=place.events).restored == 3
    with store.writer():
        pass
    assert {store.open(one).label.id for one in store.entries()} == set(names)
    assert [policy.retention.days for _, policy in store.index.policies()] == [9, 20]
    place.clock.time += timedelta(days=10)
    assert store.entries() == []  # what was promised came back, too


def test_backup_holds_no_key_no_image_and_nobodys_name(place: Place) -> None:
    store = place.open()
    (name,) = place.keep(store, subject="ada-lovelace")
    file = place.folder / "b"
    back_up(store, file, actor=OFFICER, events=place.events)
    held = file.read_bytes()
    planted = [b"ada-lovelace", store.keys.tag("ada-lovelace"), store.keys.get(name), jpeg()[:24]]
    planted += [bytes.fromhex(place.key.read_text(encoding="ascii")), place.key.read_bytes().strip()]
    assert [one for one in planted if one in held] == []
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_backup_of_another_store_is_refused(place: Place, tmp_path: Path) -> None:
    file, _ = backed_up(place)
    other = Place(tmp_path / "other").open()
    with pytest.raises(UsageError, match="another store"):
        restore(other, file, actor=OFFICER, events=place.events)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_or_cut_is_refused_and_nothing_is_restored(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    place = _damaged_place(tmp_path_factory)
    held = (place.folder / "recordings.backup").read_bytes()
    changed = bytearray(held)
    if data.draw(st.booleans()):
        changed[data.draw(st.integers(0, len(held) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        del changed[data.draw(st.integers(0, len(held) - 1)) :]
    file = place.folder / "changed"
    file.write_bytes(changed)
    store = place.open()
    with pytest.raises((CorruptError, UsageError, UnsupportedError)):
        restore(store, file, actor=OFFICER, events=place.events)
    assert not any(store.has_file(one) for one in store.entries())


_PLACES: list[Place] = []


def _damaged_place(factory: pytest.TempPathFactory) -> Place:
    """One for all examples: a store that has lost its files, beside a backup."""
    if not _PLACES:
        place = Place(factory.mktemp("backup"))
        backed_up(place)
        shutil.rmtree(place.path / "days")
        _PLACES.append(place)
    return _PLACES[0]


def test_file_that_is_no_backup_is_refused(place: Place) -> None:
    store = place.open()
    file = place.folder / "none"
    with pytest.raises(UsageError, match="not a file that can be read"):
        restore(store, file, actor=OFFICER, events=place.events)
    file.write_bytes(b"")
    with pytest.raises(UsageError, match="not a backup"):
        restore(store, file, actor=OFFICER, events=place.events)
    file.write_bytes(b"shipsight-recordings-backup\n\x02")
    with pytest.raises(UnsupportedError, match="newer"):
        restore(store, file, actor=OFFICER, events=place.events)


def test_ended_recordings_do_not_come_back(place: Place) -> None:
    file, _ = backed_up(place)
    shutil.rmtree(place.path / "days")
    place.clock.time += timedelta(days=31)
    store = place.open()
    assert restore(store, file, actor=OFFICER, events=place.events).expired == 3
    assert store.entries() == []


def test_nothing_is_restored_while_a_process_records(place: Place) -> None:
    file, _ = backed_up(place)
    with place.open().writer(), pytest.raises(UsageError, match="another process"):
        restore(place.open(), file, actor=OFFICER, events=place.events)


def test_backup_is_refused_where_recordings_may_not_lie(place: Place, tmp_path: Path) -> None:
    (tmp_path / "eu").mkdir()
    inside = Place(tmp_path / "eu")
    store = inside.open(replace(sampling(), residency=Residency(within=(str(tmp_path / "eu"),))))
    inside.keep(store)
    with pytest.raises(UsageError, match=r"residency\.within"):
        back_up(store, tmp_path / "b", actor=OFFICER, events=inside.events)
    assert not (tmp_path / "b").exists()
    back_up(store, tmp_path / "eu" / "b", actor=OFFICER, events=inside.events)


def test_file_that_is_there_is_not_replaced(place: Place) -> None:
    file, _ = backed_up(place)
    with pytest.raises(UsageError, match="there already"):
        back_up(place.open(), file, actor=OFFICER, events=place.events)


def test_backup_and_restore_need_rights_and_are_audited(place: Place) -> None:
    file, _ = backed_up(place)
    store = place.open()
    nobody = principal(Action.MODELS_PREDICT)
    with pytest.raises(ForbiddenError):
        back_up(store, place.folder / "c", actor=nobody, events=place.events)
    with pytest.raises(ForbiddenError):
        restore(store, file, actor=principal(Action.RECORDINGS_READ), events=place.events)
    restore(store, file, actor=OFFICER, events=place.events)
    told = [one.details["what"] for one in place.events.of(EventKind.RECORDINGS_CHANGED)]
    assert told == ["backup", "restore"]
    assert [path.name for path in place.folder.iterdir() if path.name.startswith(".")] == []
