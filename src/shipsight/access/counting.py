# SPDX-License-Identifier: Apache-2.0
"""Counts of one server for the package `limits`, kept in this process: no threads, no I/O, microseconds on an event loop.

That package's own memory storage starts a thread for nearly every hit, and walks over all keys in it. Invariants: what has
ended is forgotten within a minute of hits; an `await` on a method here never gives the loop away. Windows begin with their
first hit, as in Redis, so that one formula (`sliding_wait_s`) says for both when there is room again. Stable.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from limits.aio.storage import SlidingWindowCounterSupport, Storage

__all__ = ["LocalCounts", "sliding_wait_s"]

_SWEEP_S = 60.0


@dataclass(slots=True)
class _Window:
    """Hits of a window that ends at `until_s`, and of the one before it."""

    until_s: float
    length_s: float
    count: int = 0
    previous: int = 0


class LocalCounts(Storage, SlidingWindowCounterSupport):
    """A storage of `limits`, for its fixed windows and its sliding window counters.

    Args:
        clock: monotonic seconds.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._fixed: dict[str, _Window] = {}
        self._sliding: dict[str, _Window] = {}
        self._swept_s = clock()

    @property
    def base_exceptions(self) -> type[Exception]:
        """None of it fails."""
        return ValueError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Adds to a fixed window and returns what it holds."""
        now = self._clock()
        window = self._fixed.get(key)
        if window is None or window.until_s <= now:
            self._sweep(now)
            window = self._fixed[key] = _Window(now + expiry, expiry)
        window.count += amount
        return window.count

    async def get(self, key: str) -> int:
        """Returns what a fixed window holds."""
        window = self._fixed.get(key)
        return 0 if window is None or window.until_s <= self._clock() else window.count

    async def get_expiry(self, key: str) -> float:
        """Returns when a fixed window ends, seconds since 1970."""
        window = self._fixed.get(key)
        return time.time() + (0.0 if window is None else max(window.until_s - self._clock(), 0.0))

    async def check(self) -> bool:
        """Tells that it works."""
        return True

    async def reset(self) -> int | None:
        """Forgets all."""
        held = len(self._fixed) + len(self._sliding)
        self._fixed.clear()
        self._sliding.clear()
        return held

    async def clear(self, key: str) -> None:
        """Forgets a fixed window."""
        self._fixed.pop(key, None)

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Counts where there is room; what is refused does not count."""
        now = self._clock()
        window = self._turned(key, expiry, now)
        weighted = 0 if window is None else _weighted(window, now) + window.count
        if weighted + amount > limit:
            return False
        if window is None:
            self._sweep(now)
            window = self._sliding[key] = _Window(now + expiry, expiry)
        window.count += amount
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Returns hits before and their seconds to live, hits now and theirs."""
        now = self._clock()
        window = self._turned(key, expiry, now)
        if window is None:
            return 0, 0.0, 0, 0.0
        left_s = window.until_s - now
        return window.previous, left_s if window.previous else 0.0, window.count, left_s + expiry

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forgets a sliding window."""
        self._sliding.pop(key, None)

    def _turned(self, key: str, expiry: float, now: float) -> _Window | None:
        """Returns a window as it is now: what was current a window ago is the previous one; None where both are over."""
        window = self._sliding.get(key)
        if window is None or now < window.until_s:
            return window
        if now >= window.until_s + expiry:
            del self._sliding[key]
            return None
        window.previous, window.count, window.until_s = window.count, 0, window.until_s + expiry
        return window

    def _sweep(self, now: float) -> None:
        if now < self._swept_s + _SWEEP_S:
            return
        self._swept_s = now
        self._fixed = {key: one for key, one in self._fixed.items() if one.until_s > now}
        self._sliding = {key: one for key, one in self._sliding.items() if one.until_s + one.length_s > now}


def _weighted(window: _Window, now: float) -> int:
    return math.floor(window.previous * (window.until_s - now) / window.length_s)


def sliding_wait_s(stats: tuple[int, float, int, float], *, window_s: float, limit: int, amount: int) -> float:
    """Returns after how many seconds a sliding window has room, where nobody else takes it meanwhile.

    Args:
        stats: as `get_sliding_window` gives them.
        window_s: length of the window.
        limit: of it.
        amount: that is asked for; one above the limit never has room: then the window's length is returned.
    """
    previous, previous_left_s, current, current_left_s = stats
    room = limit - amount + 1  # what counts must fall below this
    if room <= 0:
        return window_s
    left_s = max(current_left_s - window_s, 0.0) if current_left_s else previous_left_s
    if previous and current < room:
        wait_s = previous_left_s - (room - current) * window_s / previous
        if wait_s <= left_s:
            return max(wait_s, 0.0)
    if current < room:
        return left_s if previous else 0.0
    return left_s + window_s * (1.0 - room / current)
