# SPDX-License-Identifier: Apache-2.0
"""Requests that only the server reads, and answers that only their client reads, whatever carries them.

HPKE (base mode; X25519, HKDF-SHA256, AES-256-GCM). A request names the key it was sealed to; `info` binds it to protocol, model,
version and that key, so that none of them can be changed on the way. Inside stand when it was sealed, an id that is taken once, and
a fresh key for the answer. Whatever is wrong with a request is one error with one text: which step refused is told to nobody.
Leaves to others: remembering ids, which keys live (`keys` of whoever opens), and who may ask: base mode does not say who sealed.
Pure: no clock, no I/O. The form is described in `docs/protocols/sealed.md`. Stable. Source: RFC 9180.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from shipsight.errors import SealedAnswerError, SealedRequestError

__all__ = [
    "AHEAD_MS",
    "CARRIED_HEADERS",
    "HEADER_BYTES",
    "ID_BYTES",
    "MEDIA_TYPE",
    "PADDING_BYTES",
    "SUITE",
    "WINDOW_MS",
    "OpenedRequest",
    "PlainAnswer",
    "PlainRequest",
    "PublicSealingKey",
    "ReplyKey",
    "SealedFor",
    "SealedProtocol",
    "SealingKey",
    "open_answer",
    "open_request",
    "refused_request",
    "seal_answer",
    "seal_request",
]

MEDIA_TYPE = "application/vnd.shipsight.sealed"
SUITE = "DHKEM(X25519,HKDF-SHA256),HKDF-SHA256,AES-256-GCM"
WINDOW_MS = 300_000
"""A request that is older is refused."""
AHEAD_MS = 60_000
"""A request dated further ahead of the server's clock is refused: clocks that are set differ by seconds, and each second of this is
one more for which ids are kept."""
HEADER_BYTES = 8192
PADDING_BYTES = 4096
"""Plaintexts are padded to multiples of this: small differences in length tell nothing."""
ID_BYTES = 8
CARRIED_HEADERS = ("Inference-Header-Content-Length", "X-Routing-Key")

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_REQUEST, _ANSWER = b"SSL1", b"SSR1"
_OVERHEAD = 32 + 16  # encapsulated key, tag
_KEYS = frozenset({"id", "at", "reply_key", "content_type", "accept", "query", "headers", "padding"})
_NEEDED = frozenset({"id", "at", "reply_key", "content_type"})
_MOST_MS = 2**53
_HEX = frozenset("0123456789abcdef")
# Any will do: its scalar is a multiple of 8, as all are, so that points of small order are found out by it.
_PROBE = X25519PrivateKey.from_private_bytes(bytes(range(32)))


class SealedProtocol(StrEnum):
    """Which protocol's request is inside."""

    NATIVE = "native"
    OPEN_INFERENCE = "oip"


@dataclass(frozen=True)
class SealedFor:
    """What a request is for; all of it is bound into the seal.

    Attributes:
        protocol: of the request inside.
        model: as the path names it, decoded.
        version: as the path names it, empty where it names none.
    """

    protocol: SealedProtocol
    model: str
    version: str = ""

    def info(self, key_id: bytes) -> bytes:
        """Returns HPKE's `info`.

        Args:
            key_id: of the key that the request is sealed to, 8 bytes.

        Raises:
            ValueError: a name holds a line break, or what is no text: two names could then give one `info`.
        """
        lines = (self.protocol.value, self.model, self.version, key_id.hex())
        if any("\n" in one for one in lines):
            raise ValueError("a line break in a name")
        return b"shipsight sealed request v1\n" + "\n".join(lines).encode()


@dataclass(frozen=True)
class PublicSealingKey:
    """What requests are sealed to.

    Attributes:
        raw: 32 bytes.
        not_after_ms: until when the server opens what is sealed to it, milliseconds since 1970.
    """

    raw: bytes
    not_after_ms: int

    @property
    def id(self) -> bytes:
        """First 8 bytes of the key's SHA-256."""
        return hashlib.sha256(self.raw).digest()[:ID_BYTES]


@dataclass(frozen=True)
class SealingKey:
    """A server's private half.

    Attributes:
        private: of X25519.
        public: what clients are told.
    """

    private: X25519PrivateKey = field(repr=False)
    public: PublicSealingKey

    @classmethod
    def make(cls, *, not_after_ms: int) -> SealingKey:
        """Returns a new one."""
        return cls._of(X25519PrivateKey.generate(), not_after_ms)

    @classmethod
    def from_bytes(cls, raw: bytes, *, not_after_ms: int) -> SealingKey:
        """Returns the one of 32 private bytes.

        Raises:
            ValueError: another length.
        """
        return cls._of(X25519PrivateKey.from_private_bytes(raw), not_after_ms)

    def to_bytes(self) -> bytes:
        """Returns the 32 private bytes."""
        return self.private.private_bytes_raw()

    @classmethod
    def _of(cls, private: X25519PrivateKey, not_after_ms: int) -> SealingKey:
        return cls(private, PublicSealingKey(private.public_key().public_bytes_raw(), not_after_ms))


@dataclass(frozen=True)
class PlainRequest:
    """What a client seals: what it would have sent in the clear.

    Attributes:
        body: of the request; of one that was opened, a view into what was opened.
        content_type: of the body; it may be empty.
        accept: what is wanted, None for JSON.
        query: options as they would stand behind the `?`.
        headers: more, by name; of `CARRIED_HEADERS` alone.
    """

    body: bytes | memoryview = field(repr=False)
    content_type: str = ""
    accept: str | None = None
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class OpenedRequest:
    """What a server opened.

    Attributes:
        request: what was inside.
        id: of the request, 32 hexadecimal digits; it must be taken once.
        at_ms: when it was sealed, milliseconds since 1970 by the client's clock.
        reply_key: that the answer is sealed to.
    """

    request: PlainRequest
    id: str
    at_ms: int
    reply_key: X25519PublicKey = field(repr=False)


@dataclass(frozen=True)
class PlainAnswer:
    """What a server seals.

    Attributes:
        status: of HTTP, of the answer inside.
        body: of the answer.
        content_type: of the body.
        headers: more, by name in lower case.
    """

    status: int
    body: bytes = field(repr=False)
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ReplyKey:
    """What a client keeps to open the answer of one request.

    Attributes:
        id: of the request.
        private: of X25519.
    """

    id: str
    private: X25519PrivateKey = field(repr=False)


def seal_request(
    request: PlainRequest, *, key: PublicSealingKey, sealed_for: SealedFor, now_ms: int
) -> tuple[bytes, ReplyKey]:
    """Seals a request.

    Args:
        request: what the server shall read.
        key: of the server, from a list that was checked (`open_key_list`).
        sealed_for: which protocol, model and version the request is sent to.
        now_ms: the time, milliseconds since 1970; by the server's clock at most `WINDOW_MS` old, and `AHEAD_MS` ahead.

    Returns:
        The body to send as `MEDIA_TYPE`, and what opens its answer.

    Raises:
        ValueError: the header is too long, a header is none that is carried, or the key is none.
    """
    if not set(request.headers) <= set(CARRIED_HEADERS):
        raise ValueError(f"headers that are not carried: {sorted(set(request.headers) - set(CARRIED_HEADERS))}")
    reply = ReplyKey(secrets.token_hex(16), X25519PrivateKey.generate())
    header = {
        "id": reply.id,
        "at": now_ms,
        "reply_key": base64.b64encode(reply.private.public_key().public_bytes_raw()).decode(),
        "content_type": request.content_type,
        "query": request.query,
        "headers": dict(request.headers),
    }
    if request.accept is not None:
        header["accept"] = request.accept
    plain = _framed(header, request.body)
    sealed = _SUITE.encrypt(plain, X25519PublicKey.from_public_bytes(key.raw), sealed_for.info(key.id))
    return _REQUEST + key.id + sealed, reply


def open_request(
    sealed: bytes, *, keys: Mapping[bytes, SealingKey], sealed_for: SealedFor, now_ms: int
) -> OpenedRequest:
    """Opens a request.

    Args:
        sealed: the body as it came.
        keys: that live, by id.
        sealed_for: which protocol, model and version it came for.
        now_ms: the time, milliseconds since 1970.

    Returns:
        What was inside. Whether its `id` was seen before is for the caller to find out.

    Raises:
        SealedRequestError: whatever is wrong with it.
    """
    begin = len(_REQUEST) + ID_BYTES
    key = keys.get(sealed[len(_REQUEST) : begin])
    if not sealed.startswith(_REQUEST) or len(sealed) < begin + _OVERHEAD or key is None:
        refused_request()
    if now_ms > key.public.not_after_ms:
        refused_request()
    try:
        plain = _SUITE.decrypt(memoryview(sealed)[begin:], key.private, sealed_for.info(key.public.id))
        return _read_request(plain, now_ms)
    except (InvalidTag, ValueError):
        pass
    # Outside of the handler: the error carries no trace of what it replaces.
    return refused_request()


def refused_request() -> NoReturn:
    """Refuses a sealed request; the same for every cause.

    Raises:
        SealedRequestError: always.
    """
    raise SealedRequestError(
        "this sealed request is not accepted",
        hint="Get /v1/sealing-keys, check the clock, and seal it anew for the model, version and protocol that it is sent to.",
    )


def seal_answer(answer: PlainAnswer, opened: OpenedRequest) -> bytes:
    """Seals an answer to whoever sealed its request.

    Args:
        answer: what the client shall read.
        opened: the request that it answers.
    """
    header = {"status": answer.status, "content_type": answer.content_type, "headers": dict(answer.headers)}
    return _ANSWER + _SUITE.encrypt(_framed(header, answer.body), opened.reply_key, _answer_info(opened.id))


def open_answer(sealed: bytes, reply: ReplyKey) -> PlainAnswer:
    """Opens an answer.

    Args:
        sealed: the body as it came, of status 200 and `MEDIA_TYPE`.
        reply: what `seal_request` gave.

    Raises:
        SealedAnswerError: it was changed, or answers another request.
    """
    try:
        if not sealed.startswith(_ANSWER):
            raise ValueError("no sealed answer")
        plain = _SUITE.decrypt(memoryview(sealed)[len(_ANSWER) :], reply.private, _answer_info(reply.id))
        header, body = _unframed(plain)
        status, kind, headers = header.get("status"), header.get("content_type"), _texts(header.get("headers"))
        if type(status) is not int or not isinstance(kind, str):
            raise ValueError("not the header of an answer")
    except (InvalidTag, ValueError) as error:
        raise SealedAnswerError(
            "this is not the sealed answer to what was asked",
            hint="Ask again; if it stays so, something on the way changes answers.",
        ) from error
    return PlainAnswer(status, bytes(body), kind, headers)


def _answer_info(request_id: str) -> bytes:
    return b"shipsight sealed answer v1\n" + request_id.encode()


def _read_request(plain: bytes, now_ms: int) -> OpenedRequest:
    """Reads what was opened.

    Raises:
        ValueError: it is not a request, or of another time.
    """
    header, body = _unframed(plain)
    if not _NEEDED <= set(header) <= _KEYS:
        raise ValueError("other keys than a request's")
    request_id, at_ms, reply_key = header["id"], header["at"], header["reply_key"]
    if not isinstance(request_id, str) or len(request_id) != 32 or not set(request_id) <= _HEX:
        raise ValueError("not an id")
    if type(at_ms) is not int or not 0 <= at_ms < _MOST_MS or not -AHEAD_MS <= now_ms - at_ms <= WINDOW_MS:
        raise ValueError("another time")
    headers = _texts(header.get("headers", {}))
    texts = [header["content_type"], header.get("query", ""), header.get("padding", "")]
    accept = header.get("accept")
    if not all(isinstance(one, str) for one in texts) or not isinstance(accept, str | None):
        raise ValueError("not texts")
    # What stands for a line of HTTP must fit into one; options and types are ASCII there.
    lines = [*texts[:2], accept or "", *headers.values()]
    if not set(headers) <= set(CARRIED_HEADERS) or not all(one.isascii() and one.isprintable() for one in lines):
        raise ValueError("not lines of HTTP")
    if texts[0].partition(";")[0].strip().lower() == MEDIA_TYPE:
        raise ValueError("sealed twice")
    request = PlainRequest(body, texts[0], accept, texts[1], headers)
    return OpenedRequest(request, request_id, at_ms, _read_reply_key(reply_key))


def _read_reply_key(text: object) -> X25519PublicKey:
    if not isinstance(text, str):
        raise ValueError("not a key")
    try:
        key = X25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError("not base64") from error
    _PROBE.exchange(key)  # refuses points of small order: everybody could read an answer sealed to one
    return key


def _framed(header: Mapping[str, Any], body: bytes | memoryview) -> bytes:
    """Joins a header and a body, padded by what the header says of it.

    Raises:
        ValueError: the header is too long.
    """
    head = _json(header)
    bare = len(_json({**header, "padding": ""}))
    padding = -(4 + bare + len(body)) % PADDING_BYTES
    if bare + padding <= HEADER_BYTES:
        head = _json({**header, "padding": " " * padding})
    if len(head) > HEADER_BYTES:
        raise ValueError(f"the header of a sealed message has at most {HEADER_BYTES} bytes, this one {len(head)}")
    return b"".join((len(head).to_bytes(4, "big"), head, body))


def _unframed(plain: bytes) -> tuple[dict[str, Any], memoryview]:
    """Parts a header from a body, which is not copied: it may be a large image.

    Raises:
        ValueError: it is too long, or no JSON mapping; a name stands in it twice.
    """
    size = int.from_bytes(plain[:4], "big")
    if len(plain) < 4 or size > HEADER_BYTES or size > len(plain) - 4:
        raise ValueError("not a header")
    try:
        header = json.loads(plain[4 : 4 + size].decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(header, dict):
        raise ValueError("not a mapping")
    return header, memoryview(plain)[4 + size :]


def _json(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":")).encode()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    told = dict(pairs)
    if len(told) != len(pairs):
        raise ValueError("a name stands twice")
    return told


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _texts(told: object) -> dict[str, str]:
    """Returns a mapping of texts.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(told, dict) or not all(isinstance(one, str) for one in told.values()):
        raise ValueError("not texts")
    return told
