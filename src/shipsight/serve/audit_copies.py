# SPDX-License-Identifier: Apache-2.0
"""The second places that a server's audit log gives its checkpoints to, as the log takes them. Private to the room.

Leaves to others: the places (`access.audit.witnesses`). Invariant: nothing of them holds up the log, or fails it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from shipsight.access.audit.checkpoint import Checkpoint
from shipsight.access.audit.reading import AuditReader
from shipsight.access.audit.witnesses import CopyState, Witnesses, parse_copy

__all__ = ["SecondPlaces"]

_log = logging.getLogger("shipsight.serve")


class SecondPlaces:
    """Places that take checkpoints.

    Args:
        place: of the log, for what they want to have proved.
        texts: of the places, as `--audit-copy` has them.

    Raises:
        UsageError: one is none.
    """

    def __init__(self, place: str, texts: Sequence[str]) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._reader: AuditReader | None = None
        self._places = Witnesses([parse_copy(one) for one in texts], self._consistency)

    @property
    def states(self) -> tuple[CopyState, ...]:
        """How each fares."""
        return self._places.states

    def offer(self, checkpoint: Checkpoint) -> None:
        """Gives them a checkpoint that the log has signed and kept; returns at once."""
        self._places.offer(checkpoint)

    def close(self) -> None:
        """Gives what waits one more chance, and ends."""
        if not self._places.close():
            _log.warning("not every second place has the newest checkpoint of the audit log")
        with self._lock:
            if self._reader is not None:
                self._reader.close()

    def _read(self) -> AuditReader:
        with self._lock:  # the log is there by the first checkpoint
            if self._reader is None:
                self._reader = AuditReader.open(self._place)
            return self._reader

    def _consistency(self, size1: int, size2: int) -> list[bytes]:
        return self._read().consistency(size1, size2)
