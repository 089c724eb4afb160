# SPDX-License-Identifier: Apache-2.0
"""Sealed requests and answers: round trips, and everything that must be refused, with one error."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.errors import SealedAnswerError, SealedRequestError
from shipsight.protect import (
    AHEAD_MS,
    HEADER_BYTES,
    MEDIA_TYPE,
    WINDOW_MS,
    OpenedRequest,
    PlainAnswer,
    PlainRequest,
    ReplyKey,
    SealedFor,
    SealedProtocol,
    SealingKey,
    open_answer,
    open_request,
    refused_request,
    seal_answer,
    seal_request,
)

NOW_MS = 1_790_000_000_000
KEY = SealingKey.make(not_after_ms=NOW_MS + 10 * WINDOW_MS)
KEYS = {KEY.public.id: KEY}
FOR = SealedFor(SealedProtocol.NATIVE, "digits", "2")
lines = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=100)
requests = st.builds(
    PlainRequest,
    body=st.binary(max_size=9000),
    content_type=lines.filter(lambda text: MEDIA_TYPE not in text.lower()),
    accept=st.none() | lines,
    query=lines,
    headers=st.dictionaries(st.sampled_from(["Inference-Header-Content-Length", "X-Routing-Key"]), lines),
)


def sealed(body: bytes = b"an image", *, now_ms: int = NOW_MS) -> tuple[bytes, ReplyKey]:
    return seal_request(PlainRequest(body, "image/png"), key=KEY.public, sealed_for=FOR, now_ms=now_ms)


def opened(body: bytes, *, sealed_for: SealedFor = FOR, keys: Any = KEYS, now_ms: int = NOW_MS) -> OpenedRequest:
    return open_request(body, keys=keys, sealed_for=sealed_for, now_ms=now_ms)


def the_one_error() -> dict[str, str | None]:
    with pytest.raises(SealedRequestError) as raised:
        refused_request()
    return raised.value.to_dict()


def refused(body: bytes, **changed: Any) -> None:
    """Checks that a request is refused with the one error, which holds nothing of the cause."""
    with pytest.raises(SealedRequestError) as raised:
        opened(body, **changed)
    assert raised.value.to_dict() == the_one_error()
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def by_hand(header: object, body: bytes = b"", *, framed: bytes | None = None) -> bytes:
    """Seals what `seal_request` would not."""
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    head = json.dumps(header).encode()
    plain = len(head).to_bytes(4, "big") + head + body if framed is None else framed
    key = X25519PublicKey.from_public_bytes(KEY.public.raw)
    return b"SSL1" + KEY.public.id + suite.encrypt(plain, key, FOR.info(KEY.public.id))


def header(**changed: Any) -> dict[str, Any]:
    reply_key = base64.b64encode(X25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    sound = {"id": os.urandom(16).hex(), "at": NOW_MS, "reply_key": reply_key, "content_type": "image/png"}
    return {name: one for name, one in {**sound, **changed}.items() if one is not ...}


@given(requests)
def test_request_opens_to_what_was_sealed(request: PlainRequest) -> None:
    body, reply = seal_request(request, key=KEY.public, sealed_for=FOR, now_ms=NOW_MS)
    found = opened(body)
    assert found.request == request
    assert (found.id, found.at_ms) == (reply.id, NOW_MS)


@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=9000),
    kind=st.text(max_size=50),
    headers=st.dictionaries(lines, lines, max_size=5),
)
def test_answer_opens_to_what_was_sealed(status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
    request, reply = sealed()
    answer = PlainAnswer(status, body, kind, headers)
    assert open_answer(seal_answer(answer, opened(request)), reply) == answer


REQUEST, REPLY = sealed(os.urandom(100))
ANSWER = seal_answer(PlainAnswer(200, b'{"a": 1}', "application/json"), opened(REQUEST))


@given(st.integers(0, len(REQUEST) - 1), st.integers(1, 255))
def test_request_with_any_changed_byte_is_refused(at: int, change: int) -> None:
    refused(REQUEST[:at] + bytes([REQUEST[at] ^ change]) + REQUEST[at + 1 :])


@given(st.integers(0, len(ANSWER) - 1), st.integers(1, 255))
def test_answer_with_any_changed_byte_is_refused(at: int, change: int) -> None:
    with pytest.raises(SealedAnswerError):
        open_answer(ANSWER[:at] + bytes([ANSWER[at] ^ change]) + ANSWER[at + 1 :], REPLY)


@settings(max_examples=300)
@given(st.integers(0, len(REQUEST) - 1))
def test_truncated_request_is_refused(size: int) -> None:
    refused(REQUEST[:size])


@given(st.binary(min_size=1, max_size=64))
def test_request_with_bytes_behind_it_is_refused(more: bytes) -> None:
    refused(REQUEST + more)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(body: bytes) -> None:
    refused(body)
    refused(b"SSL1" + KEY.public.id + body)


@pytest.mark.parametrize(
    "other",
    [
        SealedFor(SealedProtocol.OPEN_INFERENCE, "digits", "2"),
        SealedFor(SealedProtocol.NATIVE, "faces", "2"),
        SealedFor(SealedProtocol.NATIVE, "digits", "3"),
        SealedFor(SealedProtocol.NATIVE, "digits"),
        SealedFor(SealedProtocol.NATIVE, "digits\n2"),
        SealedFor(SealedProtocol.NATIVE, "digits\ud800", "2"),
    ],
    ids=["protocol", "model", "version", "no version", "line break", "no text"],
)
def test_request_sealed_for_something_else_is_refused(other: SealedFor) -> None:
    assert opened(REQUEST)
    refused(REQUEST, sealed_for=other)


@given(st.tuples(st.text(max_size=9), st.text(max_size=9)), st.tuples(st.text(max_size=9), st.text(max_size=9)))
def test_no_two_things_have_one_info(one: tuple[str, str], other: tuple[str, str]) -> None:
    told = []
    for model, version in (one, other):
        try:
            told.append(SealedFor(SealedProtocol.NATIVE, model, version).info(bytes(8)))
        except ValueError:
            assert "\n" in model + version
    assert len(set(told)) == len(told) or one == other


def test_request_of_another_server_is_refused() -> None:
    other = SealingKey.make(not_after_ms=NOW_MS + WINDOW_MS)
    refused(REQUEST, keys={other.public.id: other})
    # Under the name of a key that is here, too: the name is bound into the seal, and the key decides.
    refused(b"SSL1" + other.public.id + REQUEST[12:], keys={other.public.id: other, **KEYS})
    refused(b"SSL1" + KEY.public.id + REQUEST[12:], keys={KEY.public.id: other})


def test_request_is_refused_when_its_key_has_ended() -> None:
    late = KEY.public.not_after_ms
    body, _ = sealed(now_ms=late)
    assert opened(body, now_ms=late)
    refused(body, now_ms=late + 1)


@pytest.mark.parametrize("apart_ms", [WINDOW_MS + 1, -AHEAD_MS - 1, 10**12], ids=["old", "future", "1970s clock"])
def test_request_of_another_time_is_refused(apart_ms: int) -> None:
    body, _ = sealed(now_ms=NOW_MS - apart_ms)
    refused(body)


@pytest.mark.parametrize("apart_ms", [WINDOW_MS, -AHEAD_MS])
def test_request_at_the_edge_of_the_window_is_taken(apart_ms: int) -> None:
    body, _ = sealed(now_ms=NOW_MS - apart_ms)
    assert opened(body).at_ms == NOW_MS - apart_ms


@pytest.mark.parametrize(
    "wrong",
    [
        header(id=...),
        header(at=...),
        header(reply_key=...),
        header(content_type=...),
        header(more=1),
        header(id="AB" * 16),
        header(id="ab" * 15),
        header(id=1),
        header(at=str(NOW_MS)),
        header(at=float(NOW_MS)),
        header(at=True),
        header(at=-1),
        header(at=10**40),
        header(reply_key="a"),
        header(reply_key=7),
        header(reply_key=base64.b64encode(bytes(31)).decode()),
        header(reply_key=base64.b64encode(bytes(32)).decode()),
        header(reply_key=base64.b64encode(b"\x01" + bytes(31)).decode()),
        header(content_type=None),
        header(content_type="image/png\r\nX-Api-Key: k"),
        header(content_type=MEDIA_TYPE),
        header(content_type=f" {MEDIA_TYPE.upper()} ; q=1"),
        header(accept=0),
        header(accept="é"),
        header(query=["conf"]),
        header(query="a b\n"),
        header(padding=3),
        header(headers=[]),
        header(headers={"X-Routing-Key": 1}),
        header(headers={"X-Routing-Key": "a\0"}),
        header(headers={"Authorization": "Bearer k"}),
        header(headers={"x-routing-key": "k"}),
        [],
        "text",
        None,
    ],
)
def test_request_with_a_wrong_header_is_refused(wrong: object) -> None:
    refused(by_hand(wrong))


@pytest.mark.parametrize(
    "framed",
    [
        b"",
        b"\0\0\0",
        b"\xff\xff\xff\xff" + b"{}",
        (HEADER_BYTES + 1).to_bytes(4, "big") + b" " * (HEADER_BYTES + 1),
        b"\0\0\0\x09{}",
        b"\0\0\0\x01{",
        b"\0\0\x20\0" + b"[" * 8192,
        b"\0\0\0\x02\xff\xfe",
        (lambda text: len(text).to_bytes(4, "big") + text)(json.dumps(header()).encode("utf-16")),
        (lambda text: len(text).to_bytes(4, "big") + text)(json.dumps(header())[:-1].encode() + b',"at":1}'),
        (lambda text: len(text).to_bytes(4, "big") + text)(json.dumps(header(at=1.5)).replace("1.5", "NaN").encode()),
        (lambda text: len(text).to_bytes(4, "big") + text)(b'{"at":' + b"9" * 5000 + b"}"),
    ],
    ids=[
        "nothing",
        "no length",
        "huge length",
        "header above the limit",
        "header beyond the end",
        "no JSON",
        "nested deeply",
        "no text",
        "UTF-16",
        "a name twice",
        "NaN",
        "a number without end",
    ],
)
def test_request_with_wrong_framing_is_refused(framed: bytes) -> None:
    refused(by_hand(None, framed=framed))


def test_smallest_request_is_taken() -> None:
    assert opened(by_hand(header())).request == PlainRequest(b"", "image/png")


def test_answer_of_another_request_is_refused() -> None:
    _, other = sealed()
    with pytest.raises(SealedAnswerError):
        open_answer(ANSWER, other)
    with pytest.raises(SealedAnswerError):
        open_answer(ANSWER, ReplyKey(other.id, REPLY.private))


@pytest.mark.parametrize(
    "wrong", [b"", b"SSR1", REQUEST, b'{"error": 1}'], ids=["nothing", "beginning", "request", "plain"]
)
def test_what_is_no_answer_is_refused(wrong: bytes) -> None:
    with pytest.raises(SealedAnswerError):
        open_answer(wrong, REPLY)


def test_small_differences_in_length_are_not_seen() -> None:
    sizes = {len(sealed(bytes(size))[0]) for size in range(0, 3000, 100)}
    answers = {len(seal_answer(PlainAnswer(200, bytes(size)), opened(REQUEST))) for size in range(0, 3000, 100)}
    assert len(sizes) == len(answers) == 1


def test_long_header_goes_without_padding_and_one_too_long_is_not_sealed() -> None:
    request = PlainRequest(b"body", query="a" * 7900)
    assert opened(seal_request(request, key=KEY.public, sealed_for=FOR, now_ms=NOW_MS)[0]).request == request
    with pytest.raises(ValueError, match="at most 8192 bytes"):
        seal_request(PlainRequest(b"", query="a" * 8192), key=KEY.public, sealed_for=FOR, now_ms=NOW_MS)


def test_secrets_stand_in_no_representation() -> None:
    request, reply = sealed(b"pixels of somebody")
    found = opened(request)
    shown = repr((KEY, reply, found, found.request, PlainAnswer(200, b"person 0.9")))
    assert "pixels" not in shown
    assert "person" not in shown
    assert KEY.to_bytes().hex() not in shown


def test_key_is_the_same_after_its_bytes() -> None:
    again = SealingKey.from_bytes(KEY.to_bytes(), not_after_ms=KEY.public.not_after_ms)
    assert again.public == KEY.public
    assert opened(REQUEST, keys={again.public.id: again})
