# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models, sound ones and others."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ULTRALYTICS = {
    "task": "detect",
    "names": "{0: 'bus/truck', 1: 'b'}",
    "stride": "32",
    "imgsz": "[64, 64]",
    "version": "8.4.1",
}


def detector(
    *,
    sides: tuple[Any, ...] = (1, 3, 64, 64),
    rows: int = 6,
    opset: int = 17,
    metadata: dict[str, str] | None = None,
    nodes: list[Any] | None = None,
    output: str = "out",
) -> Any:
    """A convolution of stride 32 whose output is (1, rows, cells), beside whatever nodes are given."""
    weight = np.random.default_rng(0).random((rows, 3, 32, 32), np.float32) / 3072
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weight"], ["features"], strides=[32, 32]),
            *(nodes or []),
            helper.make_node("Reshape", ["features", "shape"], [output]),
        ],
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, sides)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, rows, "cells"])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.array([1, rows, -1]), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for key, value in (ULTRALYTICS if metadata is None else metadata).items():
        model.metadata_props.add(key=key, value=value)
    return model


def with_external(location: str, **entries: str) -> Any:
    model = detector()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return model


def with_external_in_attribute() -> Any:
    inner = onnx.TensorProto(dims=[4], data_type=TensorProto.FLOAT, name="inner", data_location=TensorProto.EXTERNAL)
    inner.external_data.add(key="location", value="../x")
    return detector(nodes=[helper.make_node("Constant", [], ["c"], value=inner)])


def nested(depth: int) -> Any:
    info = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Constant", [], ["y"], value_floats=[1.0])], "leaf", [], [info])
    for level in range(depth):
        condition = helper.make_node("Constant", [], [f"k{level}"], value=numpy_helper.from_array(np.array(True)))
        branch = helper.make_node("If", [f"k{level}"], ["y"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([condition, branch], f"level{level}", [], [info])
    model = detector()
    model.graph.node.extend(graph.node)
    return model


def loop() -> Any:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, [])],
    )
    return detector(nodes=[helper.make_node("Loop", ["", "shape"], [], body=body)])


def huge_dimension(side: int) -> Any:
    model = detector()
    model.graph.initializer[1].dims[0] = side
    return model


def huge_constant() -> Any:
    shape = numpy_helper.from_array(np.array([40_000, 40_000]), "big")
    model = detector(nodes=[helper.make_node("ConstantOfShape", ["big"], ["zeros"])])
    model.graph.initializer.append(shape)
    return model


def cyclic() -> Any:
    return detector(nodes=[helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])])


def many_nodes(count: int) -> Any:
    return detector(nodes=[helper.make_node("Relu", ["features"], [f"r{i}"]) for i in range(count)])


def custom_operator(domain: str) -> Any:
    model = detector(nodes=[helper.make_node("Run", ["features"], ["z"], domain=domain)])
    model.opset_import.add(domain=domain, version=1)
    return model


def with_functions() -> Any:
    model = detector()
    function = helper.make_function(
        "own", "F", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    model.functions.append(function)
    model.opset_import.add(domain="own", version=1)
    return model
