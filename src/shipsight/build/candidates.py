# SPDX-License-Identifier: Apache-2.0
"""Which variants a build tries, what they are called, and how the float ones are made.

Names: engine, precision and size; `-u8` for ONNX Runtime's float variant with uint8 input (the bare name belongs to
the reference); `-raw` for the others where the untrimmed graph measured faster; `-bf16` for an int8 variant whose other
layers run in bf16. INT8 files are made by `build.quantizing`. Private to `build`.
"""

from __future__ import annotations

from collections.abc import Mapping

from shipsight.build.formats import onnx_to_fp16, onnx_to_openvino, trim_onnx
from shipsight.build.options import ENGINE_PRECISIONS, BuildOptions
from shipsight.model import Card, Head, OutputForm, Precision, TensorLayout, Variant, format_size

__all__ = ["float_files", "float_variants", "int8_variants", "reference_variant", "runs_bf16"]

_TRIMMED_HEADS = (Head.YOLOV8, Head.YOLOX)


def runs_bf16() -> bool:
    """Tells whether this CPU computes in bf16 (OpenVINO's own answer)."""
    import openvino

    capabilities: list[str] = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "BF16" in capabilities


def reference_variant(size_hw: tuple[int, int]) -> Variant:
    """Returns the float ONNX with float input and full raw output."""
    return Variant(
        name=f"onnxruntime-fp32-{format_size(size_hw)}",
        engine="onnxruntime",
        precision=Precision.FP32,
        size_hw=size_hw,
        layout=TensorLayout.FLOAT_NCHW,
        form=OutputForm.RAW,
        files=("model.onnx",),
        rest=Precision.FP32,
        is_reference=True,
    )


def float_variants(
    engine: str, card: Card, options: BuildOptions, *, has_bf16: bool, is_trimmed: bool
) -> list[Variant]:
    """Returns the float variants of an engine at the card's size, the reference apart."""
    wanted = [
        precision
        for precision in ENGINE_PRECISIONS[engine]
        if precision in options.precisions
        and precision is not Precision.INT8
        and (precision is not Precision.BF16 or has_bf16)
    ]
    made = [_variant(engine, precision, precision, card, is_trimmed=is_trimmed) for precision in wanted]
    # Untrimmed, ONNX Runtime's fp32 would be the reference again.
    return [one for one in made if is_trimmed or (one.engine, one.precision) != ("onnxruntime", Precision.FP32)]


def int8_variants(engine: str, card: Card, *, has_bf16: bool, is_trimmed: bool) -> list[Variant]:
    """Returns the int8 variants of an engine: one for each type that the other layers can run in."""
    rests = [Precision.FP32] + ([Precision.BF16] if engine == "openvino" and has_bf16 else [])
    return [_variant(engine, Precision.INT8, rest, card, is_trimmed=is_trimmed) for rest in rests]


def _variant(engine: str, precision: Precision, rest: Precision, card: Card, *, is_trimmed: bool) -> Variant:
    suffix = "" if is_trimmed else "-raw"
    if is_trimmed and (engine, precision) == ("onnxruntime", Precision.FP32):
        suffix = "-u8"
    if precision is Precision.INT8 and rest is Precision.BF16:
        suffix += "-bf16"
    trims_head = is_trimmed and card.output.head in _TRIMMED_HEADS
    return Variant(
        name=f"{engine}-{precision.value}-{format_size(card.input.size_hw)}{suffix}",
        engine=engine,
        precision=precision,
        size_hw=card.input.size_hw,
        layout=TensorLayout.UINT8_NHWC if is_trimmed else TensorLayout.FLOAT_NCHW,
        form=OutputForm.BEST_CLASS if trims_head else OutputForm.RAW,
        files=("model.onnx",) if engine == "onnxruntime" else ("model.xml", "model.bin"),
        rest=rest,
    )


def float_files(variant: Variant, reference_onnx: bytes, card: Card) -> Mapping[str, bytes]:
    """Makes the files of a float variant from the reference.

    Raises:
        UnsupportedError: the graph cannot be brought to the variant's form or precision.
    """
    graph = reference_onnx
    if variant.layout is TensorLayout.UINT8_NHWC:
        graph = trim_onnx(reference_onnx, card)
    if variant.engine == "openvino":
        return onnx_to_openvino(graph)
    return {"model.onnx": onnx_to_fp16(graph) if variant.precision is Precision.FP16 else graph}
