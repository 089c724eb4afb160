# SPDX-License-Identifier: Apache-2.0
"""The one place where openvino is imported, so that its telemetry is off before its Python tools load.

openvino and nncf report through the package `openvino_telemetry`, and both run on without it: an entry of None in
`sys.modules` makes Python say that it is not installed. A copy that somebody loaded before us is made mute.
Private to the package; every room that needs openvino or nncf calls `import_openvino` first.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from shipsight.errors import MissingDependencyError

__all__ = ["import_openvino", "switch_off_telemetry"]

_TELEMETRY = "openvino_telemetry"


def switch_off_telemetry() -> None:
    """Keeps openvino and nncf from reporting home; call before importing nncf."""
    modules: dict[str, Any] = sys.modules
    loaded = modules.setdefault(_TELEMETRY, None)
    if loaded is None:
        return
    for method in ("send_event", "send_error", "send_stack_trace", "start_session", "end_session"):
        setattr(loaded.Telemetry, method, _say_nothing)


def _say_nothing(*_args: object, **_named: object) -> None:
    """Stands in for the methods of `openvino_telemetry.Telemetry` that send."""


def import_openvino() -> Any:  # noqa: ANN401 - a module without types
    """Returns the module `openvino`, its telemetry switched off.

    Raises:
        MissingDependencyError: it is not installed.
    """
    switch_off_telemetry()
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise MissingDependencyError(
            "OpenVINO is not installed", where="openvino", got=error, hint="Install it with: pip install openvino"
        ) from error
