# SPDX-License-Identifier: Apache-2.0
"""A bundle of the sample, built once through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.access.conftest import postgres_server

__all__ = ["postgres_server"]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def shipsight(*arguments: object, cwd: Path | None = None, timeout_s: float = 600) -> Answer:
    """Runs the command line in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "shipsight", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=timeout_s,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def digits_data(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few scenes of the sample: 40 for training, 32 held out."""
    out = tmp_path_factory.mktemp("digits")
    command = [sys.executable, sample_dir / "generate.py", "--out", out, "--train", "40", "--val", "32"]
    subprocess.run(command, check=True)
    return out / "data.yaml"


@dataclass(frozen=True)
class Built:
    path: Path
    answer: Answer


@pytest.fixture(scope="session")
def digits_build(sample_dir: Path, digits_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sample, built at 128 px."""
    out = tmp_path_factory.mktemp("built") / "digits.bundle"
    answer = shipsight("build", sample_dir / "digits.onnx", "--data", digits_data, "--out", out, "--keep-all", "--json")
    assert answer.code == 0, answer.err
    return Built(out, answer)
