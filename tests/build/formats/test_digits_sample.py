# SPDX-License-Identifier: Apache-2.0
"""Every way of writing the shipped digits sample predicts what its float ONNX predicts.

The tolerances are the project's promise for what is only written otherwise (score 1e-4, 0.05 pixels), and for weights or
layers in 16 bits what 11 bits of mantissa leave after some eighty layers (score 0.02, 0.5 pixels).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shipsight.build.formats import onnx_to_fp16, onnx_to_openvino, trim_onnx
from shipsight.engines import EngineOptions, get_engine
from shipsight.model import (
    Card,
    Head,
    ImagePredictions,
    InputContract,
    OutputContract,
    OutputForm,
    Precision,
    Task,
    TensorLayout,
    Variant,
)
from shipsight.vision import PredictSettings, postprocess, prepare, to_tensor

SIZE = (256, 256)
SCENES = 8
CARD = Card(
    name="digits",
    version="1",
    task=Task.DETECT,
    class_names=tuple("0123456789"),
    input=InputContract(SIZE),
    output=OutputContract(Head.YOLOV8),
)
Image = NDArray[np.uint8]
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Way:
    """A way of writing the model, and how far its predictions may be from the reference's."""

    make: Callable[[bytes], Files]
    engine: str
    is_trimmed: bool
    score: float = 1e-4
    pixels: float = 0.05


HALF = {"score": 0.02, "pixels": 0.5}
WAYS = {
    "trimmed": Way(lambda model: {"model.onnx": trim_onnx(model, CARD)}, "onnxruntime", is_trimmed=True),
    "fp16": Way(lambda model: {"model.onnx": onnx_to_fp16(model)}, "onnxruntime", is_trimmed=False, **HALF),
    "trimmed-fp16": Way(
        lambda model: {"model.onnx": onnx_to_fp16(trim_onnx(model, CARD))}, "onnxruntime", is_trimmed=True, **HALF
    ),
    "openvino": Way(onnx_to_openvino, "openvino", is_trimmed=False),
    "openvino-trimmed": Way(
        lambda model: onnx_to_openvino(trim_onnx(model, CARD)), "openvino", is_trimmed=True
    ),
    "openvino-trimmed-16-bit-weights": Way(
        lambda model: onnx_to_openvino(trim_onnx(model, CARD), compress_to_fp16=True),
        "openvino",
        is_trimmed=True,
        **HALF,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def scenes(sample_dir: Path) -> list[Image]:
    """The first held-out scenes of the sample, before JPEG."""
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    spec = importlib.util.spec_from_file_location("digits_generate", sample_dir / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    digits, class_ids = generate.split_digits("val")
    return [generate.draw_scene(np.random.default_rng([0, 1, i]), digits, class_ids)[0] for i in range(SCENES)]


@pytest.fixture(scope="module")
def digits_onnx(sample_dir: Path) -> bytes:
    return (sample_dir / "digits.onnx").read_bytes()


def predict(files: Files, engine: str, images: list[Image], *, is_trimmed: bool) -> list[ImagePredictions]:
    variant = Variant(
        name="digits",
        engine=engine,
        precision=Precision.FP32,
        size_hw=SIZE,
        layout=TensorLayout.UINT8_NHWC if is_trimmed else TensorLayout.FLOAT_NCHW,
        form=OutputForm.BEST_CLASS if is_trimmed else OutputForm.RAW,
        files=tuple(files),
        rest=Precision.FP32,
    )
    found = []
    with get_engine(engine).open(files, variant, EngineOptions(threads=2)) as session:
        for image in images:
            pixels, geometry = prepare(image, CARD.input)
            outputs = session.infer(to_tensor(pixels, CARD.input, variant.layout))
            found.append(
                postprocess(outputs, card=CARD, form=variant.form, geometry=geometry, settings=PredictSettings())
            )
    return found


@pytest.fixture(scope="module")
def reference(digits_onnx: bytes, scenes: list[Image]) -> list[ImagePredictions]:
    found = predict({"model.onnx": digits_onnx}, "onnxruntime", scenes, is_trimmed=False)
    assert sum(map(len, found)) >= 2 * SCENES, "the sample finds the digits in its scenes"
    return found


@pytest.mark.parametrize("name", WAYS)
def test_sample_predicts_what_its_float_model_predicts(
    name: str, digits_onnx: bytes, scenes: list[Image], reference: list[ImagePredictions]
) -> None:
    way = WAYS[name]
    files = way.make(digits_onnx)
    for ours, expected in zip(
        predict(files, way.engine, scenes, is_trimmed=way.is_trimmed), reference, strict=True
    ):  # fmt: skip
        assert ours.class_ids.tolist() == expected.class_ids.tolist()
        np.testing.assert_allclose(ours.scores, expected.scores, rtol=0, atol=way.score)
        assert ours.boxes_xyxy is not None
        assert expected.boxes_xyxy is not None
        np.testing.assert_allclose(ours.boxes_xyxy, expected.boxes_xyxy, rtol=0, atol=way.pixels)


@pytest.mark.parametrize(
    ("half", "whole"),
    [("fp16", None), ("trimmed-fp16", "trimmed"), ("openvino-trimmed-16-bit-weights", "openvino-trimmed")],
)
def test_sixteen_bits_take_half_the_room(half: str, whole: str | None, digits_onnx: bytes) -> None:
    sizes = [
        sum(map(len, WAYS[name].make(digits_onnx).values())) if name else len(digits_onnx) for name in (half, whole)
    ]
    assert 0.45 < sizes[0] / sizes[1] < 0.6
