# SPDX-License-Identifier: Apache-2.0
"""An app in this process whose gate stands on real identities, people and keys to ask it with, and asking without a wire."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message

from shipsight.access import SERVER, Event, EventKind, Grant
from shipsight.access.authenticate import Authenticator
from shipsight.access.service import Access
from shipsight.access.settings import AccessSettings, OpenIdSettings
from shipsight.serve import Limits, VertexRoutes
from shipsight.serve.gate import Gate, GateRules
from shipsight.serve.http import build_app
from shipsight.serve.http.stream import Streams
from shipsight.serve.metrics import Metrics
from shipsight.serve.models import Models
from shipsight.serve.open_inference import OpenInference
from shipsight.serve.proxy_rules import ProxyRules
from shipsight.serve.scheduler import Scheduler
from shipsight.serve.sealing import open_sealing
from shipsight.serve.sealing_options import SealingOptions
from shipsight.serve.service import PredictionService

ORIGIN = "https://vision.example"
HOST = "vision.example"
REACHED = GateRules(is_local=False)
NOTHING: Mapping[str, str] = {}
Headers = dict[str, str]


@dataclass
class Kept:
    """A sink that keeps events, and fails where it is told to."""

    events: list[Event] = field(default_factory=list)
    fails: bool = False

    def record(self, event: Event) -> None:
        if self.fails:
            raise OSError("no space left for events")
        self.events.append(event)

    def of(self, kind: EventKind) -> list[Event]:
        return [one for one in self.events if one.kind is kind]


@dataclass
class Answered:
    """What the app answered."""

    status: int
    headers: dict[str, str]
    cookies: list[str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Gated:
    """An app and those who ask it."""

    access: Access
    gate: Gate
    service: PredictionService
    protocol: OpenInference
    metrics: Metrics
    app: ASGIApp
    events: Kept
    scheme: str = "https"

    def person(self, name: str, *grants: str, factors: tuple[str, ...] = ("password", "totp")) -> Headers:
        """Signs a new person in, and returns what their browser's pages send along."""
        user, _ = self.access.directory.add_user(SERVER, name, grants=tuple(map(Grant.parse, grants)))
        return self.session_of(user.id, factors=factors)

    def session_of(self, user_id: str, *, factors: tuple[str, ...] = ("password", "totp")) -> Headers:
        session = self.access.sessions.begin(user_id, factors=factors)
        name = "__Host-shipsight" if self.gate.origin.startswith("https:") else "shipsight"
        return {"cookie": f"{name}={session.token}", "x-csrf-token": session.csrf, "origin": self.gate.origin}

    def key(self, name: str, *grants: str) -> Headers:
        """Makes a key of a service, and returns what shows it."""
        _, text = self.access.keys.add(SERVER, name, grants=tuple(map(Grant.parse, grants)))
        return {"authorization": f"Bearer {text}"}

    async def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | list[tuple[str, str]] = NOTHING,
        body: bytes = b"",
        *,
        client: tuple[str, int] | None = ("192.0.2.1", 5),
        extensions: Mapping[str, Any] = NOTHING,
        host: str = HOST,
        meanwhile: Callable[[], object] | None = None,
    ) -> Answered:
        """Asks the app as a server of HTTP does; what is done meanwhile is done before the end of the body comes."""
        given = list(headers.items()) if isinstance(headers, Mapping) else headers
        pairs = [("host", host), *given]
        place, _, query = path.partition("?")
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": self.scheme,
            "path": place, "raw_path": place.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
            "client": client, "server": (HOST, 443), "extensions": dict(extensions),
        }  # fmt: skip
        sent: list[Message] = []
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        if meanwhile is not None:
            half = len(body) // 2
            waiting = [{**waiting[0], "body": body[half:]}, {**waiting[0], "body": body[:half], "more_body": True}]

        async def receive() -> Message:
            if len(waiting) == 1 and meanwhile is not None:
                await asyncio.to_thread(meanwhile)
            return waiting.pop() if waiting else await _never()

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in sent[0]["headers"]]
        cookies = [value for name, value in raw if name == "set-cookie"]
        return Answered(sent[0]["status"], dict(raw), cookies, b"".join(one.get("body", b"") for one in sent[1:]))

    async def open_socket(
        self,
        path: str,
        headers: Mapping[str, str] = NOTHING,
        *,
        extensions: Mapping[str, Any] = NOTHING,
        host: str = HOST,
    ) -> int:
        """Opens a WebSocket; returns 101 where it was accepted, else the status of the refusal."""
        scope = {
            "type": "websocket", "asgi": {"version": "3.0"}, "http_version": "1.1",
            "scheme": "wss" if self.scheme == "https" else "ws", "path": path, "raw_path": path.encode(),
            "query_string": b"", "root_path": "", "client": ("192.0.2.1", 5), "server": (HOST, 443), "subprotocols": [],
            "headers": [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in headers.items())],
            "extensions": {"websocket.http.response": {}, **extensions},
        }  # fmt: skip
        sent: list[Message] = []
        waiting: list[Message] = [{"type": "websocket.disconnect", "code": 1000}, {"type": "websocket.connect"}]

        async def receive() -> Message:
            return waiting.pop() if waiting else await _never()

        async def send(message: Message) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        return 101 if sent[0]["type"] == "websocket.accept" else int(sent[0]["status"])


async def _never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


@contextmanager
def gated(
    folder: Path,
    *,
    rules: GateRules = REACHED,
    origin: str = ORIGIN,
    public_url: str | None = None,
    proxy: ProxyRules | None = None,
    openid: OpenIdSettings | None = None,
) -> Iterator[Gated]:
    """Gives an app that serves no model yet."""
    events = Kept()
    settings = AccessSettings(
        database=str(folder / "access.db"), secrets_key=folder / "access.key", public_url=public_url, openid=openid
    )
    with Access.open(settings, origin=origin, events=events) as access, Authenticator(access) as authenticator:
        gate = Gate(
            rules, access=access, authenticator=authenticator, events=events, now=access.now, origin=access.origin
        )
        scheduler, metrics = Scheduler(1), Metrics()
        metrics.watch_gate(gate)
        service = PredictionService(Models(scheduler), scheduler, Limits(), metrics, gate=gate)
        protocol = OpenInference(service)
        app = build_app(
            service,
            metrics,
            open_inference=protocol,
            streams=Streams(service, service.limits, metrics),
            vertex=VertexRoutes("/vertex/health", "/vertex/predict"),
            logs_requests=False,
            proxy=proxy,
            sealing=open_sealing(SealingOptions(), events=Kept(), now=gate.now, store=None),
        )
        scheme = origin.partition(":")[0]
        try:
            yield Gated(access, gate, service, protocol, metrics, app, events, scheme)
        finally:
            gate.close()
            service.models.close()
            service.rollouts.close()
            scheduler.close()
