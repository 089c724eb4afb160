# SPDX-License-Identifier: Apache-2.0
"""Groups of layers, told from graphs."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipsight.build.optimize import LayerMap, LayerRole, map_layers
from shipsight.errors import CorruptError, UnsupportedError


def by_role(layers: LayerMap, role: LayerRole) -> list[str]:
    return [group.name for group in layers.of_role(role)]


def test_map_tells_the_parts_of_a_detector_with_names(tiny_detector):
    layers = map_layers(tiny_detector)
    assert by_role(layers, LayerRole.BODY) == ["model.0", "model.1", "model.2"]
    assert by_role(layers, LayerRole.HEAD_TOWER) == ["model.3/cv2.0", "model.3/cv3.0"]
    assert layers.of_role(LayerRole.HEAD_OUTPUT)[0].nodes == (
        "/model.3/cv2.0/cv2.0.1/Conv",
        "/model.3/cv3.0/cv3.0.1/Conv",
    )


def test_map_keeps_decoding_dfl_and_the_heads_sigmoid_in_float(tiny_detector):
    nodes = map_layers(tiny_detector).always_float.nodes
    assert {
        "/model.3/dfl/conv/Conv",
        "/model.3/dfl/Softmax",
        "/model.3/Sigmoid",
        "/model.3/Concat",
        "/model.3/Mul",
    } <= nodes
    assert "/model.3/cv3.0/cv3.0.1/Conv" not in nodes


def test_map_tells_the_same_parts_when_nodes_have_no_names(tiny_detector, unnamed_detector):
    named, unnamed = map_layers(tiny_detector), map_layers(unnamed_detector)
    for role in (LayerRole.DECODE, LayerRole.HEAD_OUTPUT):
        assert [len(group.nodes) for group in unnamed.of_role(role)] == [
            len(group.nodes) for group in named.of_role(role)
        ]
    assert len(by_role(unnamed, LayerRole.HEAD_TOWER)) == 2


@pytest.mark.parametrize("kind", ["tiny_detector", "unnamed_detector"])
def test_each_layer_with_weights_is_in_exactly_one_group(kind, request):
    layers = map_layers(request.getfixturevalue(kind))
    nodes = [node for group in layers.groups for node in group.nodes]
    assert len(nodes) == len(set(nodes))
    assert sum(group.weighted for group in layers.groups) == layers.weighted == 8


def test_map_is_the_same_each_time(tiny_detector):
    assert map_layers(tiny_detector) == map_layers(tiny_detector)


def test_float_layers_hold_each_group_once(tiny_detector):
    layers = map_layers(tiny_detector)
    floating = layers.always_float.plus(layers.of_role(LayerRole.HEAD_OUTPUT))
    assert floating.plus(layers.of_role(LayerRole.HEAD_OUTPUT)) == floating
    assert floating.names == ("decode", "head-output")


def test_map_refuses_bytes_that_are_no_model():
    with pytest.raises(CorruptError):
        map_layers(b"no model at all")


def test_map_refuses_a_graph_without_weights():
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    with pytest.raises(UnsupportedError, match="nothing to quantize"):
        map_layers(helper.make_model(graph).SerializeToString())


@pytest.mark.shared
def test_map_tells_the_head_of_a_plain_onnx_detector(shared_data: Path):
    layers = map_layers((shared_data / "models" / "yolox_nano.onnx").read_bytes())
    assert layers.weighted == 113
    assert layers.of_role(LayerRole.HEAD_OUTPUT)[0].weighted == 9
    assert len(layers.of_role(LayerRole.HEAD_TOWER)) == 3
    assert {"Sigmoid_329", "Transpose_423"} <= layers.always_float.nodes
