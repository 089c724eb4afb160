# SPDX-License-Identifier: Apache-2.0
"""What the bundle's reference answers behind any chain of preprocessing, in the pixels of the image as the chain had it. Private to the room."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np

from shipsight.doctor.case import Case
from shipsight.doctor.dataset.collecting import boxes_of
from shipsight.doctor.dataset.evidence import Boxes
from shipsight.doctor.preprocessing.chain import Chain, Photo, render, to_levels, to_values
from shipsight.model import TensorLayout
from shipsight.predictor import load
from shipsight.vision import Geometry, PredictSettings, postprocess

__all__ = ["Answerer"]


class Answerer:
    """The reference variant, opened.

    Args:
        case: its bundle.
    """

    def __init__(self, case: Case) -> None:
        reference = next((one.name for one in case.bundle.variants if one.is_reference), case.variant.name)
        self._predictor = load(case.bundle, variant=reference, threads=case.threads)
        self.card = self._predictor.card
        self.answered = 0

    def takes(self, chain: Chain) -> bool:
        """Returns whether the model can be fed what a chain makes."""
        return chain.size_hw == self.card.input.size_hw

    def answer(self, photo: Photo, chain: Chain, *, conf: float = 0.25) -> tuple[Boxes, Geometry]:
        """Predicts on what a chain makes of an image, mapped back as that chain has to be.

        Args:
            photo: the image.
            chain: of a size that `takes` accepts; layouts that only rearrange memory are fed as they are.
            conf: least score.
        """
        rendered = render(photo, chain)
        values = to_values(to_levels(rendered, chain), chain.values)
        if chain.layout == "reshaped":
            values = values.reshape(3, *chain.size_hw).transpose(1, 2, 0)
        elif chain.layout == "transposed" and chain.size_hw[0] == chain.size_hw[1]:
            values = values.transpose(1, 0, 2)
        if self._predictor.variant.layout is TensorLayout.UINT8_NHWC:
            # The graph scales by itself: what it is fed are the levels that it would make of it.
            contract = self.card.input
            levels = (
                values * np.array(contract.std, np.float32) + np.array(contract.mean, np.float32)
            ) / contract.scale
            ordered = levels if contract.colour == "rgb" else levels[..., ::-1]
            tensor = np.ascontiguousarray(np.clip(np.rint(ordered), 0, 255).astype(np.uint8)[None])
        else:
            tensor = np.ascontiguousarray(values.transpose(2, 0, 1)[None])
        outputs = self._predictor.session.infer(tensor)
        self.answered += 1
        told = postprocess(
            outputs,
            card=self.card,
            form=self._predictor.variant.form,
            geometry=rendered.geometry,
            settings=PredictSettings(conf=conf, iou=0.7, max_det=300),
            source=None,
        )
        boxes = boxes_of(told)
        if chain.mirrored and len(boxes):
            width = rendered.geometry.original_hw[1]
            x0, y0, x1, y1 = boxes.boxes_xyxy.T
            boxes = Boxes(boxes.class_ids, boxes.scores, np.stack([width - x1, y0, width - x0, y1], axis=1))
        return boxes, rendered.geometry

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._predictor.close()
