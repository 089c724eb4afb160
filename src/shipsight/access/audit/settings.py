# SPDX-License-Identifier: Apache-2.0
"""How the audit log is kept, and how it fares. Stable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shipsight.errors import UsageError

__all__ = ["AuditSettings", "AuditState"]


@dataclass(frozen=True)
class AuditSettings:
    """How often it is signed, and how much may wait.

    Attributes:
        every: entries after which a checkpoint is signed; 1000: a tail of a few seconds at full load.
        seconds: after which one is signed where there is something new; 60: who cuts the end off wins a minute at most.
        heartbeat_s: seconds after which one is signed though nothing is new, by a server; 900: so that a log that ends at an
            old checkpoint, though its server did not say that it stopped, is known to be cut.
        buffer: events that may be late, kept in memory while the log cannot be written; 10,000: half a minute of 300 a second.
        wait_s: longest that an act waits until its event is kept; 15: more than SQLite's and PostgreSQL's own waiting.
        late_s: seconds for which events that may be late are gathered, so that many are kept by one write to the disk.
    """

    every: int = 1000
    seconds: float = 60.0
    heartbeat_s: float = 900.0
    buffer: int = 10_000
    wait_s: float = 15.0
    late_s: float = 0.25

    def __post_init__(self) -> None:
        for name, least, most in (
            ("every", 1, 1_000_000),
            ("seconds", 0.01, 86400.0),
            ("heartbeat_s", 0.01, 86400.0),
            ("buffer", 1, 1_000_000),
            ("wait_s", 0.01, 300.0),
            ("late_s", 0.0, 10.0),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise UsageError("out of range", where=name, expected=f"{least} to {most}", got=value)


@dataclass(frozen=True)
class AuditState:
    """How a log fares that is being written.

    Attributes:
        size: entries that it has, by others, too.
        written: that were kept through this object.
        buffered: events that wait.
        lost: that may be late and found no room, since it was opened; an `audit-lost` entry tells how many.
        last_error: why it could not be written the last time, None where it could.
        since: when that began, UTC.
        checkpoint_size: entries that the newest checkpoint covers.
        checkpoint_at: when that was signed, UTC; None where there is none.
    """

    size: int = 0
    written: int = 0
    buffered: int = 0
    lost: int = 0
    last_error: str | None = None
    since: datetime | None = None
    checkpoint_size: int = 0
    checkpoint_at: datetime | None = None

    @property
    def is_degraded(self) -> bool:
        """Whether events wait for a place that fails."""
        return self.last_error is not None
