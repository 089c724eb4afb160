# SPDX-License-Identifier: Apache-2.0
"""The stages of a pipeline: recording, rules, and a pipeline of the sample with one stage changed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.build.progress import Silent
from shipsight.doctor import Case
from shipsight.doctor.stages import Stage, StageRecorder, StagesEvidence, StagesExamination, read_stages
from shipsight.doctor.stages.collecting import _pixels_of
from shipsight.errors import CorruptError
from shipsight.model import InputContract, TensorLayout, open_bundle
from shipsight.proof import GoldenFiles
from shipsight.vision import prepare, to_tensor

_ORDER = ("decode", "prepare", "engine", "postprocess")


@given(st.lists(st.booleans(), min_size=4, max_size=4))
def test_only_the_first_stage_that_differs_is_told(differs: list[bool]) -> None:
    stages = tuple(
        Stage(name, 9, 3 * bad, 5.0 * bad, 1.0, "levels", 0) for name, bad in zip(_ORDER, differs, strict=True)
    )
    evidence = StagesEvidence(stages, share_lost=0.3)
    found = [one.rule for rule in StagesExamination.rules for one in rule.look(evidence)]
    assert found == ([f"stage-{_ORDER[differs.index(True)]}-differs"] if any(differs) else [])


def test_unsteady_outputs_are_told_as_such_and_not_as_another_engine() -> None:
    evidence = StagesEvidence((Stage("engine", 9, 3, 5.0, 1.0, "times the tolerance", 0),), repeated=3, unsteady=2)
    assert [one.rule for rule in StagesExamination.rules for one in rule.look(evidence)] == ["stage-nondeterministic"]


def test_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    tensor = np.random.default_rng(0).random((3, 8, 8), dtype=np.float32)
    StageRecorder(tmp_path).record("a.jpg", prepared=tensor, outputs={"output0": tensor})
    (one,) = read_stages(tmp_path)
    assert one.name == "a.jpg"
    assert np.array_equal(one.prepared, tensor)  # type: ignore[arg-type]  # it was recorded
    assert np.array_equal(one.outputs["output0"], tensor)


def test_recording_is_refused_when_it_holds_another_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=np.zeros(3))
    with pytest.raises(CorruptError, match=r"not a recording of stages"):
        read_stages(tmp_path)


def test_stage_has_to_be_known(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no such stages: resized"):
        StageRecorder(tmp_path).record("a.jpg", resized=np.zeros(3))


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("scale", [1.0, 1 / 255])
def test_pixels_come_back_from_a_float_tensor_whatever_was_done_to_values(colour: str, scale: float) -> None:
    contract = InputContract((32, 64), colour=colour, scale=scale, mean=(0.1, 0.2, 0.3), std=(0.5, 0.7, 0.2))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    tensor = to_tensor(pixels, contract, TensorLayout.FLOAT_NCHW)
    assert np.abs(_pixels_of(tensor, contract) - pixels).max() < 0.01


def test_stages_that_were_not_compared_are_named() -> None:
    one = Stage("engine", 9, 0, 0.0, 1.0, "times the tolerance")
    [told] = StagesExamination().not_told(StagesEvidence((one,), is_foreign=True))
    assert told.endswith("decode, prepare, postprocess.")
    assert "not in the recording" in told


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["", "decode", "prepare"])
def test_stage_of_a_real_pipeline_is_named_when_it_was_changed(digits_bundle: Path, tmp_path: Path, fault: str) -> None:
    bundle = open_bundle(digits_bundle)
    variant = bundle.default_variant
    golden = GoldenFiles.of(bundle)
    recorder = StageRecorder(tmp_path / "stages")
    paths = []
    for key in golden.keys()[:4]:
        image = golden.image(key)
        path = tmp_path / f"{key}.png"
        cv2.imwrite(str(path), image[:, :, ::-1])
        paths.append(path)
        decoded = image[:, :, ::-1] if fault == "decode" else image
        prepared, _ = prepare(decoded, bundle.card.with_size(variant.size_hw).input)
        recorder.record(path.name, decoded=decoded, prepared=prepared[:, ::-1] if fault == "prepare" else prepared)
    case = Case(bundle, variant, images=tuple(paths), stages=tmp_path / "stages")
    examination = StagesExamination()
    evidence = examination.collect(case, Silent())
    found = [one.rule for rule in examination.rules for one in rule.look(evidence)]
    assert found == ([f"stage-{fault}-differs"] if fault else [])


@pytest.mark.slow
def test_bundle_on_the_machine_that_built_it_has_no_finding(digits_bundle: Path) -> None:
    bundle = open_bundle(digits_bundle)
    examination = StagesExamination()
    evidence = examination.collect(Case(bundle, bundle.default_variant), Silent())
    assert [one for rule in examination.rules for one in rule.look(evidence)] == []
    assert evidence.repeated
