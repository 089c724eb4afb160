# SPDX-License-Identifier: Apache-2.0
"""Which model has which steps. Stable."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from shipsight.errors import UsageError
from shipsight.serve.step_settings import StepSettings
from shipsight.serve.steps.pool import StepPool

__all__ = ["StepTable"]


class StepTable:
    """The steps of a server's models.

    Args:
        settings: of the operator.
        max_pixels: most pixels of an image that a step may return.
    """

    def __init__(self, settings: StepSettings = StepSettings(), *, max_pixels: int = 50_000_000) -> None:
        pools: dict[Path, StepPool] = {}
        for _, path in settings.files:
            if path.resolve() not in pools:
                pools[path.resolve()] = StepPool(
                    path, workers=settings.workers, timeout_s=settings.timeout_s, max_pixels=max_pixels
                )
        self._pools = pools
        self._by_model = {name: pools[path.resolve()] for name, path in settings.files}

    def open(self) -> None:
        """Starts the workers of all files.

        Raises:
            StepError: a file cannot be imported, or has no step.
        """
        for pool in self._pools.values():
            pool.open()

    def of(self, model: str) -> StepPool | None:
        """Returns the steps of a model, None where it has none."""
        return self._by_model.get(model) or self._by_model.get("")

    def check(self, models: Collection[str]) -> None:
        """Refuses steps for a model that is not served.

        Raises:
            UsageError: there are such.
        """
        unknown = sorted(set(self._by_model) - {""} - set(models))
        if unknown:
            raise UsageError(
                "steps for a model that is not served",
                where="--steps",
                expected=", ".join(sorted(models)),
                got=", ".join(unknown),
            )

    def close(self) -> None:
        """Ends all workers."""
        for pool in self._pools.values():
            pool.close()
