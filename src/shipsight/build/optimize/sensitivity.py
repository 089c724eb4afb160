# SPDX-License-Identifier: Apache-2.0
"""How much each group of layers disturbs the head when it alone computes in 8 bits.

The measure: quantize one group, leave the rest in float, and compare what the last layers with weights give (before
boxes are decoded, where pixels and scores are not yet mixed) with the float model on a few images. It is the noise's
share of the signal, averaged over those layers; 20 dB less noise is one percent. A cheap stand-in for measuring
accuracy once a group: seconds instead of minutes.

Leaves to others: deciding (`guard`). Invariants: nothing is measured that the float model was not fed alike; groups
without weights to quantize are ranked last. Stable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.optimize._calibration import check_calibration, feed
from shipsight.build.optimize._graph import import_onnx
from shipsight.build.optimize._ranges import measure_ranges
from shipsight.build.optimize.int8_onnx import OnnxRanges, insert_pairs, prepare_onnx
from shipsight.build.optimize.layers import LayerGroup, LayerMap, LayerRole
from shipsight.engines._onnxruntime_import import import_onnxruntime
from shipsight.errors import UsageError
from shipsight.model import Card

__all__ = ["Sensitivity", "rank_by_sensitivity"]


@dataclass(frozen=True)
class Sensitivity:
    """What one group in 8 bits does to the head.

    Attributes:
        group: which.
        noise: energy of the difference over energy of the signal at the head outputs, 0 and more.
    """

    group: LayerGroup
    noise: float

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise ratio in decibels; infinite where there is no noise."""
        return math.inf if self.noise == 0 else -10 * math.log10(self.noise)


def rank_by_sensitivity(
    model_onnx: bytes,
    images: Sequence[NDArray[np.uint8]],
    *,
    card: Card,
    layers: LayerMap,
    groups: Sequence[LayerGroup] | None = None,
) -> tuple[Sensitivity, ...]:
    """Ranks groups of layers, the most disturbing first.

    Args:
        model_onnx: the float model that `layers` was made of.
        images: a few (4 to 16) calibration images, (h, w, 3) uint8 RGB of the input size.
        card: says how a float input is normalised.
        layers: of the model.
        groups: those to rank; None (default) for all that are not always float.

    Raises:
        UsageError: there is no image.
        MissingDependencyError, CorruptError, UnsupportedError, TensorError: as `quantize_onnx`.
    """
    if not images:
        raise UsageError("sensitivity needs images", where="images", got=0)
    proto = prepare_onnx(model_onnx)
    check_calibration(proto, images)
    ranges = OnnxRanges(ranges=measure_ranges(proto, images, card=card))
    watched = _head_tensors(proto, layers)
    batches = [feed(image, proto, card) for image in images]
    reference = _run(proto, watched, batches)
    asked = groups if groups is not None else [group for group in layers.groups if group.role is not LayerRole.DECODE]
    found = []
    for group in asked:
        quantized = insert_pairs(proto, ranges, only=frozenset(group.nodes))
        found.append(Sensitivity(group=group, noise=_noise(reference, _run(quantized, watched, batches))))
    # A stable sort: groups of equal noise keep the order of the graph.
    return tuple(sorted(found, key=lambda one: -one.noise))


def _head_tensors(proto: Any, layers: LayerMap) -> tuple[str, ...]:  # noqa: ANN401 - onnx.ModelProto is untyped
    last = {node for group in layers.of_role(LayerRole.HEAD_OUTPUT) for node in group.nodes}
    return tuple(node.output[0] for node in proto.graph.node if node.name in last)


def _run(
    proto: Any,  # noqa: ANN401 - onnx.ModelProto is untyped
    watched: Sequence[str],
    batches: Sequence[NDArray[Any]],
) -> list[list[NDArray[Any]]]:
    """Runs a model with all Q/DQ pairs computed in float (no kernel's clamping), and returns the watched tensors."""
    onnx, onnxruntime = import_onnx(), import_onnxruntime()
    copied = type(proto)()
    copied.CopyFrom(proto)
    del copied.graph.output[:]
    copied.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in watched)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(copied.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [session.run(list(watched), {name: batch}) for batch in batches]


def _noise(reference: list[list[NDArray[Any]]], got: list[list[NDArray[Any]]]) -> float:
    shares = []
    for position in range(len(reference[0])):
        signal = sum(float(np.square(values[position], dtype=np.float64).sum()) for values in reference)
        difference = sum(
            float(np.square(a[position] - b[position], dtype=np.float64).sum())
            for a, b in zip(reference, got, strict=True)
        )
        shares.append(difference / signal if signal else float(difference > 0))
    return float(np.mean(shares))
