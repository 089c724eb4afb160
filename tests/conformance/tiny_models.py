# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models with real convolutions and every head, made in memory with fixed seeds."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

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

SIZE = 64
CLASSES = ("ant", "bee", "cat")


class Maker:
    """Builds a graph node by node; every tensor's name is its number."""

    def __init__(self, size_hw: tuple[int, int] = (SIZE, SIZE), seed: int = 0) -> None:
        self.size_hw = size_hw
        self.random = np.random.default_rng(seed)
        self.nodes: list = []
        self.weights: list = []

    def weight(self, array: np.ndarray) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op_type: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        name = output or f"tensor{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=f"node{len(self.nodes)}", **attributes))
        return name

    def conv(self, source: str, channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1) -> str:
        scale = 1.5 / np.sqrt(channels_in * kernel * kernel)
        shape = (channels_out, channels_in, kernel, kernel)
        weight = self.weight((self.random.standard_normal(shape) * scale).astype(np.float32))
        bias = self.weight((self.random.standard_normal(channels_out) * 0.2).astype(np.float32))
        pads = [kernel // 2] * 4
        return self.add("Conv", source, weight, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def silu(self, source: str) -> str:
        return self.add("Mul", source, self.add("Sigmoid", source))

    def ints(self, *values: int) -> str:
        return self.weight(np.array(values, np.int64))

    def backbone(self) -> list[tuple[str, int]]:
        """Three feature maps of 16 channels with their strides."""
        levels = []
        name = self.silu(self.conv(self.silu(self.conv("images", 3, 8, stride=2)), 8, 16, stride=2))
        for stride in (8, 16, 32):
            name = self.silu(self.conv(name, 16, 16, stride=2))
            levels.append((name, stride))
        return levels

    def finish(self, *outputs: tuple[str, tuple[int, ...]], opset: int = 18, input_name: str = "images") -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [1, 3, *self.size_hw])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        return model.SerializeToString(deterministic=True)


def anchors_of(size_hw: tuple[int, int]) -> int:
    return sum((size_hw[0] // stride) * (size_hw[1] // stride) for stride in (8, 16, 32))


def yolov8_model(
    *, extras: int = 0, protos: bool = False, fused_output: bool = False, size_hw: tuple[int, int] = (SIZE, SIZE)
) -> bytes:
    """A `yolov8` head: boxes in pixels, sigmoid scores, extras; `fused_output` hides the last concatenation."""
    maker = Maker(size_hw)
    boxes, scores, rest = [], [], []
    for name, _ in maker.backbone():
        for collected, channels in ((boxes, 4), (scores, len(CLASSES)), (rest, extras)):
            if channels:
                flat = maker.ints(1, channels, -1)
                collected.append(maker.add("Reshape", maker.conv(name, 16, channels, kernel=1), flat))
    box = maker.add("Mul", maker.add("Concat", *boxes, axis=2), maker.weight(np.array(8.0, np.float32)))
    parts = [box, maker.add("Sigmoid", maker.add("Concat", *scores, axis=-1))]
    parts += [maker.add("Concat", *rest, axis=2)] if extras else []
    last = maker.add("Concat", *parts, axis=1, output=None if fused_output else "output0")
    if fused_output:
        maker.add("Identity", last, output="output0")
    outputs = [("output0", (1, 4 + len(CLASSES) + extras, anchors_of(size_hw)))]
    if protos:
        maker.silu(maker.conv("images", 3, extras, stride=4))
        maker.add("Identity", maker.nodes[-1].output[0], output="output1")
        outputs.append(("output1", (1, extras, size_hw[0] // 4, size_hw[1] // 4)))
    return maker.finish(*outputs)


def yolox_model(*, opset: int = 11, size_hw: tuple[int, int] = (SIZE, SIZE)) -> bytes:
    """A `yolox` head, objectness and scores after the sigmoid."""
    maker = Maker(size_hw, seed=1)
    rows = 5 + len(CLASSES)
    levels = []
    for name, _ in maker.backbone():
        box = maker.conv(name, 16, 4, kernel=1)
        objectness = maker.add("Sigmoid", maker.conv(name, 16, 1, kernel=1))
        scores = maker.add("Sigmoid", maker.conv(name, 16, len(CLASSES), kernel=1))
        joined = maker.add("Concat", box, objectness, scores, axis=1)
        levels.append(maker.add("Reshape", joined, maker.ints(1, rows, -1)))
    maker.add("Transpose", maker.add("Concat", *levels, axis=2), perm=[0, 2, 1], output="output0")
    return maker.finish(("output0", (1, anchors_of(size_hw), rows)), opset=opset)


def classify_model() -> bytes:
    """A `classify` head."""
    maker = Maker(seed=2)
    name, _ = maker.backbone()[-1]
    flat = maker.add("Flatten", maker.add("GlobalAveragePool", name), axis=1)
    weight = maker.weight(maker.random.standard_normal((16, len(CLASSES))).astype(np.float32))
    bias = maker.weight(np.zeros(len(CLASSES), np.float32))
    maker.add("Softmax", maker.add("Gemm", flat, weight, bias), axis=1, output="output0")
    return maker.finish(("output0", (1, len(CLASSES))))


def matmul_model(*, external: bool = False) -> bytes:
    """A model without convolutions; with `external` its weight claims to lie in another file."""
    maker = Maker(seed=3)
    pooled = maker.add("Flatten", maker.add("GlobalAveragePool", "images"), axis=1)
    weight = maker.weight(maker.random.standard_normal((3, 2)).astype(np.float32))
    if external:
        tensor = maker.weights[-1]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="elsewhere.bin")
    maker.add("MatMul", pooled, weight, output="output0")
    return maker.finish(("output0", (1, 2)))


def dynamic_model() -> bytes:
    """A sound model whose batch is free."""
    import onnx

    model = onnx.load_model_from_string(matmul_model())
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    return model.SerializeToString(deterministic=True)


def card_of(head: Head, *, size_hw: tuple[int, int] = (SIZE, SIZE), **contract: object) -> Card:
    task = Task.CLASSIFY if head is Head.CLASSIFY else Task.DETECT
    return Card("tiny", "1", task, CLASSES, InputContract(size_hw, **contract), OutputContract(head))


def variant_of(
    engine: str,
    files: tuple[str, ...],
    *,
    precision: Precision = Precision.FP32,
    rest: Precision | None = None,
    is_trimmed: bool = False,
    size_hw: tuple[int, int] = (SIZE, SIZE),
) -> Variant:
    return Variant(
        name=f"{engine}-{precision}-tiny",
        engine=engine,
        precision=precision,
        size_hw=size_hw,
        layout=TensorLayout.UINT8_NHWC if is_trimmed else TensorLayout.FLOAT_NCHW,
        form=OutputForm.BEST_CLASS if is_trimmed else OutputForm.RAW,
        files=files,
        rest=rest or precision,
    )


def noise(size_hw: tuple[int, int] = (SIZE, SIZE), seed: int = 0) -> np.ndarray:
    """(1, H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (1, *size_hw, 3), dtype=np.uint8)


def as_float(pixels: np.ndarray, card: Card) -> np.ndarray:
    """What the float form is fed for these RGB pixels, by the words of `InputContract`."""
    contract = card.input
    ordered = pixels[..., ::-1] if contract.colour == "bgr" else pixels
    scaled = (ordered.astype(np.float64) * contract.scale - contract.mean) / contract.std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2).astype(np.float32))
