# SPDX-License-Identifier: Apache-2.0
"""Both commands of the doctor on a real model of each task: every examination is made, or says why not; a sound model has no fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.once import made_once

from shipsight.build import BuildOptions, build
from shipsight.doctor import Diagnosis, Severity, diagnose_accuracy
from shipsight.doctor.accuracy import EXAMINATIONS
from shipsight.doctor.speed import SPEED_EXAMINATIONS, diagnose_speed
from shipsight.doctor.task_limits import uncompared
from shipsight.errors import UsageError
from shipsight.model import Precision, Task
from shipsight.predictor import load

COUNT = 16

pytestmark = [pytest.mark.shared, pytest.mark.torch, pytest.mark.slow, pytest.mark.long]


@dataclass(frozen=True)
class Subject:
    """A real bundle, the checkpoint that it was built from, and images."""

    task: Task
    bundle: Path
    checkpoint: Path
    images: tuple[Path, ...]


CHECKPOINTS = {
    Task.SEGMENT: ("yolo11n-seg.pt", 160, "coco128/images/val2017/*.jpg"),
    Task.POSE: ("yolov8n-pose.pt", 160, "coco128/images/val2017/*.jpg"),
    Task.OBB: ("yolo11n-obb.pt", 160, "coco128/images/val2017/*.jpg"),
    Task.CLASSIFY: ("yolo11n-cls.pt", 64, "bccd-cls/*/*"),
}


@pytest.fixture(scope="module", params=list(CHECKPOINTS), ids=str)
def subject(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Subject]:
    task: Task = request.param
    name, size, pattern = CHECKPOINTS[task]
    images = tuple(sorted(shared_data.glob(pattern)))[:COUNT]

    def make(folder: Path) -> None:
        checkpoint = folder / name
        shutil.copyfile(shared_data / "models" / name, checkpoint)
        (folder / "images").mkdir()
        for path in images:
            shutil.copyfile(path, folder / "images" / path.name)
        options = BuildOptions(
            images=folder / "images",
            sizes_hw=((size, size),),
            engines=("openvino",),
            precisions=(Precision.FP32,),
            keep_all=True,
        )
        build(checkpoint, out=folder / "model.bundle", options=options)

    folder = made_once(tmp_path_factory, f"doctor-{task}", make)
    return Subject(task, folder / "model.bundle", folder / name, images)


def heavy(diagnosis: Diagnosis) -> list[str]:
    return [f"{one.rule}: {one.evidence}" for one in diagnosis.findings if one.severity is not Severity.NOTE]


def not_told(diagnosis: Diagnosis, name: str) -> tuple[str, ...]:
    return next(one.not_told for one in diagnosis.examined if one.name == name)


def test_accuracy_makes_every_examination_or_says_why_not(subject: Subject) -> None:
    diagnosis = diagnose_accuracy(subject.bundle, images=subject.images)
    assert heavy(diagnosis) == []
    assert [one.name for one in diagnosis.examined] == [one.name for one in EXAMINATIONS]
    lacking = {one.name: one.lacks for one in diagnosis.examined if one.lacks is not None}
    assert set(lacking) == {"preprocessing"}  # nothing of another program was given
    assert all(text and text.endswith(".") for text in lacking.values())
    assert not_told(diagnosis, "dataset") == uncompared(subject.task, by_hulls=True)
    assert not_told(diagnosis, "conversion") == uncompared(subject.task)


def test_speed_makes_every_examination(subject: Subject) -> None:
    diagnosis = diagnose_speed(subject.bundle, images=subject.images, seconds=5)
    assert [one.name for one in diagnosis.examined] == [one.name for one in SPEED_EXAMINATIONS]
    assert {one.name: one.lacks for one in diagnosis.examined if one.lacks} == {}
    profile = next(one for one in diagnosis.examined if one.name == "profile")
    assert profile.figures["infer_ms"] > 0  # type: ignore[operator]  # a number


def test_checkpoint_that_the_bundle_was_built_from_is_no_other_model(subject: Subject) -> None:
    diagnosis = diagnose_accuracy(
        subject.bundle, images=subject.images, against=str(subject.checkpoint), only=["dataset"]
    )
    assert heavy(diagnosis) == []
    assert diagnosis.examined[0].figures["agreement"] > 0.9  # type: ignore[operator]  # a number


def test_own_predictions_have_no_fault_or_are_refused_by_what_they_are_of(subject: Subject, tmp_path: Path) -> None:
    with load(subject.bundle) as predictor:
        told = predictor.predict(subject.images)
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(told.to_dict()))
    if subject.task in (Task.OBB, Task.CLASSIFY):
        with pytest.raises(UsageError, match=f"the task {subject.task} are not examined.*--tensor"):
            diagnose_accuracy(subject.bundle, images=subject.images, predictions=path, only=["preprocessing"])
        return
    diagnosis = diagnose_accuracy(subject.bundle, images=subject.images, predictions=path, only=["preprocessing"])
    assert heavy(diagnosis) == []
    assert set(uncompared(subject.task)) <= set(not_told(diagnosis, "preprocessing"))
