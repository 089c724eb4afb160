# SPDX-License-Identifier: Apache-2.0
"""Lanes of work that waits for a database, a hash or another server, and how often somebody may begin something.

A lane has threads and places of its own, so that what floods one costs nothing in another; of its places each who asks has a
share. All is for one event loop. Leaves to others: what runs in which lane (`gate`, `http/access_edge.py`). Private to the room.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from shipsight.errors import OverloadedError, RateLimitError

__all__ = ["Lane", "Paced", "network_of"]

_T = TypeVar("_T")
_MOST_COUNTED = 4096


class Lane:
    """Threads, and places to be in them or to wait for one.

    Args:
        name: of its threads.
        threads: how many.
        places: how many may be in it at once.
        share: how many of these one may hold; None for no share.
    """

    def __init__(self, name: str, *, threads: int, places: int, share: int | None = None) -> None:
        self._threads = ThreadPoolExecutor(threads, f"shipsight-{name}")
        self._places, self._share = places, share
        self._held: Counter[str] = Counter()
        self._taken = 0

    def submit(self, work: Callable[..., _T], *arguments: object, whose: str | None = None) -> asyncio.Future[_T]:
        """Has work done in a thread; the place is held until that has ended, whoever still waits for it.

        Args:
            work: to do.
            arguments: of it.
            whose: who is counted; None where that is not known, and no share holds.

        Raises:
            OverloadedError: no place is free, or the share is taken.
        """
        if self._taken >= self._places:
            raise OverloadedError("too many ask who they are at once", expected=f"at most {self._places}")
        if self._share is not None and whose is not None and self._held[whose] >= self._share:
            raise OverloadedError("too much is asked at once from one place", expected=f"at most {self._share}")
        done = asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *arguments))
        self._taken += 1
        if whose is not None:
            self._held[whose] += 1
        done.add_done_callback(partial(self._leave, whose))
        return done

    def close(self) -> None:
        """Ends the threads; what waits is not done."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _leave(self, whose: str | None, done: object) -> None:
        self._taken -= 1
        if whose is not None:
            self._held[whose] -= 1
            if not self._held[whose]:
                del self._held[whose]


class Paced:
    """Counts how often each begins something; where there are very many, who came longest ago is forgotten.

    Args:
        most: times within the window.
        window_s: its length, s; it slides.
        clock: monotonic seconds.
    """

    def __init__(self, most: int, *, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._window_s, self._clock = most, window_s, clock
        self._times: dict[str, deque[float]] = {}

    def take(self, whose: str | None) -> None:
        """Counts a beginning; what is refused does not count.

        Args:
            whose: who begins; None where that is not known, and nothing is counted.

        Raises:
            RateLimitError: it is too early; says when to come again.
        """
        if whose is None:
            return
        now = self._clock()
        times = self._times.pop(whose, None) or deque(maxlen=self._most)
        self._times[whose] = times  # last again
        while len(self._times) > _MOST_COUNTED:
            del self._times[next(iter(self._times))]
        wait_s = times[0] + self._window_s - now if len(times) == self._most else 0.0
        if wait_s > 0:
            error = RateLimitError(
                "too many sign-ins are begun", expected=f"{self._most} in {self._window_s:g} seconds"
            )
            error.retry_after_s = max(1, math.ceil(wait_s))
            raise error
        times.append(now)


def network_of(address: str | None) -> str | None:
    """Returns what a client is counted by: its IPv4 address, or the /64 of its IPv6 address, since that is one customer's.

    None where there is no address, or what was told is none.
    """
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
