# SPDX-License-Identifier: Apache-2.0
"""One entry of the audit log, as people and rules read it. Stable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from shipsight.access.events import Event

__all__ = ["Entry"]


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        seq: its number, from 0, without gaps.
        server: that wrote it: a name that the operator gave, or that of its machine and port.
        event: what happened. Texts that were erased since are `erased:<seq>`, after the entry that tells of the erasure.
        erased_by: entry that tells that its texts were erased, None where they are there.
        written: when the server wrote it, UTC; later than the event where the log could not be written meanwhile.
        is_clock_back: whether the server's clock had gone back since the entry before.
    """

    seq: int
    server: str
    event: Event
    erased_by: int | None = None
    written: datetime | None = None
    is_clock_back: bool = False
