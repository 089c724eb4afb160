# SPDX-License-Identifier: Apache-2.0
"""Lists of sealing keys are believed only when the pinned identity signed them, lately."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipsight.errors import SealingIdentityError
from shipsight.protect import (
    AHEAD_MS,
    WINDOW_MS,
    PublicSealingKey,
    SealingIdentity,
    SealingKey,
    SealingPin,
    open_key_list,
)

NOW_MS = 1_790_000_000_000
IDENTITY = SealingIdentity(bytes(range(32)))
KEYS = [SealingKey.make(not_after_ms=NOW_MS + n * WINDOW_MS).public for n in (3, 1)]
LIST = IDENTITY.key_list(KEYS, now_ms=NOW_MS)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=5), st.integers(0, 2**50))
def test_list_opens_to_what_was_signed(raws: list[bytes], now_ms: int) -> None:
    keys = [PublicSealingKey(raw, now_ms + 1 + n) for n, raw in enumerate(raws)]
    told = json.loads(json.dumps(IDENTITY.key_list(keys, now_ms=now_ms)))
    assert open_key_list(told, IDENTITY.pin, now_ms=now_ms) == keys


def test_list_of_another_identity_is_refused() -> None:
    with pytest.raises(SealingIdentityError, match="not those of the server"):
        open_key_list(SealingIdentity(bytes(32)).key_list(KEYS, now_ms=NOW_MS), IDENTITY.pin, now_ms=NOW_MS)


def changed(**at: Any) -> dict[str, Any]:
    told = copy.deepcopy(LIST)
    for name, one in at.items():
        if name in told:
            told[name] = one
        else:
            told["keys"][0][name] = one
    return told


@pytest.mark.parametrize(
    "wrong",
    [
        changed(now=NOW_MS + 1),
        changed(now=str(NOW_MS)),
        changed(signature=base64.b64encode(bytes(64)).decode()),
        changed(signature="?"),
        changed(not_after=NOW_MS + 9 * WINDOW_MS),
        changed(not_after=True),
        changed(id="00" * 8),
        changed(public_key=base64.b64encode(bytes(32)).decode()),
        changed(public_key=base64.b64encode(bytes(31)).decode()),
        changed(suite="DHKEM(X25519,HKDF-SHA256),HKDF-SHA256,none"),
        changed(keys=[]),
        changed(keys=LIST["keys"][::-1]),
        changed(keys=LIST["keys"][:1]),
        changed(keys=LIST["keys"] * 40),
        changed(keys={"a": 1}),
        {},
        [],
        None,
        "keys",
    ],
)
def test_changed_list_is_refused(wrong: object) -> None:
    with pytest.raises(SealingIdentityError):
        open_key_list(wrong, IDENTITY.pin, now_ms=NOW_MS)


@pytest.mark.parametrize("apart_ms", [AHEAD_MS, -WINDOW_MS])
def test_list_at_the_edge_of_the_window_is_taken(apart_ms: int) -> None:
    assert open_key_list(LIST, IDENTITY.pin, now_ms=NOW_MS + apart_ms) == KEYS


@pytest.mark.parametrize("apart_ms", [AHEAD_MS + 1, -WINDOW_MS - 1])
def test_list_of_another_time_is_refused(apart_ms: int) -> None:
    with pytest.raises(SealingIdentityError, match="another time"):
        open_key_list(LIST, IDENTITY.pin, now_ms=NOW_MS + apart_ms)


def test_keys_that_ended_are_left_out() -> None:
    later = IDENTITY.key_list(KEYS, now_ms=NOW_MS + WINDOW_MS)
    assert open_key_list(later, IDENTITY.pin, now_ms=NOW_MS + WINDOW_MS) == KEYS[:1]
    ended = IDENTITY.key_list(KEYS, now_ms=NOW_MS + 3 * WINDOW_MS)
    with pytest.raises(SealingIdentityError, match="no sealing key of this server lives"):
        open_key_list(ended, IDENTITY.pin, now_ms=NOW_MS + 3 * WINDOW_MS)


@given(st.binary(min_size=32, max_size=32))
def test_pin_reads_as_it_was_written(seed: bytes) -> None:
    pin = SealingIdentity(seed).pin
    assert SealingPin.read(f" {pin}\n") == pin
    assert hash(SealingPin.read(str(pin))) == hash(pin)


TEXT = str(IDENTITY.pin)


@given(st.integers(0, len(TEXT) - 1), st.characters(codec="ascii"))
def test_mistyped_pin_is_refused(at: int, letter: str) -> None:
    wrong = TEXT[:at] + letter + TEXT[at + 1 :]
    if wrong.strip() == TEXT:
        return
    with pytest.raises(SealingIdentityError, match="not a sealing identity"):
        SealingPin.read(wrong)


@pytest.mark.parametrize("wrong", ["", "+", "shipsight-sealing", "shipsight-sealing+00000000+AQ==", TEXT[:-8]])
def test_what_is_no_pin_is_refused(wrong: str) -> None:
    with pytest.raises(SealingIdentityError, match="not a sealing identity"):
        SealingPin.read(wrong)
