# SPDX-License-Identifier: Apache-2.0
"""The model's own view of an image in one vector: its last backbone feature map, pooled.

The vector is the mean over positions of the last feature map before the first upsampling (before the pooling of a
classifier), projected to 64 dimensions by a fixed matrix of +1 and -1 where it has more.

Leaves to others: what training images look like (`statistics`), comparing (`doctor`, `monitor`). Invariant: the vectors of one
bundle are those of its `proof/training-stats.json`, whichever runtime reads the graph, but for rounding. Stable.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.engines._openvino_import import import_openvino
from shipsight.errors import MissingDependencyError
from shipsight.model import Card, OutputForm, TensorLayout, Variant
from shipsight.model.bundle import Bundle
from shipsight.proof.layers import read_tensors
from shipsight.vision import prepare, to_tensor

__all__ = ["Embed", "find_embedding", "is_plain", "open_embedding", "pool"]

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""(H, W, 3) uint8 RGB -> (D,), D at most 64."""
_DIMENSIONS = 64
_UPSAMPLING = frozenset({"Resize", "Upsample"})
_POOLING = frozenset({"GlobalAveragePool", "ReduceMean"})
_STATISTICS = "proof/training-stats.json"


def find_embedding(graph: Any) -> str:  # noqa: ANN401 - an ONNX graph, without types
    """Returns the name of the last backbone feature map of an ONNX graph."""
    convolved = ""
    for node in graph.node:
        if node.op_type in _UPSAMPLING or (node.op_type in _POOLING and convolved):
            return str(node.input[0])
        if node.op_type == "Conv":
            convolved = str(node.output[0])
    return convolved


def pool(feature: NDArray[np.float32]) -> NDArray[np.float64]:
    """Returns the vector (D,), D at most 64, of a feature map (channels, ...)."""
    vector: NDArray[np.float64] = feature.reshape(feature.shape[0], -1).astype(np.float64).mean(axis=1)
    if len(vector) <= _DIMENSIONS:
        return vector
    signs = np.random.RandomState(0).randint(0, 2, size=(_DIMENSIONS, len(vector))) * 2 - 1
    projected: NDArray[np.float64] = signs @ vector / np.sqrt(len(vector))
    return projected


def is_plain(variant: Variant) -> bool:
    """Tells whether a variant's graph takes float pixels and gives raw outputs in ONNX, as the reference does."""
    return (
        variant.engine == "onnxruntime"
        and variant.layout is TensorLayout.FLOAT_NCHW
        and variant.form is OutputForm.RAW
        and any(name.endswith(".onnx") for name in variant.files)
    )


def open_embedding(bundle: Bundle) -> Embed | None:
    """Opens what makes vectors, those of the bundle's training statistics, by one thread.

    Only the part of the reference that leads to the feature map is run: by OpenVINO in f32, or by ONNX Runtime where that is missing.

    Args:
        bundle: opened.

    Returns:
        The function; None where the bundle has no such statistics, or no reference to make vectors with.

    Raises:
        MissingDependencyError: neither OpenVINO nor `onnx` with ONNX Runtime is installed.
        TamperedError: a file is not what the manifest promises.
    """
    told = bundle.read_json(_STATISTICS).get("embedding") if _STATISTICS in bundle.names else None
    reference = next((one for one in bundle.variants if one.is_reference and is_plain(one)), None)
    if told is None or reference is None:
        return None
    files = bundle.variant_files(reference.name)
    run = _open(next(one for name, one in files.items() if name.endswith(".onnx")), str(told["tensor"]))
    card: Card = bundle.card.with_size(reference.size_hw)

    def embed(image_rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
        prepared, _ = prepare(image_rgb, card.input)
        return pool(run(to_tensor(prepared, card.input, TensorLayout.FLOAT_NCHW))[0])

    return embed


def _open(model_onnx: bytes, tensor: str) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    try:
        openvino = import_openvino()
    except MissingDependencyError:
        tensors = read_tensors(model_onnx, [tensor], threads=1, is_cut=True)
        return lambda fed: tensors(fed)[tensor]
    core = openvino.Core()
    whole = core.read_model(io.BytesIO(model_onnx))
    output = next(
        port for operation in whole.get_ordered_ops() for port in operation.outputs() if tensor in port.get_names()
    )
    part = openvino.Model([output], whole.get_parameters())
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = core.compile_model(part, "CPU", options)
    return lambda fed: np.array(compiled([fed])[0], dtype=np.float32)
