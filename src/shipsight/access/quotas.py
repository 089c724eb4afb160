# SPDX-License-Identifier: Apache-2.0
"""How often a principal may ask a model, and about how many images: a rate of requests and a quota of images.

A limit is written `100/second` or `100000/day`; several stand side by side, `20/second;1000/hour`, and one may hold for some
models only: `5/second@big-*`. All that fit hold. Each is counted for a principal and a model apart: a rate over a window that
slides, a quota over one that begins with its first image. A person's keys count for that person, by the server's limits; what
such a key has of its own holds in addition, since people make keys for themselves. What is refused by a limit does not count against it. Counts are
kept in this process, or in a Redis that several servers share. Invariant: while the shared store does not answer, the same
limits hold in each server by itself; that is told in the log and by `QuotaCounts`, and tried again every few seconds.
Leaves to others: who asks (`authenticate`), what a model's queue can bear (`serve`). Stable.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from shipsight.access.events import Event, EventKind, EventSink, Outcome
from shipsight.access.permissions import ALL_MODELS, Grant, check_models
from shipsight.access.principal import Principal, PrincipalKind
from shipsight.errors import MissingDependencyError, RateLimitError, UsageError

if TYPE_CHECKING:
    from limits import RateLimitItem
    from limits.aio.storage import RedisStorage
    from limits.aio.strategies import RateLimiter

    from shipsight.access.counting import LocalCounts

__all__ = ["Limit", "QuotaCounts", "QuotaSettings", "Quotas", "owner_of", "parse_limits", "turn_of"]

_log = logging.getLogger("shipsight.access")
_WRITTEN = re.compile(r"([1-9][0-9]{0,11})/(second|minute|hour|day|month)")
_STORES = ("redis://", "rediss://", "redis+unix://")
_TOLD_EVERY_S = 60.0
_AGAIN_S = 5.0
_MOST_TOLD = 4096
_APART = frozenset({PrincipalKind.PERSON, PrincipalKind.KEY, PrincipalKind.CERTIFICATE, PrincipalKind.DEVICE})


@dataclass(frozen=True)
class Limit:
    """One limit.

    Attributes:
        amount: requests or images, 1 and more.
        window: `second`, `minute`, `hour`, `day` or `month` (30 days).
        models: patterns of the models that it holds for.
    """

    amount: int
    window: str
    models: tuple[str, ...] = ALL_MODELS

    def told(self) -> str:
        """Returns it as people write it."""
        where = "" if self.models == ALL_MODELS else f"@{','.join(self.models)}"
        return f"{self.amount}/{self.window}{where}"

    def holds_for(self, model: str) -> bool:
        """Whether it is on a model."""
        return self.models == ALL_MODELS or Grant("", self.models).covers(model)


@lru_cache(maxsize=1024)
def parse_limits(text: str, *, where: str = "limit") -> tuple[Limit, ...]:
    """Reads limits as people write them.

    Args:
        text: `100/second`, `20/second;5/second@big-*,huge`.
        where: what a refusal names.

    Raises:
        UsageError: it is written otherwise, or a window is named twice for the same models.
    """
    limits = []
    for part in text.split(";"):
        told, at, models = part.strip().partition("@")
        found = _WRITTEN.fullmatch(told)
        if found is None:
            raise UsageError("not a limit", where=where, expected="100/second, 100000/day@MODELS", got=repr(part[:80]))
        patterns = tuple(models.split(",")) if at else ALL_MODELS
        check_models(patterns)
        limits.append(Limit(int(found[1]), found[2], patterns))
    if len({(one.window, one.models) for one in limits}) != len(limits):
        raise UsageError("a window is named twice", where=where, got=text[:80])
    return tuple(limits)


@dataclass(frozen=True)
class QuotaSettings:
    """Limits of a server.

    Attributes:
        rate: requests, of every person with their keys, and of every other principal that has no rate of its own; None for any.
        quota: images, likewise.
        store: Redis that servers share, `redis://host:port/number`, `rediss://` or `redis+unix://`; None for this process.
        store_timeout_s: seconds within which it must answer; above it, requests go on under this server's own counts.
    """

    rate: str | None = None
    quota: str | None = None
    store: str | None = field(default=None, repr=False)  # may hold a password
    store_timeout_s: float = 0.25

    def __post_init__(self) -> None:
        for name in ("rate", "quota"):
            if getattr(self, name) is not None:
                parse_limits(getattr(self, name), where=f"--{name}")
        if self.store is not None and not self.store.startswith(_STORES):
            raise UsageError("no such kind of store", where="--limits-store", expected="redis://host:port")
        if not self.store_timeout_s > 0:
            raise UsageError("out of range", where="store_timeout_s", expected="above 0", got=self.store_timeout_s)


@dataclass(frozen=True)
class QuotaCounts:
    """What was decided so far.

    Attributes:
        limited: requests that were refused, by model and by `rate` or `quota`.
        is_store_up: whether the shared store answered last; None where there is none.
        local: decisions made with this server's own counts because the shared store did not answer.
    """

    limited: Mapping[tuple[str, str], int]
    is_store_up: bool | None
    local: int


def owner_of(principal: Principal) -> str | None:
    """Returns whom counts and turns belong to; None for the server itself.

    Those of a kind who are not told apart, as on a server that knows nobody, are one; a person is one with their keys.
    """
    if principal.kind is PrincipalKind.SERVER:
        return None
    if principal.owner_id is not None:
        return f"{PrincipalKind.PERSON.value}:{principal.owner_id}"
    return f"{principal.kind.value}:{principal.id or principal.name}"


def turn_of(principal: Principal) -> str | None:
    """Returns who takes turns with others where many ask at once; None for those who are not told apart."""
    return owner_of(principal) if principal.kind in _APART else None


class Quotas:
    """Holds principals to their limits. Made and used on one event loop.

    Args:
        settings: of the server.
        events: takes who was limited, at most once a minute for each.
        now: tells the time for events.
        clock: monotonic seconds.

    Raises:
        MissingDependencyError: a store is given and the package redis is not installed.
    """

    def __init__(
        self,
        settings: QuotaSettings,
        events: EventSink,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from limits.errors import StorageError

        from shipsight.access.counting import LocalCounts

        self._settings = settings
        self._events = events
        self._now = now
        self._clock = clock
        self._local = _Limiters(LocalCounts(clock))
        self._store = None if settings.store is None else _open_store(settings)
        self._shared = None if self._store is None else _Limiters(self._store)
        self._failures = (StorageError, TimeoutError, OSError)
        self._is_store_up: bool | None = None if self._shared is None else True
        self._again_s = 0.0
        self._limited: Counter[tuple[str, str]] = Counter()
        self._local_decisions = 0
        self._told: dict[str, tuple[float, int]] = {}

    def counts(self) -> QuotaCounts:
        """Returns what was decided so far."""
        return QuotaCounts(dict(self._limited), self._is_store_up, self._local_decisions)

    async def take(self, principal: Principal, model: str, *, images: int = 1) -> None:
        """Counts a request, or refuses it.

        Args:
            principal: who asks.
            model: name of one that is served: any other would be counted, too.
            images: of the request, 1 and more.

        Raises:
            RateLimitError: one limit is used up; it says when there is room again.
        """
        owner, settings = owner_of(principal), self._settings
        if owner is None:
            return
        if principal.owner_id is None:
            wanted = _wanted(principal.rate or settings.rate, principal.quota or settings.quota, owner, model, images)
        else:
            # What people write into keys for themselves cannot stand in for what holds for them.
            own = _wanted(principal.rate, principal.quota, f"{principal.kind.value}:{principal.id}", model, images)
            wanted = _wanted(settings.rate, settings.quota, owner, model, images) + own
        if not wanted:
            return
        refused = await self._take(wanted)
        if refused is not None:
            await self._refuse(principal, owner, model, *refused)

    async def close(self) -> None:
        """Closes connections to the shared store."""
        if self._store is not None:
            bridge: Any = self._store.bridge
            await bridge.get_connection().aclose()

    async def _take(self, wanted: Sequence[_Wanted]) -> tuple[_Wanted, float] | None:
        if self._shared is None:
            return await self._local.take(wanted)
        now = self._clock()
        if self._is_store_up or now >= self._again_s:
            # While one request tries whether the store is back, others do not wait for it.
            self._again_s = now + _AGAIN_S
            try:
                async with asyncio.timeout(self._settings.store_timeout_s):
                    refused = await self._shared.take(wanted)
            except self._failures as error:
                self._store_answers(f"{type(error).__name__}: {error}"[:200])
            else:
                self._store_answers(None)
                return refused
        self._local_decisions += 1
        return await self._local.take(wanted)

    def _store_answers(self, failure: str | None) -> None:
        is_up = failure is None
        if is_up is not self._is_store_up:
            self._is_store_up = is_up
            if is_up:
                _log.warning("the store of limits answers again", extra={"shipsight": {"code": "limits-store-up"}})
            else:
                _log.warning(
                    "the store of limits does not answer: each server goes by its own counts",
                    extra={"shipsight": {"code": "limits-store-down", "got": failure}},
                )

    async def _refuse(self, principal: Principal, owner: str, model: str, wanted: _Wanted, wait_s: float) -> None:
        self._limited[model, wanted.kind] += 1
        error = RateLimitError(
            "you asked too often" if wanted.kind == "rate" else "you asked about too many images",
            where=model,
            expected=f"at most {wanted.limit.told()}",
            hint=f"Ask again in {_whole_s(wait_s)} s."
            if wanted.amount <= wanted.limit.amount
            else f"Send at most {wanted.limit.amount} images in a request.",
        )
        error.retry_after_s = _whole_s(wait_s)
        await self._tell(principal, owner, model, wanted)
        raise error

    async def _tell(self, principal: Principal, owner: str, model: str, wanted: _Wanted) -> None:
        now = self._clock()
        last_s, untold = self._told.get(owner, (-math.inf, 0))
        if now < last_s + _TOLD_EVERY_S:
            self._told[owner] = (last_s, untold + 1)
            return
        if len(self._told) >= _MOST_TOLD:
            self._told = {one: told for one, told in self._told.items() if now < told[0] + _TOLD_EVERY_S}
        self._told[owner] = (now, 0)
        event = Event(
            self._now(),
            EventKind.LIMITED,
            Outcome.REFUSED,
            principal.told(),
            subject=model,
            why=wanted.kind,
            details={"limit": wanted.limit.told(), "refused_before": untold},
        )
        # A sink may write to a disk: not on the loop. The request is refused whether or not it can.
        try:
            await asyncio.to_thread(self._events.record, event)
        except Exception:  # noqa: BLE001 - whatever a sink raises: nothing is allowed that it would have to tell
            _log.exception("an event could not be kept: %s", EventKind.LIMITED)


@dataclass(frozen=True, slots=True)
class _Wanted:
    kind: str
    limit: Limit
    amount: int
    key: str


def _wanted(rate: str | None, quota: str | None, owner: str, model: str, images: int) -> tuple[_Wanted, ...]:
    return () if rate is None and quota is None else _read_wanted(rate, quota, owner, model, images)


@lru_cache(maxsize=4096)
def _read_wanted(rate: str | None, quota: str | None, owner: str, model: str, images: int) -> tuple[_Wanted, ...]:
    return tuple(
        _Wanted(kind, limit, 1 if kind == "rate" else images, _key(kind, owner, model, limit))
        for kind, text in (("rate", rate), ("quota", quota))
        if text is not None
        for limit in parse_limits(text)
        if limit.holds_for(model)
    )


def _key(kind: str, owner: str, model: str, limit: Limit) -> str:
    """Returns what a count is found by: of one length, and without names, which a shared store need not know."""
    text = "\0".join((kind, owner, model, limit.told()))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _whole_s(wait_s: float) -> int:
    return math.floor(wait_s) + 1


class _Limiters:
    """Strategies of `limits` on one storage: that for rates, and that for quotas."""

    def __init__(self, storage: LocalCounts | RedisStorage) -> None:
        from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

        self.storage = storage
        self._sliding = SlidingWindowCounterRateLimiter(storage)
        self._fixed = FixedWindowRateLimiter(storage)

    async def take(self, wanted: Sequence[_Wanted]) -> tuple[_Wanted, float] | None:
        """Counts all or, but for races between servers, none; returns what refuses, and for how many seconds."""
        # A fixed window counts what it refuses, too, and one limit must not count what another refuses: ask, then count.
        asked = wanted if len(wanted) > 1 or any(one.kind == "quota" for one in wanted) else ()
        for one in asked:
            if not await self._of(one).test(_item(one.limit), one.key, cost=one.amount):
                return one, await self._wait_s(one)
        for one in wanted:
            if not await self._of(one).hit(_item(one.limit), one.key, cost=one.amount):
                return one, await self._wait_s(one)
        return None

    def _of(self, one: _Wanted) -> RateLimiter:
        return self._sliding if one.kind == "rate" else self._fixed

    async def _wait_s(self, one: _Wanted) -> float:
        from shipsight.access.counting import sliding_wait_s

        item = _item(one.limit)
        if one.kind == "quota":
            return max((await self._fixed.get_window_stats(item, one.key)).reset_time - time.time(), 0.0)
        stats = await self.storage.get_sliding_window(item.key_for(one.key), item.get_expiry())
        return sliding_wait_s(stats, window_s=item.get_expiry(), limit=one.limit.amount, amount=one.amount)


def _open_store(settings: QuotaSettings) -> RedisStorage:
    try:
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "package redis is not installed", hint="Run: pip install 'shipsight[redis]'"
        ) from error
    from limits.aio.storage import RedisStorage

    assert settings.store is not None  # who calls has looked
    return RedisStorage(
        f"async+{settings.store}",
        wrap_exceptions=True,
        implementation="redispy",
        key_prefix="shipsight-limits",
        socket_timeout=settings.store_timeout_s,
        socket_connect_timeout=settings.store_timeout_s,
        # Its own tries would take seconds: this server's counts are there at once.
        retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]  # passed on to redis.asyncio.Redis, which takes it
    )


@lru_cache(maxsize=1024)
def _item(limit: Limit) -> RateLimitItem:
    import limits

    kinds = {
        "second": limits.RateLimitItemPerSecond,
        "minute": limits.RateLimitItemPerMinute,
        "hour": limits.RateLimitItemPerHour,
        "day": limits.RateLimitItemPerDay,
        "month": limits.RateLimitItemPerMonth,
    }
    return kinds[limit.window](limit.amount)
