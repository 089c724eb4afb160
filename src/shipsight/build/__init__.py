# SPDX-License-Identifier: Apache-2.0
"""From a trained model to a proven bundle: export, quantize, measure, choose, prove, write.

The package is callable: `shipsight.build("best.pt", ...)` is `shipsight.build.build("best.pt", ...)`, since the room and
the verb share the name that users know. Leaves to others: running models (`engines`), pixels (`vision`), printing
(`cli`). Stable: what `__all__` names.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

from shipsight.build.options import BuildOptions, Constraints, GoldenKind, Objective
from shipsight.build.progress import Progress, Silent
from shipsight.build.result import BuildResult, VariantResult

__all__ = [
    "BuildOptions",
    "BuildResult",
    "Constraints",
    "GoldenKind",
    "Objective",
    "Progress",
    "Silent",
    "VariantResult",
    "build",
]


def build(
    model: str | Path,
    *,
    out: str | Path | None = None,
    options: BuildOptions = BuildOptions(),
    progress: Progress | None = None,
) -> BuildResult:
    """Builds a bundle from a trained model.

    Args:
        model: an Ultralytics checkpoint or an ONNX file.
        out: folder to write; None for the model's name with `.bundle` in the current folder.
        options: what to build and how to choose.
        progress: told what is going on; None for nobody.

    Returns:
        What was measured and chosen. Requirements that nothing meets stand in `unmet`; the bundle is written all the
        same.

    Raises:
        UsageError: an option does not fit, or the bundle exists and is not to be replaced.
        ArtefactError: the source is damaged, not handled or not to be trusted.
        DatasetError: the data set cannot be read as described.
        EnvironmentLackError: a package, or a way to isolate the source, is missing.
        ParityError: the float variants differ from the source by more than their gate.
    """
    from shipsight.build.pipeline import run_build

    return run_build(
        Path(model), out=None if out is None else Path(out), options=options, progress=progress or Silent()
    )


class _CallableRoom(ModuleType):
    def __call__(
        self,
        model: str | Path,
        *,
        out: str | Path | None = None,
        options: BuildOptions = BuildOptions(),
        progress: Progress | None = None,
    ) -> BuildResult:
        return build(model, out=out, options=options, progress=progress)


sys.modules[__name__].__class__ = _CallableRoom
