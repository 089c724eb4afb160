# SPDX-License-Identifier: Apache-2.0
"""Sealing a conversation: the server's keys, known by the identity that signs them, and each request to one of them.

Invariants: where sealing is asked for, nothing is ever sent or taken in its place in the clear; each attempt is sealed anew, since
a server takes each sealed request once. Leaves to others: the form (`protect.sealing`). Private to the room.
"""

from __future__ import annotations

import json
import time

from shipsight.client.answers import error_of
from shipsight.client.exchange import Asked, Heard, Steps
from shipsight.errors import SealedAnswerError, SealedRequestError, SealingIdentityError, UsageError
from shipsight.protect import (
    MEDIA_TYPE,
    PlainRequest,
    PublicSealingKey,
    SealedFor,
    SealingPin,
    open_answer,
    open_key_list,
    seal_request,
)

__all__ = ["REQUIRED", "Sealing"]

REQUIRED = "required"
_KEYS = "/v1/sealing-keys"
_LIST_S = 3600.0  # after which keys are asked for anew
_LEAST_LEFT_MS = 60_000  # of a key's life, when a request is sealed to it


class Sealing:
    """What a client knows of a server's sealing. Threads may share it.

    Args:
        seal: the server's sealing identity, or `REQUIRED` for the one that it shows first.
        trust_first: whether that is to be believed.

    Raises:
        UsageError: no identity is named, and the first is not to be believed.
        SealingIdentityError: it is none.
    """

    def __init__(self, seal: str, *, trust_first: bool) -> None:
        if (seal == REQUIRED) != trust_first:
            raise UsageError(
                "a server that seals is known by its sealing identity",
                where="seal",
                expected='the text that the server prints as `sealing`, or "required" together with trust_first=True',
                hint="Who ends TLS on the way could hand out keys of its own: take the identity from whoever runs the server.",
            )
        self.pin = None if trust_first else SealingPin.read(seal)
        self._keys: tuple[PublicSealingKey, ...] = ()
        self._listed_at = -_LIST_S

    def ask(
        self, request: PlainRequest, *, target: str, sealed_for: SealedFor, until: float, where: str
    ) -> Steps[Heard]:
        """Seals a request, and opens its answer; once more with fresh keys where the server refuses it.

        Args:
            request: what the server shall read.
            target: path that it is sent to.
            sealed_for: what that path names.
            until: when to give up, in seconds of the monotonic clock.
            where: the server, as errors call it.

        Raises:
            SealingIdentityError: the keys are not the server's.
            SealedAnswerError: the answer is not sealed, or not to this request.
        """
        for is_last in (False, True):
            key = yield from self._key(until, where, is_fresh=is_last)
            try:
                body, reply = seal_request(request, key=key, sealed_for=sealed_for, now_ms=_now_ms())
            except ValueError as error:
                raise UsageError("this request cannot be sealed", got=error) from error
            heard = yield Asked("POST", target, until, {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE}, body)
            assert heard is not None
            if heard.status == 200 and heard.kind == MEDIA_TYPE:
                told = open_answer(heard.body, reply)
                headers = {
                    **{name.lower(): text for name, text in told.headers.items()},
                    "content-type": told.content_type,
                }
                return Heard(told.status, headers, told.body)
            if heard.status == 200:
                raise SealedAnswerError(
                    "the answer to a sealed request is not sealed", where=where, got=heard.kind or None
                )
            if is_last or not _is_refused(heard, where):
                return heard
        raise AssertionError("the last attempt returns or raises")

    def _key(self, until: float, where: str, *, is_fresh: bool) -> Steps[PublicSealingKey]:
        """Returns the key to seal to; asks for the list where there is none, or an old one."""
        least_ms = _now_ms() + _LEAST_LEFT_MS
        if not is_fresh and self._keys and time.monotonic() - self._listed_at < _LIST_S:
            key = self._keys[0]
            if key.not_after_ms > least_ms:
                return key
        heard = yield Asked("GET", _KEYS, until)
        assert heard is not None
        if heard.status != 200:
            raise error_of(heard.status, heard.body, where=where, retry_after=heard.headers.get("retry-after"))
        told = _loads(heard.body)
        pin = self.pin or _shown_pin(told)
        keys = tuple(open_key_list(told, pin, now_ms=_now_ms()))
        if self.pin is not None and self.pin != pin:
            # Two threads asked first, and were shown two servers.
            raise SealingIdentityError("the server showed two sealing identities", where=where, got=str(pin))
        self.pin, self._keys, self._listed_at = pin, keys, time.monotonic()
        return keys[0]


def _shown_pin(told: object) -> SealingPin:
    identity = told.get("identity") if isinstance(told, dict) else None
    if not isinstance(identity, str):
        raise SealingIdentityError("the server shows no sealing identity", hint="Name it as `seal`.")
    return SealingPin.read(identity)


def _is_refused(heard: Heard, where: str) -> bool:
    return isinstance(error_of(heard.status, heard.body, where=where), SealedRequestError)


def _loads(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
