# SPDX-License-Identifier: Apache-2.0
"""A client that seals, written out: for tests of servers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from shipsight.protect import (
    MEDIA_TYPE,
    PlainAnswer,
    PlainRequest,
    PublicSealingKey,
    ReplyKey,
    SealedFor,
    SealedProtocol,
    SealingPin,
    open_answer,
    open_key_list,
    seal_request,
)

NATIVE, OIP = SealedProtocol.NATIVE, SealedProtocol.OPEN_INFERENCE
TYPE = {"content-type": MEDIA_TYPE}


def now_ms() -> int:
    return int(time.time() * 1000)


def path_of(sealed_for: SealedFor) -> str:
    """Where a request is sent that is sealed for this."""
    version = f"/versions/{sealed_for.version}" if sealed_for.version else ""
    if sealed_for.protocol is NATIVE:
        return f"/v1/models/{sealed_for.model}{version}/predict"
    return f"/v2/models/{sealed_for.model}{version}/infer"


@dataclass
class Sealer:
    """Seals for one server.

    Attributes:
        http: asks it.
        pin: its own, None to believe what it says.
    """

    http: httpx.Client
    pin: str | None = None
    sealed: list[bytes] = field(default_factory=list)  # bodies that were sent

    def keys(self) -> list[PublicSealingKey]:
        told = self.http.get("/v1/sealing-keys").raise_for_status().json()
        assert self.pin is not None
        return open_key_list(told, SealingPin.read(self.pin), now_ms=now_ms())

    def seal(
        self,
        request: PlainRequest,
        sealed_for: SealedFor,
        *,
        at_ms: int | None = None,
        key: PublicSealingKey | None = None,
    ) -> tuple[bytes, ReplyKey]:
        at_ms = now_ms() if at_ms is None else at_ms
        body, reply = seal_request(request, key=key or self.keys()[0], sealed_for=sealed_for, now_ms=at_ms)
        self.sealed.append(body)
        return body, reply

    def send(self, body: bytes, sealed_for: SealedFor, **more: Any) -> httpx.Response:
        headers = {**TYPE, **more.pop("headers", {})}
        return self.http.post(path_of(sealed_for), content=body, headers=headers, **more)

    def ask(self, request: PlainRequest, sealed_for: SealedFor, **more: Any) -> PlainAnswer:
        body, reply = self.seal(request, sealed_for)
        told = self.send(body, sealed_for, **more)
        assert (told.status_code, told.headers["content-type"]) == (200, MEDIA_TYPE), told.text
        return open_answer(told.content, reply)
