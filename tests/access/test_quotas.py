# SPDX-License-Identifier: Apache-2.0
"""Rates and quotas: how they are written, what they count, when there is room again, what is told, the shared store."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.access import LOOPBACK, SERVER, Event, EventKind, Principal, PrincipalKind
from shipsight.access.counting import LocalCounts, sliding_wait_s
from shipsight.access.quotas import Limit, Quotas, QuotaSettings, owner_of, parse_limits, turn_of
from shipsight.errors import RateLimitError, UsageError

pytestmark = pytest.mark.anyio

ADA = Principal(PrincipalKind.PERSON, "ada", id="1")
KEY = Principal(PrincipalKind.KEY, "camera", id="k1", rate="3/second", quota="10/day")


class Seconds:
    """A monotonic clock that is set."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


class Kept:
    """A sink."""

    def __init__(self) -> None:
        self.kept: list[Event] = []
        self.fails = False

    def record(self, event: Event) -> None:
        if self.fails:
            raise OSError("no space left")
        self.kept.append(event)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def now() -> datetime:
    return datetime(2026, 1, 2, tzinfo=UTC)


def made(clock: Seconds, kept: Kept | None = None, **settings_: Any) -> Quotas:
    return Quotas(QuotaSettings(**settings_), kept or Kept(), now=now, clock=clock)


async def refused(quotas: Quotas, principal: Principal, model: str = "m", images: int = 1) -> RateLimitError | None:
    try:
        await quotas.take(principal, model, images=images)
    except RateLimitError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("100/second", (Limit(100, "second"),)),
        ("20/second;1000/hour", (Limit(20, "second"), Limit(1000, "hour"))),
        ("5/minute@big-*,huge; 9/day", (Limit(5, "minute", ("big-*", "huge")), Limit(9, "day"))),
    ],
)
def test_limits_are_read_as_people_write_them(text: str, limits: tuple[Limit, ...]) -> None:
    assert parse_limits(text) == limits
    assert parse_limits(";".join(one.told() for one in limits)) == limits


@pytest.mark.parametrize(
    "text",
    ["", "0/second", "-1/second", "1/fortnight", "many/day", "1/second;", "1/second@", "1/day@a b", "1/day;2/day",
     "9" * 40 + "/day", "\uff11/day"],
)  # fmt: skip
def test_what_is_no_limit_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(UsageError, match=r"--rate|models|window"):
        parse_limits(text, where="--rate")


def test_settings_are_checked_and_do_not_show_the_stores_password() -> None:
    with pytest.raises(UsageError, match="--quota"):
        QuotaSettings(quota="lots")
    with pytest.raises(UsageError, match="--limits-store"):
        QuotaSettings(store="memcached://host")
    assert "secret" not in repr(QuotaSettings(store="redis://:secret@host"))


async def test_rate_counts_requests_and_lets_pass_again_when_it_said() -> None:
    """ASVS 2.4.1."""
    clock = Seconds()
    quotas = made(clock)
    assert [await refused(quotas, KEY) for _ in range(3)] == [None] * 3
    error = await refused(quotas, KEY)
    assert error is not None
    assert error.what == "you asked too often"
    assert error.expected == "at most 3/second"
    clock.s += error.retry_after_s
    assert await refused(quotas, KEY) is None
    assert quotas.counts().limited == {("m", "rate"): 1}


async def test_quota_counts_images_until_its_window_ends() -> None:
    """ASVS 2.4.1."""
    clock = Seconds()
    quotas = made(clock, quota="10/day")
    assert await refused(quotas, ADA, images=8) is None
    error = await refused(quotas, ADA, images=3)
    assert error is not None
    assert error.what == "you asked about too many images"
    assert 86399 <= error.retry_after_s <= 86401
    assert await refused(quotas, ADA, images=2) is None, "what was refused did not count"
    clock.s += error.retry_after_s
    assert await refused(quotas, ADA, images=10) is None


async def test_request_of_more_images_than_the_quota_is_told_so() -> None:
    error = await refused(made(Seconds(), quota="10/day"), ADA, images=11)
    assert error is not None
    assert "at most 10 images in a request" in str(error)


async def test_principals_and_models_are_counted_apart() -> None:
    quotas = made(Seconds(), rate="1/minute")
    grace = Principal(PrincipalKind.PERSON, "grace", id="2")
    key = Principal(PrincipalKind.KEY, "ada", id="1")  # another kind of the same id
    for principal in (ADA, grace, key, LOOPBACK):
        for model in ("m", "n"):
            assert await refused(quotas, principal, model) is None
            assert await refused(quotas, principal, model) is not None


async def test_limit_of_some_models_leaves_the_others_alone() -> None:
    quotas = made(Seconds(), rate="1/minute@big-*")
    assert await refused(quotas, ADA, "big-1") is None
    assert await refused(quotas, ADA, "big-1") is not None
    assert [await refused(quotas, ADA, "small") for _ in range(5)] == [None] * 5


async def test_one_limit_does_not_count_what_another_refuses() -> None:
    clock = Seconds()
    quotas = made(clock, rate="2/second;4/hour", quota="5/day")
    for _ in range(2):
        assert [await refused(quotas, ADA) is None for _ in range(4)] == [True, True, False, False]
        clock.s += 5
    error = await refused(quotas, ADA)
    assert error is not None
    assert error.expected == "at most 4/hour"


@pytest.mark.parametrize("kind", [PrincipalKind.KEY, PrincipalKind.CERTIFICATE, PrincipalKind.DEVICE])
async def test_own_limit_of_what_belongs_to_nobody_stands_in_for_the_servers(kind: PrincipalKind) -> None:
    quotas = made(Seconds(), rate="1/hour")
    machine = dataclasses.replace(KEY, kind=kind)
    assert [await refused(quotas, machine) is None for _ in range(4)] == [True, True, True, False]


def key_of(person: Principal, key_id: str, *, rate: str | None = None, quota: str | None = None) -> Principal:
    return Principal(PrincipalKind.KEY, f"laptop.{key_id}", id=key_id, rate=rate, quota=quota, owner_id=person.id)


@pytest.mark.parametrize(
    "limits", [{"rate": "3/hour"}, {"quota": "3/day"}, {"rate": "3/hour", "quota": "100/day"}], ids=str
)
async def test_person_counts_with_all_their_keys(limits: dict[str, str]) -> None:
    """ASVS 2.4.1: a new key, or one that names limits of its own, gives a person no more than the server does."""
    quotas = made(Seconds(), **limits)
    keys = [key_of(ADA, "k1"), key_of(ADA, "k2", rate="1000000/second", quota="1000000/day")]
    assert [await refused(quotas, one) for one in (ADA, *keys)] == [None] * 3
    for one in (ADA, *keys, key_of(ADA, "k3")):
        error = await refused(quotas, one)
        assert error is not None
        assert error.expected in ("at most 3/hour", "at most 3/day")
    grace = Principal(PrincipalKind.PERSON, "grace", id="2")
    assert await refused(quotas, key_of(grace, "k4")) is None, "another person's key is not concerned"
    assert {turn_of(one) for one in (ADA, *keys)} == {"person:1"}, "and their turns are one person's"


async def test_own_limit_of_a_persons_key_holds_in_addition() -> None:
    quotas = made(Seconds(), rate="4/hour")
    slow, other = key_of(ADA, "k1", rate="1/hour"), key_of(ADA, "k2")
    assert await refused(quotas, slow) is None
    error = await refused(quotas, slow)
    assert error is not None
    assert error.expected == "at most 1/hour"
    assert [await refused(quotas, other) is None for _ in range(4)] == [True, True, True, False]
    alone = made(Seconds())
    assert [await refused(alone, slow) is None for _ in range(2)] == [True, False], "also where the server has none"


async def test_request_is_counted_once_for_each_limit_that_holds() -> None:
    quotas = made(Seconds(), rate="100/hour")
    for principal, counts in ((ADA, 1), (key_of(ADA, "k1"), 1), (key_of(ADA, "k2", rate="9/hour"), 2), (KEY, 2)):
        assert await refused(quotas, principal) is None
        assert await quotas._local.storage.reset() == counts, principal


async def test_server_itself_has_no_limit() -> None:
    quotas = made(Seconds(), rate="1/hour")
    assert [await refused(quotas, SERVER) for _ in range(3)] == [None] * 3
    assert owner_of(SERVER) is None


async def test_who_is_limited_is_told_once_a_minute() -> None:
    clock, kept = Seconds(), Kept()
    quotas = made(clock, kept, rate="1/hour")
    for _ in range(10):
        await refused(quotas, ADA)
    grace = Principal(PrincipalKind.PERSON, "grace", id="2")
    for _ in range(2):
        await refused(quotas, grace)
    assert [(one.kind, one.actor, one.subject, one.why) for one in kept.kept] == [
        (EventKind.LIMITED, "person:ada", "m", "rate"),
        (EventKind.LIMITED, "person:grace", "m", "rate"),
    ]
    clock.s += 60
    await refused(quotas, ADA)
    assert kept.kept[-1].details == {"limit": "1/hour", "refused_before": 8}


async def test_request_is_refused_also_when_the_sink_fails(caplog: pytest.LogCaptureFixture) -> None:
    """ASVS 16.5.3."""
    kept = Kept()
    quotas = made(Seconds(), kept, rate="1/hour")
    kept.fails = True
    await refused(quotas, ADA)
    assert await refused(quotas, ADA) is not None
    assert "could not be kept" in caplog.text


@settings(max_examples=200, deadline=None)
@given(
    limit=st.integers(1, 20),
    steps=st.lists(st.tuples(st.floats(0, 25), st.integers(1, 25)), min_size=1, max_size=60),
)
def test_sliding_window_never_gives_more_than_twice_its_limit_and_says_rightly_when_there_is_room(
    limit: int, steps: list[tuple[float, int]]
) -> None:
    async def check() -> None:
        clock = Seconds()
        counts = LocalCounts(clock)
        given_: list[tuple[float, int]] = []
        for pause_s, amount in steps:
            clock.s += pause_s
            if not await counts.acquire_sliding_window_entry("k", limit, 10, amount):
                stats = await counts.get_sliding_window("k", 10)
                wait_s = sliding_wait_s(stats, window_s=10, limit=limit, amount=amount)
                if amount > limit:
                    assert wait_s == 10
                    continue
                assert 0 <= wait_s <= 20
                if wait_s > 0.01:
                    clock.s += wait_s - 0.01
                    assert not await counts.acquire_sliding_window_entry("k", limit, 10, amount), "not before"
                    clock.s += 0.01
                clock.s += 1e-6
                assert await counts.acquire_sliding_window_entry("k", limit, 10, amount), "but then"
            given_.append((clock.s, amount))
            within = sum(one for at, one in given_ if at > clock.s - 10)
            assert within <= 2 * limit, "a sliding counter takes the hits of the window before as spread evenly"

    asyncio.run(check())


async def test_counts_that_are_over_are_forgotten() -> None:
    clock = Seconds()
    counts = LocalCounts(clock)
    for number in range(1000):
        await counts.incr(f"f{number}", 10)
        await counts.acquire_sliding_window_entry(f"s{number}", 5, 10)
    clock.s += 100
    await counts.incr("one", 10)
    await counts.acquire_sliding_window_entry("one", 5, 10)
    assert await counts.reset() == 2


# The shared store: a real Redis.


class RedisServer:
    """A redis-server on a port of its own, that keeps nothing on disk."""

    def __init__(self, program: str, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self.process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    pytest.importorskip("redis", reason="package redis is not installed")
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    server = RedisServer(program, tmp_path)
    yield server
    server.stop()


async def test_servers_that_share_a_store_count_together(redis: RedisServer) -> None:
    clock = Seconds()
    one, other = (made(clock, store=redis.url, rate="4/minute", quota="6/day") for _ in range(2))
    assert await refused(one, ADA, images=3) is None
    assert await refused(other, ADA) is None
    error = await refused(one, ADA, images=3)
    assert error is not None
    assert error.expected == "at most 6/day"
    assert 86395 <= error.retry_after_s <= 86401
    assert [await refused(other, ADA) is None for _ in range(3)] == [True, True, False]
    error = await refused(one, ADA)
    assert error is not None
    assert error.expected in ("at most 4/minute", "at most 6/day")
    assert one.counts().is_store_up
    assert one.counts().local == 0
    for quotas in (one, other):
        await quotas.close()


async def test_shared_store_says_rightly_when_there_is_room(redis: RedisServer) -> None:
    quotas = made(Seconds(), store=redis.url, rate="2/second")
    assert [await refused(quotas, ADA) is None for _ in range(3)] == [True, True, False]
    error = await refused(quotas, ADA)
    assert error is not None
    await asyncio.sleep(error.retry_after_s)
    assert await refused(quotas, ADA) is None
    await quotas.close()


async def test_shared_store_holds_no_names(redis: RedisServer) -> None:
    quotas = made(Seconds(), store=redis.url, rate="2/minute", quota="9/day")
    await refused(quotas, ADA, "secret-model")
    import redis as client

    with client.Redis.from_url(redis.url) as connection:
        keys = connection.keys("*")
        assert keys
        assert not [key for key in keys if b"ada" in key or b"secret" in key]
        assert all(connection.ttl(key) > 0 for key in keys), "all of them end"
    await quotas.close()


@pytest.mark.parametrize("how", ["ended", "hanging"])
async def test_requests_go_on_under_local_counts_while_the_store_is_away(
    redis: RedisServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """ASVS 16.5.2: a lost resource is contained, and told."""
    clock = Seconds()
    quotas = made(clock, store=redis.url, rate="3/hour", store_timeout_s=2.0)
    assert await refused(quotas, ADA) is None
    if how == "ended":
        redis.stop()
    else:
        redis.process.send_signal(signal.SIGSTOP)
    with caplog.at_level(logging.WARNING):
        begin = time.monotonic()
        answers = [await refused(quotas, ADA) is None for _ in range(5)]
        assert time.monotonic() - begin < 8, "only the first waits for it; five would wait for ten seconds"
    assert answers == [True, True, True, False, False], "this server's own counts hold"
    assert quotas.counts().is_store_up is False
    assert quotas.counts().local == 5
    assert caplog.text.count("does not answer") == 1
    if how == "ended":
        redis.start()
    else:
        redis.process.send_signal(signal.SIGCONT)
    assert await refused(quotas, ADA) is not None, "not tried again yet"
    clock.s += 5
    assert await refused(quotas, ADA) is None
    assert quotas.counts().is_store_up is True
    assert caplog.text.count("answers again") == 1
    await quotas.close()


async def test_many_who_find_the_store_away_are_all_decided(redis: RedisServer) -> None:
    quotas = made(Seconds(), store=redis.url, rate="10/hour")
    redis.process.send_signal(signal.SIGSTOP)
    answers = await asyncio.gather(*(refused(quotas, ADA) for _ in range(30)))
    assert sum(one is None for one in answers) == 10
    await quotas.close()


@pytest.mark.alone
async def test_decision_in_memory_takes_microseconds() -> None:
    quotas = made(Seconds(), rate="1000000/second", quota="100000000/day")
    principals = [dataclasses.replace(ADA, id=str(number)) for number in range(100)]
    best_us = math.inf
    for _ in range(50):
        begin = time.perf_counter()
        for principal in principals:
            await quotas.take(principal, "m", images=1)
        best_us = min(best_us, (time.perf_counter() - begin) * 1e4)
    assert best_us < 100
