# SPDX-License-Identifier: Apache-2.0
"""Quantization of a small real network by both quantizers, its sensitivity, and the guard over it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from shipsight.build.measure.intervals import Interval
from shipsight.build.optimize import (
    Attempt,
    GuardEnd,
    GuardMeasurement,
    GuardSettings,
    Int8Target,
    LayerRole,
    OnnxRecipe,
    map_layers,
    measure_onnx_ranges,
    onnxruntime_attempts,
    openvino_attempts,
    quantize_onnx,
    quantize_openvino,
    rank_by_sensitivity,
    run_guard,
)
from shipsight.build.optimize._ranges import SILU_FLOOR
from shipsight.engines._onnxruntime_import import import_onnxruntime
from shipsight.errors import CorruptError, TensorError, UnsupportedError, UsageError
from shipsight.model import TensorLayout
from shipsight.vision import to_tensor


def session(model: bytes):
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def outputs(model: bytes, images, card):
    opened = session(model)
    batches = [to_tensor(image[None], card.input, TensorLayout.FLOAT_NCHW) for image in images]
    return np.stack([opened.run(None, {"images": batch})[0] for batch in batches])


def operators(model: bytes) -> Counter[str]:
    import onnx

    return Counter(node.op_type for node in onnx.load_model_from_string(model).graph.node)


@pytest.fixture(scope="module")
def ranges(tiny_detector, tiny_images, tiny_card):
    return measure_onnx_ranges(tiny_detector, tiny_images, card=tiny_card)


@pytest.fixture
def quantize(tiny_detector, tiny_images, tiny_card, ranges):
    layers = map_layers(tiny_detector)

    def made(float_layers=layers.always_float, **options) -> bytes:
        options = {"target": Int8Target.X86, "ranges": ranges, **options}
        return quantize_onnx(tiny_detector, tiny_images, card=tiny_card, float_layers=float_layers, **options)

    return made


def test_ranges_cut_the_input_of_a_silu_where_it_is_flat(ranges):
    assert ranges.ranges["/model.1/conv.y"][0] >= SILU_FLOOR
    assert ranges.ranges["/model.1/conv.y"][1] > 100


def test_onnx_quantization_gives_the_same_bytes_each_time(quantize):
    assert quantize() == quantize()


def test_onnx_quantization_keeps_decoding_in_float(quantize):
    import onnx

    model = onnx.load_model_from_string(quantize())
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.name in ("/model.3/dfl/conv/Conv", "/model.3/Sigmoid", "/model.3/Concat"):
            assert "DequantizeLinear" not in {made_by.get(name) for name in node.input}
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]


@pytest.mark.parametrize(("target", "most"), [(Int8Target.X86, 64), (Int8Target.X86_VNNI, 128), (Int8Target.ARM, 128)])
def test_onnx_weights_keep_as_many_bits_as_the_processor_can_take(quantize, target, most):
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(quantize(target=target))
    weights = [
        numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name.endswith(".w_quantized")
    ]
    assert len(weights) == 7
    largest = max(int(np.abs(weight.astype(int)).max()) for weight in weights)
    assert most // 2 < largest <= most


@pytest.mark.parametrize(("target", "dtype"), [(Int8Target.X86, "uint8"), (Int8Target.ARM, "int8")])
def test_onnx_activations_are_unsigned_except_on_arm(quantize, target, dtype):
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(quantize(target=target))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    zero_points = {
        numpy_helper.to_array(stored[node.input[2]]).dtype.name
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert zero_points == {dtype}


def test_fused_recipe_quantizes_what_lies_between_the_layers(quantize):
    weighted, fused = operators(quantize(recipe=OnnxRecipe.WEIGHTED)), operators(quantize(recipe=OnnxRecipe.FUSED))
    assert fused["QuantizeLinear"] > weighted["QuantizeLinear"]


def test_returning_the_offender_to_float_restores_the_outputs(quantize, tiny_detector, tiny_images, tiny_card):
    layers = map_layers(tiny_detector)
    offender = [group for group in layers.groups if group.name in ("model.1", "model.2")]
    want = outputs(tiny_detector, tiny_images, tiny_card)
    errors = [
        np.abs(outputs(quantize(floating, recipe=OnnxRecipe.WEIGHTED), tiny_images, tiny_card) - want).mean()
        for floating in (layers.always_float, layers.always_float.plus(offender))
    ]
    assert errors[1] < errors[0] / 3


def test_sensitivity_ranks_the_planted_offender_first(tiny_detector, tiny_images, tiny_card):
    layers = map_layers(tiny_detector)
    ranked = rank_by_sensitivity(tiny_detector, tiny_images[:4], card=tiny_card, layers=layers)
    assert ranked[0].group.name == "model.2"
    assert ranked[0].sqnr_db < ranked[1].sqnr_db
    assert {one.group for one in ranked} == set(layers.groups) - set(layers.of_role(LayerRole.DECODE))


def test_sensitivity_refuses_to_work_without_images(tiny_detector, tiny_card):
    with pytest.raises(UsageError, match="images"):
        rank_by_sensitivity(tiny_detector, [], card=tiny_card, layers=map_layers(tiny_detector))


def test_guard_finds_the_planted_offender(quantize, tiny_detector, tiny_images, tiny_card):
    layers = map_layers(tiny_detector)
    want = outputs(tiny_detector, tiny_images, tiny_card)

    def measure(model: bytes) -> GuardMeasurement:
        error = float(np.abs(outputs(model, tiny_images, tiny_card)[:, :, 4:] - want[:, :, 4:]).mean())
        integer = operators(model)["Conv"] - 1
        return GuardMeasurement(Interval(error, error, error), 1.0, integer, integer + 1)

    start = measure(quantize(recipe=OnnxRecipe.WEIGHTED)).drop.value
    result = run_guard(
        [Attempt(name="weighted", quantize=lambda floating: quantize(floating, recipe=OnnxRecipe.WEIGHTED))],
        measure,
        layers=layers,
        rank=lambda groups: [
            one.group
            for one in rank_by_sensitivity(tiny_detector, tiny_images[:4], card=tiny_card, layers=layers, groups=groups)
        ],
        settings=GuardSettings(max_drop=start / 2, min_integer_share=0.0),
    )
    assert result.end is GuardEnd.FITS
    # The giant channel is quantized where model.1 writes it and where model.2 reads it: both must go, in that order.
    assert [step.returned for step in result.steps] == [(), ("head-output",), ("model.2",), ("model.1",)]


def test_quantization_refuses_what_it_cannot_take(tiny_detector, tiny_images, tiny_card):
    layers = map_layers(tiny_detector)
    options = {"card": tiny_card, "float_layers": layers.always_float}
    with pytest.raises(UsageError, match="calibration images"):
        quantize_onnx(tiny_detector, [], **options)
    with pytest.raises(TensorError, match="calibration\\[1\\]"):
        quantize_openvino(tiny_detector, [tiny_images[0], tiny_images[1][:16]], **options)
    with pytest.raises(CorruptError):
        quantize_onnx(tiny_detector[:100] + b"\xff" * 50, tiny_images, **options)


def test_onnx_quantization_refuses_an_opset_that_the_quantizer_does_not_take(tiny_detector, tiny_images, tiny_card):
    import onnx

    model = onnx.load_model_from_string(tiny_detector)
    model.opset_import[0].version = 22
    layers = map_layers(tiny_detector)
    with pytest.raises(UnsupportedError, match="opset"):
        quantize_onnx(model.SerializeToString(), tiny_images, card=tiny_card, float_layers=layers.always_float)


def quantize_ir(model, images, card, target=None) -> dict[str, bytes]:
    floating = map_layers(model).always_float
    return quantize_openvino(model, images, card=card, float_layers=floating, target=target)


def test_openvino_quantization_computes_layers_in_integers_and_decoding_in_float(tiny_detector, tiny_images, tiny_card):
    import openvino

    files = quantize_ir(tiny_detector, tiny_images, tiny_card, Int8Target.X86)
    model = openvino.Core().read_model(files["model.xml"], openvino.Tensor(np.frombuffer(files["model.bin"], np.uint8)))
    names = {op.get_friendly_name(): op for op in model.get_ordered_ops()}
    fed_by = lambda name: {value.get_node().get_type_name() for value in names[name].input_values()}  # noqa: E731
    assert sum(op.get_type_name() == "FakeQuantize" for op in names.values()) >= 5
    assert "FakeQuantize" not in fed_by("/model.3/dfl/conv/Conv")
    assert "FakeQuantize" not in fed_by("/model.3/Sigmoid")
    assert b"overflow_fix': 'enable'" in files["model.xml"]


@pytest.mark.slow
def test_openvino_quantization_gives_the_same_bytes_each_time(tiny_detector, tiny_images, tiny_card):
    assert quantize_ir(tiny_detector, tiny_images, tiny_card) == quantize_ir(tiny_detector, tiny_images, tiny_card)


def test_pixels_enter_the_first_layer_without_a_way_through_float(tiny_detector, tiny_images, tiny_card):
    from shipsight.build.formats import trim_onnx

    model = trim_onnx(tiny_detector, tiny_card)
    floating = map_layers(model).always_float
    quantized = quantize_onnx(model, tiny_images, card=tiny_card, float_layers=floating, target=Int8Target.X86)
    assert operators(quantized)["Cast"] < operators(model)["Cast"]
    feeds = {"images": tiny_images[0][None]}
    got, want = (session(one).run(["scores"], feeds)[0] for one in (quantized, model))
    assert np.abs(got - want).max() < 0.5


def test_openvino_takes_each_pixel_as_it_is_however_dark_the_calibration(tiny_detector, tiny_images, tiny_card):
    import openvino

    from shipsight.build.formats import trim_onnx

    dark = [image // 2 for image in tiny_images]
    files = quantize_ir(trim_onnx(tiny_detector, tiny_card), dark, tiny_card)
    model = openvino.Core().read_model(files["model.xml"], openvino.Tensor(np.frombuffer(files["model.bin"], np.uint8)))
    first = next(node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize")
    limits = [float(first.input_value(port).get_node().get_data().item()) for port in range(1, 5)]
    assert first.input_value(0).get_node().get_type_name() == "Convert"
    assert limits == [0, 255, 0, 255]


@pytest.mark.parametrize(
    ("starts", "stops", "axes", "steps"),
    [([2], [5], [1], [1]), ([-3], [-1], [1], [1]), ([4, 0], [1, 9], [1, 3], [-1, 2]), ([0], [1 << 62], [-1], [3])],
    ids=["inside", "from-the-end", "backwards", "beyond-the-end"],
)
def test_slices_that_quantizers_pass_cut_out_the_same(starts, stops, axes, steps):
    import openvino
    import openvino.opset13 as operations

    from shipsight.build.optimize._nncf_child import _use_strided_slices

    data = operations.parameter([1, 6, 4, 8], np.float32)
    bounds = [operations.constant(np.array(value, np.int64)) for value in (starts, stops, steps, axes)]
    model = openvino.Model([operations.slice(data, *bounds)], [data])
    values = np.random.default_rng(0).normal(size=(1, 6, 4, 8)).astype(np.float32)
    want = openvino.compile_model(model, "CPU")(values)[0]
    _use_strided_slices(model)
    assert Counter(node.get_type_name() for node in model.get_ordered_ops())["StridedSlice"] == 1
    np.testing.assert_array_equal(openvino.compile_model(model, "CPU")(values)[0], want)


def test_attempts_try_the_finer_weights_first_and_the_safe_ones_next(tiny_detector, tiny_images, tiny_card):
    names = {
        target: [one.name for one in openvino_attempts(tiny_detector, tiny_images, card=tiny_card, target=target)]
        for target in Int8Target
    }
    assert names == {
        Int8Target.X86: ["8-bit weights", "7-bit weights"],
        Int8Target.X86_VNNI: ["8-bit weights"],
        Int8Target.ARM: ["8-bit weights"],
    }


def test_onnxruntime_attempts_make_both_recipes_from_one_measurement(quantize, tiny_detector, tiny_images, tiny_card):
    attempts = onnxruntime_attempts(tiny_detector, tiny_images, card=tiny_card, target=Int8Target.X86)
    floating = map_layers(tiny_detector).always_float
    assert [one.name for one in attempts] == ["fused, 7-bit weights", "weighted, 7-bit weights"]
    assert attempts[0].quantize(floating) == quantize(recipe=OnnxRecipe.FUSED)
    assert attempts[1].quantize(floating) == quantize(recipe=OnnxRecipe.WEIGHTED)
