# SPDX-License-Identifier: Apache-2.0
"""What the examinations do not compare of the predictions of a task: said, so that silence is not taken for health. Pure. Private."""

from __future__ import annotations

from shipsight.model import Task

__all__ = ["uncompared"]

_UNCOMPARED = {
    Task.SEGMENT: "Masks are not compared, only the boxes, classes and scores of their objects",
    Task.POSE: "Keypoints are not compared, only the boxes, classes and scores of their objects",
}
_HULLS = "Rotated boxes are compared by the upright boxes around them: an angle that is wrong may not be seen"


def uncompared(task: Task, *, by_hulls: bool = False) -> tuple[str, ...]:
    """Returns what is left out where predictions are compared by class, score and box: sentences, none where nothing is.

    Args:
        task: of the model.
        by_hulls: whether rotated boxes are compared by the upright ones around them.
    """
    if task is Task.OBB:
        return (f"{_HULLS}.",) if by_hulls else ()
    return (f"{_UNCOMPARED[task]}.",) if task in _UNCOMPARED else ()
