# SPDX-License-Identifier: Apache-2.0
"""What a model answers on the golden set: its tables of outputs and its predictions, whole.

Leaves to others: keeping a part of it (`replay.record`), comparing it (`parity`). Stable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shipsight.proof.golden import GoldenSet
from shipsight.proof.matching import Found
from shipsight.proof.subject import Subject
from shipsight.vision import Geometry, prepare

__all__ = ["Answer", "answer_one", "ask"]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model gave for one input.

    Attributes:
        key: of the golden input.
        tables: its outputs as `subject.views` gives them.
        found: its predictions.
    """

    key: str
    tables: Mapping[str, NDArray[np.float32]]
    found: Found


def answer_one(
    subject: Subject, key: str, prepared_rgb: NDArray[np.uint8], geometry: Geometry, *, conf: float
) -> Answer:
    """Runs a model on one prepared image.

    Args:
        subject: the model.
        key: of the golden input.
        prepared_rgb: (h, w, 3) uint8 RGB of the model's input size.
        geometry: where the image lies in it.
        conf: least score of predictions.
    """
    outputs = subject.infer(prepared_rgb)
    return Answer(key, subject.views(outputs), Found.of(subject.predictions(outputs, geometry, conf=conf, source=key)))


def ask(subject: Subject, golden: GoldenSet, *, on_each: Callable[[], None] | None = None) -> tuple[Answer, ...]:
    """Runs a model on every golden input, prepared here.

    Args:
        subject: the model.
        golden: the inputs.
        on_each: called after each.
    """
    answers = []
    for one in golden.inputs:
        prepared, geometry = prepare(one.image_rgb, subject.card.input)
        answers.append(answer_one(subject, one.key, prepared, geometry, conf=golden.criteria.low_conf))
        if on_each is not None:
            on_each()
    return tuple(answers)
