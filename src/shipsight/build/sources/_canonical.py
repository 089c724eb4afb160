# SPDX-License-Identifier: Apache-2.0
"""One way to write an ONNX file: the same model gives the same bytes.

Leaves to others: what the model is. Invariants: metadata sorted by key, no documentation strings, no producer version,
value infos sorted, IR version at most 10, deterministic serialisation. Private.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["MAX_IR_VERSION", "canonical_onnx"]

MAX_IR_VERSION = 10


def canonical_onnx(model: Any, *, metadata: Mapping[str, str]) -> bytes:  # noqa: ANN401 - onnx.ModelProto
    """Writes a model.

    Args:
        model: an `onnx.ModelProto`; changed in place.
        metadata: what its metadata properties shall be.
    """
    del model.metadata_props[:]
    for key in sorted(metadata):
        model.metadata_props.add(key=key, value=metadata[key])
    model.doc_string = ""
    model.producer_name = "shipsight"
    model.producer_version = ""
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    graph = model.graph
    graph.doc_string = ""
    graph.name = "model"
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    infos = sorted(graph.value_info, key=lambda info: str(info.name))
    del graph.value_info[:]
    graph.value_info.extend(infos)
    return bytes(model.SerializeToString(deterministic=True))
