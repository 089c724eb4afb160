# SPDX-License-Identifier: Apache-2.0
"""How far each stage of a pipeline is from what was recorded. Pure. Stable."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ORDER", "Stage", "StagesEvidence"]

ORDER = ("decode", "prepare", "engine", "postprocess")
"""Stages as an image passes them."""


@dataclass(frozen=True)
class Stage:
    """One stage, fed what was recorded before it, beside what was recorded behind it.

    Attributes:
        name: of `ORDER`.
        images: that were compared.
        differ: those beyond what is allowed.
        far: the most by which one is off.
        allowed: the most that is allowed.
        unit: of both: `levels`, `times the tolerance`, `share of predictions`, `px`.
        first: number of the first image that differs, -1 for none.
    """

    name: str
    images: int
    differ: int
    far: float
    allowed: float
    unit: str
    first: int = -1


@dataclass(frozen=True)
class StagesEvidence:
    """What the rules look at.

    Attributes:
        stages: that were compared, in order.
        is_foreign: whether another pipeline's record was compared, else this machine with the bundle's own.
        repeated: images that were run twice.
        unsteady: those whose outputs differed by more than the tolerance.
        unsteady_far: the most, in times the tolerance.
        share_lost: of the confident predictions recorded, that are not found at the end.
        uncompared: what of the predictions is not compared at the last stage: sentences.
    """

    stages: tuple[Stage, ...]
    is_foreign: bool = False
    repeated: int = 0
    unsteady: int = 0
    unsteady_far: float = 0.0
    share_lost: float = 0.0
    uncompared: tuple[str, ...] = ()

    def first(self) -> Stage | None:
        """Returns the first stage that differs."""
        return next((one for one in self.stages if one.differ), None)
