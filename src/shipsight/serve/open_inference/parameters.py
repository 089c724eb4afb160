# SPDX-License-Identifier: Apache-2.0
"""A request's parameters: thresholds, the variant, a time limit. Private to the room.

The protocol knows truth values, whole numbers and text; newer clients send fractions, too. A number may therefore come as
text, and class ids come as text with commas between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shipsight.errors import UsageError
from shipsight.vision import PredictSettings

__all__ = ["Asked", "read_parameters"]

_IMAGE_PARAMETERS = ("conf", "iou", "max_det", "classes", "agnostic_nms", "variant", "timeout")
_TENSOR_PARAMETERS = ("timeout",)


@dataclass(frozen=True)
class Asked:
    """What a request's parameters ask for.

    Attributes:
        settings: thresholds.
        variant: name of a variant, None for the default.
        timeout_s: seconds within which the answer must come, None where the request does not say.
    """

    settings: PredictSettings
    variant: str | None
    timeout_s: float | None


def read_parameters(given: Mapping[str, Any], *, takes_images: bool) -> Asked:
    """Reads a request's parameters.

    Args:
        given: name -> truth value, number or text.
        takes_images: whether the endpoint does; one for raw tensors has no thresholds.

    Raises:
        UsageError: there is no such parameter here, or its value does not fit.
    """
    allowed = _IMAGE_PARAMETERS if takes_images else _TENSOR_PARAMETERS
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise UsageError("no such parameter", where=", ".join(unknown)[:200], expected=", ".join(allowed))
    variant = given.get("variant")
    if not isinstance(variant, str | None):
        raise UsageError("another type", where="variant", expected="a name", got=repr(variant)[:40])
    timeout_us = _number(given["timeout"], "timeout", whole=True) if "timeout" in given else None
    chosen = {name: _READERS[name](given[name], name) for name in given if name not in ("variant", "timeout")}
    return Asked(PredictSettings(**chosen), variant or None, None if timeout_us is None else timeout_us / 1e6)


def _number(value: object, name: str, *, whole: bool = False) -> float:
    if not isinstance(value, str):
        # What is no number is told by the settings, with the type that they expect.
        return value  # type: ignore[return-value]
    try:
        # `int` and `float` take underscores and digits of other scripts, too.
        if not value.isascii() or "_" in value or len(value) > 40:
            raise ValueError
        return int(value) if whole else float(value)
    except ValueError:
        raise UsageError("not a number", where=name, got=repr(value)[:40]) from None


def _truth(value: object, name: str) -> object:
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _classes(value: object, name: str) -> tuple[int, ...]:
    if isinstance(value, str):
        return tuple(int(_number(one.strip(), name, whole=True)) for one in value.split(","))
    return (value,)  # type: ignore[return-value]


_READERS: Mapping[str, Any] = {
    "conf": _number,
    "iou": _number,
    "max_det": lambda value, name: _number(value, name, whole=True),
    "classes": _classes,
    "agnostic_nms": _truth,
}
