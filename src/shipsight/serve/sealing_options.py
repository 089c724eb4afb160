# SPDX-License-Identifier: Apache-2.0
"""What a server is told of sealed requests. Frozen, checked. Stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shipsight.errors import UsageError

__all__ = ["SealingOptions"]

_LONGEST_DAYS = 365.0
_SHORTEST_DAYS = 1 / 24


@dataclass(frozen=True)
class SealingOptions:
    """Sealed requests of one server.

    Attributes:
        folder: where keys and the identity are kept, for restarts and for several servers; None for this server's memory.
        days: for which a key is opened with; its follower is made before that. An hour to a year. Default 7: what was sealed to a key
            can be opened by whoever gets hold of it later, and after a week there is none.
        required: names of models that take sealed requests only; `all` for all.
        seed: of the identity where there is no folder, hexadecimal: it outlives the serving process; None for one of its own.
    """

    folder: Path | None = None
    days: float = 7.0
    required: tuple[str, ...] = ()
    seed: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not _SHORTEST_DAYS <= self.days <= _LONGEST_DAYS:
            raise UsageError("out of range", where="--sealing-days", expected="an hour (0.042) to 365", got=self.days)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> SealingOptions:
        """Reads what `dataclasses.asdict` and JSON made of options."""
        folder = told["folder"]
        return cls(**{**told, "folder": None if folder is None else Path(folder), "required": tuple(told["required"])})
