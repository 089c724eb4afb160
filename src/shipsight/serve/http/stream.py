# SPDX-License-Identifier: Apache-2.0
"""Video over a WebSocket: frames in, predictions out. Described in `docs/protocols/stream.md`.

GET /v1/models/{model}[/versions/{version}]/stream
    query     as the native protocol's, and track=true
    in        binary messages, each an encoded image
    out       one text message a frame that was answered: JSON

Invariants: what a client may do is looked at again for each frame and each second, and where it may no longer ask this
model the stream ends with 4403, whatever waits unanswered; at most one frame of a stream is predicted and one waits; a newer one takes the place of the one that waits, so
a stream never falls behind; one bad frame is answered with its error and ends nothing. Leaves to others: prediction
(`service`), the wire (uvicorn, which also bounds a message's bytes and pings the client). Stable.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from shipsight.access import Action, Principal
from shipsight.access.quotas import turn_of
from shipsight.errors import (
    ForbiddenError,
    InternalError,
    NotReadyError,
    OverloadedError,
    ServiceError,
    ShipsightError,
    UsageError,
)
from shipsight.model import Predictions, Task
from shipsight.serve.gate import conceal
from shipsight.serve.http.admission import GuardedWebSocketRoute, refuse
from shipsight.serve.http.answers import error_answer, shown
from shipsight.serve.http.description import DescribedRoute, answer, operation
from shipsight.serve.http.native import check_options, options_of, query_settings, query_tiles, read_flag, read_number
from shipsight.serve.http.principals import principal_of
from shipsight.serve.http.routing import read_key
from shipsight.serve.limits import Limits
from shipsight.serve.metrics import Metrics
from shipsight.serve.needs import Needs
from shipsight.serve.questions import EncodedImage, Question, Target
from shipsight.serve.request_notes import RequestNote, begin_note, end_note, note_body, request_id
from shipsight.serve.service import PredictionService
from shipsight.serve.traces import CARRIED, Traces
from shipsight.vision import TRACK_CONF, Tracker
from shipsight.vision.tiling import check_task as check_tiling

__all__ = ["Streams", "stream_routes"]

_log = logging.getLogger("shipsight.serve")
_MOST_FAILURES = 16
_LEAVING, _NO_TEXT, _REFUSED, _BUG, _FORBIDDEN = 1001, 1003, 1008, 1011, 4403
_LOOK_S = 1.0  # between looks at what a client may do that sends nothing


@dataclass(frozen=True)
class _End:
    """Why the server ends a stream: a close code of RFC 6455 and words."""

    code: int
    reason: str


_NOT_ALLOWED = _End(_FORBIDDEN, "this is not allowed to you any more")


class Streams:
    """The streams that are open.

    Args:
        service: answers.
        limits: how many there may be, how long one may be silent.
        metrics: counts frames.
        traces: where spans of frames go, None for nowhere.
    """

    def __init__(
        self, service: PredictionService, limits: Limits, metrics: Metrics, traces: Traces | None = None
    ) -> None:
        self.service = service
        self.limits = limits
        self.metrics, self.traces = metrics, traces
        self.leaving = asyncio.Event()
        self._open: dict[asyncio.Task[None], str | None] = {}  # whose each is

    async def leave(self, within_s: float) -> None:
        """Ends all streams after the frame that each is at: the server drains."""
        self.leaving.set()
        if self._open:
            await asyncio.wait(self._open, timeout=within_s)

    async def serve(self, principal: Principal, socket: WebSocket) -> None:
        """Serves one stream from handshake to close.

        Args:
            principal: who asks.
            socket: not accepted yet; a stream that cannot begin is answered with HTTP's status and error.
        """
        try:
            session = self._begin(principal, socket)
        except ShipsightError as error:
            told = await refuse(self.service.gate, socket.scope, principal, error)
            await socket.send_denial_response(error_answer(told))
            return
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = turn_of(principal)
        try:
            await socket.accept()
            end = await session.run()
            if end is not None:
                with _gone_is_gone():
                    await socket.close(end.code, end.reason)
        except WebSocketDisconnect:
            _log.debug("the client of a stream left while something was said to it")
        finally:
            del self._open[task]

    def _check_room(self, owner: str | None) -> None:
        """Refuses one stream too many: the last quarter is for those who have none, so that one owner leaves room for others.

        Raises:
            OverloadedError: it is one too many.
        """
        most, is_first = self.limits.streams, owner not in self._open.values()
        # Those who are not told apart are one, and have nobody to leave room for.
        if not is_first and owner is not None and most > 1:
            most -= max(most // 4, 1)
        if len(self._open) >= most:
            raise OverloadedError("too many streams are open", where="streams", expected=f"at most {most}")

    def _begin(self, principal: Principal, socket: WebSocket) -> _Session:
        if self.leaving.is_set():
            raise NotReadyError("the server is leaving")
        self._check_room(turn_of(principal))
        options = options_of(socket)
        check_options(options, more=("track",))
        wants_tracks = read_flag(options, "track")
        if wants_tracks:
            options.setdefault("conf", str(TRACK_CONF))
        question = _question(self.service, socket, options)
        card = self.service.check(principal, question.target, question.settings)
        if question.tiles is not None:
            check_tiling(card.task)
        if wants_tracks and card.task is Task.CLASSIFY:
            raise UsageError("a classifier's answers cannot be tracked", where="track", got=card.task.value)
        return _Session(self, principal, socket, question, Tracker() if wants_tracks else None)


class _Session:
    """One open stream."""

    def __init__(
        self, streams: Streams, principal: Principal, socket: WebSocket, question: Question, tracker: Tracker | None
    ) -> None:
        self._streams, self._principal, self._socket = streams, principal, socket
        self._question, self._tracker = question, tracker
        self._waiting: tuple[int, bytes] | None = None
        self._arrived = asyncio.Event()
        self._dropped = 0
        self._is_ending = False
        headers = socket.headers
        self._route = str(getattr(socket.scope.get("route"), "path", "unknown"))
        self._request = request_id(headers.get("x-request-id"))
        self._carrier = {name: headers[name] for name in CARRIED if name in headers}

    async def run(self) -> _End | None:
        """Answers frames until somebody ends it; returns why, None where the client left."""
        reader = asyncio.ensure_future(self._read())
        answerer = asyncio.ensure_future(self._answer_all())
        leaving = asyncio.ensure_future(self._streams.leaving.wait())
        watcher = asyncio.ensure_future(self._watch())
        tasks: set[asyncio.Future[Any]] = {reader, answerer, leaving, watcher}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                return reader.result()
            if watcher.done():
                return watcher.result()
            if not answerer.done():
                # The server leaves: the frame that is being predicted is still answered.
                self._is_ending = True
                self._arrived.set()
            return await answerer
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> _End:
        """Ends the stream of a client that may no longer ask, also while it sends nothing."""
        while await self._may_still():
            await asyncio.sleep(_LOOK_S)
        return _NOT_ALLOWED

    async def _may_still(self) -> bool:
        gate, model = self._streams.service.gate, self._question.target.model
        principal = await gate.still(self._principal)
        if principal is not None and principal.may(Action.MODELS_PREDICT, model):
            self._principal = principal
            return True
        error = ForbiddenError("this is not allowed to you", where=model, expected=Action.MODELS_PREDICT.value)
        await refuse(gate, self._socket.scope, self._principal, error)
        return False

    async def _read(self) -> _End | None:
        """Keeps the newest frame until somebody ends the stream."""
        index = 0
        idle_s = self._streams.limits.stream_idle_s
        while True:
            try:
                async with asyncio.timeout(idle_s):
                    message = await self._socket.receive()
            except TimeoutError:
                return _End(_REFUSED, f"no frame for {idle_s:g} s")
            if message["type"] == "websocket.disconnect":
                return None
            data = message.get("bytes")
            if data is None:
                return _End(_NO_TEXT, "frames are binary messages")
            if self._waiting is not None:
                self._dropped += 1
                self._count("dropped")
            self._waiting = (index, data)
            self._arrived.set()
            index += 1

    async def _answer_all(self) -> _End:
        failures = 0
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            if self._is_ending or self._waiting is None:
                return _End(_LEAVING, "the server is leaving")
            (index, data), self._waiting = self._waiting, None
            if not await self._may_still():
                return _NOT_ALLOWED
            try:
                with self._traced(index):
                    text = await self._answer(index, data)
                self._count("answered")
                failures = 0
            except ShipsightError as error:
                self._count("failed")
                text = self._tell(index, {"error": shown(conceal(error, self._principal))})
                # That the server is busy is not the client's fault.
                failures += 0 if isinstance(error, ServiceError) else 1
            except Exception:  # noqa: BLE001 - the edge of a request: a bug of ours, told in the log
                _log.exception("a frame of a stream failed")
                self._count("failed")
                bug = InternalError("the server failed on this frame")
                await self._send(self._tell(index, {"error": shown(bug)}))
                return _End(_BUG, bug.what)
            if not await self._send(text):
                return _End(_REFUSED, "answers are not read")
            if failures >= _MOST_FAILURES:
                return _End(_REFUSED, f"{failures} frames in a row could not be used")

    def _count(self, result: str) -> None:
        self._streams.metrics.frame_done(self._question.target.model, result)

    @contextlib.contextmanager
    def _traced(self, index: int) -> Iterator[None]:
        """Makes a span of a frame, in the trace that the handshake named."""
        traces = self._streams.traces
        if traces is None:
            yield
            return
        note, begin_s, is_failed = RequestNote(self._request, self._principal), time.monotonic(), False
        begin_note(note)
        try:
            yield
        except ShipsightError as error:
            note.error, is_failed = error.code, isinstance(error, ServiceError | InternalError)
            raise
        except Exception:
            note.error, is_failed = InternalError.code, True
            raise
        finally:
            end_note()
            traces.ended(
                note,
                name=f"frame {self._route}",
                attributes={"http.route": self._route, "shipsight.frame": index},
                is_failed=is_failed,
                carrier=self._carrier,
                begin_s=begin_s,
            )

    async def _answer(self, index: int, data: bytes) -> str:
        note_body(data, is_next=True)
        question = replace(self._question, images=[EncodedImage(data)])
        answer = await self._streams.service.predict(self._principal, question)
        # Masks take milliseconds to write: not on the event loop.
        return await asyncio.to_thread(self._write, index, answer.predictions)

    def _write(self, index: int, predictions: Predictions) -> str:
        if self._tracker is not None:
            predictions = replace(predictions, images=tuple(map(self._tracker.update, predictions.images)))
        return self._tell(index, predictions.to_dict())

    def _tell(self, index: int, told: Mapping[str, object]) -> str:
        whole = {"frame": index, "dropped": self._dropped, **told}
        return json.dumps(whole, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    async def _send(self, text: str) -> bool:
        """Sends an answer; False where the client does not take it."""
        try:
            async with asyncio.timeout(self._streams.limits.stream_idle_s):
                with _gone_is_gone():
                    await self._socket.send_text(text)
        except TimeoutError:
            return False
        return True


@contextlib.contextmanager
def _gone_is_gone() -> Iterator[None]:
    """Makes one error of the two by which Starlette and uvicorn tell that the client has left."""
    try:
        yield
    except RuntimeError as error:
        raise WebSocketDisconnect(1006, str(error)) from error


def stream_routes(streams: Streams) -> list[BaseRoute]:
    """Returns the protocol's routes."""

    async def endpoint(socket: WebSocket) -> None:
        await streams.serve(principal_of(socket.scope), socket)

    described = operation(
        "Opens a stream of video: frames in, predictions out",
        tag="stream",
        answers={101: answer("speaks WebSocket from here on")},
        errors=(404, 413, 426),
    )
    needs = Needs(Action.MODELS_PREDICT, "model")
    routes: list[BaseRoute] = []
    for path in ("/v1/models/{model}/stream", "/v1/models/{model}/versions/{version}/stream"):
        routes += [
            GuardedWebSocketRoute(path, endpoint, needs=needs),
            DescribedRoute(path, _no_upgrade, method="GET", described=described, needs=needs),
        ]
    return routes


async def _no_upgrade(request: Request) -> Response:
    refused = error_answer(
        UsageError("this page speaks WebSocket", where=request.url.path[:200], hint="Connect with a WebSocket client.")
    )
    refused.status_code = 426
    refused.headers.update({"upgrade": "websocket", "connection": "upgrade"})
    return refused


def _question(service: PredictionService, socket: WebSocket, options: Mapping[str, str]) -> Question:
    path = socket.path_params
    return Question(
        target=Target(path["model"], path.get("version"), options.get("variant"), **read_key(socket)),
        images=(),
        settings=query_settings(options),
        tiles=query_tiles(options),
        deadline_s=read_number(options, "deadline_ms", 0.0) / 1e3 if "deadline_ms" in options else None,
        subject=service.subject_of(socket.headers.getlist),
    )
