# SPDX-License-Identifier: Apache-2.0
"""Runtimes behind one contract (`engines.contract`): open a variant, infer, say what precision really runs.

Leaves to others: pixels and predictions (`vision`), timing (`build.measure`). Adding an engine is one file and one line
in `ENGINES`; a runtime is imported when it is first asked for. Guide: `docs/engines.md`. Stable.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from types import MappingProxyType

from shipsight.engines.contract import (
    Engine,
    EngineOptions,
    EngineSession,
    LayerTime,
    PrecisionReport,
    TensorSpec,
    VariantFiles,
)
from shipsight.errors import InternalError, UsageError

__all__ = [
    "ENGINES",
    "Engine",
    "EngineOptions",
    "EngineSession",
    "LayerTime",
    "PrecisionReport",
    "TensorSpec",
    "VariantFiles",
    "get_engine",
]

ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "onnxruntime": "shipsight.engines.onnxruntime:OnnxRuntimeEngine",
        "openvino": "shipsight.engines.openvino:OpenVinoEngine",
    }
)
"""Engine name -> `module:Class`. PyTorch, the reference, is opened by `build.sources`: it runs a pickle, in a sandbox."""


def get_engine(name: str) -> Engine:
    """Returns an engine by name.

    Raises:
        UsageError: no engine has that name.
        MissingDependencyError: the engine's runtime is not installed.
    """
    where = ENGINES.get(name)
    if where is None:
        close = difflib.get_close_matches(name, ENGINES, n=1, cutoff=0.5)
        raise UsageError(
            "no such engine",
            where="engine",
            expected=", ".join(ENGINES),
            got=repr(name),
            hint=f"Did you mean {close[0]}?" if close else None,
        )
    module, _, attribute = where.partition(":")
    engine = getattr(importlib.import_module(module), attribute)()
    if not isinstance(engine, Engine):
        raise InternalError("the registry names something that is not an engine", where=where)
    engine.version()
    return engine
