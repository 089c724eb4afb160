# SPDX-License-Identifier: Apache-2.0
"""Every engine against the one contract."""

from __future__ import annotations

import numpy as np
import pytest
from engine_suite import EngineSuite
from tiny_models import matmul_model, variant_of, yolov8_model

from shipsight.build.formats import onnx_to_openvino
from shipsight.engines import ENGINES, EngineOptions, get_engine
from shipsight.errors import UnsupportedError, UntrustedError
from shipsight.model import Precision


class TestOnnxRuntime(EngineSuite):
    engine_name = "onnxruntime"

    def test_open_refuses_weights_that_lie_in_another_file(self) -> None:
        with pytest.raises(UntrustedError, match="outside"):
            self.open(matmul_model(external=True))

    def test_open_refuses_bf16(self) -> None:
        files = self.files(yolov8_model())
        with pytest.raises(UnsupportedError, match="bf16"):
            self.engine.open(files, self.variant(files, precision=Precision.BF16))


class TestOpenVino(EngineSuite):
    engine_name = "openvino"

    def files(self, model: bytes) -> dict[str, bytes]:
        return onnx_to_openvino(model)


def test_openvino_gives_the_same_from_onnx_as_from_ir() -> None:
    model, tensor = yolov8_model(), np.random.default_rng(4).random((1, 3, 64, 64), dtype=np.float32)
    answers = []
    for files in ({"model.onnx": model}, onnx_to_openvino(model)):
        with get_engine("openvino").open(files, variant_of("openvino", tuple(files)), EngineOptions(threads=1)) as one:
            answers.append(one.infer(tensor)["output0"])
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-6, atol=1e-6)


def test_engines_agree_on_a_model_with_convolutions() -> None:
    tensor = np.random.default_rng(5).random((1, 3, 64, 64), dtype=np.float32)
    answers = {}
    for name in ENGINES:
        with get_engine(name).open(
            {"model.onnx": yolov8_model(extras=5)}, variant_of(name, ("model.onnx",)), EngineOptions(threads=1)
        ) as session:
            answers[name] = session.infer(tensor)["output0"]
    reference = answers.pop("onnxruntime")
    for answer in answers.values():
        np.testing.assert_allclose(answer, reference, rtol=1e-4, atol=1e-4)  # float32 kernels sum in another order
