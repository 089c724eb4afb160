# SPDX-License-Identifier: Apache-2.0
"""JSON as clients send it: no deeper and no more scattered than a request has reason to be. Private to the room.

Python's objects take many times the room of their text. Numbers and text stay within ten times; what multiplies more is
empty lists and objects, so their number has a limit. Depth has one, too: later code may walk what it is given.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from shipsight.errors import LimitError, UsageError

__all__ = ["read_json"]

_MOST_CONTAINERS = 200_000
_MOST_LEVELS = 32


def read_json(body: bytes) -> Any:  # noqa: ANN401 - whatever a client sent
    """Reads a body.

    Raises:
        UsageError: it is not JSON (NaN and infinity are none), or too deep.
        LimitError: it holds too many lists and objects.
    """
    containers = body.count(b"[") + body.count(b"{")
    if containers > _MOST_CONTAINERS:
        raise LimitError(
            "too many lists and objects", where="body", expected=f"at most {_MOST_CONTAINERS}", got=containers
        )
    try:
        told = json.loads(body, parse_constant=_refuse)
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise UsageError("the body is not JSON", where="body") from None
    if containers > _MOST_LEVELS:
        _check_depth(told)
    return told


def _check_depth(told: object) -> None:
    level = [told]
    for _ in range(_MOST_LEVELS):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [child for children in inner for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> UsageError:
    return UsageError("nested too deep", where="body", expected=f"at most {_MOST_LEVELS} levels")


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
