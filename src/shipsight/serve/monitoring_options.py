# SPDX-License-Identifier: Apache-2.0
"""What a server is told of watching what it answers for drift. Frozen, checked. Stable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipsight.errors import UsageError
from shipsight.monitor.drift import MonitorSettings

__all__ = ["MonitoringOptions"]


@dataclass(frozen=True)
class MonitoringOptions:
    """Monitors of one server, one for each variant that answers.

    Attributes:
        reference: images that later ones are compared with.
        window: images of one comparison.
        per_second: images that each monitor looks at a second, at most; 0 for none: then nobody looks for drift.
        alerts: file of alert settings, None where nobody is told.
        embeddings: whether the model's own view of images is compared as well.
    """

    reference: int = 300
    window: int = 100
    per_second: float = 2.0
    alerts: Path | None = None
    embeddings: bool = False

    def __post_init__(self) -> None:
        if self.per_second == 0:
            if self.alerts is not None:
                raise UsageError(
                    "alerts need somebody who looks", where="--alerts", expected="--drift-per-second above 0"
                )
            if self.embeddings:
                raise UsageError(
                    "embeddings need somebody who looks",
                    where="--drift-embeddings",
                    expected="--drift-per-second above 0",
                )
            return
        try:
            _ = self.settings
        except UsageError as error:
            option = {"most_per_s": "--drift-per-second"}.get(str(error.where), f"--drift-{error.where}")
            raise UsageError(error.what, where=option, expected=error.expected, got=error.got) from None

    @property
    def settings(self) -> MonitorSettings:
        """Of each monitor."""
        return MonitorSettings(reference=self.reference, window=self.window, most_per_s=self.per_second)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> MonitoringOptions:
        """Reads what `dataclasses.asdict` and JSON made of options."""
        return cls(**{**told, "alerts": None if told["alerts"] is None else Path(told["alerts"])})
