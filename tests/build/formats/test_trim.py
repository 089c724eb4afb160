# SPDX-License-Identifier: Apache-2.0
"""Trimming keeps every prediction, whatever the head, the contract and the way the graph is written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from tiny_models import (
    CLASSES,
    as_float,
    card_of,
    classify_model,
    noise,
    variant_of,
    yolov8_model,
    yolox_model,
)

from shipsight.build.formats import onnx_to_openvino, trim_onnx
from shipsight.engines import ENGINES, get_engine
from shipsight.errors import CorruptError, UnsupportedError
from shipsight.model import Card, Head

_CONTRACTS = {
    "rgb-255": {},
    "bgr-scaled": {"colour": "bgr", "scale": 2 / 255},
    "rgb-mean": {"mean": (0.48, 0.45, 0.4), "std": (0.22, 0.21, 0.25)},
    "bgr-mean": {"colour": "bgr", "mean": (0.48, 0.45, 0.4), "std": (0.22, 0.21, 0.25)},
}


def _run(model: bytes, tensor: np.ndarray, *, engine: str = "onnxruntime", is_trimmed: bool) -> dict[str, np.ndarray]:
    files = onnx_to_openvino(model) if engine == "openvino" else {"model.onnx": model}
    size_hw = tensor.shape[1:3] if is_trimmed else tensor.shape[2:]
    variant = variant_of(engine, tuple(files), is_trimmed=is_trimmed, size_hw=size_hw)
    with get_engine(engine).open(files, variant) as session:
        return session.infer(tensor)


def _expected(model: bytes, card: Card, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What the reference's raw output means, written from `docs/formats/heads.md`, not from the code under test."""
    outputs = _run(model, as_float(pixels, card), is_trimmed=False)
    raw = outputs["output0"].astype(np.float64)
    count = len(CLASSES)
    if card.output.head is Head.YOLOV8:
        boxes, scores = raw[:, :4].transpose(0, 2, 1), raw[:, 4 : 4 + count].transpose(0, 2, 1)
        found = {"extras": raw[:, 4 + count :].transpose(0, 2, 1)} if raw.shape[1] > 4 + count else {}
    else:
        cells = [
            (column, row, stride)
            for stride in (8, 16, 32)
            for row in range(card.input.size_hw[0] // stride)
            for column in range(card.input.size_hw[1] // stride)
        ]
        place = np.array(cells, np.float64)[None]
        centre = (raw[..., :2] + place[..., :2]) * place[..., 2:]
        boxes = np.concatenate([centre, np.exp(raw[..., 2:4]) * place[..., 2:]], axis=2)
        scores, found = raw[..., 5:] * raw[..., 4:5], {}
    found |= {"boxes": boxes, "scores": scores.max(axis=2), "class_ids": scores.argmax(axis=2), "all": scores}
    return found | ({"protos": outputs["output1"]} if "output1" in outputs else {})


def _check(outputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    every = expected.pop("all")
    assert set(outputs) == set(expected)
    chosen = outputs["class_ids"]
    assert chosen.dtype == np.int32
    # where two classes are equal up to rounding either may be named
    named = np.take_along_axis(every, chosen[..., None].astype(np.int64), axis=2)[..., 0]
    np.testing.assert_allclose(named, expected["scores"], atol=1e-4)
    for name in set(expected) - {"class_ids"}:
        # 1e-4 for scores; what is in pixels may be off by float32's rounding of the largest value
        atol = max(1e-4, 1e-5 * float(np.abs(expected[name]).max()))
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-4, atol=atol, err_msg=name)


@pytest.mark.parametrize("engine", list(ENGINES))
@pytest.mark.parametrize("contract", list(_CONTRACTS))
@pytest.mark.parametrize("head", [Head.YOLOV8, Head.YOLOX], ids=str)
def test_trim_keeps_predictions_for_every_head_and_contract(head: Head, contract: str, engine: str) -> None:
    model = yolov8_model() if head is Head.YOLOV8 else yolox_model()
    card, pixels = card_of(head, **_CONTRACTS[contract]), noise(seed=7)
    expected = _expected(model, card, pixels)
    assert len(np.unique(expected["class_ids"])) > 1, "a model that names one class only would prove nothing"
    _check(_run(trim_onnx(model, card), pixels, engine=engine, is_trimmed=True), expected)


@pytest.mark.parametrize(
    "options",
    [{"extras": 5}, {"extras": 4, "protos": True}, {"fused_output": True}, {"extras": 5, "fused_output": True}],
    ids=["extras", "extras-and-protos", "hidden-concat", "extras-hidden-concat"],
)
def test_trim_keeps_predictions_when_the_head_has_more(options: dict[str, object]) -> None:
    model, card, pixels = yolov8_model(**options), card_of(Head.YOLOV8), noise(seed=8)
    _check(_run(trim_onnx(model, card), pixels, is_trimmed=True), _expected(model, card, pixels))


@pytest.mark.parametrize("head", [Head.YOLOV8, Head.YOLOX], ids=str)
@pytest.mark.parametrize("size_hw", [(32, 96), (96, 32), (32, 32)], ids=str)
def test_trim_keeps_predictions_when_the_input_is_not_square(head: Head, size_hw: tuple[int, int]) -> None:
    model = (yolov8_model if head is Head.YOLOV8 else yolox_model)(size_hw=size_hw)
    card, pixels = card_of(head, size_hw=size_hw), noise(size_hw, seed=9)
    _check(_run(trim_onnx(model, card), pixels, is_trimmed=True), _expected(model, card, pixels))


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_trim_keeps_predictions_whatever_the_operator_set(opset: int) -> None:
    model, card, pixels = yolox_model(opset=opset), card_of(Head.YOLOX), noise(seed=10)
    _check(_run(trim_onnx(model, card), pixels, is_trimmed=True), _expected(model, card, pixels))


def test_trim_only_changes_the_input_when_the_head_has_no_anchors() -> None:
    model, card, pixels = classify_model(), card_of(Head.CLASSIFY), noise(seed=11)
    outputs = _run(trim_onnx(model, card), pixels, is_trimmed=True)
    expected = _run(model, as_float(pixels, card), is_trimmed=False)
    assert set(outputs) == {"output0"}
    np.testing.assert_allclose(outputs["output0"], expected["output0"], atol=1e-5)


def test_trim_drops_the_concatenation_of_all_scores_when_it_can() -> None:
    trimmed = onnx.load_model_from_string(trim_onnx(yolov8_model(), card_of(Head.YOLOV8)))
    sizes = {tuple(d.dim_value for d in value.type.tensor_type.shape.dim) for value in trimmed.graph.output}
    assert sizes == {(1, 84, 4), (1, 84)}
    sigmoids = [node for node in trimmed.graph.node if node.op_type == "Sigmoid"]
    assert len(sigmoids) == 6, "five activations and one sigmoid, over the best class only"


@pytest.mark.parametrize("taken", ["boxes", "scores", "class_ids", "shipsight/1/normalised"])
def test_trim_survives_a_model_that_uses_its_names(taken: str) -> None:
    model = onnx.load_model_from_string(yolov8_model())
    old = model.graph.node[3].output[0]
    for node in model.graph.node:
        node.input[:] = [taken if name == old else name for name in node.input]
        node.output[:] = [taken if name == old else name for name in node.output]
    renamed, card, pixels = model.SerializeToString(), card_of(Head.YOLOV8), noise(seed=12)
    _check(_run(trim_onnx(renamed, card), pixels, is_trimmed=True), _expected(renamed, card, pixels))


def test_trim_gives_the_same_bytes_when_run_twice_and_keeps_no_metadata() -> None:
    model = onnx.load_model_from_string(yolov8_model())
    plain = trim_onnx(model.SerializeToString(), card_of(Head.YOLOV8))
    model.metadata_props.add(key="date", value="2026-01-01T00:00:00")
    model.doc_string = "made at noon"
    assert trim_onnx(model.SerializeToString(), card_of(Head.YOLOV8)) == plain


def test_trim_refuses_a_model_that_is_trimmed_already() -> None:
    trimmed = trim_onnx(yolov8_model(), card_of(Head.YOLOV8))
    with pytest.raises(UnsupportedError, match="already"):
        trim_onnx(trimmed, card_of(Head.YOLOV8))


@pytest.mark.parametrize(
    ("model", "head"),
    [(yolox_model(), Head.YOLOV8), (yolov8_model(), Head.YOLOX), (classify_model(), Head.YOLOV8)],
    ids=["yolox-as-yolov8", "yolov8-as-yolox", "classify-as-yolov8"],
)
def test_trim_refuses_an_output_that_does_not_fit_the_head(model: bytes, head: Head) -> None:
    card = card_of(head)
    if head is Head.YOLOV8:
        card = Card("tiny", "1", card.task, tuple(map(str, range(90))), card.input, card.output)
    with pytest.raises(UnsupportedError, match="does not fit the head"):
        trim_onnx(model, card)


def test_trim_refuses_what_is_no_onnx() -> None:
    with pytest.raises(CorruptError):
        trim_onnx(b"garbage", card_of(Head.YOLOV8))
