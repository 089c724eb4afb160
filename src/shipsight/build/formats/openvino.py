# SPDX-License-Identifier: Apache-2.0
"""OpenVINO IR as a format: `model.xml` and `model.bin`, made from ONNX in memory.

Leaves to others: precision at run time (`engines.openvino`), INT8 (`build.optimize`). Invariants: the same ONNX bytes
give the same files; nothing of the machine, the time or a path is in them. Source: OpenVINO IR documentation. Stable.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from shipsight.build.formats.contract import Format, FormatOptions
from shipsight.engines._openvino_import import import_openvino
from shipsight.errors import CorruptError

__all__ = ["OpenVinoFormat", "onnx_to_openvino", "write_ir"]


class OpenVinoFormat(Format):
    """IR version 11."""

    name: ClassVar[str] = "openvino"
    engines: ClassVar[tuple[str, ...]] = ("openvino",)

    def make(self, model: bytes, options: FormatOptions) -> dict[str, bytes]:
        """Returns `model.xml` and `model.bin`; see `Format.make`."""
        return onnx_to_openvino(model, compress_to_fp16=options.half_weights)


def onnx_to_openvino(model: bytes, *, compress_to_fp16: bool = False) -> dict[str, bytes]:
    """Turns an ONNX file into IR.

    Args:
        model: the ONNX file.
        compress_to_fp16: whether weights are stored in 16 bits; they compute in what the engine is asked for.

    Returns:
        `model.xml` and `model.bin`.

    Raises:
        CorruptError: OpenVINO cannot read the bytes as ONNX.
        MissingDependencyError: OpenVINO is not installed.
    """
    core = import_openvino().Core()
    try:
        graph = core.read_model(model)
    except RuntimeError as error:
        raise CorruptError("OpenVINO cannot read this ONNX file", got=str(error).strip().splitlines()[-1]) from error
    return write_ir(graph, compress_to_fp16=compress_to_fp16)


def write_ir(graph: Any, *, compress_to_fp16: bool = False) -> dict[str, bytes]:  # noqa: ANN401 - openvino.Model
    """Writes an `openvino.Model` as IR, the same bytes for the same graph.

    Args:
        graph: the model, as `Core.read_model` gives it of an ONNX file, or `nncf.quantize`. It is not changed. One read
            from an IR with 8-bit weights would lose them: they are folded to floats.
        compress_to_fp16: whether weights are stored in 16 bits.

    Returns:
        `model.xml` and `model.bin`.
    """
    openvino = import_openvino()
    copy = graph.clone()
    passes = importlib.import_module("openvino.passes")
    manager = passes.Manager()
    manager.register_pass(passes.ConstantFolding())
    manager.run_passes(copy)
    _rename(copy)
    with tempfile.TemporaryDirectory(prefix="shipsight-ir-") as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(copy, path, compress_to_fp16=compress_to_fp16)
        return {"model.xml": path.read_bytes(), "model.bin": path.with_suffix(".bin").read_bytes()}


def _rename(graph: Any) -> None:  # noqa: ANN401 - openvino.Model
    """Numbers nodes that OpenVINO named itself (`Type_123`, counted over the process) by their place in the graph.

    A folded constant keeps the name of what it was folded from, so that any type may stand in it.
    """
    graph.set_friendly_name("model")
    for position, node in enumerate(graph.get_ordered_ops()):
        kind, _, number = node.get_friendly_name().rpartition("_")
        is_folded = node.get_type_name() == "Constant" and kind.isalpha()
        if number.isdecimal() and (is_folded or kind == node.get_type_name()):
            node.set_friendly_name(f"{kind}_{position}")
