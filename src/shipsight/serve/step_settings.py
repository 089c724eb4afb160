# SPDX-License-Identifier: Apache-2.0
"""Which steps of the operator's own run for which models. Light: the supervisor reads it, too. Stable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shipsight.errors import UsageError

__all__ = ["StepSettings", "parse_steps"]


@dataclass(frozen=True)
class StepSettings:
    """The operator's steps.

    Attributes:
        files: name of a model (empty: all that are not named) and the file with its steps.
        workers: processes a file, 1 and more: as many images are worked on side by side.
        timeout_s: seconds that the steps before, or those after, may take for an image.
    """

    files: tuple[tuple[str, Path], ...] = ()
    workers: int = 2
    timeout_s: float = 5.0

    def __post_init__(self) -> None:
        names = [name for name, _ in self.files]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(
                    "a model has one file of steps", where="--steps", got=name or "two files for all models"
                )
        for _, path in self.files:
            if not path.is_file():
                raise UsageError("no such file", where="--steps", got=path)
        if self.workers < 1:
            raise UsageError("too few", where="--step-workers", expected="1 or more", got=self.workers)
        if not self.timeout_s > 0:
            raise UsageError("out of range", where="--step-seconds", expected="above 0", got=self.timeout_s)


def parse_steps(text: str) -> tuple[str, Path]:
    """Reads `FILE` or `MODEL=FILE`; a file whose path holds `=` is written with a `/` before it."""
    name, equals, file = text.partition("=")
    return (name, Path(file)) if equals and name and "/" not in name else ("", Path(text))
