# SPDX-License-Identifier: Apache-2.0
"""The ways to quantize that are tried for each engine, the preferred first.

    OpenVINO, x86 without VNNI   8-bit weights, then 7-bit weights. Its kernels there seldom clamp, so the finer weights
                                 usually lose less; the guard's measurement on this very processor includes the
                                 clamping, and processors with VNNI do not clamp. 7 bits are the repair.
    OpenVINO, elsewhere          8-bit weights.
    ONNX Runtime                 `fused`, then `weighted`, both with the head's last layers in float from the start;
                                 7-bit weights without VNNI always: its kernels there clamp often (measured:
                                 mAP50-95 0.455 with 8 bits, 0.586 with 7).

Leaves to others: measuring and choosing (`guard`). Invariant: activation ranges for ONNX Runtime are measured once, when
they are first needed. Stable.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from shipsight.build.optimize.cpu_target import Int8Target, detect_target
from shipsight.build.optimize.guard import Attempt
from shipsight.build.optimize.int8_onnx import OnnxRanges, OnnxRecipe, measure_onnx_ranges, quantize_onnx
from shipsight.build.optimize.int8_openvino import quantize_openvino
from shipsight.build.optimize.layers import FloatLayers, LayerRole
from shipsight.model import Card

__all__ = ["onnxruntime_attempts", "openvino_attempts"]


def openvino_attempts(
    model_onnx: bytes,
    calibration: Sequence[NDArray[np.uint8]],
    *,
    card: Card,
    target: Int8Target | None = None,
    seed: int = 0,
) -> tuple[Attempt[dict[str, bytes]], ...]:
    """Returns what is tried for OpenVINO; an attempt makes `model.xml` and `model.bin`.

    Args:
        model_onnx: the float model, raw or trimmed.
        calibration: images brought to the input size, (h, w, 3) uint8 RGB.
        card: says how a float input is normalised.
        target: kind of processor; None (default) for this machine's.
        seed: of NNCF's random choices.
    """
    target = detect_target() if target is None else target
    order = (Int8Target.X86_VNNI, Int8Target.X86) if target is Int8Target.X86 else (target,)

    def attempt(one: Int8Target) -> Attempt[dict[str, bytes]]:
        def quantize(floating: FloatLayers) -> dict[str, bytes]:
            return quantize_openvino(model_onnx, calibration, card=card, float_layers=floating, target=one, seed=seed)

        return Attempt(name=_bits(one), quantize=quantize)

    return tuple(attempt(one) for one in order)


def onnxruntime_attempts(
    model_onnx: bytes,
    calibration: Sequence[NDArray[np.uint8]],
    *,
    card: Card,
    target: Int8Target | None = None,
) -> tuple[Attempt[bytes], ...]:
    """Returns what is tried for ONNX Runtime; an attempt makes an ONNX model. Arguments as `openvino_attempts`."""
    chosen = detect_target() if target is None else target

    @cache
    def ranges() -> OnnxRanges:
        return measure_onnx_ranges(model_onnx, calibration, card=card)

    def attempt(recipe: OnnxRecipe) -> Attempt[bytes]:
        def quantize(floating: FloatLayers) -> bytes:
            return quantize_onnx(
                model_onnx,
                calibration,
                card=card,
                float_layers=floating,
                recipe=recipe,
                target=chosen,
                ranges=ranges(),
            )

        # Measured on YOLO11n at 640 px, 128 images: -0.017 mAP50-95 with them in integers, -0.010 without.
        return Attempt(f"{recipe.value}, {_bits(chosen)}", quantize, spared=(LayerRole.HEAD_OUTPUT,))

    return tuple(attempt(recipe) for recipe in (OnnxRecipe.FUSED, OnnxRecipe.WEIGHTED))


def _bits(target: Int8Target) -> str:
    return "7-bit weights" if target.reduces_weight_range else "8-bit weights"
