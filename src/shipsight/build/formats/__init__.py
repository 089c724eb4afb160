# SPDX-License-Identifier: Apache-2.0
"""File formats behind one contract (`formats.contract`), and the rewriting of ONNX that variants are made with.

Leaves to others: sources of models (`build.sources`), INT8 (`build.optimize`). Adding a format is one file and one line
in `FORMATS`. Stable.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from types import MappingProxyType

from shipsight.build.formats._half import onnx_to_fp16
from shipsight.build.formats._trim import trim_onnx
from shipsight.build.formats.contract import Format, FormatOptions
from shipsight.build.formats.openvino import onnx_to_openvino, write_ir
from shipsight.errors import InternalError, UsageError

__all__ = [
    "FORMATS",
    "Format",
    "FormatOptions",
    "get_format",
    "onnx_to_fp16",
    "onnx_to_openvino",
    "trim_onnx",
    "write_ir",
]

FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "onnx": "shipsight.build.formats.onnx:OnnxFormat",
        "openvino": "shipsight.build.formats.openvino:OpenVinoFormat",
    }
)
"""Format name -> `module:Class`."""


def get_format(name: str) -> Format:
    """Returns a format by name.

    Raises:
        UsageError: no format has that name.
    """
    where = FORMATS.get(name)
    if where is None:
        close = difflib.get_close_matches(name, FORMATS, n=1, cutoff=0.5)
        raise UsageError(
            "no such format",
            where="format",
            expected=", ".join(FORMATS),
            got=repr(name),
            hint=f"Did you mean {close[0]}?" if close else None,
        )
    module, _, attribute = where.partition(":")
    made = getattr(importlib.import_module(module), attribute)()
    if not isinstance(made, Format):
        raise InternalError("the registry names something that is not a format", where=where)
    return made
