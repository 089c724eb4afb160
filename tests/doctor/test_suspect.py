# SPDX-License-Identifier: Apache-2.0
"""Suspects of every kind, and both examinations, on a real model and a real server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from shipsight.build.progress import Silent
from shipsight.doctor import Case, Finding, Severity, examine
from shipsight.doctor.dataset import DatasetExamination
from shipsight.doctor.environment import EnvironmentExamination
from shipsight.doctor.suspect import SuspectKind, open_suspect
from shipsight.errors import CardError, ImageError, NotFoundError, ServiceError, UsageError
from shipsight.model.bundle import Bundle, open_bundle
from shipsight.vision import prepare

REFERENCE = "onnxruntime-fp32-256"


@pytest.fixture(scope="module")
def bundle(digits_bundle: Path) -> Bundle:
    return open_bundle(digits_bundle)


@pytest.fixture(scope="module")
def images(
    digit_scenes: Callable[[int, int], tuple[Any, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for seed in range(16):
        path = folder / f"{seed:02d}.png"
        cv2.imwrite(str(path), digit_scenes(seed, 256)[0][..., ::-1])
        paths.append(path)
    return tuple(paths)


@pytest.fixture(scope="module")
def case(bundle: Bundle, images: tuple[Path, ...]) -> Case:
    return Case(bundle, bundle.default_variant, images)


def diagnose(case: Case) -> list[Finding]:
    diagnosis = examine("accuracy", case, (EnvironmentExamination(), DatasetExamination()), Silent())
    return [one for one in diagnosis.findings if one.severity is not Severity.NOTE]


def reference_file(bundle: Bundle, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(bundle.read(f"variants/{REFERENCE}/model.onnx"))
    return path


def test_variant_file_and_server_predict_the_same(case: Case, server: str, tmp_path: Path) -> None:
    file = reference_file(case.bundle, tmp_path)
    kinds = {
        None: SuspectKind.VARIANT,
        str(file): SuspectKind.ONNX,
        server: SuspectKind.SERVER,
        f"{server}/v2/models/{case.card.name}": SuspectKind.SERVER,
    }
    image = cv2.imread(str(case.images[0]))[..., ::-1]
    found = {}
    for against, kind in kinds.items():
        with open_suspect(replace(case, against=against)) as suspect:
            assert suspect.kind is kind
            assert suspect.card is not None
            assert suspect.card.class_names == case.card.class_names
            found[against] = suspect.predict(np.ascontiguousarray(image))
            raw = suspect.raw(np.stack([prepare(np.ascontiguousarray(image), suspect.card.input)[0]] * 2))
            if against == server:
                assert raw is None
                assert suspect.digest == case.bundle.digest
            else:
                assert raw is not None
                assert {len(one) for one in raw.values()} == {2}
    first = found[None]
    assert len(first) > 0
    for one in found.values():
        np.testing.assert_array_equal(one.class_ids, first.class_ids)
        np.testing.assert_allclose(one.scores, first.scores, atol=1e-3)
        np.testing.assert_allclose(one.boxes_xyxy, first.boxes_xyxy, atol=0.1)


def test_healthy_variant_file_and_server_have_no_finding_of_weight(case: Case, server: str, tmp_path: Path) -> None:
    for against in (None, str(reference_file(case.bundle, tmp_path)), f"{server}/v2/models/{case.card.name}"):
        assert diagnose(replace(case, against=against)) == []


def test_images_that_cannot_be_read_keep_nothing_from_the_others(
    case: Case, images: tuple[Path, ...], tmp_path: Path
) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(images[0].read_bytes()[:500])
    evidence = DatasetExamination().collect(replace(case, images=(torn, *images)), Silent())
    assert len(evidence.seen) == len(images)
    assert evidence.not_told == (f"1 of {len(images) + 1} images cannot be read and were left out.",)
    with pytest.raises(ImageError):
        DatasetExamination().collect(replace(case, images=(torn,)), Silent())


def test_names_in_another_order_are_the_first_finding(case: Case, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(case.bundle.read(f"variants/{REFERENCE}/model.onnx"))
    names = [*case.card.class_names[1:], case.card.class_names[0]]
    told = {one.key: one for one in model.metadata_props}
    told["names"].value = str(dict(enumerate(names)))
    path = tmp_path / "renamed.onnx"
    path.write_bytes(model.SerializeToString())
    found = diagnose(replace(case, against=str(path)))
    assert [one.rule for one in found] == ["classes-permuted"]
    assert found[0].weight == 1.0


def test_weights_with_noise_are_another_model(case: Case, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(case.bundle.read(f"variants/{REFERENCE}/model.onnx"))
    rng = np.random.default_rng(0)
    for one in model.graph.initializer:
        values = onnx.numpy_helper.to_array(one)
        if values.dtype == np.float32 and values.ndim == 4:
            noisy = values * (1 + rng.normal(0, 0.5, values.shape)).astype(np.float32)
            one.CopyFrom(onnx.numpy_helper.from_array(noisy, one.name))
    path = tmp_path / "other.onnx"
    path.write_bytes(model.SerializeToString())
    assert [one.rule for one in diagnose(replace(case, against=str(path)))] == ["stale-model"]


def test_model_with_free_sides_takes_the_size_of_the_bundle(case: Case, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(case.bundle.read(f"variants/{REFERENCE}/model.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    path = tmp_path / "free.onnx"
    path.write_bytes(model.SerializeToString())
    with open_suspect(replace(case, against=str(path))) as suspect:
        assert suspect.card is not None
        assert suspect.card.input.size_hw == case.card.input.size_hw


def test_changed_file_of_the_bundle_is_told_and_nothing_runs_it(
    digits_bundle: Path, images: tuple[Path, ...], tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "changed.bundle"
    shutil.copytree(digits_bundle, copy)
    opened = open_bundle(copy)
    variant = opened.default_variant
    file = copy / "variants" / variant.name / variant.files[0]
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    case = Case(opened, variant, images)
    diagnosis = examine("accuracy", case, (EnvironmentExamination(), DatasetExamination()), Silent())
    assert [one.rule for one in diagnosis.findings] == ["model-file-differs"]
    assert not diagnosis.is_well
    assert diagnosis.examined[1].lacks is not None


def test_more_threads_than_cores_are_told_with_both_times(case: Case) -> None:
    evidence = EnvironmentExamination().collect(replace(case, threads=64), Silent())
    assert evidence.timing is not None
    assert evidence.timing.as_is_ms > 0
    found = [one for rule in EnvironmentExamination.rules for one in rule.look(evidence)]
    assert [one.rule for one in found] == ["threads-oversubscribed"]


@pytest.mark.parametrize(
    "against", ["missing.onnx", "model.tflite", "http://127.0.0.1:1/a/b/c", "http://127.0.0.1:1/a?b"]
)
def test_what_is_no_suspect_is_refused(case: Case, against: str) -> None:
    with pytest.raises(UsageError):
        open_suspect(replace(case, against=against))


def test_server_without_the_model_says_which_it_has(case: Case, server: str) -> None:
    with pytest.raises(NotFoundError, match=case.card.name):
        open_suspect(replace(case, against=f"{server}/another"))


def test_server_that_is_not_there_is_named(case: Case) -> None:
    with pytest.raises(ServiceError):
        open_suspect(replace(case, against="http://127.0.0.1:1/model"))


def test_model_that_does_not_fit_the_card_is_refused(case: Case, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(case.bundle.read(f"variants/{REFERENCE}/model.onnx"))
    for one in model.metadata_props:
        if one.key == "names":
            one.value = "{0: 'a', 1: 'b'}"
    path = tmp_path / "other.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CardError):
        open_suspect(replace(case, against=str(path)))
