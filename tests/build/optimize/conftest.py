# SPDX-License-Identifier: Apache-2.0
"""A detector small enough to quantize in a second, with DFL, two towers and a planted offender."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shipsight.model import Card, Head, InputContract, OutputContract, Task

SIDE = 32
BINS = 4
GIANT = 3000.0


@pytest.fixture(scope="session")
def tiny_card() -> Card:
    return Card(
        name="tiny",
        version="1",
        task=Task.DETECT,
        class_names=("a", "b", "c"),
        input=InputContract(size_hw=(SIDE, SIDE)),
        output=OutputContract(head=Head.YOLOV8),
    )


@pytest.fixture(scope="session")
def tiny_images() -> list[NDArray[np.uint8]]:
    """Eight images, (32, 32, 3) uint8: noise over gradients."""
    random = np.random.default_rng(0)
    ramp = np.linspace(0, 160, SIDE)[None, :, None]
    return [
        np.clip(ramp * random.random() + random.integers(0, 96, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        for _ in range(8)
    ]


@pytest.fixture(scope="session")
def tiny_detector() -> bytes:
    """Names as Ultralytics gives them; what enters model.2 has one channel 3000 times as large as the others."""
    return build_detector(named=True)


@pytest.fixture(scope="session")
def unnamed_detector() -> bytes:
    """The same network without node names, as plain ONNX files have them."""
    return build_detector(named=False)


def build_detector(*, named: bool) -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(1)
    nodes, stored = [], []

    def constant(name: str, value: NDArray) -> str:
        stored.append(numpy_helper.from_array(value, name))
        return name

    def convolution(
        scope: str, source: str, channels: tuple[int, int], *, stride: int = 1, scale=None, act: bool = True
    ):
        into, out = channels
        weight = random.normal(0, (into * 9) ** -0.5, (out, into, 3, 3)).astype(np.float32)
        if scale is not None:
            weight *= scale.astype(np.float32)
        names = [source, constant(f"{scope}.w", weight), constant(f"{scope}.b", np.full(out, 0.1, np.float32))]
        pads = {"kernel_shape": [3, 3], "strides": [stride, stride], "pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", names, [f"{scope}.y"], name=f"{scope}/Conv", **pads))
        if not act:
            return f"{scope}.y"
        nodes.append(helper.make_node("Sigmoid", [f"{scope}.y"], [f"{scope}.s"], name=f"{scope}/act/Sigmoid"))
        nodes.append(helper.make_node("Mul", [f"{scope}.y", f"{scope}.s"], [f"{scope}.z"], name=f"{scope}/act/Mul"))
        return f"{scope}.z"

    def step(operator: str, inputs: list[str], name: str, **attributes) -> str:
        nodes.append(helper.make_node(operator, inputs, [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"

    def shaped(source: str, shape: list[int], name: str) -> str:
        return step("Reshape", [source, constant(f"{name}.shape", np.array(shape, np.int64))], name)

    giant = np.ones(8)
    giant[0] = GIANT
    x = convolution("/model.0/conv", "images", (3, 8), stride=2)
    x = convolution("/model.1/conv", x, (8, 8), stride=2, scale=giant[:, None, None, None])
    x = convolution("/model.2/conv", x, (8, 8), scale=1 / giant[None, :, None, None])
    boxes = convolution("/model.3/cv2.0/cv2.0.0/conv", x, (8, 8))
    boxes = convolution("/model.3/cv2.0/cv2.0.1", boxes, (8, 4 * BINS), act=False)
    scores = convolution("/model.3/cv3.0/cv3.0.0/conv", x, (8, 8))
    scores = convolution("/model.3/cv3.0/cv3.0.1", scores, (8, 3), act=False)
    bins = shaped(shaped(boxes, [1, 4 * BINS, 64], "/model.3/Reshape"), [1, 4, BINS, 64], "/model.3/dfl/Reshape")
    bins = step("Transpose", [bins], "/model.3/dfl/Transpose", perm=[0, 2, 1, 3])
    bins = step("Softmax", [bins], "/model.3/dfl/Softmax", axis=1)
    average = constant("dfl.w", np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1))
    bins = shaped(step("Conv", [bins, average], "/model.3/dfl/conv/Conv"), [1, 4, 64], "/model.3/dfl/Reshape_1")
    bins = step("Mul", [bins, constant("stride", np.array(4, np.float32))], "/model.3/Mul")
    scores = step("Sigmoid", [shaped(scores, [1, 3, 64], "/model.3/Reshape_1")], "/model.3/Sigmoid")
    nodes.append(helper.make_node("Concat", [bins, scores], ["output0"], name="/model.3/Concat", axis=1))
    if not named:
        for node in nodes:
            node.name = ""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 7, 64])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
