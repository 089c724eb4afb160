# SPDX-License-Identifier: Apache-2.0
"""What the stages of a build are expected to cost, for the estimate of the time left: arithmetic, no I/O.

The unit is one float inference at 640 x 640 pixels. Counts of inferences follow from the options and the data; what a stage
does besides is a constant in the same unit, measured on YOLO11n on two cores. Private to `build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["OPENING_COST", "Schedule", "Stage"]

Size = tuple[int, int]
_UNIT_PIXELS = 640 * 640
OPENING_COST = 80.0
"""Of opening the source and reading the data set, which come before the rest can be planned."""


class Stage(StrEnum):
    """A stage of a build; most come once a size, engine or variant."""

    OPEN = "open"
    EXPORT = "export"
    FORM = "form"
    FLOAT = "float"
    INT8 = "int8"
    SOURCE = "source"
    ACCURACY = "accuracy"
    SPEED = "speed"
    GOLDEN = "golden"
    RECORD = "record"
    STATISTICS = "statistics"
    WRITE = "write"


@dataclass(frozen=True)
class Schedule:
    """Expected costs.

    Attributes:
        sizes_hw: input sizes of the build.
        engines: number of engines.
        floats: number of float variants of a size, the reference included.
        quantized: number of int8 variants of a size.
        calibration, guard, report, training: numbers of images in these sets.
    """

    sizes_hw: Sequence[Size]
    engines: int
    floats: int
    quantized: int
    calibration: int
    guard: int
    report: int
    training: int

    def cost(self, stage: Stage, size_hw: Size | None = None) -> float:
        """Returns the cost of one step of a stage at a size, None for the first."""
        height, width = self.sizes_hw[0] if size_hw is None else size_hw
        share = height * width / _UNIT_PIXELS
        fixed, inferences = {
            Stage.OPEN: (OPENING_COST, 0.0),
            Stage.EXPORT: (40.0, 0.0),
            Stage.FORM: (30.0, 70.0),
            Stage.FLOAT: (4.0, 0.0),
            Stage.INT8: (80.0, 4.0 * self.calibration + 3.0 * (self.guard + 60)),
            Stage.SOURCE: (20.0, 1.5 * self.report),
            Stage.ACCURACY: (10.0, 1.2 * self.report),
            Stage.SPEED: (100.0 * self.variants, 100.0 * self.variants),
            Stage.GOLDEN: (80.0, 100.0),
            Stage.RECORD: (15.0, 70.0),
            Stage.STATISTICS: (40.0, 1.5 * self.training),
            Stage.WRITE: (10.0, 0.0),
        }[stage]
        return fixed + inferences * share

    @property
    def variants(self) -> int:
        """Variants of a size."""
        return self.floats + self.quantized

    @property
    def total(self) -> float:
        """Returns the cost of the whole build."""
        once = [Stage.OPEN, Stage.GOLDEN, Stage.STATISTICS, Stage.WRITE, *([Stage.SOURCE] if self.report else [])]
        total = sum(self.cost(stage) for stage in once) + self.variants * self.cost(Stage.RECORD)
        for size_hw in self.sizes_hw:
            counts = {
                Stage.EXPORT: 1,
                Stage.FORM: self.engines,
                Stage.FLOAT: self.floats,
                Stage.INT8: self.engines if self.quantized else 0,
                Stage.ACCURACY: self.variants if self.report else 0,
                Stage.SPEED: 1,
            }
            total += sum(count * self.cost(stage, size_hw) for stage, count in counts.items())
        return total
