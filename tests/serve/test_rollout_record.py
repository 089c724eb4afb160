# SPDX-License-Identifier: Apache-2.0
"""The record of rollouts: what was acknowledged is there after a crash, half a line is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.access import LOOPBACK
from shipsight.errors import CorruptError, EnvironmentLackError, UsageError
from shipsight.serve.rollout import Rollout, Share
from shipsight.serve.rollout_record import RECORD_NAME, RolloutRecord

FIRST = Rollout("digits", "1")
SECOND = FIRST.promoted("2")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def written(folder: Path) -> bytes:
    record = RolloutRecord(folder, now=lambda: NOW)
    record.append(LOOPBACK, "promote", FIRST, SECOND, "better at zeros")
    record.append(LOOPBACK, "share", SECOND, Rollout("digits", "2", "1", Share("3", 0.1)), None)
    record.close()
    return (folder / RECORD_NAME).read_bytes()


def test_a_line_says_when_who_what_from_to_and_why(tmp_path: Path) -> None:
    line = json.loads(written(tmp_path).splitlines()[0])
    assert line == {
        "schema": 1,
        "time": "2026-01-02T03:04:05.000+00:00",
        "principal": "loopback:this machine",
        "action": "promote",
        "model": "digits",
        "from": {"current": "1", "previous": None, "canary": None, "shadow": None},
        "to": {"current": "2", "previous": "1", "canary": None, "shadow": None},
        "reason": "better at zeros",
    }


def test_a_record_that_is_opened_again_continues(tmp_path: Path) -> None:
    written(tmp_path)
    record = RolloutRecord(tmp_path)
    assert [one.action for one in record.changes("digits")] == ["promote", "share"]
    assert record.rollouts() == [Rollout("digits", "2", "1", Share("3", 0.1))]
    record.append(LOOPBACK, "promote", FIRST, Rollout("other", "7"), None)
    record.close()
    again = RolloutRecord(tmp_path)
    assert [one.model for one in again.rollouts()] == ["digits", "other"]
    assert again.torn is None
    again.close()


@given(st.data())
def test_wherever_the_last_line_is_torn_the_others_stand(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = written(folder)
        first = whole.index(b"\n") + 1
        cut = data.draw(st.integers(first, len(whole) - 1))
        (folder / RECORD_NAME).write_bytes(whole[:cut])
        record = RolloutRecord(folder)
        assert record.rollouts() == [SECOND]
        assert record.torn == (whole[first:cut] or None)
        record.append(LOOPBACK, "rollback", SECOND, SECOND.rolled_back(), None)
        record.close()
        again = RolloutRecord(folder)
        assert [one.action for one in again.changes()] == ["promote", "rollback"]
        again.close()


@pytest.mark.parametrize(
    "damage", [b"\n", b"{}\n", b'{"schema": 2}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n"], ids=lambda one: repr(one[:9])
)
def test_a_damaged_line_in_the_middle_is_refused_with_its_number(tmp_path: Path, damage: bytes) -> None:
    first, second = written(tmp_path).splitlines(keepends=True)
    (tmp_path / RECORD_NAME).write_bytes(first + damage + second)
    with pytest.raises(CorruptError, match=r"rollouts\.jsonl:2"):
        RolloutRecord(tmp_path)


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    written(tmp_path)
    first = RolloutRecord(tmp_path)
    with pytest.raises(UsageError, match="another server"):
        RolloutRecord(tmp_path)
    first.close()
    RolloutRecord(tmp_path).close()


def test_a_folder_that_cannot_be_written_is_told_and_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="ascii")
    record = RolloutRecord(tmp_path / "file" / "state")
    with pytest.raises(EnvironmentLackError, match="cannot be kept"):
        record.append(LOOPBACK, "promote", FIRST, SECOND, None)
    assert record.changes() == []


def test_a_disk_that_is_full_leaves_no_half_line(tmp_path: Path) -> None:
    # A limit on the size of files stands in for the disk: writing fails in the middle of a line.
    code = """
import resource, signal, sys
from pathlib import Path
from shipsight.access import LOOPBACK
from shipsight.errors import EnvironmentLackError
from shipsight.serve.rollout import Rollout
from shipsight.serve.rollout_record import RolloutRecord
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
record = RolloutRecord(Path(sys.argv[1]))
one, two = Rollout("digits", "1"), Rollout("digits", "2", "1")
record.append(LOOPBACK, "promote", one, two, None)
size = (Path(sys.argv[1]) / "rollouts.jsonl").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, resource.RLIM_INFINITY))
try:
    record.append(LOOPBACK, "rollback", two, one, None)
except EnvironmentLackError as error:
    print(error.code, len(record.changes()))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
record.append(LOOPBACK, "share", two, one, None)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout.split() == ["environment", "1"], done.stderr
    record = RolloutRecord(tmp_path)
    assert [one.action for one in record.changes()] == ["promote", "share"]
    assert record.torn is None
    record.close()


def test_what_was_acknowledged_is_there_after_the_process_was_killed(tmp_path: Path) -> None:
    code = """
import itertools, sys
from pathlib import Path
from shipsight.access import LOOPBACK
from shipsight.serve.rollout import Rollout
from shipsight.serve.rollout_record import RolloutRecord
record = RolloutRecord(Path(sys.argv[1]))
for number in itertools.count(1):
    record.append(LOOPBACK, "promote", Rollout("digits", str(number - 1)), Rollout("digits", str(number)), None)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 50:
            break
    os.kill(child.pid, signal.SIGKILL)
    last = int((child.stdout.read().splitlines() or [line])[-1])
    child.wait(60)
    child.stdout.close()
    record = RolloutRecord(tmp_path)
    found = [int(str(one.after.current)) for one in record.changes()]
    assert found == list(range(1, len(found) + 1))
    assert last <= len(found) <= last + 1
    record.close()
