# SPDX-License-Identifier: Apache-2.0
"""Where trained models come from: Ultralytics checkpoints and ONNX files, opened in a process that can only compute.

Leaves to others: formats beyond the canonical ONNX (`build.formats`). Stable: the names in `__all__`.
"""

from shipsight.build.sources._process import child_environment, error_from_dict
from shipsight.build.sources.contract import Source
from shipsight.build.sources.opening import open_source
from shipsight.build.sources.sandbox import Limits, Sandbox

__all__ = ["Limits", "Sandbox", "Source", "child_environment", "error_from_dict", "open_source"]
