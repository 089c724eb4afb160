# SPDX-License-Identifier: Apache-2.0
"""Where sealing keys are kept: a folder that outlives a server, and that several servers behind one address may share.

    identity        seed of Ed25519, 64 hexadecimal digits; signs lists of keys
    identity.pin    what clients pin, for whoever hands it on
    <id>.key        a sealing key: JSON {"private": base64, "not_after": milliseconds since 1970}
    seen/<minute>/  ids of requests that were opened, by the minute in which they end (`seen_requests`)

Rules: nobody but the owner may look into the folder; a file is there whole or not at all; one server at a time makes a key (`flock`);
the file of a key that has ended is deleted, so that what was sealed to it stays sealed. Stable.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shipsight.errors import CorruptError, EnvironmentLackError
from shipsight.protect import SealingIdentity, SealingKey

__all__ = ["SealingFolder"]

_SEED_BYTES = 32
_MOST_FILE_BYTES = 4096


class SealingFolder:
    """The folder; made where missing, with an identity.

    Args:
        path: of it.

    Raises:
        EnvironmentLackError: it cannot be made or used, or others may look into it.
        CorruptError: its identity is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._usable():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.stat().st_mode & 0o077:
                raise EnvironmentLackError(
                    "others may look into the folder of sealing keys", where=path, hint=f"Run: chmod 700 {path}"
                )
            if not (path / "identity").exists():
                self._put("identity", secrets.token_hex(_SEED_BYTES).encode() + b"\n")
            self.identity = SealingIdentity(self._seed())
            if not (path / "identity.pin").exists():
                self._put("identity.pin", f"{self.identity.pin}\n".encode())

    def keys(self, *, now_ms: int) -> dict[bytes, SealingKey]:
        """Returns the keys that live, by id; deletes the files of those that have ended.

        Raises:
            EnvironmentLackError, CorruptError: the folder, or a file in it, cannot be used.
        """
        living = {}
        with self._usable():
            for file in sorted(self.path.glob("*.key")):
                try:
                    key = _read_key(file)
                except FileNotFoundError:
                    continue  # another server deleted it just now
                if key.public.not_after_ms < now_ms:
                    file.unlink(missing_ok=True)
                else:
                    living[key.public.id] = key
        return living

    def add(self, key: SealingKey) -> None:
        """Keeps a key.

        Raises:
            EnvironmentLackError: it cannot be written.
        """
        told = {"private": base64.b64encode(key.to_bytes()).decode(), "not_after": key.public.not_after_ms}
        with self._usable():
            self._put(f"{key.public.id.hex()}.key", json.dumps(told).encode() + b"\n")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within, no other server makes a key.

        Raises:
            EnvironmentLackError: it cannot be locked.
        """
        with self._usable():
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with self._usable():
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise EnvironmentLackError(
                "the folder of sealing keys cannot be used", where=self.path, got=error.strerror
            ) from error

    def _seed(self) -> bytes:
        text = (self.path / "identity").read_bytes()[:_MOST_FILE_BYTES]
        with contextlib.suppress(ValueError):
            seed = bytes.fromhex(text.decode("ascii"))
            if len(seed) == _SEED_BYTES:
                return seed
        raise CorruptError(
            "not a sealing identity", where=self.path / "identity", expected=f"{_SEED_BYTES} bytes in hexadecimal"
        )

    def _put(self, name: str, content: bytes) -> None:
        # Written aside and linked: who comes second finds a whole file, never the beginning of one.
        new = self.path / f".{name}.{secrets.token_hex(8)}"
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(new, self.path / name)
        finally:
            new.unlink(missing_ok=True)
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read_key(file: Path) -> SealingKey:
    try:
        told = json.loads(file.read_bytes()[:_MOST_FILE_BYTES])
        if set(told) != {"private", "not_after"} or type(told["not_after"]) is not int:
            raise ValueError("not a key")
        key = SealingKey.from_bytes(base64.b64decode(told["private"], validate=True), not_after_ms=told["not_after"])
        if file.stem != key.public.id.hex():
            raise ValueError("another key's name")
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise CorruptError(
            "not a sealing key", where=file, hint="Delete it; requests that were sealed to it are refused then."
        ) from error
    return key
