# SPDX-License-Identifier: Apache-2.0
"""Marks functions of yours that run before and after a model. Guide: `docs/steps.md`.

    from shipsight.steps import after, before

    @before
    def darken(image_rgb):
        return image_rgb // 2

    @after
    def keep_large(image_rgb, predictions):
        ...
        return predictions

Leaves to others: running them (`serve.steps`), in processes of their own. A marked function stays what it is: it can be
called and tested like any other. Stable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["after", "before", "kind_of"]

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__shipsight_step__"


def before(function: F) -> F:
    """Marks a step that runs on each image before the model sees it.

    Args:
        function: takes the image, (height, width, 3) uint8 RGB, and returns one of the same kind, of any size. Predictions
            are then in the pixels of the image returned; or it returns the image and a matrix of 2 x 3 numbers that
            leads from its pixels back to those of the image taken, and predictions are mapped back.
    """
    setattr(function, _MARK, "before")
    return function


def after(function: F) -> F:
    """Marks a step that runs on the predictions of each image.

    Args:
        function: takes the image that the predictions are in the pixels of and the predictions, one entry of `images` of
            `docs/formats/predictions.md` as a dict, and returns such an entry.
    """
    setattr(function, _MARK, "after")
    return function


def kind_of(value: object) -> str | None:
    """Returns `before` or `after` for a function that is marked, else None."""
    found = getattr(value, _MARK, None) if callable(value) else None
    return found if found in ("before", "after") else None
