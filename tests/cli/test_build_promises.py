# SPDX-License-Identifier: Apache-2.0
"""What a build promises: the same bytes again, nothing half-made, an honest answer without labelled images."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Resumed:
    """A build that was killed and begun again.

    Attributes:
        again: what came of it.
        there_after_kill: names beside the bundle's place once it was killed.
        steps: that had been finished before.
    """

    again: Built
    there_after_kill: tuple[str, ...]
    steps: int


@pytest.fixture(scope="module")
def resumed(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    """The same build, killed after its first step, and begun again."""
    folder = tmp_path_factory.mktemp("killed")
    out = folder / "digits.bundle"
    command = [sys.executable, "-m", "shipsight", "build", str(sample_dir / "digits.onnx"), "--out", str(out), *QUICK]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    workspace = folder / ".digits.bundle.work"
    deadline = time.monotonic() + 300
    # One finished step is enough to see that it is used again.
    while not list(workspace.glob("*/index.json")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=60)
    there = tuple(path.name for path in folder.iterdir())
    steps = len(list(workspace.glob("*/index.json")))
    return Resumed(
        Built(out, shipsight("build", sample_dir / "digits.onnx", "--out", out, *QUICK, "--json")), there, steps
    )


@pytest.fixture(scope="module")
def constrained(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The same build with a limit that nothing keeps."""
    out = tmp_path_factory.mktemp("constrained") / "digits.bundle"
    limit = ("--max-latency-ms", "0.001")
    return Built(out, shipsight("build", sample_dir / "digits.onnx", "--out", out, *QUICK, *limit, "--json"))


@pytest.mark.slow
def test_build_gives_the_same_bytes_twice(
    unlabelled: Built, resumed: Resumed, constrained: Built, sample_dir: Path, tmp_path: Path
) -> None:
    def others() -> Iterator[Path]:
        """Other builds of the same: those that other tests need, and new ones only where these do not do."""
        yield from (constrained.path, resumed.again.path)
        for number in range(4):
            again = tmp_path / f"{number}.bundle"
            answer = shipsight("build", sample_dir / "digits.onnx", "--out", again, *QUICK, "--json")
            assert answer.code == 0, answer.err
            yield again

    # Which form of a variant is kept is measured, and two measurements may disagree: each form is compared with itself.
    missing = _names(unlabelled.path / "variants")
    for again in others():
        found = missing & _names(again / "variants")
        kinds = [f"variants/{one}" for one in sorted(found)]
        for kind in (*kinds, "proof/golden/inputs", "proof/golden/tensors-256", "proof/golden/source-256.npz"):
            for first in sorted(
                p for p in [unlabelled.path / kind, *(unlabelled.path / kind).rglob("*")] if p.is_file()
            ):
                name = first.relative_to(unlabelled.path)
                assert first.read_bytes() == (again / name).read_bytes(), name
        stats = "proof/training-stats.json"
        assert (unlabelled.path / stats).read_bytes() == (again / stats).read_bytes()
        missing -= found
        if not missing:
            break
    assert not missing


def _names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


@pytest.mark.long
@pytest.mark.slow
def test_killed_build_leaves_no_bundle_and_the_next_one_goes_on(resumed: Resumed) -> None:
    assert resumed.there_after_kill == (".digits.bundle.work",)
    assert resumed.steps
    out, answer = resumed.again.path, resumed.again.answer
    assert answer.code == 0, answer.err
    assert shipsight("verify", out).code == 0
    assert sorted(path.name for path in out.parent.iterdir()) == ["digits.bundle"]


@pytest.mark.long
@pytest.mark.slow
def test_build_answers_no_when_a_constraint_cannot_be_met(constrained: Built) -> None:
    answer = constrained.answer
    assert answer.code == 1
    assert answer.json["unmet"]
    assert answer.json["warnings"][-1]["code"] == "constraints-unmet"
    assert shipsight("verify", constrained.path, "--files-only").code == 0
