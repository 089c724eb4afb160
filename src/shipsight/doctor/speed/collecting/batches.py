# SPDX-License-Identifier: Apache-2.0
"""A variant's graph rewritten for several images, in OpenVINO: only its speed is of interest here. Private to the room.

Variants take one image (`docs/decisions/0011-variants-take-one-image.md`); what a batch would gain is measured all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.speed.case import SpeedCase
from shipsight.engines._openvino_import import import_openvino
from shipsight.errors import UnsupportedError
from shipsight.model import Precision

__all__ = ["open_batch", "read_model"]

_HINTS = {Precision.FP32: "f32", Precision.FP16: "f16", Precision.BF16: "bf16"}


def read_model(case: SpeedCase) -> Any:  # noqa: ANN401 - openvino has no types
    """Returns the variant's graph as OpenVINO reads it, from IR or ONNX.

    Raises:
        UnsupportedError: it cannot.
    """
    openvino = import_openvino()
    files = case.bundle.variant_files(case.variant.name)
    names = case.variant.files
    # The graph keeps reading the weights: they must be its own.
    weights = (openvino.Tensor(np.frombuffer(files[names[1]], np.uint8).copy()),) if names[0].endswith(".xml") else ()
    try:
        return openvino.Core().read_model(files[names[0]], *weights)
    except RuntimeError as error:
        raise UnsupportedError("OpenVINO cannot read this graph", where=case.variant.name) from error


def open_batch(case: SpeedCase, count: int) -> Callable[[NDArray[Any]], object] | None:
    """Compiles the variant for several images; returns what runs it, None where the graph does not allow that.

    Args:
        case: what is examined.
        count: images a run, 1 and more.
    """
    openvino = import_openvino()
    graph = read_model(case)
    try:
        if count > 1:
            _set_batch(openvino, graph, count)
    except RuntimeError:
        return None  # shapes that do not go together: the graph holds its batch elsewhere
    if any(port.get_partial_shape().is_dynamic or port.shape[0] != count for port in graph.outputs):
        return None
    variant = case.variant
    hint = _HINTS[variant.rest if variant.precision is Precision.INT8 else variant.precision]
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    if case.threads is not None:
        config["INFERENCE_NUM_THREADS"] = case.threads
    request = openvino.Core().compile_model(graph, "CPU", config).create_infer_request()

    def run(tensor: NDArray[Any]) -> object:
        return request.infer({0: tensor}, share_inputs=True, share_outputs=True)

    return run


def _set_batch(openvino: Any, graph: Any, count: int) -> None:  # noqa: ANN401 - no types
    """Writes the batch into the input and into the constants that hold shapes."""
    parameter = graph.get_parameters()[0]
    parameter.set_partial_shape(openvino.PartialShape([count, *list(graph.input(0).shape)[1:]]))
    for node in graph.get_ops():
        if node.get_type_name() not in ("Reshape", "Broadcast"):
            continue
        shape = node.input_value(1).get_node()
        if shape.get_type_name() != "Constant":
            continue
        values = np.asarray(shape.data).copy()
        if values.size and values[0] == 1:
            values[0] = count
            node.input(1).replace_source_output(openvino.opset13.constant(values).output(0))
    graph.validate_nodes_and_infer_types()
