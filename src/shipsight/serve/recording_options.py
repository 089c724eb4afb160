# SPDX-License-Identifier: Apache-2.0
"""What a server is told of recording production. Frozen, checked. Stable.

The policy itself is told, not where it lies: a file that is changed while a server runs changes nothing before its next start. Leaves to others:
reading it (the command line), holding to it (`monitor.recording`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipsight.errors import UsageError

__all__ = ["RecordingOptions"]


@dataclass(frozen=True)
class RecordingOptions:
    """Recordings of one server.

    Attributes:
        policy: as `Policy.to_dict` has it; None where nothing is recorded.
        folder: of the recordings; None where the policy keeps none of single images.
        key: file of their key, likewise.
    """

    policy: Mapping[str, Any] | None = None
    folder: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if self.policy is None and (self.folder is not None or self.key is not None):
            raise UsageError(
                "recordings need a policy",
                where="--recordings" if self.folder is not None else "--recordings-key",
                expected="--record-policy",
            )
        if self.keeps_samples and (self.folder is None or self.key is None):
            raise UsageError("samples need a place", where="--record-policy", expected="--recordings, --recordings-key")

    @property
    def keeps_samples(self) -> bool:
        """Whether single images are recorded."""
        return self.policy is not None and self.policy["mode"] == "samples"

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> RecordingOptions:
        """Reads what `dataclasses.asdict` and JSON made of options."""
        paths = {name: None if told[name] is None else Path(told[name]) for name in ("folder", "key")}
        return cls(told["policy"], **paths)
