# SPDX-License-Identifier: Apache-2.0
"""Writes the bundle of schema version 1 that every later release must open: `python tests/compat/make_bundle_v1.py OUT`.

Its content is fixed: a network of one 1 x 1 convolution whose weights are powers of two, so that every processor
computes the same numbers, and a recording that names a fixed processor and runtime.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from shipsight.engines import EngineOptions, get_engine
from shipsight.model import (
    Bundle,
    Card,
    Head,
    InputContract,
    Origin,
    OutputContract,
    OutputForm,
    Precision,
    Task,
    TensorLayout,
    TrainingRecord,
    Variant,
    write_bundle,
)
from shipsight.proof import GoldenInput, GoldenSet, MatchCriteria, Subject, VariantRecording, ask, golden_files, record
from shipsight.proof.recording import Deviation

SIDE = 32
CARD = Card(
    name="tiny",
    version="1",
    task=Task.DETECT,
    class_names=("light", "dark: yes"),
    input=InputContract(size_hw=(SIDE, SIDE), scale=1 / 256),
    output=OutputContract(head=Head.YOLOV8),
    licence="Apache-2.0",
    origin=Origin(kind="onnx", file_name="tiny.onnx", sha256="0" * 64, architecture="one convolution"),
    training=TrainingRecord(framework="none", arguments={"lr0": 0.01, "names": ["a", None, True]}, epoch=3),
)
VARIANT = Variant(
    name="onnxruntime-fp32-32",
    engine="onnxruntime",
    precision=Precision.FP32,
    size_hw=(SIDE, SIDE),
    layout=TensorLayout.FLOAT_NCHW,
    form=OutputForm.RAW,
    files=("model.onnx",),
    rest=Precision.FP32,
    is_reference=True,
)


def make_model() -> bytes:
    """Six channels on an 8 x 8 grid: four of a box, two of scores."""
    kernel = np.array([[8, 4, 0], [0, 8, 4], [8, 8, 8], [4, 4, 16], [0.5, 0.25, 0.25], [0.125, 0.125, 0.125]])
    weight = numpy_helper.from_array(kernel.astype(np.float32).reshape(6, 3, 1, 1), "weight")
    shape = numpy_helper.from_array(np.array([1, 6, 64], dtype=np.int64), "shape")
    nodes = [
        helper.make_node("Conv", ["images", "weight"], ["grid"], strides=[4, 4], kernel_shape=[1, 1]),
        helper.make_node("Reshape", ["grid", "shape"], ["output0"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, 64])
    graph = helper.make_graph(nodes, "tiny", [images], [output], [weight, shape])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def make_inputs() -> tuple[GoldenInput, ...]:
    """Sixteen patterns of whole numbers, of the input's own size, so that nothing is resized."""
    y, x = np.mgrid[:SIDE, :SIDE]
    inputs = []
    for number in range(16):
        planes = [(x * (number + 1) + y * (3 + channel)) * (channel + 5) % 256 for channel in range(3)]
        image = np.stack(planes, axis=-1).astype(np.uint8)
        inputs.append(GoldenInput(f"synthetic-{number:02d}", "synthetic", image, {"subject": number, "setting": 0}))
    return tuple(inputs)


def make(out: Path) -> Bundle:
    """Writes the bundle to `out`."""
    model = make_model()
    golden = GoldenSet(make_inputs(), MatchCriteria())
    with get_engine("onnxruntime").open({"model.onnx": model}, VARIANT, EngineOptions(threads=1)) as session:
        recordings = record(ask(Subject.of(session, VARIANT, CARD), golden))
    tolerance = {"boxes": Deviation(0.05, 1.0, 0.02), "scores": Deviation(0.02, 0.5, 0.02)}
    recorded = VariantRecording(recordings, tolerance, "x86-avx2", "onnxruntime 1.31.1", "f32", False, (1,))
    files: dict[str, bytes | Path] = {
        **golden_files(golden, [CARD.input], source={(SIDE, SIDE): recordings}, variants={VARIANT.name: recorded}),
        f"variants/{VARIANT.name}/model.onnx": model,
        "proof/reference.json": b'{"source": {"map50_95": 0.5}}\n',
        "proof/measurements.json": b"{}\n",
        "proof/training-stats.json": b"{}\n",
        "proof/environment.json": b"{}\n",
        "report.html": b"<!doctype html><title>tiny</title>\n",
        "MODEL_CARD.md": b"# tiny\n",
        "sbom.cdx.json": b"{}\n",
    }
    return write_bundle(
        out, files, card=CARD, variants=(VARIANT,), default_variant=VARIANT.name, golden=golden.info, force=True
    )


if __name__ == "__main__":
    print(make(Path(sys.argv[1])).digest)  # noqa: T201 - a script's answer
