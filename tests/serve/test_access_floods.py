# SPDX-License-Identifier: Apache-2.0
"""Whom a flood of strangers does not hurt: people who are known, probes, and whoever comes from another address."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import threading
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serve.gated import Answered, Gated, gated

from shipsight.access.settings import OpenIdSettings
from shipsight.errors import OverloadedError, RateLimitError
from shipsight.serve.gate import Behind, GateRules
from shipsight.serve.lanes import Lane, Paced, network_of
from shipsight.serve.proxy_rules import ProxyRules

JSON = {"content-type": "application/json"}
ME, OPTIONS = "/v1/me", "/v1/access/sign-in/passkey/options"
PLACES = 64


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Gated]:
    with gated(tmp_path) as made:
        yield made


def sign_in(app: Gated, number: int, *, address: str | None = None, **headers: str) -> asyncio.Future[Answered]:
    """Begins to sign in as somebody who was invented."""
    body = json.dumps({"name": f"nobody-{number}", "password": "three otters on a raft"}).encode()
    client = (address or f"198.51.{number // 250}.{number % 250 + 1}", 5)
    asked = app.ask("POST", "/v1/access/sign-in", {**JSON, **headers}, body, client=client)
    return asyncio.ensure_future(asked)


async def until_done(futures: list[asyncio.Future[Answered]], count: int) -> None:
    async with asyncio.timeout(60):
        while sum(one.done() for one in futures) < count:
            await asyncio.sleep(0.005)


def statuses(answers: list[Answered]) -> dict[int, int]:
    told = [one.status for one in answers]
    return {status: told.count(status) for status in set(told)}


def run(work: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(120):
            return await work

    return asyncio.run(bounded())


# --- signing in ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_administrator_works_on_while_strangers_sign_in_without_end(app: Gated) -> None:
    """ASVS 2.4.1, 6.3.1: also to keep out whose account was stolen."""
    admin, other = app.person("ada", "admin"), app.person("grace", "viewer")
    grace = app.access.directory.user("grace").id

    async def flooded() -> tuple[list[Answered], int, list[Answered]]:
        flood = [sign_in(app, number) for number in range(PLACES + 40)]
        await until_done(flood, 40)
        answers = [
            await app.ask("GET", "/v1/access/session", other),
            await app.ask("GET", "/v1/access/sessions", admin),
            await app.ask("PATCH", f"/v1/access/users/{grace}", {**admin, **JSON}, b'{"disabled": true}'),
            await app.ask("GET", ME, other),
            await app.ask("POST", "/v1/access/sign-out", {**admin, **JSON}, b"{}"),
        ]
        waiting = sum(not one.done() for one in flood)
        return answers, waiting, await asyncio.gather(*flood)

    answers, waiting, flood = run(flooded())
    assert [one.status for one in answers] == [200, 200, 200, 401, 200]
    assert waiting > 0, "the flood had ended before"
    assert statuses(flood) == {401: PLACES, 503: 40}


def test_one_address_holds_few_places_of_those_for_strangers(app: Gated) -> None:
    async def flooded() -> tuple[list[Answered], list[Answered]]:
        mine = [sign_in(app, number, address=f"2001:db8::{number}") for number in range(20)]
        others = [sign_in(app, number) for number in range(4)]
        return await asyncio.gather(*mine), await asyncio.gather(*others)

    mine, others = run(flooded())
    assert statuses(mine) == {401: 8, 503: 12}
    assert statuses(others) == {401: 4}


@pytest.mark.parametrize(
    ("proxy", "headers", "expected"),
    [
        (None, {}, {401: 12}),
        (ProxyRules(secret="a secret of the proxy"), {"x-shipsight-proxy-secret": "a secret of the proxy"}, {401: 12}),
        (
            ProxyRules(networks=(ipaddress.ip_network("192.0.2.1/32"),)),
            {"x-forwarded-for": "203.0.113.9"},
            {401: 8, 503: 4},
        ),
    ],
    ids=["platform", "proxy-that-names-nobody", "proxy-that-names-the-client"],
)
def test_the_address_of_a_proxy_is_nobodys_share(
    tmp_path: Path, proxy: ProxyRules | None, headers: dict[str, str], expected: dict[int, int]
) -> None:
    behind = Behind.KSERVE if proxy is None else Behind.PROXY
    with gated(tmp_path, rules=GateRules(is_local=False, behind=behind), proxy=proxy) as app:

        async def flooded() -> list[Answered]:
            return await asyncio.gather(*(sign_in(app, one, address="192.0.2.1", **headers) for one in range(12)))

        assert statuses(run(flooded())) == expected


def test_a_provider_that_hangs_holds_up_nobody_who_signs_in_otherwise(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        issuer = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        with gated(tmp_path, openid=OpenIdSettings(issuer, "shipsight")) as app:

            async def flooded() -> tuple[Answered, int, list[Answered]]:
                waiting = [
                    asyncio.ensure_future(
                        app.ask("GET", "/v1/access/sign-in/openid", client=(f"198.51.100.{number}", 5))
                    )
                    for number in range(8)
                ]
                hanging.settimeout(20)
                connection, _ = await asyncio.to_thread(hanging.accept)
                answered = await sign_in(app, 1)
                held = sum(not one.done() for one in waiting)
                connection.close()
                hanging.close()
                return answered, held, await asyncio.gather(*waiting)

            answered, held, others = run(flooded())
    assert answered.status == 401
    assert held == 8
    assert {one.status for one in others} <= {500, 502, 503}


def test_beginnings_of_sign_ins_are_paced_by_address_for_who_is_not_known(app: Gated) -> None:
    """ASVS 2.4.1: each keeps a challenge."""
    ada = app.person("ada", "viewer")

    def begin(address: str, **headers: str) -> Answered:
        body = b'{"alone": true}'
        return asyncio.run(app.ask("POST", OPTIONS, {**JSON, **headers}, body, client=(address, 5)))

    assert [begin("2001:db8::1").status for _ in range(60)] == [200] * 60
    refused = begin("2001:db8::2")
    assert (refused.status, refused.json()["error"]["code"]) == (429, "rate-limit")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert begin("2001:db8:0:1::1").status == 200
    assert begin("2001:db8::1", **ada).status == 200


# --- credentials --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held(lane: Lane, *, places: int) -> Iterator[None]:
    """Fills places of a lane with what does not end."""
    end = threading.Event()
    for _ in range(places):
        lane.submit(end.wait)
    try:
        yield
    finally:
        end.set()


def test_probes_and_public_pages_are_answered_however_many_ask_who_they_are(app: Gated) -> None:
    key = app.key("line-1", "viewer")
    wrong = {"authorization": "Bearer ssk_0123456789abcdef_" + "A" * 43}

    async def asked() -> dict[str, int]:
        with held(app.gate._lane, places=256), held(app.gate._strangers, places=512):
            told = {path: (await app.ask("GET", path)).status for path in ("/", "/healthz", "/v2/health/live")}
            for name, headers in (("wrong", wrong), ("key", key)):
                told[name] = (await app.ask("GET", "/healthz", headers)).status
                told[f"{name}, of weight"] = (await app.ask("GET", ME, headers)).status
        return told

    assert run(asked()) == {
        "/": 200, "/healthz": 200, "/v2/health/live": 200,
        "wrong": 200, "wrong, of weight": 503, "key": 200, "key, of weight": 503,
    }  # fmt: skip


def test_an_open_server_is_alive_however_many_ask(tmp_path: Path) -> None:
    with gated(tmp_path, rules=GateRules(), origin="http://localhost:8000") as app:

        async def asked() -> list[int]:
            with held(app.gate._lane, places=256):
                return [(await app.ask("GET", path, host="localhost")).status for path in ("/healthz", ME)]

        assert run(asked()) == [200, 503]


def test_a_credential_that_was_accepted_does_not_wait_for_those_that_were_not(app: Gated) -> None:
    key, session, new = app.key("line-1", "viewer"), app.person("ada", "viewer"), app.key("line-2", "viewer")

    async def asked() -> list[int]:
        before = [(await app.ask("GET", ME, one)).status for one in (key, session)]
        app.key("line-3", "viewer")  # what was found has to be looked up again
        with held(app.gate._strangers, places=512):
            return before + [(await app.ask("GET", ME, one)).status for one in (key, session, new)]

    assert run(asked()) == [200, 200, 200, 200, 503]


def test_a_credential_that_has_ended_waits_with_the_others(app: Gated) -> None:
    session = app.person("ada", "viewer")
    user = app.access.directory.user("ada").id

    async def asked() -> list[int]:
        told = [(await app.ask("GET", ME, session)).status]
        app.access.sessions.end_all(_admin(app), user)
        told.append((await app.ask("GET", ME, session)).status)
        with held(app.gate._strangers, places=512):
            told.append((await app.ask("GET", ME, session)).status)
        return told

    assert run(asked()) == [200, 401, 503]


def _admin(app: Gated) -> Any:
    app.person("root", "admin")
    principal = app.access.sessions.by_handle(app.access.sessions.list(app.access.directory.user("root").id)[0].handle)
    assert principal is not None
    return principal


# --- lanes --------------------------------------------------------------------------------------------------------------


def test_a_lane_counts_all_and_each_and_gives_places_back() -> None:
    async def counted() -> None:
        lane, end = Lane("test", threads=2, places=5, share=3), threading.Event()
        first = [lane.submit(end.wait, whose="a") for _ in range(3)]
        with pytest.raises(OverloadedError, match="one place"):
            lane.submit(end.wait, whose="a")
        more = [lane.submit(end.wait, whose=one) for one in ("b", None)]
        with pytest.raises(OverloadedError, match="too many"):
            lane.submit(end.wait, whose="c")
        more[1].cancel()  # it waited for a thread
        await asyncio.sleep(0)
        more[1] = lane.submit(end.wait)
        end.set()
        await asyncio.gather(*first, *more)
        assert lane._taken == 0
        assert not lane._held
        assert await lane.submit(sum, (1, 2), whose="a") == 3
        with pytest.raises(ZeroDivisionError):
            await lane.submit(divmod, 1, 0, whose="a")
        lane.close()

    run(counted())


def test_a_paced_beginning_slides_and_forgets_who_came_longest_ago() -> None:
    now = 0.0
    paced = Paced(2, window_s=60.0, clock=lambda: now)
    paced.take("a")
    now = 30.0
    paced.take("a")
    with pytest.raises(RateLimitError) as caught:
        paced.take("a")
    assert caught.value.retry_after_s == 30
    paced.take(None)
    now = 60.0
    paced.take("a")
    with pytest.raises(RateLimitError):
        paced.take("a")
    for number in range(5000):
        paced.take(str(number))
    assert len(paced._times) == 4096
    paced.take("a")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, None),
        ("", None),
        ("unknown", None),
        ("192.0.2.7:80", None),
    ],
)
def test_a_client_is_counted_by_what_is_one_customers(address: str | None, expected: str | None) -> None:
    assert network_of(address) == expected
