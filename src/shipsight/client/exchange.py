# SPDX-License-Identifier: Apache-2.0
"""One conversation with a server as steps that somebody else takes: what is asked, how long is paused, when is given up.

The same steps are taken by threads (`client`) and by tasks (`async_client`), so that both ask, wait and retry alike. Rules: only
what changes nothing is asked again once it may have arrived; no pause ends behind the deadline; what a busy server says of when to
come back is kept, with a little more by chance so that clients do not come back together. No I/O here. Private to the room.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeVar

from shipsight.client.answers import read_retry_after
from shipsight.errors import DeadlineError, ServiceError, ShipsightError

__all__ = ["Asked", "Heard", "Pause", "Reached", "Steps", "UnheardError", "persist"]

_BUSY = 503
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        method: of HTTP.
        target: path and query.
        until: when no answer is waited for any more, in seconds of the monotonic clock.
        headers: beside those of every request.
        body: to send.
    """

    method: str
    target: str
    until: float
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Heard:
    """An answer.

    Attributes:
        status: of HTTP.
        headers: by name in lower case.
        body: whole.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def kind(self) -> str:
        """Media type of the body, without parameters, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class Pause:
    """A pause of that many seconds."""

    seconds: float


class Reached(Enum):
    """How far a request came that was not answered."""

    NOBODY = auto()  # no connection came about
    SOMEBODY = auto()  # it may have arrived
    ANSWERED = auto()  # its answer had begun
    STRANGER = auto()  # who answers there is not trusted, or does not trust us


class UnheardError(Exception):
    """No whole answer came.

    Args:
        text: why.
        reached: how far it came.
        is_late: whether the time was over.
    """

    def __init__(self, text: str, reached: Reached, *, is_late: bool = False) -> None:
        super().__init__(text)
        self.reached, self.is_late = reached, is_late


Steps = Generator[Asked | Pause, Heard | None, T]
"""Yields what to do; is sent what was heard, or has `UnheardError` thrown in; returns what came of it."""


def persist(
    attempt: Callable[[], Steps[Heard]], *, where: str, until: float, retries: int, is_safe: bool, waits: bool = True
) -> Steps[Heard]:
    """Attempts until there is an answer, the time is over, or it is enough.

    Args:
        attempt: makes a request, anew each time.
        where: the server, as errors call it.
        until: when to give up, in seconds of the monotonic clock.
        retries: most attempts beside the first.
        is_safe: whether it changes nothing, so that it may be asked again although it may have arrived.
        waits: whether an answer that the server is busy is one to wait after.

    Raises:
        DeadlineError: the time was over.
        ServiceError: no answer came.
    """
    for number in range(retries + 1):
        pause_s = min(_FIRST_PAUSE_S * 2**number, _LONGEST_PAUSE_S)
        try:
            heard = yield from attempt()
        except UnheardError as error:
            may = error.reached is Reached.NOBODY or (is_safe and error.reached is Reached.SOMEBODY)
            pause_s *= random.uniform(0.5, 1)  # noqa: S311 - spreads load, guards nothing
            if number == retries or not may or error.is_late or time.monotonic() + pause_s >= until:
                raise _silent(error, where) from error
        else:
            told_s = read_retry_after(heard.headers.get("retry-after"))
            pause_s = max(pause_s, told_s or 0) + random.uniform(0, 0.25) * (told_s or pause_s)  # noqa: S311 - as above
            is_over = number == retries or time.monotonic() + pause_s >= until
            if heard.status != _BUSY or not (is_safe and waits) or is_over:
                return heard
        yield Pause(pause_s)
    raise AssertionError("the last attempt returns or raises")


def _silent(error: UnheardError, where: str) -> ShipsightError:
    if error.is_late:
        return DeadlineError("the server did not answer in time", where=where)
    return ServiceError("the server does not answer", where=where, got=str(error))
