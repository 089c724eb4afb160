# SPDX-License-Identifier: Apache-2.0
"""Parts of a small bundle."""

from __future__ import annotations

from pathlib import Path

from shipsight.model import (
    Bundle,
    Card,
    GoldenInfo,
    Head,
    InputContract,
    OutputContract,
    OutputForm,
    Precision,
    Task,
    TensorLayout,
    TrainingRecord,
    Variant,
    write_bundle,
)

VARIANTS = (
    Variant(
        name="onnxruntime-fp32-32",
        engine="onnxruntime",
        precision=Precision.FP32,
        size_hw=(32, 32),
        layout=TensorLayout.FLOAT_NCHW,
        form=OutputForm.RAW,
        files=("model.onnx",),
        rest=Precision.FP32,
        is_reference=True,
    ),
    Variant(
        name="openvino-int8-32x64",
        engine="openvino",
        precision=Precision.INT8,
        size_hw=(32, 64),
        layout=TensorLayout.UINT8_NHWC,
        form=OutputForm.BEST_CLASS,
        files=("model.xml", "model.bin"),
        rest=Precision.BF16,
    ),
)
CARD = Card(
    name="cells",
    version="1",
    task=Task.DETECT,
    class_names=("red cell", "no", "12", "weiß: ja #1", ""),
    input=InputContract(size_hw=(32, 32)),
    output=OutputContract(head=Head.YOLOV8),
    training=TrainingRecord(arguments={"lr0": 1e-05, "cos_lr": False, "a b": [1, [2.5, None]], "empty": {}}),
)
FILES: dict[str, bytes | Path] = {
    "variants/onnxruntime-fp32-32/model.onnx": b"onnx",
    "variants/openvino-int8-32x64/model.xml": b"<xml/>",
    "variants/openvino-int8-32x64/model.bin": bytes(range(256)) * 5,
    "proof/golden/set.npz": b"",
    "proof/reference.json": b'{"map50_95": 0.5}',
    "report.html": b"<html></html>",
    "MODEL_CARD.md": b"# cells\n",
}


def make_bundle(out: Path, files: dict[str, bytes | Path] | None = None, *, force: bool = False) -> Bundle:
    return write_bundle(
        out,
        dict(FILES) if files is None else files,
        card=CARD,
        variants=VARIANTS,
        default_variant="openvino-int8-32x64",
        golden=GoldenInfo(kind="both", images=2, synthetic=3),
        force=force,
    )
