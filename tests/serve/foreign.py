# SPDX-License-Identifier: Apache-2.0
"""Clients of others that do not go into our environment: fetched once into the user's cache folder, kept there.

KServe's package brings releases of libraries that clash with ours; NVIDIA's perf_analyzer is a program inside an old wheel.
Where they cannot be had the tests that need them are skipped with the reason.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

CLIENTS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shipsight-tests"
KSERVE = "kserve==0.21.0"
# The last release whose perf_analyzer runs with glibc 2.36; its libcudart is loaded though nothing of CUDA is used.
PERF_ANALYZER = "tritonclient==2.34.0"
CUDART = "nvidia-cuda-runtime-cu12==12.9.79"


def pip(*arguments: str) -> None:
    """Runs pip.

    Raises:
        pytest.skip.Exception: it failed: no network, or no such release for this machine.
    """
    command = [*arguments, "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    if done.returncode:
        pytest.skip(f"a client cannot be fetched: {done.stderr.strip()[-300:]}")


def once(name: str, make: Callable[[Path], None]) -> Path:
    """Returns a folder, made where it is not there; a half-made one is never used."""
    folder = CLIENTS / f"{name}-python{sys.version_info.major}.{sys.version_info.minor}"
    CLIENTS.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / "complete").touch()
    return folder


def kserve_python() -> Path:
    """Returns an interpreter that has KServe's clients."""

    def make(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        pip(str(folder / "bin/python"), "-m", "pip", "install", "--no-compile", KSERVE)

    return once(KSERVE, make) / "bin" / "python"


def perf_analyzer() -> tuple[Path, dict[str, str]]:
    """Returns NVIDIA's perf_analyzer and the environment that it needs."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("perf_analyzer is built for Linux on x86-64 alone: this processor is another")
    try:
        ctypes.CDLL("libb64.so.0d")
    except OSError:
        pytest.skip("perf_analyzer needs libb64.so.0d: apt-get install libb64-0d")

    def make(folder: Path) -> None:
        pip(sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), PERF_ANALYZER, CUDART)
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
            wheel.unlink()

    folder = once(PERF_ANALYZER, make)
    program = next(folder.glob("**/perf_analyzer"))
    program.chmod(0o755)
    libraries = next(folder.glob("**/libcudart.so.12")).parent
    return program, {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
