# SPDX-License-Identifier: Apache-2.0
"""Passwords: which are taken, and how they are hashed and compared.

Taken: 8 to 128 characters (15 and more are recommended) of any kind, without rules of composition; refused: what stands among
the commonest passwords, and what is little more than the user's name, ours or the server's. Text is compared in Unicode's form
NFKC (compatibility composition), so that a password does not depend on the keyboard; otherwise as it was typed, never cut off. Invariants: a comparison
costs one hash, whoever it is for; a process computes four hashes at once at most, since each takes 64 MiB. Stable.
Sources: OWASP ASVS 5.0, 6.2 and 11.4.2; NIST SP 800-63B-4, 3.1.1.2; RFC 9106, 4.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from importlib.resources import files
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from shipsight.errors import OverloadedError, UsageError

__all__ = ["LONGEST", "SHORTEST", "Passwords", "check_password"]

SHORTEST, LONGEST = 8, 128
_RECOMMENDED = 15
_AT_ONCE = 4
_WAIT_S = 10.0
_turns = BoundedSemaphore(_AT_ONCE)


class Passwords:
    """Hashes passwords by argon2id, and compares with hashes.

    Args:
        words: that no password may be made of: names of this server.
        memory_kib: that one hash takes, KiB; 65536 is RFC 9106's second choice.
        passes: over that memory, its other parameter.
    """

    def __init__(self, *, words: Sequence[str] = (), memory_kib: int = 65536, passes: int = 3) -> None:
        self._words = tuple(words)
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)

    def make(self, password: str, *, words: Sequence[str] = ()) -> str:
        """Returns the hash of a new password.

        Args:
            password: as it was typed.
            words: that it may not be made of, beside the server's: names of its user.

        Raises:
            UsageError: it is not taken.
            OverloadedError: too many hashes are being computed.
        """
        text = check_password(password, words=(*self._words, *words))
        with _turn():
            return self._hasher.hash(text)

    def matches(self, password: str, kept: str | None) -> bool:
        """Whether a password has a hash; without a hash it has not, which takes as long.

        Raises:
            OverloadedError: too many hashes are being computed.
        """
        text = _normal(password)
        # A text that no password can be is compared, too, and does not match.
        is_possible = text is not None and len(text) <= LONGEST
        compared = text if text is not None and is_possible else ""
        # Asked for whoever it is, so that the first unknown name takes no longer than the first known one.
        nobodys = self._nobodys
        with _turn():
            try:
                self._hasher.verify(kept or nobodys, compared)
            except (VerificationError, InvalidHashError):
                return False
        return is_possible and kept is not None

    @cached_property
    def _nobodys(self) -> str:
        """What an unknown user's password is compared with."""
        with _turn():
            return self._hasher.hash("nobody has this password")

    def is_outdated(self, kept: str) -> bool:
        """Whether a hash was made with other parameters."""
        return self._hasher.check_needs_rehash(kept)

    def make_again(self, password: str) -> str:
        """Returns a hash, with the parameters of now, of a password that matched; it is not judged again.

        Raises:
            OverloadedError: too many hashes are being computed.
        """
        with _turn():
            return self._hasher.hash(_normal(password) or "")


def check_password(password: str, *, words: Sequence[str] = ()) -> str:
    """Returns a new password in the form that is hashed.

    Args:
        password: as it was typed.
        words: that it may not be made of.

    Raises:
        UsageError: it is not taken; the message holds nothing of it.
    """
    text = _normal(password)
    if text is None or any(unicodedata.category(one) == "Cn" for one in text):
        raise UsageError("not a text that every keyboard writes the same way", where="password")
    if not SHORTEST <= len(text) <= LONGEST:
        raise UsageError(
            "not a length of a password",
            where="password",
            expected=f"{SHORTEST} to {LONGEST} characters, better {_RECOMMENDED} and more",
            got=f"{len(text)} characters",
        )
    if _is_common(text):
        raise UsageError(
            "one of the commonest passwords", where="password", hint="Take several words that do not belong together."
        )
    rest = _without(text, words)
    if rest != text and (len(rest) < SHORTEST or _is_common(rest)):
        raise UsageError(
            "little more than a name that others know", where="password", hint="Leave the name out, or add more words."
        )
    return text


def _normal(password: str) -> str | None:
    try:
        password.encode()
    except UnicodeEncodeError:
        return None
    # Normalizing is not free: what is far too long is not looked at.
    return unicodedata.normalize("NFKC", password) if len(password) <= 4 * LONGEST else password


def _without(text: str, words: Sequence[str]) -> str:
    # Two letters are in many words.
    names = {part.casefold() for word in (*words, "shipsight") for part in (word, *re.split(r"[\W_]+", word))}
    long_ones = sorted((one for one in names if len(one) > 2), key=len, reverse=True)
    return re.sub("|".join(map(re.escape, long_ones)), "", text.casefold())


def _is_common(text: str) -> bool:
    return text.casefold() in _common()


@cache
def _common() -> frozenset[str]:
    lines = (files("shipsight.access") / "common_passwords.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line.casefold() for line in lines if line and not line.startswith("# ") and line != "#")


@contextmanager
def _turn() -> Iterator[None]:
    if not _turns.acquire(timeout=_WAIT_S):
        raise OverloadedError("too many people prove who they are")
    try:
        yield
    finally:
        _turns.release()
