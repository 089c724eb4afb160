# SPDX-License-Identifier: Apache-2.0
"""Processes that are torn off while they record, and disks that are full: real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.monitor.recording.recordings import OFFICER, Place, new_recording
from tests.small_disk import mounted

from shipsight.errors import EnvironmentLackError
from shipsight.monitor.recording import Store, erase_subject, rotate_key

SOURCE = Path(__file__).resolve().parents[3] / "src"
WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from shipsight.monitor.recording import Label, Recording, Store
from shipsight.monitor.recording.record import new_id, read_time, write_time
from shipsight.monitor.recording.store import NewRecording

store = Store(Path(sys.argv[1]), key_file=Path(sys.argv[2]))
with store.writer():
    print("open", flush=True)
    while True:
        new = []
        for _ in range(3):
            at = read_time(write_time(datetime.now(UTC)))
            label = Label(new_id(), at, "gate", "1", "v", ("chance",), (), store.policy.digest, "image/jpeg")
            new.append(NewRecording(Recording(label, {}, bytes(20000)), "ada"))
        store.add(new)
        print(*(one.recording.label.id for one in new), flush=True)
"""


@pytest.mark.parametrize("after", [0, 1, 5, 25])
def test_killed_writer_leaves_all_that_it_said_is_kept_and_nothing_that_is_not_listed(
    tmp_path: Path, after: int
) -> None:
    place = Place(tmp_path)
    Store(place.path, key_file=place.key, policy=place.policy)
    command = [sys.executable, "-c", WRITER, str(place.path), str(place.key)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for _ in range(1 + after):
        assert process.stdout.readline(), process.stderr.read() if process.stderr else ""
    process.kill()  # SIGKILL
    rest = process.communicate(timeout=30)[0].splitlines()
    said = {name for line in rest if len(line.split()) == 3 for name in line.split() if len(name) == 32}
    store = Store(place.path, key_file=place.key)
    with store.writer():
        pass
    entries = {one.label.id: one for one in store.entries()}
    assert said <= set(entries)
    assert len(entries) >= 3 * after
    for one in entries.values():
        store.open(one)
    # Keys, files and entries are of the same recordings.
    assert {one.id for one in store.keys.places()} == set(entries)
    assert {path.stem for path in (place.path / "days").rglob("*.*")} == set(entries)
    receipt = erase_subject(store, "ada", actor=OFFICER, events=place.events)
    assert receipt.records == len(entries)
    assert store.entries() == []


ERASER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from shipsight.access import LoggedEvents
from shipsight.monitor.recording import Store, erase_subject, rotate_key
from tests.monitor.recording.recordings import OFFICER, new_recording

store = Store(Path(sys.argv[1]), key_file=Path(sys.argv[2]))
told = {"actor": OFFICER, "events": LoggedEvents()}
with store.writer():
    for number in range(10**6):
        store.add([new_recording(datetime.now(UTC), store.policy, subject=f"person-{number}") for _ in range(4)])
        rotate_key(store, **told)
        if number % 2:
            erase_subject(store, f"person-{number}", **told)
        print(number, flush=True)
"""


@pytest.mark.parametrize("delay_ms", [0, 3, 7, 11, 17, 23])
def test_killed_eraser_leaves_each_erasure_whole_and_each_key_under_the_key_file(tmp_path: Path, delay_ms: int) -> None:
    place = Place(tmp_path)
    Store(place.path, key_file=place.key, policy=place.policy)
    command = [sys.executable, "-c", ERASER, str(place.path), str(place.key)]
    environment = {**os.environ, "PYTHONPATH": f"{SOURCE}:{SOURCE.parent}"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline(), process.stderr.read() if process.stderr else ""
    time.sleep(delay_ms / 1000)  # another point of the next round each time
    process.kill()  # SIGKILL
    rounds = 4 + sum(line.endswith("\n") for line in process.communicate(timeout=30)[0].splitlines(keepends=True))
    store = Store(place.path, key_file=place.key)
    with store.writer():
        pass
    entries = store.entries()
    for one in entries:
        store.open(one)
    assert {one.id for one in store.keys.places()} == {one.label.id for one in entries}
    assert {path.stem for path in (place.path / "days").rglob("*.*")} == {one.label.id for one in entries}
    for number in range(rounds):
        held = store.keys.places(tag=store.keys.tag(f"person-{number}"))
        assert len(held) == (0 if number % 2 else 4), number
    assert len(store.keys.places(tag=store.keys.tag(f"person-{rounds}"))) in (0, 4)
    assert store.index.pending() == []
    rotate_key(store, actor=OFFICER, events=place.events)
    assert len(place.key.read_text(encoding="ascii").split()) == 1
    for one in entries:
        store.open(one)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk") as disk:
        yield disk


def test_full_disk_keeps_what_was_kept_and_nothing_torn_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    place = Place(small_disk)
    store = place.open()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100_000))
    kept: list[str] = []
    refused = 0
    with store.writer():
        for seed in range(60):
            new = new_recording(place.clock(), store.policy, subject="ada", image=bytes(40_000), seed=seed)
            try:
                store.add([new])
                kept.append(new.recording.label.id)
            except EnvironmentLackError:
                refused += 1
            if refused == 5:
                break
    assert refused == 5
    assert len(kept) >= 5
    # What is there opens, by a process that finds the disk full.
    store = place.open()
    assert {one.label.id for one in store.entries()} == set(kept)
    for one in store.entries():
        store.open(one)
    assert not list(small_disk.rglob("*.new"))
    ballast.unlink()
    receipt = erase_subject(store, "ada", actor=OFFICER, events=place.events)
    assert receipt.records == len(kept)
    assert store.entries() == []
    place.keep(store, 1)
    assert len(store.entries()) == 1
