# SPDX-License-Identifier: Apache-2.0
"""Signed notes: a text with Ed25519 signatures under it that people can read and other projects' tools can check.

Invariants: who opens a note gets a text only with at least one signature of a key that they named; a signature of such a
key that is wrong spoils the note, those of other keys are passed over. Stable.
Sources: C2SP signed-note v1.0.0; C2SP tlog-cosignature (signatures that carry a time).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shipsight.errors import AuditProofError, EnvironmentLackError, UsageError

__all__ = ["KeyKind", "Note", "Signature", "Signer", "VerifierKey", "decode_base64", "open_note", "sign_note"]

_MOST_BYTES = 64 * 1024
_MOST_SIGNATURES = 64
_DASH = "\N{EM DASH} "
_PRIVATE = "PRIVATE+KEY+"
_KEY_BYTES = 32
_ID_BYTES = 4
_TIME_BYTES = 8
_SIGNATURE_BYTES = 64
_COSIGNED = "cosignature/v1\n"
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f]")


class KeyKind(IntEnum):
    """What a key signs."""

    NOTE = 1
    """The text as it is."""
    COSIGNATURE = 4
    """The text, and when: of a witness, over a checkpoint."""


@dataclass(frozen=True)
class VerifierKey:
    """What a signature is checked with.

    Attributes:
        name: of who signs.
        public: the Ed25519 key, 32 bytes.
        kind: what it signs.
    """

    name: str
    public: bytes
    kind: KeyKind = KeyKind.NOTE

    def __post_init__(self) -> None:
        if not _is_name(self.name) or len(self.public) != _KEY_BYTES:
            raise UsageError(
                "not a key that verifies", got=self.name, expected="a name without blanks or `+`, 32 bytes"
            )

    @property
    def id(self) -> bytes:
        """The 4 bytes that stand before a signature of this key."""
        return _key_id(self.name, self.kind, self.public)

    @property
    def text(self) -> str:
        """The key in one line, `name+id+key`, as `parse` reads it."""
        return f"{self.name}+{self.id.hex()}+{_base64(bytes([self.kind]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a key in one line.

        Raises:
            UsageError: it is none, or its parts do not belong together.
        """
        name, given_id, data = _parse_key(text.strip(), "name+8 hexadecimal digits+base64")
        key = cls(name, data[1:], _kind(data[0], text))
        if key.id != given_id:
            raise UsageError("a key's name, id and value do not belong together", got=text.strip())
        return key

    def verify(self, text: str, signature: bytes) -> datetime | None:
        """Verifies a signature over a text.

        Returns:
            When it was made, UTC; None where the kind of key does not tell.

        Raises:
            AuditProofError: it is not this key's over this text.
        """
        at, message = None, text.encode()
        if self.kind is KeyKind.COSIGNATURE:
            seconds = int.from_bytes(signature[:_TIME_BYTES], "big")
            signature = signature[_TIME_BYTES:]
            message = _cosigned(text, seconds)
            try:
                at = datetime.fromtimestamp(seconds, UTC)
            except (OverflowError, ValueError, OSError) as error:
                raise AuditProofError("a signature's time is none", where=self.name, got=seconds) from error
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError) as error:
            raise AuditProofError("a signature is not over this text", where=self.name) from error
        return at


class Signer:
    """Signs notes with a key that it keeps to itself."""

    def __init__(self, name: str, private: Ed25519PrivateKey, kind: KeyKind = KeyKind.NOTE) -> None:
        """Takes a key.

        Raises:
            UsageError: the name is none.
        """
        self._private = private
        self.key = VerifierKey(name, private.public_key().public_bytes_raw(), kind)

    @classmethod
    def generate(cls, name: str, kind: KeyKind = KeyKind.NOTE) -> Self:
        """Returns one with a new key."""
        return cls(name, Ed25519PrivateKey.generate(), kind)

    @classmethod
    def load(
        cls, path: Path, *, make: bool = False, name: str = "shipsight-audit", kind: KeyKind = KeyKind.NOTE
    ) -> Self:
        """Reads a key from a file, one line `PRIVATE+KEY+name+id+key`.

        Args:
            path: of the file.
            make: whether it is made where there is none, readable for its owner alone.
            name: that a key made here gets.
            kind: that the key has to be.

        Raises:
            UsageError: the file holds something else.
            EnvironmentLackError: it cannot be read or made, or others may read it.
        """
        try:
            if make and not path.exists():
                cls.generate(name, kind).save(path)
            if path.stat().st_mode & 0o077:
                raise EnvironmentLackError(
                    "others may read the key that signs", where=path, hint=f"Run: chmod 600 {path}"
                )
            text = path.read_text(encoding="utf-8").strip()
        except FileExistsError:  # made by another process meanwhile
            return cls.load(path, name=name, kind=kind)
        except (OSError, UnicodeDecodeError) as error:
            got = error.strerror if isinstance(error, OSError) else "bytes that are no text"
            raise EnvironmentLackError("the key that signs cannot be used", where=path, got=got) from error
        return cls._parse(text, kind, path)

    def save(self, path: Path) -> None:
        """Writes the key to a new file, readable for its owner alone.

        Raises:
            OSError: it is there already (`FileExistsError`), or cannot be made.
        """
        seed = bytes([self.key.kind]) + self._private.private_bytes_raw()
        line = f"{_PRIVATE}{self.key.name}+{self.key.id.hex()}+{_base64(seed)}\n"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Written aside and linked: who comes second finds a whole key, never the beginning of one.
        new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            os.link(new, path)
        finally:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)

    def sign_line(self, text: str, at: datetime) -> str:
        """Returns the line of a signature over a note's text.

        Args:
            text: of the note, ending with a line end.
            at: now; part of the signature where the kind of key is a witness's.
        """
        if self.key.kind is KeyKind.COSIGNATURE:
            seconds = int(at.timestamp())
            made = seconds.to_bytes(_TIME_BYTES, "big") + self._private.sign(_cosigned(text, seconds))
        else:
            made = self._private.sign(text.encode())
        return f"{_DASH}{self.key.name} {_base64(self.key.id + made)}\n"

    @classmethod
    def _parse(cls, text: str, kind: KeyKind, path: Path) -> Self:
        if not text.startswith(_PRIVATE):
            raise UsageError("not a key that signs", where=path, expected=f"a line that begins with {_PRIVATE}")
        name, given_id, data = _parse_key(text.removeprefix(_PRIVATE), f"{_PRIVATE}name+id+key", where=path)
        if _kind(data[0], name) is not kind:
            raise UsageError("this key signs something else", where=path, expected=kind.name.lower(), got=data[0])
        signer = cls(name, Ed25519PrivateKey.from_private_bytes(data[1:]), kind)
        if signer.key.id != given_id:
            raise UsageError("a key's name, id and value do not belong together", where=path)
        return signer

    def __repr__(self) -> str:
        return f"Signer({self.key.text!r})"


@dataclass(frozen=True)
class Signature:
    """A signature that was verified: by which key, and when it was made where that is told (UTC)."""

    key: VerifierKey
    at: datetime | None = None


@dataclass(frozen=True)
class Note:
    """A text, and the verified signatures under it."""

    text: str
    signatures: tuple[Signature, ...]


def sign_note(text: str, *signers: Signer, at: datetime | None = None) -> str:
    """Returns a note.

    Args:
        text: one or more lines, the last ended; without control characters.
        signers: one or more.
        at: now, UTC; needed where one is a witness's.

    Raises:
        UsageError: the text cannot be a note's.
    """
    if not text.endswith("\n") or _CONTROL.search(text) or text.startswith(_COSIGNED):
        raise UsageError("not the text of a note", expected="lines without control characters, the last ended")
    lines = [one.sign_line(text, at or datetime.now(UTC)) for one in signers]
    return text + "\n" + "".join(lines)


def open_note(note: str, keys: Sequence[VerifierKey]) -> Note:
    """Verifies a note.

    Args:
        note: its text and signatures.
        keys: that are trusted; signatures of others are passed over.

    Raises:
        AuditProofError: it is no note, a trusted key's signature in it is wrong, or there is none of such a key.
    """
    text, lines = _split(note)
    found: list[Signature] = []
    for name, key_id, signature in lines:
        named = [key for key in keys if key.name == name and key.id == key_id]
        found += [Signature(key, key.verify(text, signature)) for key in named]
    if not found:
        known = ", ".join(sorted({f"{key.name}+{key.id.hex()}" for key in keys})) or "none"
        got = ", ".join(f"{name}+{key_id.hex()}" for name, key_id, _ in lines)
        raise AuditProofError("nobody trusted has signed this", expected=known, got=got)
    return Note(text, tuple(dict.fromkeys(found)))


def decode_base64(text: str) -> bytes:
    """Returns the bytes that a text in base64 stands for; a second way to write the same is refused.

    Raises:
        AuditProofError: it is not such a text.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise AuditProofError("not base64", got=text[:100]) from error
    if _base64(data) != text:
        raise AuditProofError("not base64 as it has to be written", got=text[:100])
    return data


def _split(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Returns a note's text, and of each signature name, id of the key and value."""
    try:
        size = len(note.encode())
    except UnicodeEncodeError as error:
        raise AuditProofError("not a signed note", got="characters that no UTF-8 has") from error
    text, blank, rest = note.rpartition("\n\n")
    lines = rest.split("\n")
    if size > _MOST_BYTES or len(lines) > _MOST_SIGNATURES + 1:
        raise AuditProofError("a signed note is too long", expected=f"{_MOST_BYTES} bytes", got=size)
    if not blank or lines[-1] or len(lines) < 2 or _CONTROL.search(note):
        raise AuditProofError("not a signed note", expected="a text, a blank line, signatures")
    return text + "\n", [_read_line(line) for line in lines[:-1]]


def _read_line(line: str) -> tuple[str, bytes, bytes]:
    name, blank, value = line.removeprefix(_DASH).partition(" ")
    data = decode_base64(value)
    if not line.startswith(_DASH) or not blank or not _is_name(name) or len(data) <= _ID_BYTES:
        raise AuditProofError("not the line of a signature", got=line[:100])
    return name, data[:_ID_BYTES], data[_ID_BYTES:]


def _cosigned(text: str, seconds: int) -> bytes:
    return f"{_COSIGNED}time {seconds}\n{text}".encode()


def _parse_key(text: str, expected: str, where: Path | None = None) -> tuple[str, bytes, bytes]:
    """Returns name, id, and kind with value; the value, which may be secret, is in no message."""
    # Base64 has `+`, too: name and id are what stands before the first two.
    parts = text.split("+", 2)
    if len(parts) == 3 and re.fullmatch("[0-9a-f]{8}", parts[1]):
        with contextlib.suppress(AuditProofError):
            data = decode_base64(parts[2])
            if len(data) == 1 + _KEY_BYTES:
                return parts[0], bytes.fromhex(parts[1]), data
    raise UsageError("not a key", where=where, expected=expected)


def _kind(number: int, where: str) -> KeyKind:
    try:
        return KeyKind(number)
    except ValueError as error:
        raise UsageError("a key of a kind that is not known", where=where, expected="1 or 4", got=number) from error


def _key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:_ID_BYTES]


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and name.isprintable() and not any(one.isspace() for one in name)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
