# SPDX-License-Identifier: Apache-2.0
"""Faults planted in real images of the digits sample: the right rule comes first, and healthy images give nothing above a note."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.doctor.data.digit_sets import SIZE, add_training, diagnose, write_images

from shipsight.doctor import Case, Severity
from shipsight.doctor.data import RULES, DataExamination
from shipsight.doctor.data.correcting import QUARTERS, try_corrections
from shipsight.doctor.data.eye import Eye
from shipsight.errors import CorruptError
from shipsight.model.bundle import open_bundle

PAGES = Path(__file__).resolve().parents[3] / "docs" / "doctor"
COUNT = 40
QUICK = {"images-darker", "images-blurred", "orientation-ignored"}
"""Of each of these the first fault is planted in every run of the tests, the others where slow ones run."""


@pytest.fixture(scope="module")
def bundle(digits_bundle, digit_scenes, tmp_path_factory) -> Path:
    return add_training(digits_bundle, tmp_path_factory.mktemp("with-training") / "digits.bundle", digit_scenes)


@pytest.fixture(scope="module")
def images(digit_scenes) -> list[np.ndarray]:
    return [np.ascontiguousarray(digit_scenes(70_000 + seed, SIZE)[0]) for seed in range(COUNT)]


def clip(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def noisy(image: np.ndarray) -> np.ndarray:
    return clip(image + np.random.default_rng(int(image[0, 0, 0])).normal(0, 25, image.shape))


FAULTS: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [
    ("images-darker", lambda image: clip(image * 0.35)),
    ("images-darker", lambda image: clip(255 * (image / 255) ** 2.6)),
    ("contrast-lower", lambda image: clip(128 + (image - 128.0) * 0.25)),
    ("images-blurred", lambda image: cv2.GaussianBlur(image, (0, 0), 2.5)),
    ("images-blurred", lambda image: cv2.blur(image, (7, 7))),
    ("images-noisier", noisy),
    ("colour-cast", lambda image: clip(image * [1.0, 0.8, 0.35])),
    ("colour-lost", lambda image: np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)),
    ("images-smaller", lambda image: cv2.resize(image, (72, 72), interpolation=cv2.INTER_AREA)),
    ("aspect-changed", lambda image: cv2.resize(image, (SIZE, 120), interpolation=cv2.INTER_AREA)),
    ("borders-added", lambda image: cv2.copyMakeBorder(image, 90, 90, 20, 20, cv2.BORDER_CONSTANT, value=(0, 0, 0))),
    ("orientation-ignored", lambda image: np.rot90(image)),
    ("orientation-ignored", lambda image: image[::-1]),
]


def planted() -> list[Any]:
    seen: set[str] = set()
    found = []
    for at, (rule, fault) in enumerate(FAULTS):
        marks = [] if rule in QUICK - seen else [pytest.mark.slow]
        seen.add(rule)
        found.append(pytest.param(rule, fault, id=f"{at}-{rule}", marks=marks))
    return found


@pytest.mark.parametrize(("rule", "fault"), planted())
def test_planted_fault_is_named_first_and_once(rule, fault, bundle, images, tmp_path: Path):
    findings, evidence = diagnose(bundle, write_images(tmp_path / "in", [fault(image) for image in images]))
    assert findings, evidence.deviations
    assert findings[0].rule == rule, [(one.rule, one.evidence) for one in findings]
    heavy = [one for one in findings if one.severity is not Severity.NOTE]
    assert {one.rule for one in heavy} <= {rule}
    assert re.search(r"\d", findings[0].evidence)
    assert findings[0].remedy[0].isupper()
    assert findings[0].pictures


@pytest.mark.slow
def test_healthy_images_give_nothing_above_a_note(bundle, digit_scenes, tmp_path: Path):
    for seed, count in ((0, 16), (1, 40), (2, 64)):
        scenes = [digit_scenes(90_000 + 1000 * seed + number, SIZE)[0] for number in range(count)]
        for quality in (None, 95):
            findings, _ = diagnose(bundle, write_images(tmp_path / f"{seed}-{quality}", scenes, quality=quality))
            assert [one.rule for one in findings if one.severity is not Severity.NOTE] == []


@pytest.mark.slow
def test_stronger_fault_costs_more(bundle, images, tmp_path: Path):
    weights = []
    for sigma in (1.0, 2.0, 4.0):
        blurred = [cv2.GaussianBlur(image, (0, 0), sigma) for image in images]
        findings, _ = diagnose(bundle, write_images(tmp_path / str(sigma), blurred))
        weights.append(next((one.weight for one in findings if one.rule == "images-blurred"), 0.0))
    assert weights[0] <= weights[1] < weights[2]


@pytest.mark.slow
def test_two_faults_are_both_named(bundle, images, tmp_path: Path):
    both = [noisy(clip(image * [1.0, 0.75, 0.3])) for image in images]
    findings, _ = diagnose(bundle, write_images(tmp_path / "in", both))
    assert {"images-noisier", "colour-cast"} <= {one.rule for one in findings}


def test_upright_images_cannot_lie_on_a_side_where_the_model_cares(bundle, images):
    opened = open_bundle(bundle)
    eye = Eye(Case(opened, opened.default_variant), None)
    try:
        upright = try_corrections(images[:10], eye, names=QUARTERS)
        lying = try_corrections([np.ascontiguousarray(np.rot90(one)) for one in images[:10]], eye, names=QUARTERS)
    finally:
        eye.close()
    assert all(one.is_refuted for one in upright), upright
    assert not all(one.is_refuted for one in lying)


def test_damaged_files_are_counted_and_cost_the_others_nothing(bundle, images, tmp_path: Path):
    paths = write_images(tmp_path / "in", images, quality=95)
    for path in paths[:6]:
        path.write_bytes(path.read_bytes()[:-2000])
    paths[7].write_bytes(b"")
    findings, evidence = diagnose(bundle, paths)
    assert findings[0].rule == "files-corrupt"
    assert findings[0].severity is Severity.ERROR
    assert findings[0].weight == pytest.approx(7 / COUNT)
    assert evidence.distinct == COUNT - 7
    assert [one.rule for one in findings if one.severity is not Severity.NOTE] == ["files-corrupt"]


def test_still_camera_is_told_and_not_as_duplicates(bundle, images, tmp_path: Path):
    generator = np.random.default_rng(3)
    frozen = [clip(images[0] + generator.normal(0, 3, images[0].shape)) for _ in range(20)]
    findings, evidence = diagnose(bundle, write_images(tmp_path / "in", [*images[1:15], *frozen]))
    assert findings[0].rule == "camera-frozen"
    assert evidence.copies.longest == 20
    assert "duplicates" not in {one.rule for one in findings}


def test_repeated_files_are_duplicates(bundle, images, tmp_path: Path):
    findings, evidence = diagnose(bundle, write_images(tmp_path / "in", [*images[:20], *images[3:11]]))
    assert findings[0].rule == "duplicates"
    assert evidence.copies.exact == 8
    assert evidence.distinct == 20


def test_few_images_say_that_they_are_too_few(bundle, images, tmp_path: Path):
    findings, _ = diagnose(bundle, write_images(tmp_path / "in", [clip(image * 0.2) for image in images[:11]]))
    assert [one.rule for one in findings] == ["images-too-few"]
    assert "11" in findings[0].evidence


def test_findings_hold_no_name_of_a_file(bundle, images, tmp_path: Path):
    folder = tmp_path / "plant-seven-hall"
    findings, evidence = diagnose(bundle, write_images(folder, [clip(image * 0.3) for image in images]))
    said = str([one.to_dict() for one in findings]) + str(DataExamination().figures(evidence))
    assert "plant-seven-hall" not in said
    assert ".png" not in said


def test_what_lacks_is_said_when_there_are_no_images_or_no_statistics(bundle, digits_bundle, tmp_path: Path):
    opened, bare = open_bundle(bundle), open_bundle(digits_bundle)
    examination = DataExamination()
    assert "--images" in str(examination.lacks(Case(opened, opened.default_variant)))
    without = Case(bare, bare.default_variant, (tmp_path / "any.png",))
    assert "--data" in str(examination.lacks(without))


def test_damaged_statistics_are_a_named_error(bundle):
    from shipsight.doctor.data.collecting import read_training

    class Damaged:
        """A bundle whose statistics lack a key."""

        names = ("proof/training-stats.json",)

        def read_json(self, name: str) -> object:
            return {"images": 3}

    opened = open_bundle(bundle)
    case = Case(opened, opened.default_variant)
    object.__setattr__(case, "bundle", Damaged())
    with pytest.raises(CorruptError, match="training statistics"):
        read_training(case)


def test_every_rule_has_its_page_and_every_page_of_the_examination_its_rule():
    ids = {rule.id for rule in RULES}
    assert len(ids) == len(RULES)
    for one in ids:
        text = (PAGES / f"{one}.md").read_text()
        assert text.startswith(f"# {one}\n")
        for part in ("## What is wrong", "## How it is found", "## What it costs", "## What to do"):
            assert part in text
    listed = set(re.findall(r"\]\(([a-z-]+)\.md\)", (PAGES / "data.md").read_text()))
    assert ids <= listed
