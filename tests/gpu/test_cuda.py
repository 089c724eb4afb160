# SPDX-License-Identifier: Apache-2.0
"""The engines on a CUDA device. Run by `make gpu`; skipped, with the reason, where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from engine_suite import EngineSuite
from tiny_models import card_of, noise, variant_of, yolov8_model

from shipsight.build.formats import onnx_to_fp16, trim_onnx
from shipsight.engines import EngineOptions, get_engine
from shipsight.errors import MissingDependencyError
from shipsight.model import Head, Precision

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def _cuda() -> None:
    files = {"model.onnx": yolov8_model()}
    try:
        get_engine("onnxruntime").open(
            files, variant_of("onnxruntime", tuple(files)), EngineOptions(device="cuda")
        ).close()
    except MissingDependencyError as error:
        pytest.skip(f"no CUDA device for ONNX Runtime: {error.got}")


class TestOnnxRuntimeOnCuda(EngineSuite):
    engine_name = "onnxruntime"
    device = "cuda"


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_cuda_agrees_with_the_cpu(half: bool) -> None:
    model = trim_onnx(yolov8_model(extras=5), card_of(Head.YOLOV8))
    files = {"model.onnx": onnx_to_fp16(model) if half else model}
    precision = Precision.FP16 if half else Precision.FP32
    variant = variant_of("onnxruntime", tuple(files), precision=precision, is_trimmed=True)
    answers = []
    for device in ("cpu", "cuda"):
        with get_engine("onnxruntime").open(files, variant, EngineOptions(device=device)) as session:
            answers.append(session.infer(noise()))
            if device == "cuda":
                assert session.precision().float_type == ("f16" if half else "f32")
    tolerance = 0.01 if half else 1e-4
    np.testing.assert_allclose(answers[1]["scores"], answers[0]["scores"], atol=tolerance)
    np.testing.assert_allclose(answers[1]["boxes"], answers[0]["boxes"], rtol=tolerance, atol=10 * tolerance)
