# SPDX-License-Identifier: Apache-2.0
"""A handler ends when its client has left, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message

from shipsight.serve.http.handlers import _while_connected

Handle = Callable[[Request], Awaitable[Response]]


def meet(handle: Handle, *, leaves_after_s: float | None, body: tuple[bytes, ...] = (b"ab", b"c")) -> Response:
    """Lets a handler answer a client that sends its body in pieces and leaves, or stays; checks that no task is left."""

    async def run() -> Response:
        messages: list[Message] = [
            {"type": "http.request", "body": piece, "more_body": number + 1 < len(body)}
            for number, piece in enumerate(body)
        ]

        async def receive() -> Message:
            if messages:
                return messages.pop(0)
            await asyncio.sleep(60 if leaves_after_s is None else leaves_after_s)
            return {"type": "http.disconnect"}

        try:
            async with asyncio.timeout(10):
                return await _while_connected(Request({"type": "http", "headers": []}, receive), handle)
        finally:
            await asyncio.sleep(0)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return asyncio.run(run())


async def slowly(request: Request) -> Response:
    content = await request.body()
    await asyncio.sleep(0.4)
    return Response(content)


def test_a_client_that_stays_is_answered_however_long_it_takes() -> None:
    assert meet(slowly, leaves_after_s=None).body == b"abc"


def test_a_client_that_leaves_ends_what_it_asked_for() -> None:
    ended = []

    async def handle(request: Request) -> Response:
        await request.body()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append(True)
            raise
        return Response()

    with pytest.raises(ClientDisconnect):
        meet(handle, leaves_after_s=0.05)
    assert ended == [True]


def test_an_answer_that_is_ready_first_is_given() -> None:
    async def handle(request: Request) -> Response:
        return Response(await request.body())

    assert meet(handle, leaves_after_s=0.0).body == b"abc"


def test_a_body_that_is_not_asked_for_is_not_taken() -> None:
    async def handle(request: Request) -> Response:
        await asyncio.sleep(0.3)
        return Response(await request.body())

    assert meet(handle, leaves_after_s=0.0).body == b"abc"


def test_a_handler_that_fails_fails_alike() -> None:
    async def handle(request: Request) -> Response:
        await request.body()
        raise ValueError("bad")

    with pytest.raises(ValueError, match="bad"):
        meet(handle, leaves_after_s=None)


def test_who_ends_the_server_is_not_told_that_the_client_left() -> None:
    async def run() -> None:
        task = asyncio.ensure_future(
            _while_connected(Request({"type": "http", "headers": []}, asyncio.Event().wait), slowly)  # type: ignore[arg-type]
        )
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
