# SPDX-License-Identifier: Apache-2.0
"""What the conformance suites share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("engine_suite", "format_suite")

_written: list[str] = []
_watching = False


def _watch(event: str, arguments: tuple) -> None:
    if not _watching:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            _written.append(str(path))
    elif event in ("os.mkdir", "os.rename", "tempfile.mkstemp", "tempfile.mkdtemp"):
        _written.append(f"{event} {arguments}")


sys.addaudithook(_watch)


@pytest.fixture
def disk_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """What was written since: seen by Python's audit hook, or left in the working, temporary or home folder."""
    global _watching
    folders = {name: tmp_path / name for name in ("work", "temporary", "home")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.chdir(folders["work"])
    for variable in ("TMPDIR", "TMP", "TEMP"):
        monkeypatch.setenv(variable, str(folders["temporary"]))
    monkeypatch.setenv("HOME", str(folders["home"]))
    _written.clear()
    _watching = True
    yield lambda: _written + [str(path) for folder in folders.values() for path in folder.rglob("*")]
    _watching = False
