# SPDX-License-Identifier: Apache-2.0
"""A bundle exists whole under its name or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.model.small_bundle import FILES, make_bundle

from shipsight.errors import CorruptError, EscapingPathError, UsageError
from shipsight.model import Bundle, open_bundle, zip_bundle

WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.model.small_bundle import FILES, make_bundle
import shipsight.model._writer as writer
calls = 0
honest = writer.{function}
def slow(*arguments, **named):
    global calls
    calls += 1
    if calls == {call}:
        print("here", flush=True)
        time.sleep(60)
    return honest(*arguments, **named)
writer.{function} = slow
make_bundle(Path({out!r}), force={force})
"""
PLACES = [("_write_synced", 1), ("_write_synced", 4), ("_write_synced", 8), ("_sync_folder", 2), ("_publish", 1)]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def kill_writer(out: Path, function: str, call: int, *, force: bool) -> None:
    code = WRITER.format(root=str(Path(__file__).parents[2]), function=function, call=call, out=str(out), force=force)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=30)


@pytest.mark.parametrize(("function", "call"), PLACES)
def test_killed_writer_leaves_nothing_under_the_name_and_the_next_one_cleans_up(tmp_path, function, call):
    out = tmp_path / "cells.bundle"
    kill_writer(out, function, call, force=False)
    assert not out.exists()
    assert [name.startswith(".cells.bundle.partial-") for name in names_in(tmp_path)] == [True]
    make_bundle(out).verify_files()
    assert names_in(tmp_path) == ["cells.bundle"]


@pytest.mark.parametrize(("function", "call"), PLACES)
def test_killed_writer_leaves_the_old_bundle_when_it_was_replacing_one(tmp_path, function, call):
    out = tmp_path / "cells.bundle"
    old = make_bundle(out, {**FILES, "report.html": b"old"})
    kill_writer(out, function, call, force=True)
    open_bundle(out, digest=old.digest).verify_files()
    assert make_bundle(out, force=True).read("report.html") == FILES["report.html"]
    assert names_in(tmp_path) == ["cells.bundle"]


def test_writer_leaves_the_temporary_folder_of_a_living_writer_alone(tmp_path):
    out = tmp_path / "cells.bundle"
    code = WRITER.format(
        root=str(Path(__file__).parents[2]), function="_publish", call=1, out=str(out), force=False
    ).replace("time.sleep(60)", "sys.stdin.readline()")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        first = make_bundle(out)
        assert len(names_in(tmp_path)) == 2
        _, errors = child.communicate(b"\n", timeout=30)
    assert b"UsageError" in errors
    assert b"another writer was faster" in errors
    assert child.returncode != 0
    open_bundle(out, digest=first.digest).verify_files()
    assert names_in(tmp_path) == ["cells.bundle"]


def test_writer_refuses_a_taken_name_and_never_replaces_what_is_no_bundle(tmp_path, bundle: Bundle):
    with pytest.raises(UsageError, match="--force"):
        make_bundle(bundle.path)
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "a.jpg").write_bytes(b"1")
    (tmp_path / "link").symlink_to(bundle.path)
    (tmp_path / "file").write_bytes(b"")
    for name in ("photos", "link", "file"):
        with pytest.raises(UsageError, match="not a bundle"):
            make_bundle(tmp_path / name, force=True)
    with pytest.raises(UsageError):
        zip_bundle(bundle.path, tmp_path / "file")
    assert zip_bundle(bundle.path, tmp_path / "file", force=True).digest == bundle.digest
    assert (precious / "a.jpg").exists()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("../outside", EscapingPathError),
        ("/absolute", EscapingPathError),
        ("a//b", EscapingPathError),
        ("REPORT.html", EscapingPathError),
        ("report.html/inner", EscapingPathError),
        ("bundle.yaml", CorruptError),
        ("Signature.json", CorruptError),
        ("variants/onnxruntime-fp32-32/more.bin", CorruptError),
    ],
)
def test_writer_refuses_names_that_do_not_make_a_bundle_and_leaves_nothing(tmp_path, name, error):
    with pytest.raises(error):
        make_bundle(tmp_path / "cells.bundle", {**FILES, name: b"x"})
    assert names_in(tmp_path) == []


def test_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        make_bundle(tmp_path / "cells.bundle", {**FILES, "report.html": tmp_path / "absent"})
    assert names_in(tmp_path) == []


def test_everything_is_synced_before_the_name_is_given(tmp_path, monkeypatch):
    order: list[str] = []
    honest_sync, honest_rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("sync"), honest_sync(file))[1])
    monkeypatch.setattr(Path, "rename", lambda path, to: (order.append("rename"), honest_rename(path, to))[1])
    make_bundle(tmp_path / "cells.bundle")
    folders = 6  # root, proof, proof/golden, variants and its two
    assert order == ["sync"] * (len(FILES) + 1 + folders) + ["rename", "sync"]
