# SPDX-License-Identifier: Apache-2.0
"""The one door to OpenCV: loaded on first use, silenced.

Leaves to others: what is done with it. Invariant: importing `shipsight.vision` loads no OpenCV. OpenCV's own messages
are switched off because every failure leaves here as a named error. Private.
"""

from __future__ import annotations

import functools
from types import ModuleType

from shipsight.errors import MissingDependencyError

__all__ = ["import_cv2"]


@functools.cache
def import_cv2() -> ModuleType:
    """Returns the module `cv2`, its logging switched off.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "OpenCV is not installed", where="cv2", got=error, hint="Run: pip install opencv-python-headless"
        ) from error
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    module: ModuleType = cv2
    return module
