# SPDX-License-Identifier: Apache-2.0
"""How long each stage of an image took. Private to the room."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Stopwatch"]


class Stopwatch:
    """Tells when each stage began and ended, one after the other, and adds up milliseconds by stage.

    Args:
        clock: seconds.
        begin_s: when the first stage began, by the clock.
    """

    def __init__(self, clock: Callable[[], float], begin_s: float) -> None:
        self.stages_ms: dict[str, float] = {}
        self.spans: list[tuple[str, float, float]] = []
        self._clock = clock
        self._last_s = begin_s

    def end(self, stage: str) -> None:
        """Ends a stage; the next begins."""
        now = self._clock()
        self.stages_ms[stage] = self.stages_ms.get(stage, 0.0) + (now - self._last_s) * 1e3
        begin_s = self._last_s
        if self.spans and self.spans[-1][0] == stage:
            begin_s = self.spans.pop()[1]
        self.spans.append((stage, begin_s, now))
        self._last_s = now
