# SPDX-License-Identifier: Apache-2.0
"""ONNX as a format: one file, weights inside, in 32 or 16 bits.

Leaves to others: the uint8 form (`trim_onnx`), INT8 (`build.optimize`). Invariants: the same graph gives the same
bytes. Stable.
"""

from __future__ import annotations

from typing import ClassVar

from shipsight.build.formats._half import onnx_to_fp16
from shipsight.build.formats._onnx_model import OnnxEditor
from shipsight.build.formats.contract import Format, FormatOptions

__all__ = ["OnnxFormat"]


class OnnxFormat(Format):
    """One `model.onnx`."""

    name: ClassVar[str] = "onnx"
    engines: ClassVar[tuple[str, ...]] = ("onnxruntime", "openvino")

    def make(self, model: bytes, options: FormatOptions) -> dict[str, bytes]:
        """Returns `model.onnx`; see `Format.make`."""
        return {"model.onnx": onnx_to_fp16(model) if options.half_weights else OnnxEditor(model).dump()}
