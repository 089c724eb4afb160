# SPDX-License-Identifier: Apache-2.0
"""What sealed requests hold of memory, of what was seen and of the record, and that a full record changes no answer."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Scope
from tests.serve.conftest import Served
from tests.serve.gated import Kept, gated
from tests.serve.sealing import NATIVE, OIP, Sealer
from tests.serve.test_sealed import multipart, one_refusal

from shipsight.access import NOBODY, Event
from shipsight.errors import OverloadedError
from shipsight.protect import MEDIA_TYPE, PlainRequest, SealedFor, SealingKey, open_answer, open_request, seal_request
from shipsight.serve import Limits
from shipsight.serve.http.body import HeldBodies, read_view
from shipsight.serve.predicted import PredictionLog, recording
from shipsight.serve.request_notes import current_body, note_body, note_digest


async def send(app: HeldBodies, kind: str, size: int) -> None:
    scope: Scope = {"type": "http", "headers": [(b"content-type", kind.encode())]}

    async def receive() -> Message:
        return {"type": "http.request", "body": bytes(size), "more_body": False}

    async def drop(_: Message) -> None:
        """Nobody looks at the answer."""

    await app(scope, receive, drop)


@pytest.mark.parametrize("kind", [MEDIA_TYPE, f"{MEDIA_TYPE.upper()}; a=b"])
def test_sealed_body_counts_twice_since_it_is_held_opened_too(kind: str) -> None:
    async def answer(scope: Scope, receive: object, send: object) -> None:
        await Request(scope, receive).body()  # type: ignore[arg-type]
        await Response()(scope, receive, send)  # type: ignore[arg-type]

    app = HeldBodies(answer, 1000)
    asyncio.run(send(app, "image/jpeg", 1000))
    asyncio.run(send(app, kind, 500))
    with pytest.raises(OverloadedError, match="too much is being sent at once"):
        asyncio.run(send(app, kind, 501))


def test_digest_stands_for_a_sealed_body_in_the_record_and_the_body_is_let_go() -> None:
    kept, body = Kept(), b"sealed bytes"
    digest = hashlib.sha256(body).hexdigest()
    predictions = PredictionLog(kept, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))

    async def run() -> None:
        note_body(body)
        note_digest(digest, len(body))
        note_body(b"what was inside")  # is read later, and is not what came
        assert not isinstance(current_body(), bytes)
        with recording(predictions, NOBODY, "digits", None, 1) as asked:
            asked.answered("1", "fp32", 0)

    asyncio.run(run())
    predictions.close()
    told: list[Event] = kept.events
    assert [(one.details["sha256"], one.details["bytes"]) for one in told] == [(digest, len(body))]


def test_refusal_stays_the_same_where_it_cannot_be_recorded(tmp_path: Path) -> None:
    """Else whoever floods the record learns which sealed requests were refused, and which were not looked at."""
    with gated(tmp_path) as app:
        headers = {**app.key("line-1", "predictor"), "content-type": MEDIA_TYPE}
        goes_on = threading.Event()

        async def ask() -> tuple[int, bytes]:
            told = await app.ask("POST", "/v1/models/digits/predict", headers, b"SSL1" + bytes(200))
            return told.status, told.body

        async def run() -> tuple[tuple[int, bytes], tuple[int, bytes]]:
            before = await ask()
            waiting = []
            with suppress(OverloadedError):
                while True:
                    waiting.append(app.gate._recording.submit(goes_on.wait))
            try:
                during = await ask()
            finally:
                goes_on.set()
            await asyncio.gather(*waiting)
            return before, during

        before, during = asyncio.run(run())
    assert before[0] == 400
    assert b"sealed-request-refused" in before[1]
    assert during == before


@pytest.mark.slow  # a server that starts
def test_id_is_kept_of_requests_that_a_model_was_asked_with_and_of_no_others(
    start: Callable[..., Served], digits_bundle: Path, tmp_path: Path, jpeg: bytes
) -> None:
    """Else whoever asks too often, or for what there is not, closes sealing for the others."""
    served = start(digits_bundle, "--sealing-keys", tmp_path / "keys", "--quota", "2/day")
    sealed_for = SealedFor(NATIVE, "digits")

    def kept() -> int:
        return len(list((tmp_path / "keys" / "seen").glob("*/*")))

    with served.client as http:
        sealer = Sealer(http, (tmp_path / "keys" / "identity.pin").read_text())

        def refused_inside(request: PlainRequest, asked: SealedFor, status: int) -> bytes:
            body, reply = sealer.seal(request, asked)
            for _ in range(2):  # nothing was answered by a model: it is the same request again, and no replay
                assert open_answer(sealer.send(body, asked).content, reply).status == status
            return body

        refused_inside(PlainRequest(jpeg), SealedFor(NATIVE, "faces"), 404)
        refused_inside(PlainRequest(jpeg), SealedFor(NATIVE, "digits", "9"), 404)
        refused_inside(PlainRequest(b"{}"), SealedFor(OIP, "faces"), 404)
        refused_inside(PlainRequest(jpeg, query="conf=high"), sealed_for, 400)
        refused_inside(multipart(jpeg, jpeg, jpeg), sealed_for, 429)
        assert kept() == 0
        answered, reply = sealer.seal(multipart(jpeg, jpeg), sealed_for)
        assert open_answer(sealer.send(answered, sealed_for).content, reply).status == 200
        assert kept() == 1
        late = refused_inside(PlainRequest(jpeg), sealed_for, 429)
        assert kept() == 1
        # Whether there is room or not, what was answered is refused as what was changed is.
        changed = late[:-1] + bytes([late[-1] ^ 1])
        one_refusal(sealer.send(answered, sealed_for), sealer.send(changed, sealed_for))
    served.stop()


def test_body_of_an_opened_request_is_not_copied() -> None:
    key, sealed_for = SealingKey.make(not_after_ms=2), SealedFor(NATIVE, "digits")
    sealed, _ = seal_request(PlainRequest(bytes(2**20)), key=key.public, sealed_for=sealed_for, now_ms=1)
    view = open_request(sealed, keys={key.public.id: key}, sealed_for=sealed_for, now_ms=1).request.body

    async def receive() -> Message:
        return {"type": "http.request", "body": view, "more_body": False}

    scope: Scope = {"type": "http", "headers": []}
    assert isinstance(view, memoryview)
    assert asyncio.run(read_view(Request(scope, receive), Limits())) is view
