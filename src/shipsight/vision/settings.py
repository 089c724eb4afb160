# SPDX-License-Identifier: Apache-2.0
"""What a caller may choose about predictions. Stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real

from shipsight.errors import UsageError

__all__ = ["PredictSettings"]

_KINDS: Mapping[str, type] = {"conf": Real, "iou": Real, "max_det": Integral, "classes": Integral}


@dataclass(frozen=True)
class PredictSettings:
    """Thresholds and filters, with the meaning and the defaults that Ultralytics' users know.

    Attributes:
        conf: least score, 0 to 1 (default 0.25).
        iou: overlap above which the lower-scored of two boxes is suppressed, 0 to 1 (default 0.7).
        max_det: most predictions an image, 1 to 30000 (default 300).
        classes: class ids to keep, None (default) for all.
        agnostic_nms: whether boxes of different classes suppress each other (default no).
        multi_label: whether one anchor may give several classes: for measuring accuracy only, needs raw outputs.
    """

    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    classes: tuple[int, ...] | None = None
    agnostic_nms: bool = False
    multi_label: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.classes, tuple | None):
            raise UsageError("another type", where="classes", expected="class ids", got=repr(self.classes)[:40])
        # Servers hand on what clients wrote in JSON, where anything may stand for a number.
        for name, kind in _KINDS.items():
            given = getattr(self, name)
            for value in (given or ()) if name == "classes" else (given,):
                if isinstance(value, bool) or not isinstance(value, kind):
                    words = "a number" if kind is Real else "a whole number"
                    raise UsageError("another type", where=name, expected=words, got=repr(value)[:40])
        if not isinstance(self.agnostic_nms, bool):
            raise UsageError("another type", where="agnostic_nms", expected="true or false", got=self.agnostic_nms)
        for name, value in (("conf", self.conf), ("iou", self.iou)):
            if not 0.0 <= value <= 1.0:
                raise UsageError(f"{name} out of range", where=name, expected="0 to 1", got=value)
        if not 1 <= self.max_det <= 30000:
            raise UsageError("max_det out of range", where="max_det", expected="1 to 30000", got=self.max_det)
