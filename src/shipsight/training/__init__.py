# SPDX-License-Identifier: Apache-2.0
"""Smaller and faster by training: techniques that change weights, each measured against a control that was trained the same way.

Leaves to others: quantization after training and the bundle (`build`). Torch is imported in child processes alone; this room needs
`shipsight[ultralytics]`. Stable: the names in `__all__`.
"""

from typing import Any

from shipsight.training.options import PruneOptions, TrainOptions
from shipsight.training.pruning import PruneResult, prune

__all__ = ["PruneOptions", "PruneResult", "TrainOptions", "keeping_trainer", "prune"]


def keeping_trainer(task: str) -> Any:  # noqa: ANN401 - a class of Ultralytics, which is untyped
    """Returns a trainer that keeps the widths of the network it is given: `YOLO("pruned.pt").train(trainer=...)`.

    Ultralytics' own builds the network anew from its YAML file, at full width, and says nothing. Imports torch.

    Args:
        task: `detect`, `segment`, `pose`, `obb` or `classify`.
    """
    from shipsight.training._trainers import trainer_class

    return trainer_class(task)
