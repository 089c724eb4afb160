# SPDX-License-Identifier: Apache-2.0
"""A model that can be asked: an opened session with what must be known to feed it and to read it.

Leaves to others: opening sessions (`engines`), pixels (`vision`). `views` brings the outputs of every head and form to
one shape, so that proof compares like with like. Stable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shipsight.engines import EngineSession
from shipsight.errors import TensorError
from shipsight.model import Card, Head, ImagePredictions, OutputForm, TensorLayout, Variant
from shipsight.vision import Geometry, PredictSettings, postprocess, to_tensor

__all__ = ["Subject", "views"]

FloatArray = NDArray[np.float32]
_STRIDES = (8, 16, 32)


@dataclass(frozen=True, eq=False)
class Subject:
    """An opened model.

    Attributes:
        session: the opened engine; who opened it closes it.
        card: of the model, with the session's input size.
        layout: what the session is fed.
        form: what leaves it.
    """

    session: EngineSession
    card: Card
    layout: TensorLayout = TensorLayout.FLOAT_NCHW
    form: OutputForm = OutputForm.RAW

    @classmethod
    def of(cls, session: EngineSession, variant: Variant, card: Card) -> Self:
        """Returns a variant's session as a subject."""
        return cls(session, card.with_size(variant.size_hw), variant.layout, variant.form)

    def infer(self, prepared_rgb: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Runs the model on one prepared image.

        Args:
            prepared_rgb: (h, w, 3) uint8 RGB of the card's input size.
        """
        return self.session.infer(to_tensor(prepared_rgb, self.card.input, self.layout))

    def predictions(
        self, outputs: Mapping[str, NDArray[Any]], geometry: Geometry, *, conf: float, source: str | None = None
    ) -> ImagePredictions:
        """Returns the predictions that outputs mean, with scores above `conf`."""
        settings = PredictSettings(conf=conf)
        return postprocess(outputs, card=self.card, form=self.form, geometry=geometry, settings=settings, source=source)

    def views(self, outputs: Mapping[str, NDArray[Any]]) -> dict[str, FloatArray]:
        """Returns `views` of outputs of this subject."""
        return views(outputs, self.card, self.form)


def views(outputs: Mapping[str, NDArray[Any]], card: Card, form: OutputForm) -> dict[str, FloatArray]:
    """Brings outputs of one image to tables of one row a position and one column a channel.

    Args:
        outputs: output name -> array, batch 1.
        card: of the model, with the input size the outputs belong to.
        form: what the outputs are.

    Returns:
        `boxes` (A, 4) centre x, y, width, height in input pixels, `scores` (A, classes, or 1 in best-class form) in
        [0, 1], `extras` (A, E), `protos` (positions, channels), `probabilities` (1, classes), as the model has them.
        For `end2end` only `scores` (D, 1), falling: the rows of equal scores come in no fixed order.

    Raises:
        TensorError: the outputs are not those of the card's head.
    """
    if form is OutputForm.BEST_CLASS:
        tables = {"boxes": outputs["boxes"][0], "scores": outputs["scores"][0][:, None]}
        if "extras" in outputs:
            tables["extras"] = outputs["extras"][0]
    else:
        main = [array for array in outputs.values() if array.ndim in (2, 3)]
        if len(main) != 1 or main[0].shape[0] != 1:
            shapes = {name: array.shape for name, array in outputs.items()}
            raise TensorError("no raw output of one image", where="outputs", got=shapes)
        tables = _raw_tables(main[0][0].astype(np.float32), card)
    for array in outputs.values():
        if array.ndim == 4:
            tables["protos"] = array[0].reshape(array.shape[1], -1).T
    result = {name: np.ascontiguousarray(table, dtype=np.float32) for name, table in tables.items() if table.size}
    for name, table in result.items():
        if not np.isfinite(table).all():
            raise TensorError("the model gives numbers that are not finite", where=name)
    return result


def _raw_tables(output: FloatArray, card: Card) -> dict[str, NDArray[Any]]:
    classes = len(card.class_names)
    head = card.output.head
    if head is Head.CLASSIFY:
        return {"probabilities": output.reshape(1, -1)}
    if head is Head.END2END:
        return {"scores": np.sort(output[:, 4])[::-1, None]}
    if head is Head.YOLOX:
        cells, strides = _grid(card.input.size_hw)
        boxes = np.concatenate(
            ((output[:, :2] + cells) * strides, np.exp(np.clip(output[:, 2:4], -20, 20)) * strides), axis=1
        )
        return {"boxes": boxes, "scores": output[:, 5:] * output[:, 4:5]}
    return {"boxes": output[:4].T, "scores": output[4 : 4 + classes].T, "extras": output[4 + classes :].T}


def _grid(size_hw: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Returns each YOLOX anchor's cell x, y (A, 2) and its stride (A, 1)."""
    cells, strides = [], []
    for stride in _STRIDES:
        y, x = np.mgrid[: size_hw[0] // stride, : size_hw[1] // stride]
        cells.append(np.stack((x, y), axis=-1).reshape(-1, 2))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)
