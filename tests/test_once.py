# SPDX-License-Identifier: Apache-2.0
"""What tests share between workers is made once, whole or not at all."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.once import made_once

WORKERS = 4


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder than that of this run."""
    monkeypatch.setenv("SHIPSIGHT_MADE_ONCE", str(tmp_path / "made-once"))


def test_workers_that_ask_at_once_get_what_one_of_them_made(tmp_path_factory: pytest.TempPathFactory) -> None:
    makers: list[int] = []
    together = threading.Barrier(WORKERS)

    def make(folder: Path) -> None:
        makers.append(threading.get_ident())
        (folder / "half").touch()
        time.sleep(0.1)
        (folder / "whole").touch()

    def ask(_: int) -> list[str]:
        together.wait(30)
        return sorted(path.name for path in made_once(tmp_path_factory, "thing", make).iterdir())

    with ThreadPoolExecutor(WORKERS) as pool:
        assert list(pool.map(ask, range(WORKERS))) == [["half", "whole"]] * WORKERS
    assert len(makers) == 1


def test_what_fails_is_not_taken_for_made_and_is_tried_again(tmp_path_factory: pytest.TempPathFactory) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        made_once(tmp_path_factory, "thing", fail)
    made = made_once(tmp_path_factory, "thing", lambda folder: (folder / "whole").touch())
    assert [path.name for path in made.iterdir()] == ["whole"]
