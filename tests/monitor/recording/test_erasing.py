# SPDX-License-Identifier: Apache-2.0
"""What is erased is gone: from the store, from backups made before, from copies of its files; each erasure gives a receipt."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.access.conftest import KeptEvents
from tests.monitor.recording.recordings import OFFICER, Place, answer, jpeg, principal

from shipsight.access import Action, EventKind
from shipsight.errors import CorruptError, EnvironmentLackError, ForbiddenError, NotFoundError, UsageError
from shipsight.monitor.recording import (
    Answered,
    KeptErasure,
    Recorder,
    Store,
    back_up,
    erase_day,
    erase_recordings,
    erase_subject,
    restore,
    rotate_key,
    sweep,
)
from shipsight.monitor.recording.keys import Place as Where

DAY = "2026-11-23"


def names_in(store: Store) -> set[str]:
    return {one.label.id for one in store.entries()}


def test_erasing_a_subject_takes_theirs_and_nothing_else(place: Place) -> None:
    store = place.open()
    hers = [*place.keep(store, 2, subject="ada"), *place.keep(store, 1, subject="ada", days_ago=3)]
    others = [*place.keep(store, 2, subject="grace"), *place.keep(store, 1)]
    receipt = erase_subject(store, "ada", actor=OFFICER, events=place.events)
    assert names_in(store) == set(others)
    assert (receipt.what, receipt.records, receipt.days) == ("subject", 3, ("2026-11-20", DAY))
    for name in hers:
        with pytest.raises(NotFoundError):
            store.keys.get(name)
        assert not store.path(Where(name, DAY)).exists()
    assert store.keys.places(tag=store.keys.tag("ada")) == []


def test_erasing_a_day_takes_all_of_it(place: Place) -> None:
    store = place.open()
    place.keep(store, 2, subject="ada")
    place.keep(store, 1)
    rest = place.keep(store, 2, days_ago=1)
    receipt = erase_day(store, DAY, actor=OFFICER, events=place.events)
    assert names_in(store) == set(rest)
    assert (receipt.what, receipt.records, receipt.days) == ("day", 3, (DAY,))
    assert not (place.path / "days" / DAY).exists()


def test_erasing_by_id_takes_all_or_none(place: Place) -> None:
    store = place.open()
    one, other = place.keep(store, 2)
    with pytest.raises(NotFoundError, match="nowhere"):
        erase_recordings(store, [one, "nowhere"], actor=OFFICER, events=place.events)
    assert names_in(store) == {one, other}
    assert erase_recordings(store, [one, one], actor=OFFICER, events=place.events).records == 1
    assert names_in(store) == {other}


def test_receipt_is_kept_audited_and_names_nobody(place: Place) -> None:
    store = place.open()
    names = place.keep(store, 2, subject="ada")
    receipt = erase_subject(store, "ada", actor=OFFICER, events=place.events)
    assert store.index.erasures() == [receipt]
    assert receipt.done_at is not None
    assert receipt.asked_by == "key:officer"
    assert receipt.digest == hashlib.sha256("".join(f"{one}\n" for one in sorted(names)).encode()).hexdigest()
    (event,) = place.events.of(EventKind.RECORDINGS_ERASED)
    assert event.details["receipt"] == receipt.id
    assert (event.details["records"], event.subject, event.actor) == (2, "recordings", "key:officer")
    tag = store.keys.tag("ada")
    for told in (repr(event), repr(receipt), (place.path / "index.db").read_bytes().decode("latin-1")):
        assert "ada" not in told.replace("metadata", "")
        assert tag.hex() not in told
        assert tag.decode("latin-1") not in told


def test_erasing_who_was_never_recorded_gives_a_receipt_of_nothing(place: Place) -> None:
    store = place.open()
    kept = place.keep(store, subject="ada")
    receipt = erase_subject(store, "grace", actor=OFFICER, events=place.events)
    assert (receipt.records, receipt.days) == (0, ())
    assert names_in(store) == set(kept)


def test_nothing_is_erased_that_cannot_be_recorded(place: Place) -> None:
    store = place.open()
    kept = place.keep(store, subject="ada")
    failing = KeptEvents(fails=True)
    for act in acts(store, kept, failing):
        with pytest.raises(OSError, match="no space left"):
            act()
    assert names_in(store) == set(kept)
    assert store.index.erasures() == []


def acts(store: Store, names: list[str], events: KeptEvents, actor: object = OFFICER) -> list[Callable[[], object]]:
    return [
        lambda: erase_subject(store, "ada", actor=actor, events=events),  # type: ignore[arg-type]
        lambda: erase_day(store, DAY, actor=actor, events=events),  # type: ignore[arg-type]
        lambda: erase_recordings(store, names, actor=actor, events=events),  # type: ignore[arg-type]
        lambda: rotate_key(store, actor=actor, events=events),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize(
    "actor",
    [principal(Action.RECORDINGS_READ, Action.DATA_EXPORT), principal(Action.RECORDINGS_CHANGE, models=("gate",))],
    ids=["reader", "of-one-model"],
)
def test_who_may_not_change_recordings_erases_none(place: Place, actor: object) -> None:
    store = place.open()
    kept = place.keep(store, subject="ada")
    key = place.key.read_text(encoding="ascii")
    for act in acts(store, kept, place.events, actor):
        with pytest.raises(ForbiddenError):
            act()
    assert names_in(store) == set(kept)
    assert place.events.kept == []
    assert place.key.read_text(encoding="ascii") == key


@pytest.mark.parametrize("day", ["", "yesterday", "2026-13-01", "2026-11-23T00:00"])
def test_what_is_no_day_erases_nothing(place: Place, day: str) -> None:
    store = place.open()
    kept = place.keep(store)
    with pytest.raises(UsageError, match="not a day"):
        erase_day(store, day, actor=OFFICER, events=place.events)
    with pytest.raises(UsageError, match="names nobody"):
        erase_subject(store, " ", actor=OFFICER, events=place.events)
    assert names_in(store) == set(kept)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(["ada", "grace", "alan", DAY, "2026-11-22"]))
def test_order_of_erasures_does_not_matter(tmp_path_factory: pytest.TempPathFactory, order: list[str]) -> None:
    place = Place(tmp_path_factory.mktemp("order"))
    store = place.open()
    for days_ago in range(3):
        for subject in ("ada", "grace", "alan", None):
            place.keep(store, subject=subject, days_ago=days_ago)
    for one in order:
        act = erase_day if one.startswith("2026") else erase_subject
        act(store, one, actor=OFFICER, events=place.events)
    left = store.entries()
    assert [one.label.day for one in left] == ["2026-11-21"]
    assert [one.id for one in store.keys.places()] == [left[0].label.id]
    assert sum(one.records for one in store.index.erasures()) == 11


# --- backups and copies that were made before


@pytest.mark.parametrize("what", ["subject", "day", "recordings"])
def test_backup_made_before_an_erasure_brings_nothing_of_it_back(place: Place, what: str) -> None:
    store = place.open()
    hers = place.keep(store, 2, subject="ada")
    others = place.keep(store, 2, subject="grace", days_ago=1)
    file = place.folder / "before.backup"
    back_up(store, file, actor=OFFICER, events=place.events)
    if what == "subject":
        erase_subject(store, "ada", actor=OFFICER, events=place.events)
    elif what == "day":
        erase_day(store, DAY, actor=OFFICER, events=place.events)
    else:
        erase_recordings(store, hers, actor=OFFICER, events=place.events)
    done = restore(store, file, actor=OFFICER, events=place.events)
    assert (done.restored, done.present, done.erased, done.expired) == (0, 2, 2, 0)
    assert names_in(store) == set(others)


def test_backup_brings_back_what_was_lost_and_not_what_was_erased(place: Place) -> None:
    store = place.open()
    place.keep(store, 2, subject="ada")
    others = place.keep(store, 2, subject="grace")
    file = place.folder / "before.backup"
    back_up(store, file, actor=OFFICER, events=place.events)
    erase_subject(store, "ada", actor=OFFICER, events=place.events)
    (place.path / "index.db").unlink()
    shutil.rmtree(place.path / "days")
    store = place.open(is_restored=True)
    done = restore(store, file, actor=OFFICER, events=place.events)
    assert (done.restored, done.present, done.erased, done.expired) == (2, 0, 2, 0)
    assert names_in(store) == set(others)
    for entry in store.entries():
        store.open(entry)


def test_copy_of_the_whole_folder_made_before_does_open_until_the_key_is_rotated(place: Place) -> None:
    """What a snapshot of the disk holds: the reason for `rotate-key`, and its limit."""
    store = place.open()
    place.keep(store, subject="ada")
    kept = place.keep(store, subject="grace")
    copy = place.folder / "copy"
    shutil.copytree(place.path, copy)
    erase_subject(store, "ada", actor=OFFICER, events=place.events)
    held = Store(copy, key_file=place.key, now=place.clock)
    assert len([held.open(one) for one in held.entries()]) == 2
    old_key = place.key.read_text(encoding="ascii")
    assert rotate_key(store, actor=OFFICER, events=place.events) == 1
    with pytest.raises(CorruptError, match="another key"):
        Store(copy, key_file=place.key, now=place.clock)
    assert old_key not in place.key.read_text(encoding="ascii")
    assert [one.label.id for one in store.entries()] == kept
    store.open(store.entries()[0])


def test_rotation_is_seen_by_a_process_that_is_open(place: Place) -> None:
    one, other = place.open(), place.open()
    (name,) = place.keep(one)
    other.open(other.entry(name))
    for _ in range(3):
        rotate_key(one, actor=OFFICER, events=place.events)
        other.open(other.entry(name))
        (name,) = place.keep(other)
        one.open(one.entry(name))


def test_rotation_that_was_torn_off_is_ended_by_the_next(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.open()
    (name,) = place.keep(store)

    def torn(*_: object) -> int:
        raise EnvironmentLackError("torn off")

    monkeypatch.setattr(store.keys, "_rewrap", torn)
    with pytest.raises(EnvironmentLackError):
        rotate_key(store, actor=OFFICER, events=place.events)
    monkeypatch.undo()
    assert len(place.key.read_text(encoding="ascii").split()) == 2
    again = place.open()
    again.open(again.entry(name))
    (new,) = place.keep(again)
    rotate_key(again, actor=OFFICER, events=place.events)
    assert len(place.key.read_text(encoding="ascii").split()) == 1
    last = place.open()
    for one in (name, new):
        last.open(last.entry(one))


def test_erased_keys_are_not_left_in_the_pages_of_the_table(place: Place) -> None:
    store = place.open()
    names = place.keep(store, 20, subject="ada")
    table = place.path / "keys.db"
    import sqlite3

    connection = sqlite3.connect(table)
    wrapped = [row[0] for row in connection.execute("SELECT wrapped FROM keys")]
    connection.close()
    assert all(one in table.read_bytes() for one in wrapped)
    erase_recordings(store, names, actor=OFFICER, events=place.events)
    left = b"".join(path.read_bytes() for path in place.path.rglob("keys.db*"))
    assert not any(one[21:53] in left for one in wrapped)
    assert store.keys.tag("ada") not in left


def test_erasing_while_a_server_records_leaves_nothing_half_there(place: Place) -> None:
    store, other = place.open(), place.open()
    jpegs = [jpeg(seed) for seed in range(3)]
    with Recorder(store, events=place.events, most=10_000) as recorder:
        for number in range(120):
            recorder.offer(
                Answered(jpegs[number % 3], answer(), "gate", "1", "v", subject=("ada", "grace")[number % 2])
            )
            if number % 20 == 19:
                erase_subject(other, "ada", actor=OFFICER, events=place.events)
        assert recorder.flush()
        assert recorder.state.failed == 0
        erase_subject(other, "ada", actor=OFFICER, events=place.events)
    with place.open().writer():
        pass
    left = store.entries()
    assert len(left) == 60
    assert {one.label.id for one in left} == {one.id for one in store.keys.places(tag=store.keys.tag("grace"))}
    assert {path.stem for path in (place.path / "days").rglob("*.*")} == {one.label.id for one in left}
    for one in left:
        store.open(one)


# --- what is left in the middle


def test_erasure_that_a_process_left_in_the_middle_is_pending_and_ends_when_the_store_is_opened(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = place.open()
    hers = place.keep(store, 2, subject="ada")
    others = place.keep(store, 1)

    def torn(*_: object) -> None:
        raise EnvironmentLackError("torn off")

    monkeypatch.setattr(store, "finish_erasure", torn)
    with pytest.raises(EnvironmentLackError):
        erase_subject(store, "ada", actor=OFFICER, events=place.events)
    monkeypatch.undo()
    assert [one.done_at for one in store.index.erasures()] == [None]
    assert names_in(store) == {*hers, *others}
    store = place.open()
    assert [one.done_at is None for one in store.index.erasures()] == [False]
    assert names_in(store) == set(others)
    assert {one.id for one in store.keys.places()} == set(others)
    assert store.index.pending() == []


def test_erasure_whose_files_cannot_be_removed_has_destroyed_the_keys(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = place.open()
    (name,) = place.keep(store, subject="ada")

    def refuses(*_: object, **__: object) -> None:
        raise OSError(30, "read-only file system")

    monkeypatch.setattr(Path, "unlink", refuses)
    with pytest.raises(EnvironmentLackError, match="cannot be removed"):
        erase_subject(store, "ada", actor=OFFICER, events=place.events)
    monkeypatch.undo()
    with pytest.raises(NotFoundError):
        store.keys.get(name)
    assert names_in(store) == set()
    assert isinstance(store.index.erasures()[0], KeptErasure)
    assert place.open().index.pending() == []


# --- retention


def test_sweep_erases_what_has_ended_and_gives_a_receipt(place: Place) -> None:
    store = place.open()
    place.keep(store, 2, days_ago=40)
    young = place.keep(store, 1)
    receipt = sweep(store, actor="server:test", events=place.events)
    assert receipt is not None
    assert (receipt.what, receipt.records, receipt.asked_by) == ("expired", 2, "server:test")
    assert {one.id for one in store.keys.places()} == set(young)
    assert sweep(store, actor="server:test", events=place.events) is None
    place.clock.time += timedelta(days=30)
    assert sweep(store, actor="server:test", events=place.events) is not None
    assert store.keys.places() == []
    assert list((place.path / "days").iterdir()) == []
