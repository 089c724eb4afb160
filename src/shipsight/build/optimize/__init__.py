# SPDX-License-Identifier: Apache-2.0
"""INT8: layers in groups, their sensitivity, quantization for each engine, and the guard that decides how far to go.

Leaves to others: measuring accuracy and speed (`build.measure`), the order of work (`build.pipeline`). Importing this
loads no runtime and no optional package. Stable.
"""

from shipsight.build.optimize.attempts import onnxruntime_attempts, openvino_attempts
from shipsight.build.optimize.cpu_target import Int8Target, detect_target, target_from_flags
from shipsight.build.optimize.guard import (
    Attempt,
    GuardEnd,
    GuardMeasurement,
    GuardResult,
    GuardSettings,
    GuardStep,
    run_guard,
)
from shipsight.build.optimize.int8_onnx import OnnxRanges, OnnxRecipe, measure_onnx_ranges, quantize_onnx
from shipsight.build.optimize.int8_openvino import quantize_openvino
from shipsight.build.optimize.layers import FloatLayers, LayerGroup, LayerMap, LayerRole, map_layers
from shipsight.build.optimize.sensitivity import Sensitivity, rank_by_sensitivity

__all__ = [
    "Attempt",
    "FloatLayers",
    "GuardEnd",
    "GuardMeasurement",
    "GuardResult",
    "GuardSettings",
    "GuardStep",
    "Int8Target",
    "LayerGroup",
    "LayerMap",
    "LayerRole",
    "OnnxRanges",
    "OnnxRecipe",
    "Sensitivity",
    "detect_target",
    "map_layers",
    "measure_onnx_ranges",
    "onnxruntime_attempts",
    "openvino_attempts",
    "quantize_onnx",
    "quantize_openvino",
    "rank_by_sensitivity",
    "run_guard",
    "target_from_flags",
]
