# SPDX-License-Identifier: Apache-2.0
"""What a build promises: the same bytes again, nothing half-made, an honest answer without labelled images."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.conftest import Built, shipsight

QUICK = ["--engine", "openvino", "--precision", "fp32"]


@pytest.fixture(scope="module")
def unlabelled(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sample without data: float only, synthetic golden set."""
    out = tmp_path_factory.mktemp("unlabelled") / "digits.bundle"
    answer = shipsight("build", sample_dir / "digits.onnx", "--out", out, *QUICK, "--json")
    assert answer.code == 0, answer.err
    return Built(out, answer)


def test_build_without_data_says_accuracy_was_not_measured(unlabelled: Built) -> None:
    result = unlabelled.answer.json
    assert result["source"] == {"map50_95": None, "map50": None}
    assert result["images_measured"] == 0
    assert {variant["outcome"] for variant in result["variants"]} == {"reference", "not measured"}
    assert "not measured" in (unlabelled.path / "report.html").read_text(encoding="utf-8")


def test_verify_works_with_the_synthetic_half_alone(unlabelled: Built) -> None:
    answer = shipsight("verify", unlabelled.path, "--json")
    assert answer.code == 0, answer.err
    assert all(one["inputs"] >= 16 for one in answer.json["replay"])


@pytest.mark.slow
def test_build_gives_the_same_bytes_twice(unlabelled: Built, sample_dir: Path, tmp_path: Path) -> None:
    # Which form of a variant is kept is measured, and two measurements may disagree: what was chosen alike is compared.
    for number in range(5):
        again = tmp_path / f"{number}.bundle"
        answer = shipsight("build", sample_dir / "digits.onnx", "--out", again, *QUICK, "--json")
        assert answer.code == 0, answer.err
        if _names(again / "variants") == _names(unlabelled.path / "variants"):
            break
    for kind in ("variants", "proof/golden/inputs", "proof/golden/tensors-256", "proof/golden/source-256.npz"):
        for first in sorted(p for p in [unlabelled.path / kind, *(unlabelled.path / kind).rglob("*")] if p.is_file()):
            name = first.relative_to(unlabelled.path)
            assert first.read_bytes() == (again / name).read_bytes(), name
    stats = "proof/training-stats.json"
    assert (unlabelled.path / stats).read_bytes() == (again / stats).read_bytes()


def _names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


@pytest.mark.slow
def test_killed_build_leaves_no_bundle_and_the_next_one_goes_on(sample_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "digits.bundle"
    command = [sys.executable, "-m", "shipsight", "build", str(sample_dir / "digits.onnx"), "--out", str(out), *QUICK]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    workspace = tmp_path / ".digits.bundle.work"
    deadline = time.monotonic() + 300
    # One finished step is enough to see that it is used again.
    while not list(workspace.glob("*/index.json")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=60)
    assert not out.exists()
    before = {path.name: path.stat().st_mtime_ns for path in workspace.iterdir() if (path / "index.json").is_file()}
    answer = shipsight("build", sample_dir / "digits.onnx", "--out", out, *QUICK)
    assert answer.code == 0, answer.err
    assert before
    assert shipsight("verify", out).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.bundle"]


@pytest.mark.slow
def test_build_answers_no_when_a_constraint_cannot_be_met(sample_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "digits.bundle"
    answer = shipsight("build", sample_dir / "digits.onnx", "--out", out, *QUICK, "--max-latency-ms", "0.001", "--json")
    assert answer.code == 1
    assert answer.json["unmet"]
    assert answer.json["warnings"][-1]["code"] == "constraints-unmet"
    assert shipsight("verify", out, "--files-only").code == 0
