# SPDX-License-Identifier: Apache-2.0
"""Secrets that must be read again (seeds of one-time codes) are encrypted before they are kept.

AES-256-GCM with a fresh nonce; what the secret belongs to is associated data, so that one row's cannot be put into another's.
A box holds one key or several: the first encrypts, all decrypt, so that keys can be rotated. Form: one byte of version, eight
bytes that name the key, twelve of nonce, the rest. Stable. Source: NIST SP 800-38D.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shipsight.errors import CorruptError, EnvironmentLackError, UsageError

__all__ = ["SecretBox", "load_keys", "write_keys"]

_VERSION = b"\x01"
_KEY, _NAME, _NONCE = 32, 8, 12


class SecretBox:
    """Encrypts and decrypts.

    Args:
        keys: 32 bytes each; the first encrypts.

    Raises:
        UsageError: there is none, or one has another length.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != _KEY for key in keys):
            raise UsageError("not a key for secrets", where="--secrets-key", expected=f"{_KEY} bytes")
        self._ciphers = {_name_of(key): AESGCM(key) for key in keys}
        self._first = _name_of(keys[0])

    def is_current(self, sealed: bytes) -> bool:
        """Whether a secret is encrypted with the first key."""
        return sealed[: 1 + _NAME] == _VERSION + self._first

    def seal(self, secret: bytes, *, belongs_to: str) -> bytes:
        """Encrypts a secret.

        Args:
            secret: any bytes.
            belongs_to: what it may be opened for alone.
        """
        nonce = os.urandom(_NONCE)
        head = _VERSION + self._first
        return head + nonce + self._ciphers[self._first].encrypt(nonce, secret, head + belongs_to.encode())

    def open(self, sealed: bytes, *, belongs_to: str) -> bytes:
        """Decrypts a secret.

        Raises:
            CorruptError: it was changed, belongs to something else, or to a key that is not here.
        """
        head, nonce = sealed[: 1 + _NAME], sealed[1 + _NAME : 1 + _NAME + _NONCE]
        cipher = self._ciphers.get(head[1:])
        if cipher is None or head[:1] != _VERSION:
            raise CorruptError(
                "a secret was encrypted with another key",
                where=belongs_to,
                hint="Give the key file that it was made with.",
            )
        try:
            return cipher.decrypt(nonce, sealed[1 + _NAME + _NONCE :], head + belongs_to.encode())
        except (InvalidTag, ValueError) as error:
            raise CorruptError("a secret was changed", where=belongs_to) from error


def _name_of(key: bytes) -> bytes:
    return hashlib.sha256(b"shipsight secret box" + key).digest()[:_NAME]


def load_keys(path: Path, *, make: bool = False) -> list[bytes]:
    """Returns the keys in a file, a line each: the one that encrypts, then those before it that still decrypt.

    Args:
        path: of the file.
        make: whether it is made with one key where there is none, readable for its owner alone.

    Raises:
        UsageError: the file holds something else.
        EnvironmentLackError: it cannot be read or made, or others may read it.
    """
    try:
        if make:
            _make(path)
        if path.stat().st_mode & 0o077:
            raise EnvironmentLackError("others may read the key for secrets", where=path, hint=f"Run: chmod 600 {path}")
        lines = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        got = error.strerror if isinstance(error, OSError) else "bytes that are no text"
        raise EnvironmentLackError("the key for secrets cannot be used", where=path, got=got) from error
    try:
        keys = [bytes.fromhex(line) for line in lines]
    except ValueError as error:
        raise UsageError("not a key for secrets", where=path, expected=f"{_KEY} bytes in hexadecimal") from error
    wrong = next((len(key) for key in keys if len(key) != _KEY), None)
    if wrong is not None or not keys:
        raise UsageError(
            "not a key for secrets", where=path, expected=f"{_KEY} bytes in hexadecimal", got=f"{wrong or 0} bytes"
        )
    return keys


def write_keys(path: Path, keys: Sequence[bytes]) -> None:
    """Writes keys in place of those in a file, whole or not at all; readable for its owner alone.

    Raises:
        EnvironmentLackError: it cannot be written.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.writelines(f"{key.hex()}\n" for key in keys)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise EnvironmentLackError("the key for secrets cannot be written", where=path, got=error.strerror) from error


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Written aside and linked: who comes second finds a whole key, never the beginning of one.
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    if path.exists():
        return
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)
