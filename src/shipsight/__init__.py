# SPDX-License-Identifier: Apache-2.0
"""shipsight takes a trained vision model to production and proves on the way that it still works.

`build` makes a bundle with its proof, `load` opens one and predicts, `Client` asks a server. Importing this package imports
no engine and changes nothing global. Stable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shipsight.build import BuildOptions, BuildResult, build
    from shipsight.client import AsyncClient, Client
    from shipsight.model import ImagePredictions, Predictions
    from shipsight.predictor import Predictor, load

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "BuildOptions",
    "BuildResult",
    "Client",
    "ImagePredictions",
    "Predictions",
    "Predictor",
    "__version__",
    "build",
    "load",
]

_HOMES = {
    "AsyncClient": "shipsight.client",
    "Client": "shipsight.client",
    "BuildOptions": "shipsight.build",
    "BuildResult": "shipsight.build",
    "build": "shipsight.build",
    "ImagePredictions": "shipsight.model",
    "Predictions": "shipsight.model",
    "Predictor": "shipsight.predictor",
    "load": "shipsight.predictor",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the room exports
    if name not in _HOMES:
        raise AttributeError(f"module 'shipsight' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
