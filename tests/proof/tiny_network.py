# SPDX-License-Identifier: Apache-2.0
"""A small network with a raw YOLO head, random weights at a fixed seed, and a golden set made with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shipsight.engines import EngineOptions, EngineSession, get_engine
from shipsight.model import (
    Card,
    Head,
    InputContract,
    OutputContract,
    OutputForm,
    Precision,
    Task,
    TensorLayout,
    Variant,
)
from shipsight.proof import (
    Answer,
    GoldenFiles,
    GoldenSet,
    Subject,
    choose_golden,
    golden_files,
    record,
    record_variant,
)

SIDE = 96
CLASSES = 3
CARD = Card(
    name="tiny",
    version="1",
    task=Task.DETECT,
    class_names=("a", "b", "c"),
    input=InputContract(size_hw=(SIDE, SIDE)),
    output=OutputContract(head=Head.YOLOV8),
)
VARIANT = Variant(
    name="onnxruntime-fp32-96",
    engine="onnxruntime",
    precision=Precision.FP32,
    size_hw=(SIDE, SIDE),
    layout=TensorLayout.FLOAT_NCHW,
    form=OutputForm.RAW,
    files=("model.onnx",),
    rest=Precision.FP32,
    is_reference=True,
)


def make_network(seed: int = 0, *, zeroed: int | None = None) -> bytes:
    """Three convolutions, a neck that goes up and down, and a head on a grid of stride 8; one may be zeroed."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.RandomState(seed)
    nodes, weights = [], []
    layers = [(3, 16, 2), (16, 16, 2), (16, 24, 2), (24, 24, 1), (24, 4 + CLASSES, 1)]
    last = "images"
    for number, (inputs, outputs, stride) in enumerate(layers):
        scale = 1.6 / np.sqrt(inputs * 9) if number else 4.0 / np.sqrt(27)
        kernel = random.normal(0, scale, size=(outputs, inputs, 3, 3)).astype(np.float32)
        kernel -= kernel.mean(axis=(1, 2, 3), keepdims=True) if number == 0 else 0
        bias = random.normal(0, 0.3, size=outputs).astype(np.float32)
        if number == len(layers) - 1:
            bias[4:] -= 1.5  # so that few of the 144 anchors are confident
        if number == zeroed:
            kernel[:] = 0
        weights += [numpy_helper.from_array(kernel, f"w{number}"), numpy_helper.from_array(bias, f"b{number}")]
        name = f"/model.{number}/conv/Conv_output_0"
        nodes.append(
            helper.make_node(
                "Conv",
                [last, f"w{number}", f"b{number}"],
                [name],
                name=f"/model.{number}/conv/Conv",
                strides=[stride, stride],
                pads=[1, 1, 1, 1],
            )
        )
        last = name
        if number < len(layers) - 1:
            last = f"/model.{number}/act/Relu_output_0"
            nodes.append(helper.make_node("Relu", [name], [last], name=f"/model.{number}/act/Relu"))
        if number == 2:
            weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], dtype=np.float32), "up"))
            nodes += [
                helper.make_node("Resize", [last, "", "up"], ["up_out"], name="/model.3/Resize", mode="nearest"),
                helper.make_node(
                    "MaxPool", ["up_out"], ["down"], name="/model.3/Pool", kernel_shape=[2, 2], strides=[2, 2]
                ),
            ]
            last = "down"
    cells = SIDE // 8
    grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), axis=0).reshape(1, 2, -1).astype(np.float32)
    constants = {
        "flat": np.array([1, 4 + CLASSES, cells * cells], dtype=np.int64),
        "parts": np.array([2, 2, CLASSES], dtype=np.int64),
        "centre": grid * 8 + 4,
        "eight": np.array(8, dtype=np.float32),
        "size": np.array(40, dtype=np.float32),
    }
    weights += [numpy_helper.from_array(value, name) for name, value in constants.items()]
    nodes += [
        helper.make_node("Reshape", [last, "flat"], ["head"]),
        helper.make_node("Split", ["head", "parts"], ["xy", "wh", "logits"], axis=1),
        helper.make_node("Tanh", ["xy"], ["xy_in"]),
        helper.make_node("Mul", ["xy_in", "eight"], ["xy_px"]),
        helper.make_node("Add", ["xy_px", "centre"], ["xy_out"]),
        helper.make_node("Sigmoid", ["wh"], ["wh_in"]),
        helper.make_node("Mul", ["wh_in", "size"], ["wh_out"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Concat", ["xy_out", "wh_out", "scores"], ["output0"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 4 + CLASSES, cells * cells])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def open_network(model: bytes, threads: int | None = 1) -> EngineSession:
    return get_engine("onnxruntime").open({"model.onnx": model}, VARIANT, EngineOptions(threads=threads))


@dataclass(frozen=True, eq=False)
class Built:
    """What a build leaves: the network, its golden set, its files and its answers."""

    model: bytes
    golden: GoldenSet
    files: dict[str, bytes]
    answers: tuple[Answer, ...]

    def read(self) -> GoldenFiles:
        return GoldenFiles(self.files.__getitem__)


def photographs(count: int = 6) -> list[Callable[[], np.ndarray]]:
    """Stands in for the user's images: noise of odd sizes, one of them large."""

    def make(number: int) -> np.ndarray:
        random = np.random.RandomState(900 + number)
        height, width = (1500, 2001) if number == 0 else (83 + 31 * number, 200 - 17 * number)
        coarse = random.randint(0, 256, size=(height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
        return np.ascontiguousarray(coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width])

    return [lambda number=number: make(number) for number in range(count)]


def build(model: bytes) -> Built:
    with open_network(model) as session:
        golden, warnings = choose_golden(
            Subject.of(session, VARIANT, CARD), images=photographs(), image_count=4, candidates=24
        )
    assert warnings == ()
    recording, answers = record_variant(lambda threads: open_network(model, threads), VARIANT, CARD, golden)
    files = golden_files(
        golden, [CARD.input], source={(SIDE, SIDE): record(answers)}, variants={VARIANT.name: recording}
    )
    return Built(model, golden, files, answers)
