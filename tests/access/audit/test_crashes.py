# SPDX-License-Identifier: Apache-2.0
"""Disks that are full or fail, processes that are torn off, several that write at once: real ones."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError
from tests.access.audit.logs import QUICK, Place, make_log, predicted, refused, signed_in
from tests.small_disk import mounted

from shipsight.access import EventKind
from shipsight.access.audit.reading import AuditReader
from shipsight.access.audit.settings import AuditSettings
from shipsight.access.store import Database
from shipsight.errors import AuditError

SOURCE = Path(__file__).resolve().parents[3] / "src"
WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from shipsight.access import Event, EventKind, Outcome
from shipsight.access.audit.log import AuditLog
from shipsight.access.audit.settings import AuditSettings

place, key, server, entries = sys.argv[1:]
log = AuditLog.open(place, key=Path(key), server=server, settings=AuditSettings(every=50))
print("open", flush=True)
for number in range(int(entries)):
    log.record(Event(datetime.now(UTC), EventKind.SIGN_IN, Outcome.DONE, f"person:{server}-{number}"))
    print(number, flush=True)
log.close()
"""


def start_writer(place: Place, server: str, entries: int, *before: str) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-c", WRITER, place.url, str(place.key_path), server, str(entries)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def read_until(process: subprocess.Popen[str], wanted: int) -> int:
    """Returns the last number that the writer said is kept, once that is so many."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdecimal() and int(line) >= wanted:
            return int(line)
    pytest.fail(process.stderr.read() if process.stderr is not None else "")


@pytest.mark.parametrize("after", [0, 7, 60])
def test_killed_writer_leaves_every_entry_that_it_said_is_kept_and_no_torn_one(empty: Place, after: int) -> None:
    process = start_writer(empty, "one", 100_000)
    last = read_until(process, after)
    process.kill()  # SIGKILL
    rest = process.communicate(timeout=30)[0].split()
    last = max([last, *(int(one) for one in rest[:-1] if one.isdecimal())])
    with empty.open(server="one") as log:
        entries = list(log.entries())
    kept = [one.event.actor for one in entries if one.event.kind.value == "sign-in"]
    assert kept[: last + 1] == [f"person:one-{number}" for number in range(last + 1)]
    assert "audit-recovered" in {one.event.kind.value for one in entries}
    assert empty.verify().is_ok


def test_two_processes_write_to_one_log_and_it_verifies(empty: Place) -> None:
    make = empty.open(has_session=False)
    make.close()
    writers = [start_writer(empty, name, 60) for name in ("one", "two")]
    for one in writers:
        out, errors = one.communicate(timeout=240)
        assert one.returncode == 0, errors
        assert "59" in out.split()
    with empty.open(server="three") as log:
        entries = list(log.entries(kinds=["sign-in"]))
    for name in ("one", "two"):
        mine = [entry for entry in entries if entry.server == name]
        assert [entry.event.actor for entry in mine] == [f"person:{name}-{number}" for number in range(60)]
    found = empty.verify()
    assert (found.status.value, found.findings) == ("ok", [])


def test_servers_that_begin_a_log_at_once_begin_one(empty: Place) -> None:
    writers = [start_writer(empty, name, 3) for name in ("one", "two", "three")]
    for one in writers:
        errors = one.communicate(timeout=240)[1]
        assert one.returncode == 0, errors
    found = empty.verify()
    assert (found.status.value, found.findings) == ("ok", [])


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    with mounted(folder / "disk") as disk:
        yield disk


def fill_disk(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return ballast


def test_full_disk_refuses_acts_and_keeps_what_may_be_late_until_there_is_room(small_disk: Path) -> None:
    place = Place(str(small_disk / "log.db"), small_disk / "log.key")
    settings = AuditSettings(late_s=0.0, buffer=500)
    log = place.open(settings=settings)
    log.record(signed_in("before"))
    ballast = fill_disk(small_disk)
    reasons: list[str] = []
    for number in range(200):  # what SQLite's journal has room for is written yet
        try:
            log.record(signed_in(f"full{number}"))
        except AuditError as error:
            reasons.append(str(error))
        if len(reasons) == 3:
            break
    assert len(reasons) == 3
    assert all("full" in one or "disk I/O" in one for one in reasons), reasons
    begin = time.perf_counter()
    for number in range(600):
        log.record(predicted(number))
    assert time.perf_counter() - begin < 1.0  # predictions wait for no disk
    state = log.state
    assert state.is_degraded
    assert state.since is not None
    assert (state.buffered, state.lost) == (500, 100)
    ballast.unlink()
    log.record(signed_in("after"))
    log.checkpoint()
    assert not log.state.is_degraded
    entries = list(log.entries())
    log.close()
    kinds = [one.event.kind.value for one in entries]
    assert kinds.count("predicted") == 500
    lost = next(one.event.details for one in entries if one.event.kind.value == "audit-lost")
    assert lost == {"events": 100, "kinds": ["predicted: 100"]}
    refused_acts = {f"person:full{number}" for number in range(200)} - {one.event.actor for one in entries}
    assert len(refused_acts) >= 3  # an act that was refused is not told as done
    assert place.verify().is_ok


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt-get install strace")
def test_disk_that_does_not_take_what_was_written_refuses_the_act(folder: Path) -> None:
    place = make_log(str(folder / "log.db"), folder / "log.key")
    inject = [
        "strace",
        "-f",
        "-qq",
        "-o",
        str(folder / "trace"),
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        "inject=fsync,fdatasync:error=EIO:when=12+",
    ]
    process = start_writer(place, "two", 100, *inject)
    out, errors = process.communicate(timeout=120)
    if "ptrace" in errors or "Operation not permitted" in errors:
        pytest.skip("strace may not look into processes here")
    assert process.returncode != 0
    assert "AuditError" in errors
    assert "disk I/O error" in errors
    said = [int(one) for one in out.split() if one.isdecimal()]
    with place.open(server="two") as log:
        kept = [one.event.actor for one in log.entries(kinds=["sign-in"], server="two")]
    assert kept[: len(said)] == [f"person:two-{number}" for number in said]
    assert place.verify().is_ok


def test_database_that_is_locked_for_too_long_refuses_the_act(folder: Path) -> None:
    import sqlite3

    place = make_log(str(folder / "log.db"), folder / "log.key")
    log = place.open(settings=AuditSettings(late_s=0.0, wait_s=0.5))
    blocker = sqlite3.connect(place.url, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    late = time.monotonic()
    log.record(refused())  # the writer begins to wait with this
    time.sleep(0.3)
    with pytest.raises(AuditError, match="does not answer"):
        log.record(signed_in("blocked"))
    assert time.monotonic() - late < 5
    blocker.execute("ROLLBACK")
    blocker.close()
    log.record(signed_in("after"))
    log.close()
    with place.open() as log:
        actors = {one.event.actor for one in log.entries(kinds=["sign-in"], last=60)}
    assert "person:after" in actors
    assert "person:blocked" not in actors


def test_process_stopped_by_a_signal_of_its_supervisor_says_that_it_stopped(empty: Place) -> None:
    process = start_writer(empty, "one", 30)
    process.communicate(timeout=240)
    assert process.returncode == 0
    process = start_writer(empty, "one", 100_000)
    read_until(process, 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    with empty.open(server="other") as log:
        kinds = [one.event.kind.value for one in log.entries(server="one")]
    assert kinds.count("stopped") == 1  # of the first: the second was torn off, and says nothing


class LostAnswers:
    """A database whose answers to commits get lost: what was written is kept, and who wrote it is told that it failed."""

    def __init__(self, database: Database, *, times: int) -> None:
        self._write, self.left = database.write, times

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with self._write() as connection:
            yield connection
        if self.left:
            self.left -= 1
            raise OperationalError("COMMIT", None, RuntimeError("the connection was lost"))


@pytest.mark.parametrize("room", [2, 5, 100])
@pytest.mark.parametrize("times", [1, 3])
def test_events_whose_commit_lost_its_answer_are_told_once_and_counted_rightly(
    empty: Place, monkeypatch: pytest.MonkeyPatch, room: int, times: int
) -> None:
    log = empty.open(settings=replace(QUICK, buffer=room, late_s=0.05))
    lossy = LostAnswers(log._database, times=times)
    monkeypatch.setattr(log._database, "write", lossy.write)
    told = 0
    deadline = time.monotonic() + 60
    while lossy.left and time.monotonic() < deadline:
        log.record(predicted(told))
        told += 1
        time.sleep(0.01)
    for _ in range(3):
        log.record(predicted(told))
        told += 1
    log.close()
    reader = AuditReader.open(empty.url)
    entries = list(reader.entries())
    reader.close()
    numbers = [one.event.details["number"] for one in entries if one.event.kind is EventKind.PREDICTED]
    told_lost = [one.event.details for one in entries if one.event.kind is EventKind.AUDIT_LOST]
    kinds = [kind.partition(": ") for one in told_lost for kind in one["kinds"]]
    assert len(numbers) == len(set(numbers))
    assert len(numbers) + sum(int(count) for kind, _, count in kinds if kind == "predicted") == told
    assert log.state.lost == sum(one["events"] for one in told_lost)
    assert empty.verify().findings == []
