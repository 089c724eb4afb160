# SPDX-License-Identifier: Apache-2.0
"""Passwords: which are taken, and how they are hashed."""

from __future__ import annotations

import threading
import unicodedata

import pytest
from argon2 import extract_parameters
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipsight.access import passwords as module
from shipsight.access.passwords import LONGEST, SHORTEST, Passwords, check_password
from shipsight.errors import OverloadedError, UsageError

FAST = Passwords(words=("vision.example",), memory_kib=64, passes=1)
GOOD = "three otters on a raft"


def test_hash_is_argon2id_with_the_parameters_of_rfc_9106() -> None:
    """ASVS 11.4.2."""
    found = extract_parameters(Passwords().make(GOOD))
    assert (found.type.name, found.memory_cost, found.time_cost, found.hash_len, found.salt_len) == (
        "ID",
        65536,
        3,
        32,
        16,
    )


@pytest.mark.parametrize("length", [0, 1, SHORTEST - 1, LONGEST + 1, 10_000])
def test_password_is_refused_when_too_short_or_too_long(length: int) -> None:
    """ASVS 6.2.1: at least 8 characters."""
    with pytest.raises(UsageError, match="8 to 128 characters, better 15"):
        check_password("xy7"[: length % 3] + "k\u00e9z" * (length // 3))


@pytest.mark.parametrize("length", [SHORTEST, 64, LONGEST])
def test_password_is_taken_up_to_128_characters(length: int) -> None:
    """ASVS 6.2.9: at least 64 are permitted."""
    text = ("v9 \u00e9" * LONGEST)[:length]
    assert check_password(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "quzvbnma",
        "73920461",
        "QUZVBNMA",
        "        qz",
        "\u043f\u0430\u0440\u043e\u043b\u044c\u043d\u044b\u0439",
        "\U0001f600\U0001f40d" * 4,
    ],
    ids=["letters", "digits", "capitals", "blanks", "cyrillic", "pictures"],
)
def test_password_needs_no_kinds_of_characters(text: str) -> None:
    """ASVS 6.2.5: no rules of composition."""
    assert check_password(text)


def test_blocklist_holds_more_than_three_thousand_that_are_long_enough() -> None:
    """ASVS 6.2.4."""
    listed = module._common()
    assert len(listed) > 3000
    assert all(len(one) >= SHORTEST for one in listed)
    assert {"password", "iloveyou", "trustno1"} <= listed


@pytest.mark.parametrize("text", ["password", "PassWord", "12345678", "qwertyuiop", "trustno1", "\uff50assword"])
def test_password_is_refused_when_it_is_one_of_the_commonest(text: str) -> None:
    """ASVS 6.2.4."""
    with pytest.raises(UsageError, match="commonest"):
        check_password(text)


@pytest.mark.parametrize(
    "text",
    [
        "shipsight",
        "Shipsight1",
        "adalovelace",
        "AdaLovelace12",
        "vision.example",
        "vision.example!",
        "lovelacepassword",
    ],
)
def test_password_is_refused_when_it_is_little_more_than_a_name(text: str) -> None:
    """ASVS 6.2.11."""
    with pytest.raises(UsageError, match=r"little more than a name|commonest"):
        FAST.make(text, words=("ada", "Ada Lovelace"))


@pytest.mark.parametrize("text", ["lambada all night long", "shipsight guards the otters", "of course vision"])
def test_password_may_hold_a_name_when_the_rest_is_long_enough(text: str) -> None:
    assert FAST.make(text, words=("ada",))


def test_refusal_of_a_password_holds_nothing_of_it() -> None:
    """ASVS 16.2.5."""
    for text in ("trustno1", "zq9", "shipsight-zq9", "zq9" * 60):
        with pytest.raises(UsageError) as caught:
            check_password(text)
        assert "zq9" not in str(caught.value)
        assert "trust" not in str(caught.value)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(st.text(min_size=SHORTEST, max_size=40), st.text(max_size=40))
def test_password_matches_its_own_hash_alone(text: str, other: str) -> None:
    try:
        made = FAST.make(text)
    except UsageError:
        return
    assert FAST.matches(text, made)
    same = unicodedata.normalize("NFKC", other) == unicodedata.normalize("NFKC", text)
    assert FAST.matches(other, made) == same


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # the machine may be busy
@given(st.integers(0, LONGEST - 1), st.sampled_from("xy"))
def test_password_is_never_cut_off_nor_is_a_character_passed_over(at: int, put: str) -> None:
    """ASVS 6.2.8."""
    text = "k3" * (LONGEST // 2)
    made = MADE_LONG
    assert not FAST.matches(text[:at] + put + text[at + 1 :], made)
    assert not FAST.matches(text[:at], made)
    assert not FAST.matches(text + put, made)


MADE_LONG = FAST.make("k3" * (LONGEST // 2))


@pytest.mark.parametrize("text", ["KITES OVER A LAKE", " kites over a lake", "kites over a lake ", "kites over a lak"])
def test_password_is_compared_as_it_was_typed(text: str) -> None:
    """ASVS 6.2.8: no case, no blank is changed."""
    assert not FAST.matches(text, FAST.make("kites over a lake"))


def test_password_does_not_depend_on_how_a_keyboard_writes_it() -> None:
    """NIST SP 800-63B-4, 3.1.1.2: text is normalized before it is hashed."""
    assert FAST.matches("caf\u00e9 au lait, twice", FAST.make("cafe\u0301 au lait, twice"))


@pytest.mark.parametrize("text", ["\ud800" * 9, "a" * 1_000_000, "", "\0" * 12, "\U000e0fff" * 10])
def test_hostile_text_matches_nothing(text: str) -> None:
    assert not FAST.matches(text, FAST.make(GOOD))


@pytest.mark.parametrize("text", ["\ud800 and much more text", "not yet a letter: \u0378"])
def test_text_that_keyboards_cannot_agree_on_is_not_taken(text: str) -> None:
    with pytest.raises(UsageError, match="every keyboard"):
        FAST.make(text)


def test_nobody_matches_where_there_is_no_hash_and_it_costs_a_hash() -> None:
    """A4: an unknown user costs one comparison, and not even the text compared with lets in."""
    counted = Passwords(memory_kib=64, passes=1)
    calls: list[str] = []
    hasher = counted._hasher
    verify = hasher.verify

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(hasher, name)

        def verify(self, kept: str, text: str) -> bool:
            calls.append(text)
            return verify(kept, text)

    counted._hasher = Watched()  # type: ignore[assignment]
    assert not counted.matches("nobody has this password", None)
    assert not counted.matches(GOOD, None)
    assert not counted.matches("x" * 10_000, None)
    assert len(calls) == 3


def test_hash_with_other_parameters_is_outdated_and_still_matches() -> None:
    old = FAST.make(GOOD)
    newer = Passwords(memory_kib=128, passes=1)
    assert newer.matches(GOOD, old)
    assert newer.is_outdated(old)
    assert not newer.is_outdated(newer.make_again(GOOD))


def test_not_more_than_four_hashes_are_computed_at_once() -> None:
    """Each takes 64 MiB: a crowd of sign-ins must not take the machine's memory."""
    slow = Passwords(memory_kib=8192, passes=2)
    made = slow.make(GOOD)
    hasher, at_once, most, lock = slow._hasher, 0, 0, threading.Lock()

    class Watched:
        def verify(self, kept: str, text: str) -> bool:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            try:
                return hasher.verify(kept, text)
            finally:
                with lock:
                    at_once -= 1

    assert slow.matches(GOOD, made)
    slow._hasher = Watched()  # type: ignore[assignment]
    threads = [threading.Thread(target=slow.matches, args=(GOOD, made)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 4


def test_password_is_refused_for_now_when_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.01)
    taken = [module._turns.acquire() for _ in range(4)]
    try:
        with pytest.raises(OverloadedError):
            FAST.matches(GOOD, None)
    finally:
        for _ in taken:
            module._turns.release()
