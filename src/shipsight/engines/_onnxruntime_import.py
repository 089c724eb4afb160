# SPDX-License-Identifier: Apache-2.0
"""The one place where onnxruntime is imported, so that its telemetry is off before its library loads.

onnxruntime 1.29 and newer report home on Linux unless `ORT_DISABLE_TELEMETRY` is set when the library is loaded.
Private to the package; every room that needs onnxruntime calls `import_onnxruntime`.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from shipsight.errors import MissingDependencyError

__all__ = ["import_onnxruntime"]


def import_onnxruntime() -> Any:  # noqa: ANN401 - a module without types
    """Returns the module `onnxruntime`, its telemetry switched off.

    Raises:
        MissingDependencyError: it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        module = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingDependencyError(
            "ONNX Runtime is not installed",
            where="onnxruntime",
            got=error,
            hint="Install it with: pip install onnxruntime",
        ) from error
    # 3: errors only. Warnings go to stderr of whoever embeds us, and every failure reaches us as an exception anyway.
    module.set_default_logger_severity(3)
    return module
