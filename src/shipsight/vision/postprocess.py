# SPDX-License-Identifier: Apache-2.0
"""From an engine's outputs to predictions: the table of tasks.

Leaves to others: the tasks themselves, one file each, and reading heads (`heads`). Rules: pure numpy and OpenCV; equal
to the source framework's own postprocessing, number by number; predictions fall by score. Adding a task is one file and
one line in `TASKS`. Stable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from shipsight.model import Card, ImagePredictions, OutputForm, Task
from shipsight.vision.classify import classify
from shipsight.vision.detect import detect
from shipsight.vision.geometry import Geometry
from shipsight.vision.obb import obb
from shipsight.vision.pose import pose
from shipsight.vision.segment import segment
from shipsight.vision.settings import PredictSettings

__all__ = ["TASKS", "TaskFunction", "postprocess"]


class TaskFunction(Protocol):
    """What a task must do: outputs of one image to its predictions."""

    def __call__(
        self,
        outputs: Mapping[str, NDArray[Any]],
        *,
        card: Card,
        form: OutputForm,
        geometry: Geometry,
        settings: PredictSettings,
        source: str | None,
    ) -> ImagePredictions:
        """Makes the predictions; arguments, result and errors as in `postprocess`."""


TASKS: Mapping[Task, TaskFunction] = {
    Task.DETECT: detect,
    Task.SEGMENT: segment,
    Task.POSE: pose,
    Task.OBB: obb,
    Task.CLASSIFY: classify,
}


def postprocess(
    outputs: Mapping[str, NDArray[Any]],
    *,
    card: Card,
    form: OutputForm,
    geometry: Geometry,
    settings: PredictSettings,
    source: str | None = None,
) -> ImagePredictions:
    """Makes predictions from an engine's outputs of one image.

    Args:
        outputs: output name -> array with a batch axis of 1 (`docs/formats/heads.md`).
        card: of the model.
        form: of the variant that gave the outputs.
        geometry: from `prepare` of the same image.
        settings: thresholds and filters; a classifier ignores them.
        source: what the caller calls the image.

    Returns:
        The predictions in the pixels of the original image, by falling score.

    Raises:
        TensorError: the outputs do not have the shapes that card and form promise, or hold numbers that are not finite.
        UsageError: `multi_label` is asked of a form or head that gives one class a box.
        LimitError: the masks would take more memory than allowed.
    """
    task = TASKS[card.task]
    return task(outputs, card=card, form=form, geometry=geometry, settings=settings, source=source)
