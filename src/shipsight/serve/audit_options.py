# SPDX-License-Identifier: Apache-2.0
"""What a server is told of its audit log: where it is kept and signed, where copies go, what is recorded. Frozen, checked. Stable.

Leaves to others: opening it (`audit_opening`), how often it is signed (`access.audit.settings`, which checks that).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipsight.errors import UsageError

__all__ = ["AuditOptions"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class AuditOptions:
    """The audit log of one server.

    Attributes:
        place: path of SQLite's file, or `postgresql://...`; None where nothing is recorded.
        key: file of the key that signs checkpoints; made where missing. None without a place.
        copies: second places for checkpoints, as `access.audit.witnesses` reads them.
        every: entries after which a checkpoint is signed; 1000.
        seconds: after which one is signed where there is something new; 60.
        predictions: whether every prediction is recorded; off: at 300 a second they are most of a log.
        server: what this server is called there; letters, digits and `._:-`, at most 64.
        off_at: where a log lies that this server, or command, was told not to write: `--audit off`, or another place. None where
            there is none.
        off_key: file of that log's key.
        configuration: options and their values, without secrets; recorded at each start. Empty: none are.
    """

    place: str | None = None
    key: Path | None = None
    copies: tuple[str, ...] = ()
    every: int = 1000
    seconds: float = 60.0
    predictions: bool = False
    server: str = "server"
    off_at: str | None = None
    configuration: tuple[tuple[str, str], ...] = ()
    off_key: Path | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.server):
            raise UsageError(
                "not a name of a server",
                where="--server-name",
                expected="letters, digits and ._:-",
                got=self.server[:64],
            )
        if self.place is None:
            for option, given in (("--audit-copy", self.copies), ("--audit-predictions", self.predictions)):
                if given:
                    raise UsageError("needs an audit log", where=option, expected="--audit or --database")
        if self.every < 1:
            raise UsageError("too few", where="--audit-every", expected="1 or more", got=self.every)
        if not self.seconds > 0:
            raise UsageError("too short", where="--audit-seconds", expected="above 0", got=self.seconds)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> AuditOptions:
        """Reads what `dataclasses.asdict` and JSON made of options."""
        return cls(
            **{
                **told,
                "key": None if told["key"] is None else Path(told["key"]),
                "off_key": None if told["off_key"] is None else Path(told["off_key"]),
                "copies": tuple(told["copies"]),
                "configuration": tuple((name, value) for name, value in told["configuration"]),
            }
        )
