# SPDX-License-Identifier: Apache-2.0
"""What `precision()` says of models that were really quantized: which convolutions run in integers, and which do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_models import card_of, variant_of, yolov8_model

from shipsight.build.formats import onnx_to_openvino, trim_onnx
from shipsight.build.optimize import FloatLayers, OnnxRecipe, map_layers, quantize_onnx, quantize_openvino
from shipsight.engines import EngineOptions, PrecisionReport, get_engine
from shipsight.model import Card, Head, InputContract, OutputContract, Precision, Task
from shipsight.proof.scenes import make_scene
from shipsight.vision import prepare

CALIBRATION_IMAGES = 8
TINY = card_of(Head.YOLOV8)
DIGITS = Card(
    "digits", "1", Task.DETECT, tuple("0123456789"), InputContract((256, 256)), OutputContract(Head.YOLOV8)
)  # fmt: skip
Files = Mapping[str, bytes]
Pixels = NDArray[np.uint8]


def calibration_of(card: Card) -> list[Pixels]:
    return [prepare(make_scene(i), card.input)[0] for i in range(CALIBRATION_IMAGES)]


def quantize_for_onnxruntime(
    model: bytes, card: Card, floating: FloatLayers, recipe: OnnxRecipe = OnnxRecipe.WEIGHTED
) -> Files:
    made = quantize_onnx(model, calibration_of(card), card=card, float_layers=floating, recipe=recipe)
    return {"model.onnx": made}


def quantize_for_openvino(model: bytes, card: Card, floating: FloatLayers) -> Files:
    return quantize_openvino(model, calibration_of(card), card=card, float_layers=floating)


FLOAT_FILES: dict[str, Callable[[bytes], Files]] = {
    "onnxruntime": lambda model: {"model.onnx": model},
    "openvino": onnx_to_openvino,
}
QUANTIZERS: dict[str, Callable[[bytes, Card, FloatLayers], Files]] = {
    "onnxruntime": quantize_for_onnxruntime,
    "openvino": quantize_for_openvino,
}
INTEGER_KINDS = {
    "onnxruntime": {"com.microsoft.QLinearConv:i8", "QLinearConv:i8"},
    "openvino": {"Convolution:u8", "Convolution:i8"},
}


def report(engine: str, files: Files, precision: Precision, card: Card) -> PrecisionReport:
    variant = variant_of(
        engine, tuple(files), precision=precision, rest=Precision.FP32, is_trimmed=True, size_hw=card.input.size_hw
    )
    with get_engine(engine).open(files, variant, EngineOptions(threads=2)) as session:
        found = session.precision()
        assert session.precision() == found
    return found


def integer_layers(found: PrecisionReport, engine: str) -> int:
    """Integer convolutions by the layers' own types."""
    return sum(count for kind, count in found.detail.items() if kind in INTEGER_KINDS[engine])


def check(engine: str, model: bytes, card: Card, *, float_convolutions: int) -> PrecisionReport:
    """Compares the float model's report with the quantized one's; the caller says how many may stay float."""
    whole = report(engine, FLOAT_FILES[engine](model), Precision.FP32, card)
    assert whole.integer_convolutions == integer_layers(whole, engine) == 0
    assert whole.float_type == "f32"
    files = QUANTIZERS[engine](model, card, map_layers(model).always_float)
    quantized = report(engine, files, Precision.INT8, card)
    assert quantized.convolutions == whole.convolutions > 0
    assert 0 < quantized.integer_convolutions <= quantized.convolutions
    assert quantized.integer_convolutions == integer_layers(quantized, engine)
    assert quantized.integer_convolutions >= quantized.convolutions - float_convolutions
    assert quantized.float_type == "f32"
    return quantized


@pytest.fixture(scope="module")
def tiny() -> bytes:
    return trim_onnx(yolov8_model(), TINY)


@pytest.mark.parametrize("engine", QUANTIZERS)
def test_quantized_model_is_told_from_the_float_one(engine: str, tiny: bytes) -> None:
    check(engine, tiny, TINY, float_convolutions=3)


@pytest.mark.parametrize("recipe", OnnxRecipe)
def test_layers_given_back_to_float_are_not_counted(recipe: OnnxRecipe, tiny: bytes) -> None:
    layers = map_layers(tiny)
    few = layers.always_float
    more = few.plus(group for group in layers.groups if group not in few.groups)
    found = [
        report("onnxruntime", quantize_for_onnxruntime(tiny, TINY, floating, recipe), Precision.INT8, TINY)
        for floating in (few, more)
    ]
    assert found[0].integer_convolutions > found[1].integer_convolutions == 0
    assert found[0].convolutions == found[1].convolutions


@pytest.mark.slow
@pytest.mark.parametrize("engine", QUANTIZERS)
def test_quantized_sample_runs_nearly_all_convolutions_in_integers(engine: str, sample_dir: Path) -> None:
    model = trim_onnx((sample_dir / "digits.onnx").read_bytes(), DIGITS)
    found = check(engine, model, DIGITS, float_convolutions=2)
    assert found.convolutions == 87  # DFL, the 88th of the model, is a product in a trimmed graph
