# SPDX-License-Identifier: Apache-2.0
"""Thresholds as clients write them in JSON. Private to the room."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from shipsight.errors import UsageError
from shipsight.vision import PredictSettings

__all__ = ["read_settings"]


def read_settings(given: object, allowed: Collection[str]) -> PredictSettings:
    """Reads a mapping of thresholds.

    Args:
        given: what stood in the JSON.
        allowed: names that it may hold.

    Raises:
        UsageError: it is no mapping, names something else, or a value does not fit.
    """
    if not isinstance(given, dict):
        raise UsageError("not a mapping", where="parameters", got=type(given).__name__)
    unknown = sorted(set(map(str, given)) - set(allowed))
    if unknown:
        raise UsageError("no such parameter", where=", ".join(unknown)[:200], expected=", ".join(allowed))
    values: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in given.items()}
    return PredictSettings(**values)
