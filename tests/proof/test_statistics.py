# SPDX-License-Identifier: Apache-2.0
"""Statistics, environment, scenes and files: the same each time, and what they say is so."""

from __future__ import annotations

import io
import json
import platform
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.proof.tiny_network import CARD, Built

from shipsight.errors import CorruptError, InternalError
from shipsight.proof import TrainingImage, collect_statistics, cpu_class, describe_environment, make_scene
from shipsight.proof.arrays import read_arrays, write_arrays, write_png
from shipsight.proof.image_measures import MEASURES, estimate_jpeg_quality, measure_image
from shipsight.vision import decode_image


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[TrainingImage]:
    folder = tmp_path_factory.mktemp("training")
    result = []
    for number in range(6):
        pixels = np.random.RandomState(number).randint(0, 256, size=(60 + number, 80, 3), dtype=np.uint8)
        path = folder / f"secret-name-{number}.jpg"
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, 85])
        result.append(TrainingImage(path, [number % 2, 2], np.array([[0.5, 0.25], [0.1, 0.4]])))
    return result


def test_statistics_are_the_same_each_time_and_hold_no_name(built: Built, images):
    found = [collect_statistics(images, CARD, reference_onnx=built.model, seed=3) for _ in range(2)]
    assert found[0] == found[1]
    text = json.dumps(found[0], allow_nan=False)
    assert "secret-name" not in text
    assert found[0]["images"] == 6
    assert found[0]["classes"] == {"a": 3, "b": 3, "c": 6}
    assert found[0]["quantiles"]["jpeg_quality"]["q50"] == pytest.approx(85, abs=0.6)
    assert found[0]["quantiles"]["object_size"]["q100"] == pytest.approx(np.sqrt(0.125))
    assert set(MEASURES) < set(found[0]["histograms"])
    for one in found[0]["histograms"].values():
        assert len(one["edges"]) == len(one["counts"]) + 1
        assert sum(one["counts"]) in (6, 12)


def test_statistics_hold_the_models_own_view(built: Built, images):
    found = collect_statistics(images, CARD, reference_onnx=built.model, feature_limit=4)
    embedding = found["embedding"]
    assert embedding["tensor"] == "/model.2/act/Relu_output_0"
    assert (embedding["images"], embedding["dimensions"], len(embedding["mean"])) == (4, 24, 24)
    covariance = np.array(embedding["covariance"])
    assert np.allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-6
    assert set(found["tensors"]) == {"input", "boxes", "scores"}
    assert len(found["tensors"]["input"]["mean"]) == 3


def test_statistics_are_bounded_and_chosen_by_the_seed(images):
    few = [collect_statistics(images, CARD, limit=3, seed=seed) for seed in (0, 0, 1)]
    assert [one["images"] for one in few] == [3, 3, 3]
    assert few[0]["available"] == 6
    assert few[0] == few[1]
    assert few[0]["histograms"] != few[2]["histograms"]
    assert few[0]["embedding"] is None


def test_measures_say_what_they_are_named():
    grey = np.full((50, 60, 3), 100, dtype=np.uint8)
    flat = measure_image(grey)
    assert flat["brightness"] == pytest.approx(100, abs=0.01)
    assert (flat["contrast"], flat["sharpness"], flat["noise"]) == pytest.approx((0, 0, 0), abs=0.01)
    assert flat["aspect"] == 1.2
    random = np.random.RandomState(0)
    noisy = np.clip(grey + random.normal(0, 8, size=(50, 60, 1)), 0, 255).astype(np.uint8)
    assert measure_image(noisy)["noise"] == pytest.approx(8, rel=0.15)
    sharp = (np.indices((64, 64)).sum(axis=0) // 8 % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert measure_image(sharp)["sharpness"] > measure_image(cv2.GaussianBlur(sharp, (9, 9), 0))["sharpness"] * 10
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 200
    found = measure_image(red)
    assert (found["red"], found["green"], found["saturation"]) == pytest.approx((200, 0, 1))
    for tiny in ((1, 1), (1, 9), (2, 2)):
        assert np.isfinite(list(measure_image(np.zeros((*tiny, 3), np.uint8)).values())).all()


@pytest.mark.parametrize("quality", [20, 50, 75, 90, 98])
def test_jpeg_quality_is_estimated_from_its_table(quality):
    data = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    assert estimate_jpeg_quality(data) == pytest.approx(quality, abs=1)


@given(data=st.binary(max_size=200))
def test_jpeg_quality_survives_any_bytes(data):
    for start in (b"", b"\xff\xd8", b"\xff\xd8\xff\xdb\x00\x43\x00"):
        assert estimate_jpeg_quality(start + data) is None or start


def test_scenes_are_the_same_each_time_and_differ_from_each_other():
    scenes = [make_scene(subject, setting) for subject in range(8) for setting in range(2)]
    assert len({one.tobytes() for one in scenes}) == 16
    assert all(np.array_equal(make_scene(n // 2, n % 2), one) for n, one in enumerate(scenes))
    assert all(one.dtype == np.uint8 and one.std() > 5 and min(one.shape[:2]) >= 320 for one in scenes)


@settings(max_examples=40, deadline=None)
@given(image=hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))))
def test_png_gives_back_every_pixel(image):
    assert np.array_equal(decode_image(write_png(image)), image)


ARRAYS = st.dictionaries(
    st.text("abc/", min_size=1, max_size=6),
    hnp.arrays(st.sampled_from([np.float32, np.int32, np.uint8]), hnp.array_shapes(min_dims=0, min_side=0)),
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(arrays=ARRAYS)
def test_arrays_are_the_same_bytes_in_any_order_and_come_back(arrays):
    data = write_arrays(arrays)
    assert data == write_arrays(dict(reversed(arrays.items())))
    read = read_arrays(data, where="x")
    assert read.keys() == arrays.keys()
    for name, one in arrays.items():
        assert read[name].dtype == one.dtype
        assert read[name].tobytes() == one.tobytes()
        assert read[name].shape == one.shape


def zipped(content: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content)
    return target.getvalue()


def test_arrays_that_carry_objects_or_lie_about_their_size_are_refused():
    with pytest.raises(InternalError):
        write_arrays({"a": np.array([object()])})
    pickled, honest = io.BytesIO(), io.BytesIO()
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    np.save(honest, np.zeros(4))
    lying = honest.getvalue().replace(b"(4,)", b"(9,)")
    for content in (pickled.getvalue(), lying, honest.getvalue()[:-1], b"", b"\x93NUMPY\x01\x00\xff\xff"):
        with pytest.raises(CorruptError):
            read_arrays(zipped(content), where="x")
    with pytest.raises(CorruptError):
        read_arrays(b"no zip", where="x")


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("sse4_2 avx avx2 fma", "x86-avx2"),
        ("avx2 fma avx_vnni", "x86-avx-vnni"),
        ("avx2 fma avx512f", "x86-avx512"),
        ("avx2 fma avx512f avx512_vnni", "x86-avx512-vnni"),
        ("avx2 fma avx512f avx512_vnni avx512_bf16", "x86-avx512-vnni+bf16"),
        ("avx512f amx_tile amx_int8 amx_bf16", "x86-amx+bf16"),
        ("fp asimd", "arm-neon"),
        ("fp asimd asimddp", "arm-dotprod"),
        ("asimd asimddp i8mm bf16", "arm-i8mm+bf16"),
    ],
)
def test_processor_class_follows_its_flags(flags, name):
    assert cpu_class(frozenset(flags.split())) == name


def test_environment_names_versions_and_nothing_of_its_owner():
    found = describe_environment({"precision": {"x": "f32"}})
    text = json.dumps(found, allow_nan=False)
    assert found["versions"]["python"] == platform.python_version()
    assert {"numpy", "onnxruntime", "openvino"} < set(found["versions"])
    assert found["cpu"]["class"] == cpu_class()
    assert found["precision"] == {"x": "f32"}
    assert platform.node() not in text or platform.node() in ("", "localhost")
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert str(Path.cwd()) not in text
