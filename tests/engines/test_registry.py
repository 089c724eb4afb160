# SPDX-License-Identifier: Apache-2.0
"""The registry of engines, precision by name, and imports that send nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiny_models import variant_of, yolov8_model

from shipsight.engines import ENGINES, EngineOptions, get_engine
from shipsight.errors import CorruptError, MissingDependencyError, UsageError
from shipsight.model import Precision


@pytest.mark.parametrize("name", list(ENGINES))
def test_get_engine_gives_the_engine_of_that_name(name: str) -> None:
    assert get_engine(name).name == name


def test_get_engine_suggests_a_name_when_it_is_misspelt() -> None:
    with pytest.raises(UsageError, match="Did you mean openvino") as caught:
        get_engine("openvno")
    assert caught.value.expected == "onnxruntime, openvino"


@pytest.mark.parametrize("name", list(ENGINES))
def test_get_engine_says_what_to_install_when_the_runtime_is_missing(name: str) -> None:
    code = f"""
import sys
sys.modules[{name!r}] = None
from shipsight.engines import get_engine
from shipsight.errors import MissingDependencyError
try:
    get_engine({name!r})
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert f"pip install {name}" in done.stdout


def test_importing_the_engines_imports_no_runtime() -> None:
    code = "import sys, shipsight.engines; print([m for m in ('onnxruntime', 'openvino', 'onnx') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_opening_engines_switches_telemetry_off() -> None:
    code = """
import os, sys
from shipsight.engines import get_engine
for name in ("onnxruntime", "openvino"):
    get_engine(name)
print(os.environ["ORT_DISABLE_TELEMETRY"], sys.modules["openvino_telemetry"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["1", "None"]


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.FP16], ids=str)
def test_openvino_refuses_a_precision_that_the_cpu_lacks_and_runs_one_that_it_has(precision: Precision) -> None:
    import openvino

    has_it = precision.value.upper() in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    files = {"model.onnx": yolov8_model()}
    for variant in (
        variant_of("openvino", tuple(files), precision=precision),
        variant_of("openvino", tuple(files), precision=Precision.INT8, rest=precision),
    ):
        if has_it:
            with get_engine("openvino").open(files, variant) as session:
                assert session.precision().float_type == {"bf16": "bf16", "fp16": "f16"}[precision]
        else:
            with pytest.raises(MissingDependencyError, match=f"does not compute in {precision.value}"):
                get_engine("openvino").open(files, variant)


def test_openvino_keeps_compiled_kernels_only_where_it_is_told(tmp_path) -> None:
    files = {"model.onnx": yolov8_model()}
    variant = variant_of("openvino", tuple(files))
    with get_engine("openvino").open(files, variant, EngineOptions(cache_dir=tmp_path / "cache")):
        assert list((tmp_path / "cache").glob("*.blob"))


def test_openvino_refuses_ir_without_its_weights() -> None:
    variant = variant_of("openvino", ("model.xml",))
    with pytest.raises(CorruptError):
        get_engine("openvino").open({"model.xml": b"<net/>"}, variant)
