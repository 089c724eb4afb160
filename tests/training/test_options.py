# SPDX-License-Identifier: Apache-2.0
"""What cannot be asked of pruning is refused before anything is opened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shipsight.errors import UsageError
from shipsight.training import PruneOptions, TrainOptions


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": None},
        {"latency_ms": 5.0},
        {"share": 0.0},
        {"share": 1.0},
        {"steps": 0},
        {"multiple": 0},
        {"images": 0},
    ],
)
def test_targets_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        PruneOptions(**wrong)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": 0}, {"seeds": ()}, {"seeds": (1, 1)}])
def test_trainings_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        TrainOptions(data=Path("data.yaml"), **wrong)


def test_a_run_and_its_control_get_the_same_arguments_but_for_the_network() -> None:
    options = TrainOptions(data=Path("data.yaml"), epochs=9, seeds=(3,), more={"hsv_h": 0.1})
    arguments = options.arguments(Path("other.yaml"), (384, 640), 9, 3)
    assert (arguments["imgsz"], arguments["epochs"], arguments["seed"], arguments["hsv_h"]) == (640, 9, 3, 0.1)
    assert "model" not in arguments


@pytest.mark.parametrize(
    ("given", "where"),
    [
        (["--seeds", "one"], "--seeds"),
        (["--target-flops", "0.5", "--target-latency-ms", "3"], "--target-flops"),
        (["--target-flops", "1.5"], "share"),
        ([], "best.pt"),
    ],
)
def test_wrong_use_is_named(tmp_path: Path, given: list[str], where: str) -> None:
    command = [sys.executable, "-m", "shipsight", "optimize", "prune", str(tmp_path / "best.pt")]
    command += ["--data", str(tmp_path / "data.yaml"), "--json", *given]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert where in json.loads(done.stdout)["error"]["where"]
    assert not list(tmp_path.iterdir())
