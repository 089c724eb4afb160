# SPDX-License-Identifier: Apache-2.0
"""What takes long to make and is only read is made once for all workers of a run."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["made_once"]


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Returns a folder that `make` filled, in whichever worker came first; the others wait for it. Nobody may change it.

    What fails leaves nothing behind, and is tried again by who comes next.

    Several runs share it where SHIPSIGHT_MADE_ONCE names a folder: for those of one checkout alone.

    Args:
        tmp_path_factory: of this worker; the run's own folder lies above.
        name: of the folder, one for each `make`.
        make: fills an empty folder.
    """
    root = tmp_path_factory.getbasetemp()
    of_run = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "made-once"
    together = Path(os.environ.get("SHIPSIGHT_MADE_ONCE", of_run))
    together.mkdir(parents=True, exist_ok=True)
    folder = together / name
    # The lock ends with its process, whatever becomes of that.
    with (together / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=together))
            make(unfinished)
            unfinished.rename(folder)
    return folder
