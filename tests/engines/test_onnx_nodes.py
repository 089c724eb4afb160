# SPDX-License-Identifier: Apache-2.0
"""The small ONNX reader against the package `onnx`, and against hostile bytes."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import matmul_model, yolov8_model, yolox_model

from shipsight.engines._onnx_nodes import read_graph
from shipsight.errors import CorruptError


@pytest.mark.parametrize("model", [yolov8_model(extras=3), yolox_model(), matmul_model()], ids=["v8", "x", "matmul"])
def test_read_graph_finds_what_onnx_finds(model: bytes) -> None:
    expected = onnx.load_model_from_string(model).graph
    found = read_graph(model)
    assert [(n.op_type, n.domain, n.inputs, n.outputs) for n in found.nodes] == [
        (n.op_type, n.domain, tuple(n.input), tuple(n.output)) for n in expected.node
    ]
    assert found.initializer_types == {tensor.name: tensor.data_type for tensor in expected.initializer}
    assert not found.has_external_data


def test_read_graph_sees_external_data_in_weights_and_in_constants() -> None:
    assert read_graph(matmul_model(external=True)).has_external_data
    model = onnx.load_model_from_string(matmul_model())
    value = onnx.TensorProto(data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["hidden"], value=value))
    assert read_graph(model.SerializeToString()).has_external_data


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_read_graph_refuses_or_reads_any_bytes(content: bytes) -> None:
    try:
        graph = read_graph(content)
    except CorruptError:
        return
    assert isinstance(graph.nodes, list)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(matmul_model()) - 1))
def test_read_graph_refuses_a_cut_model_or_reads_less(length: int) -> None:
    whole = read_graph(matmul_model())
    try:
        cut = read_graph(matmul_model()[:length])
    except CorruptError:
        return
    assert len(cut.nodes) <= len(whole.nodes)
