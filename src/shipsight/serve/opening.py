# SPDX-License-Identifier: Apache-2.0
"""How a server opens variants, as the operator sets it. Light: the supervisor reads it, too. Stable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shipsight.errors import UsageError

__all__ = ["OpenSettings"]


@dataclass(frozen=True)
class OpenSettings:
    """How variants are opened.

    Attributes:
        variants: names of variants that requests may choose beside the default; `all` for all that run here.
        streams: requests side by side, None measures what pays.
        threads: of the engine, None for one per core.
        device: `cpu` or `cuda[:index]`.
        cache_dir: where engines keep compiled forms, None for nowhere.
        isolate: whether each model's engines run in a worker process of its own.
        stuck_s: seconds after which an inference in such a process counts as hung, and the process is replaced.
    """

    variants: tuple[str, ...] = ()
    streams: int | None = None
    threads: int | None = None
    device: str = "cpu"
    cache_dir: Path | None = None
    isolate: bool = False
    stuck_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("streams", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError("too few", where=f"--{name}", expected="1 or more", got=value)
        if not self.stuck_s > 0:
            raise UsageError("out of range", where="--stuck-seconds", expected="above 0", got=self.stuck_s)
