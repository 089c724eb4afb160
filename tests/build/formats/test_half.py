# SPDX-License-Identifier: Apache-2.0
"""Float16 ONNX: which layers move, and which models are refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_models import card_of, classify_model, noise, variant_of, yolov8_model

from shipsight.build.formats import onnx_to_fp16, trim_onnx
from shipsight.engines import get_engine
from shipsight.errors import UnsupportedError
from shipsight.model import Head

_HALF = onnx.TensorProto.FLOAT16


def _weights(model: bytes) -> dict[str, int]:
    graph = onnx.load_model_from_string(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {node.name: types[node.input[1]] for node in graph.node if node.op_type in ("Conv", "Gemm")}


def _scaled(factor: float, *, which: int) -> bytes:
    model = onnx.load_model_from_string(yolov8_model())
    conv = [node for node in model.graph.node if node.op_type == "Conv"][which]
    tensor = next(each for each in model.graph.initializer if each.name == conv.input[1])
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    return model.SerializeToString()


def test_half_moves_every_convolution_but_the_first() -> None:
    types = _weights(onnx_to_fp16(yolov8_model()))
    floats = [name for name, number in types.items() if number != _HALF]
    assert len(types) == 11
    assert len(floats) == 1
    assert floats[0] == next(iter(types))


@pytest.mark.parametrize("model", [yolov8_model(extras=4, protos=True), classify_model()], ids=["segment", "classify"])
def test_half_never_goes_to_float32_and_back_between_its_layers(model: bytes) -> None:
    graph = onnx.load_model_from_string(onnx_to_fp16(model)).graph
    returned: set[str] = set()  # all that hangs on a tensor which was half and is float32 again
    for node in graph.node:
        to = next((one.i for one in node.attribute if one.name == "to"), None)
        if (node.op_type == "Cast" and to == onnx.TensorProto.FLOAT) or not returned.isdisjoint(node.input):
            assert to != _HALF, node.name
            returned.update(node.output)
    assert returned


def test_half_keeps_inputs_and_outputs_as_they_were() -> None:
    before = onnx.load_model_from_string(trim_onnx(yolov8_model(extras=5), card_of(Head.YOLOV8)))
    after = onnx.load_model_from_string(onnx_to_fp16(before.SerializeToString()))
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)


def test_half_keeps_the_decoding_of_boxes_in_float32() -> None:
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(onnx_to_fp16(yolov8_model()))).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
    after_heads = [node for node in graph.node if node.op_type in ("Concat", "Reshape")]
    assert after_heads
    assert {types[node.output[0]] for node in after_heads} == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("model", [yolov8_model(extras=4, protos=True), classify_model()], ids=["segment", "classify"])
def test_half_stays_near_the_float_model(model: bytes) -> None:
    tensor = np.ascontiguousarray(noise().transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))
    answers = []
    for content in (model, onnx_to_fp16(model)):
        with get_engine("onnxruntime").open({"m": content}, variant_of("onnxruntime", ("m",))) as session:
            answers.append(session.infer(tensor))
    for name, array in answers[0].items():
        scale = np.abs(array).max()
        assert np.abs(answers[1][name] - array).max() <= 0.02 * scale  # 11 bits, about ten layers
    assert not np.array_equal(answers[1]["output0"], answers[0]["output0"])


def test_half_refuses_a_weight_beyond_its_range() -> None:
    with pytest.raises(UnsupportedError, match=r"weight|activation"):
        onnx_to_fp16(_scaled(1e6, which=2))


def test_half_refuses_an_activation_beyond_its_range_and_names_it() -> None:
    with pytest.raises(UnsupportedError, match="activation does not fit float16") as caught:
        onnx_to_fp16(_scaled(3e5, which=0))
    assert caught.value.where


def test_half_looks_for_overflow_with_the_probe_it_is_given() -> None:
    bright = np.full((1, 3, 64, 64), 1e6, np.float32)
    assert onnx_to_fp16(yolov8_model())
    with pytest.raises(UnsupportedError, match="does not fit float16"):
        onnx_to_fp16(yolov8_model(), probe=bright)
