# SPDX-License-Identifier: Apache-2.0
"""Faults of speed, planted in a real model and a real server: each is named, and a healthy one is left in peace.

They measure, and need the machine for themselves; together they take less than a minute on two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.once import made_once

from shipsight.build import BuildOptions, build
from shipsight.build.measure import alternate
from shipsight.doctor import Diagnosis, Severity
from shipsight.doctor.speed import diagnose_server_speed, diagnose_speed
from shipsight.model import Precision
from shipsight.model.bundle import open_bundle, write_bundle
from shipsight.predictor import load

pytestmark = pytest.mark.alone

# What the machine that the tests run on does by itself: where others compute, fewer threads are faster, and that is right.
OF_THE_MACHINE = {"cpu-busy", "cpu-stolen", "latency-unsteady", "cpu-slowed", "threads-not-best"}
CORES = len(os.sched_getaffinity(0))


def told(diagnosis: Diagnosis) -> list[str]:
    """Returns the rules of weight that found something, the weightiest first."""
    return [
        one.rule for one in diagnosis.findings if one.severity is not Severity.NOTE and one.rule not in OF_THE_MACHINE
    ]


@pytest.fixture(scope="module")
def openvino_bundle(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as OpenVINO runs it, float."""

    def make(folder: Path) -> None:
        options = BuildOptions(engines=("openvino",), precisions=(Precision.FP32,))
        build(sample_dir / "digits.onnx", out=folder / "digits.bundle", options=options)

    return made_once(tmp_path_factory, "digits-openvino", make) / "digits.bundle"


def write_image(path: Path, pixels: Any) -> Path:
    cv2.imwrite(str(path), np.ascontiguousarray(pixels[..., ::-1]))
    return path


def quantized_while_it_runs(bundle: Path, place: Path) -> Path:
    """Returns a bundle whose default is an int8 variant that quantizes its activations anew in every run."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    opened = open_bundle(bundle)
    source = next(one for one in opened.variants if one.is_reference)
    model = place.parent / "float.onnx"
    model.write_bytes(opened.read(f"variants/{source.name}/{source.files[0]}"))
    quantize_dynamic(model, place.parent / "int8.onnx", weight_type=QuantType.QUInt8)
    name = "onnxruntime-int8-256"
    planted = replace(source, name=name, precision=Precision.INT8, files=("model.onnx",), is_reference=False)
    files = {file: opened.read(file) for file in opened.names}
    files[f"variants/{name}/model.onnx"] = (place.parent / "int8.onnx").read_bytes()
    variants = (*opened.variants, planted)
    write_bundle(place, files, card=opened.card, variants=variants, default_variant=name, golden=opened.manifest.golden)
    return place


def how_much_slower(planted: Path) -> float:
    """Returns how many times as long the default of a planted bundle takes as its reference."""
    opened = open_bundle(planted)
    reference = next(one for one in opened.variants if one.is_reference)
    with load(opened) as slow, load(opened, variant=reference.name) as fast:
        tensor = np.zeros(fast.session.input.shape, np.float32)
        taken = alternate(
            {"slow": lambda: slow.session.infer(tensor), "fast": lambda: fast.session.infer(tensor)}, rounds=10, runs=4
        )
    return taken.medians_ms["slow"] / taken.medians_ms["fast"]


def test_healthy_bundle_has_no_finding_of_weight(digits_bundle: Path) -> None:
    only = ["machine", "warmup", "profile", "roofline", "sweep"]
    diagnosis = diagnose_speed(digits_bundle, seconds=5, only=only)
    # Which of the sample's two float variants is the faster is chance.
    assert [one for one in told(diagnosis) if one != "variant-faster"] == []
    assert [one.lacks for one in diagnosis.examined] == [None] * len(only)


def test_more_threads_than_cores_are_named_with_both_times(digits_bundle: Path) -> None:
    diagnosis = diagnose_speed(digits_bundle, threads=4 * CORES, seconds=5, only=["machine"])
    found = next(one for one in diagnosis.findings if one.rule == "threads-oversubscribed")
    # Whether it costs much hangs on the model: this one's layers are too small for many threads.
    assert f"--threads {4 * CORES}, {CORES} cores" in found.evidence
    assert "7 runs each" in found.evidence
    assert found.figures["share_lost"] == pytest.approx(found.weight) or found.weight == 0


def test_four_threads_on_one_core_are_named(digits_bundle: Path) -> None:
    found = in_a_process(digits_bundle, "--threads", "4", before="import os; os.sched_setaffinity(0, {0})")
    rules = [one["rule"] for one in found["findings"] if one["rule"] not in OF_THE_MACHINE]
    assert "threads-oversubscribed" in rules
    assert ("affinity-narrow" in rules) == ((os.cpu_count() or 1) > 1)


@pytest.fixture
def control_group() -> Iterator[Path]:
    """A control group of half a core, where one may be made here."""
    top = Path("/sys/fs/cgroup")
    first = top / "cpu" if (top / "cpu").is_dir() else top
    place = first / f"shipsight-test-{os.getpid()}"
    try:
        place.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error.strerror}")
    try:
        if (place / "cpu.max").exists():
            (place / "cpu.max").write_text("50000 100000")
        elif (place / "cpu.cfs_quota_us").exists():
            (place / "cpu.cfs_period_us").write_text("100000")
            (place / "cpu.cfs_quota_us").write_text("50000")
        else:
            pytest.skip("control groups do not limit the processor here")
        yield place
    finally:
        place.rmdir()


def test_limit_of_the_control_group_is_named_with_what_it_stops(control_group: Path, digits_bundle: Path) -> None:
    procs = control_group / ("cgroup.procs" if (control_group / "cgroup.procs").exists() else "tasks")
    before = f"import os, pathlib; pathlib.Path({str(procs)!r}).write_text(str(os.getpid()))"
    found = in_a_process(digits_bundle, before=before)
    limited = next(one for one in found["findings"] if one["rule"] == "cpu-limited")
    assert limited["figures"]["limit_cores"] == 0.5
    assert limited["figures"]["throttled_share"] > 0.2
    assert "runs each" in limited["evidence"]


def in_a_process(bundle: Path, *options: str, before: str) -> Any:
    """Examines the machine in a process of its own, which does something first."""
    arguments = ["doctor", "speed", str(bundle), "--only", "machine", "--seconds", "10", "--json", *options]
    code = f"{before}\nfrom shipsight.cli import main\nmain({arguments!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_start_without_kept_kernels_is_named_with_what_they_save(openvino_bundle: Path) -> None:
    diagnosis = diagnose_speed(openvino_bundle, seconds=20, only=["warmup"])
    found = next(one for one in diagnosis.findings if one.rule == "first-run-slow")
    assert found.figures["gain_low"] >= 1.1  # type: ignore[operator]  # a number
    assert found.figures["cached_s"] < found.figures["first_s"]  # type: ignore[operator]


def test_quantization_that_is_slower_than_float_is_named_first(digits_bundle: Path, tmp_path: Path) -> None:
    planted = quantized_while_it_runs(digits_bundle, tmp_path / "planted.bundle")
    if how_much_slower(planted) < 1.25:
        pytest.skip("this processor computes integers so fast that quantizing in every run costs little")
    diagnosis = diagnose_speed(planted, seconds=20, only=["sweep"])
    assert told(diagnosis)[:1] == ["int8-slower"], diagnosis.examined[0].figures
    assert diagnosis.findings[0].figures["is_dynamic"]


def test_photographs_of_12_megapixels_are_named_and_images_of_the_right_size_are_not(
    digits_bundle: Path, digit_scenes: Callable[[int, int], tuple[Any, Any]], tmp_path: Path
) -> None:
    scene, _ = digit_scenes(1, 512)
    large = write_image(tmp_path / "large.jpg", cv2.resize(scene, (4000, 3000)))
    diagnosis = diagnose_speed(digits_bundle, images=large, seconds=20, only=["images"])
    assert told(diagnosis) == ["images-oversized"]
    assert diagnosis.findings[0].weight > 0.3
    right = write_image(tmp_path / "right.jpg", cv2.resize(scene, (320, 240)))
    assert told(diagnose_speed(digits_bundle, images=right, seconds=8, only=["images"])) == []


def test_png_is_named_when_it_is_slow_to_decode(
    digits_bundle: Path, digit_scenes: Callable[[int, int], tuple[Any, Any]], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 8, (960, 1280, 3)).astype(np.uint8)
    image = write_image(tmp_path / "a.png", cv2.add(cv2.resize(digit_scenes(1, 512)[0], (1280, 960)), noise))
    diagnosis = diagnose_speed(digits_bundle, images=image, seconds=20, only=["images"])
    assert told(diagnosis) == ["images-slow-format"]


def test_tensors_as_json_are_named_at_a_real_server_and_images_are_not(server: str) -> None:
    tensors = diagnose_server_speed(f"{server}/v2/models/digits", seconds=5)
    assert "payload-json" in told(tensors)
    found = next(one for one in tensors.findings if one.rule == "payload-json")
    assert found.figures["gain_low"] > 2  # type: ignore[operator]  # a number
    images = diagnose_server_speed(server, seconds=5)
    assert "payload-json" not in told(images)
    assert {"queue_ms", "decode_ms", "prepare_ms", "infer_ms", "postprocess_ms"} <= set(images.examined[0].figures)
    assert images.of.model == "server"
