# SPDX-License-Identifier: Apache-2.0
"""The examination on the sample's bundle: files in, findings out, for a tensor and for predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from shipsight.build.progress import Silent
from shipsight.doctor import Case, Finding
from shipsight.doctor.opening import open_case
from shipsight.doctor.preprocessing import PreprocessingExamination
from shipsight.doctor.preprocessing.answers import Answerer
from shipsight.doctor.preprocessing.chain import Chain, expected_chain, render, to_levels, to_values
from shipsight.doctor.preprocessing.collecting import open_photo
from shipsight.errors import UsageError
from shipsight.model import open_bundle

Scenes = Callable[[int, int], tuple[Any, Any]]


@pytest.fixture
def case(digits_bundle: Path, digit_scenes: Scenes, tmp_path: Path) -> Case:
    bundle = open_bundle(digits_bundle)
    paths = []
    for seed in range(8):
        image, _ = digit_scenes(seed, 256)
        paths.append(tmp_path / f"{seed}.png")
        cv2.imwrite(str(paths[-1]), image[:200, :, ::-1])
    return Case(bundle, bundle.default_variant, tuple(paths))


def found(case: Case) -> list[Finding]:
    examination = PreprocessingExamination()
    assert examination.lacks(case) is None
    evidence = examination.collect(case, Silent())
    json.dumps(dict(examination.figures(evidence)), allow_nan=False)
    return [one for rule in examination.rules for one in rule.look(evidence)]


def expected(case: Case) -> Chain:
    return expected_chain(case.card.with_size(case.variant.size_hw).input)


def with_tensor(case: Case, chain: Chain, tmp_path: Path) -> Case:
    photo = open_photo(case.images[0])
    values = to_values(to_levels(render(photo, chain), chain), chain.values)
    np.save(tmp_path / "fed.npy", values.transpose(2, 0, 1)[None])
    return replace(case, images=case.images[:1], tensor=tmp_path / "fed.npy")


def with_predictions(case: Case, chain: Chain, tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Case:
    images = []
    with Answerer(case) as answerer:
        for path in case.images:
            boxes, _ = answerer.answer(open_photo(path), chain)
            rows = [
                {"class_id": int(number), "class_name": str(number), "score": float(score), "box_xyxy": box.tolist()}
                for number, score, box in zip(boxes.class_ids, boxes.scores, boxes.boxes_xyxy, strict=True)
            ]
            for row in rows:
                change(row)
            images.append({"source": path.name, "width": 256, "height": 200, "predictions": rows})
    (tmp_path / "theirs.json").write_text(json.dumps({"images": images}))
    return replace(case, predictions=tmp_path / "theirs.json")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({}, set()),
        ({"fit": "stretch"}, {"stretched"}),
        ({"mirrored": True, "pad": (0.0, 0.0, 0.0)}, {"mirrored", "padding-value"}),
    ],
)
def test_tensor_is_explained(case: Case, tmp_path: Path, changes: dict[str, Any], rules: set[str]) -> None:
    findings = found(with_tensor(case, replace(expected(case), **changes), tmp_path))
    assert {one.rule for one in findings} == rules
    assert all(one.pictures and one.certainty > 0.8 for one in findings)


@pytest.mark.slow
def test_tensor_of_another_image_is_told(case: Case, tmp_path: Path) -> None:
    given = with_tensor(case, expected(case), tmp_path)
    assert [one.rule for one in found(replace(given, images=case.images[1:2]))] == ["other-image"]


@pytest.mark.slow
def test_tensor_needs_as_many_images(case: Case, tmp_path: Path) -> None:
    given = with_tensor(case, expected(case), tmp_path)
    with pytest.raises(UsageError, match="needs its image"):
        found(replace(given, images=case.images))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "rules"), [({}, set()), ({"mirrored": True}, {"mirrored"}), ({"fit": "stretch"}, {"stretched"})]
)
def test_predictions_are_explained(case: Case, tmp_path: Path, changes: dict[str, Any], rules: set[str]) -> None:
    given = with_predictions(case, replace(expected(case), **changes), tmp_path, lambda row: None)
    assert {one.rule for one in found(given)} == rules


def _count_from_one(row: dict[str, Any]) -> None:
    row["class_id"] = (row["class_id"] + 1) % 10


def _write_sizes(row: dict[str, Any]) -> None:
    x0, y0, x1, y1 = row["box_xyxy"]
    row["box_xyxy"] = [x0, y0, x1 - x0, y1 - y0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "rule"), [(_count_from_one, "class-order-wrong"), (_write_sizes, "box-format-wrong")]
)
def test_way_of_writing_is_told(
    case: Case, tmp_path: Path, change: Callable[[dict[str, Any]], None], rule: str
) -> None:
    assert [one.rule for one in found(with_predictions(case, expected(case), tmp_path, change))] == [rule]


@pytest.mark.slow
def test_tensor_and_predictions_at_once_are_refused(digits_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.npy"
    file.write_bytes(b"")
    with pytest.raises(UsageError, match="one of the two"):
        open_case(
            digits_bundle,
            images=(),
            labels=None,
            against=None,
            stages=None,
            tensor=file,
            predictions=file,
            variant=None,
            limit=1,
            seed=0,
            threads=None,
        )
