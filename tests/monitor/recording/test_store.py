# SPDX-License-Identifier: Apache-2.0
"""A store of recordings: what goes in comes out, to who has the key; nothing of it is in its files."""

from __future__ import annotations

import secrets
import sqlite3
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.monitor.recording.recordings import Place, jpeg, new_recording, sampling

from shipsight.errors import CorruptError, EnvironmentLackError, NotFoundError, UsageError
from shipsight.monitor.recording import Store
from shipsight.monitor.recording.enforcement import REGION_FILE
from shipsight.monitor.recording.keys import Place as Where
from shipsight.monitor.recording.policy import Policy, Residency, Retention


def test_recordings_come_back_as_they_were(place: Place) -> None:
    store = place.open()
    new = [new_recording(place.clock(), store.policy, seed=seed) for seed in range(5)]
    with store.writer():
        size = store.add(new)
    again = place.open()
    entries = again.entries()
    assert sum(one.size for one in entries) == size == again.index.total_bytes()
    kept = {one.label.id: again.open(one) for one in entries}
    assert kept == {one.recording.label.id: one.recording for one in new}


def test_no_image_text_or_name_is_in_any_file(place: Place) -> None:
    store = place.open()
    image, subject = jpeg(7), "ada.lovelace@example.org"
    with store.writer():
        store.add([new_recording(place.clock(), store.policy, subject=subject, image=image)])
    assert len(place.files()) >= 4
    planted = [image[:24], image[100:116], subject.encode(), b"ada.lovelace", subject.encode().hex().encode()]
    planted += [b"JFIF", b"class_name", b'predictions":', store.keys.tag(subject).hex().encode()]
    for file in place.files():
        data = file.read_bytes()
        assert [one for one in planted if one in data] == [], file
    # The tag that stands beside the key is in the key table, and nowhere else.
    tag = store.keys.tag(subject)
    assert {file.name for file in place.files() if tag in file.read_bytes()} == {"keys.db"}


def test_index_holds_neither_keys_nor_tags(place: Place) -> None:
    store = place.open()
    (name,) = place.keep(store, subject="ada")
    held = (place.path / "index.db").read_bytes()
    assert store.keys.tag("ada") not in held
    assert store.keys.get(name) not in held
    assert store.keys.get(name) not in (place.path / "keys.db").read_bytes()


def test_files_are_their_owners_alone(place: Place) -> None:
    store = place.open()
    place.keep(store, 2)
    for path in [place.key, *place.path.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_subject_is_told_by_the_store_that_it_is_kept_in_alone(place: Place, tmp_path: Path) -> None:
    one, other = place.open(), Place(tmp_path / "other").open()
    assert one.keys.tag("ada") == place.open().keys.tag("ada")
    assert one.keys.tag("ada") != other.keys.tag("ada")
    assert one.keys.tag("ada") != one.keys.tag("Ada")
    assert one.keys.tag("caf\u00e9") == one.keys.tag("cafe\u0301")


def test_store_does_not_open_with_another_key(place: Place) -> None:
    place.keep(place.open())
    place.key.write_text(f"{secrets.token_hex(32)}\n", encoding="ascii")
    with pytest.raises(CorruptError, match="another key"):
        place.open()


def test_store_whose_key_is_gone_makes_no_new_one(place: Place) -> None:
    place.keep(place.open())
    place.key.unlink()
    with pytest.raises(EnvironmentLackError, match="key of the recordings is not there"):
        place.open()
    assert not place.key.exists()


def test_key_among_the_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lies among them"):
        Store(tmp_path / "r", key_file=tmp_path / "r" / "key", policy=sampling())


@pytest.mark.parametrize("name", ["keys.db", "index.db"])
def test_store_of_which_a_part_is_gone_is_refused(place: Place, name: str) -> None:
    place.keep(place.open())
    (place.path / name).unlink()
    with pytest.raises(EnvironmentLackError, match="part of the store") as caught:
        place.open()
    assert str(caught.value.where).endswith(name)


def test_folder_without_recordings_is_no_empty_store(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLackError, match="no recordings here"):
        Store(tmp_path / "none", key_file=tmp_path / "none.key")
    assert not (tmp_path / "none").exists()


def test_damaged_tables_are_told(place: Place) -> None:
    place.keep(place.open())
    (place.path / "keys.db").write_bytes(b"no database" * 1000)
    with pytest.raises(CorruptError, match="damaged"):
        place.open()


def test_wrapped_key_moved_to_another_recording_opens_nothing(place: Place) -> None:
    store = place.open()
    one, other = place.keep(store, 2)
    with sqlite3.connect(place.path / "keys.db") as connection:
        (wrapped,) = connection.execute("SELECT wrapped FROM keys WHERE id = ?", (one,)).fetchone()
        connection.execute("UPDATE keys SET wrapped = ? WHERE id = ?", (wrapped, other))
    connection.close()
    with pytest.raises(CorruptError):
        store.open(store.entry(other))


def test_recording_that_is_given_to_another_person_or_day_opens_nothing(place: Place) -> None:
    store = place.open()
    for column, value in (("subject", store.keys.tag("grace")), ("day", "2026-11-22")):
        (name,) = place.keep(store, subject="ada")
        store.keys.get(name)
        with sqlite3.connect(place.path / "keys.db") as connection:
            connection.execute(f"UPDATE keys SET {column} = ? WHERE id = ?", (value, name))
        connection.close()
        with pytest.raises(CorruptError):
            store.keys.get(name)


def test_file_moved_to_another_recording_opens_nothing(place: Place) -> None:
    store = place.open()
    one, other = (store.entry(name) for name in place.keep(store, 2))
    paths = [store.path(Where(entry.label.id, entry.label.day)) for entry in (one, other)]
    paths[0].replace(paths[1])
    with pytest.raises(CorruptError):
        store.open(other)
    with pytest.raises(NotFoundError):
        store.open(one)


def test_one_process_writes(place: Place) -> None:
    store = place.open()
    with store.writer(), pytest.raises(UsageError, match="another process"), place.open().writer():
        pass
    with place.open().writer():
        pass


def test_ended_recordings_are_not_shown_before_they_are_swept(place: Place) -> None:
    store = place.open()
    (old,) = place.keep(store, days_ago=31)
    (young,) = place.keep(store, days_ago=29)
    assert [one.label.id for one in store.entries()] == [young]
    with pytest.raises(NotFoundError):
        store.entry(old)
    assert [one.label.id for one in store.expired()] == [old]


def test_policy_that_keeps_longer_does_not_lengthen_what_was_promised(place: Place) -> None:
    store = place.open(replace(sampling(), retention=Retention(days=7)))
    place.keep(store)
    place.clock.time += timedelta(days=8)
    store = place.open(replace(sampling(), retention=Retention(days=30)))
    assert store.is_policy_new
    assert store.entries() == []
    assert len(store.expired()) == 1


def test_policy_holds_until_another_is_given(place: Place) -> None:
    policy = replace(sampling(), retention=Retention(days=9))
    assert place.open(policy).is_policy_new
    assert not place.open(policy).is_policy_new
    found = Store(place.path, key_file=place.key, now=place.clock)
    assert found.policy == policy
    assert not found.is_policy_new


def test_store_is_refused_where_the_policy_lets_none_lie(place: Place) -> None:
    with pytest.raises(UsageError, match=r"residency\.region"):
        place.open(replace(sampling(), residency=Residency(region="eu")))
    assert not (place.path / "keys.db").exists()
    (place.folder / REGION_FILE).write_text("eu", encoding="utf-8")
    assert place.open().region == "eu"
    (place.folder / REGION_FILE).write_text("us", encoding="utf-8")
    with pytest.raises(UsageError, match=r"residency\.region"):
        place.open()


def test_what_a_process_left_unfinished_is_tidied_up(place: Place) -> None:
    store = place.open()
    whole, without_file, without_entry = place.keep(store, 3)
    paths = {name: store.path(Where(name, "2026-11-23")) for name in (whole, without_file, without_entry)}
    paths[without_file].unlink()
    store.index.remove([without_entry])
    stray = paths[whole].with_name("0" * 32 + ".sealed")
    torn = paths[whole].with_suffix(".new")
    stray.write_bytes(b"stray")
    torn.write_bytes(b"torn")
    with store.writer():
        pass
    # What lost its file keeps its key: a backup may bring it back.
    assert {one.label.id for one in store.entries()} == {whole, without_file}
    assert {one.id for one in store.keys.places()} == {whole, without_file}
    with pytest.raises(NotFoundError, match="its file is gone"):
        store.open(store.entry(without_file))
    assert [path.name for path in (place.path / "days").rglob("*.*")] == [f"{whole}.sealed"]


def test_index_of_a_policy_that_is_none_is_damaged(place: Place) -> None:
    place.open()
    with sqlite3.connect(place.path / "index.db") as connection:
        connection.execute('UPDATE policies SET told = \'{"schema": 1, "mode": 3}\'')
    connection.close()
    with pytest.raises(CorruptError, match="not a policy"):
        Store(place.path, key_file=place.key, now=place.clock)


def test_statistics_policy_opens_a_store_that_records_nothing(place: Place) -> None:
    store = place.open(Policy())
    assert store.entries() == []
