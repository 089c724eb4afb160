# SPDX-License-Identifier: Apache-2.0
"""One recording, and the sealed bytes that it is kept as (`docs/formats/recording-store.md`).

Sealed with AES-256-GCM under a key of its own; the store, the id, the day and the policy are associated data, so that a file moved to another
day, store or policy is refused like one of which a byte was changed. Leaves to others: keys (`keys`), files (`store`). Pure. Stable.
Source: NIST SP 800-38D.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shipsight.errors import CorruptError
from shipsight.monitor.recording.enforcement import day_of

__all__ = ["KEY_BYTES", "Label", "Recording", "new_id", "open_recording", "seal_recording"]

KEY_BYTES = 32
_MAGIC = b"shipsight-recording\n\x01"
_NONCE = 12
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Label:
    """What is told of a recording without opening it: no content, and nobody's name.

    Attributes:
        id: 32 hexadecimal digits by chance.
        at: when it was answered, UTC, to a millisecond.
        model: name of who answered.
        version: of it.
        variant: of it.
        reasons: rules that picked it.
        redacted: classes that were made unrecognizable in it.
        policy: digest of the policy that it was recorded under.
        media_type: of its image, None where none is kept.
    """

    id: str
    at: datetime
    model: str
    version: str
    variant: str
    reasons: tuple[str, ...]
    redacted: tuple[str, ...]
    policy: str
    media_type: str | None

    @property
    def day(self) -> str:
        """In UTC."""
        return day_of(self.at)

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain values."""
        return {
            "id": self.id,
            "at": write_time(self.at),
            "model": self.model,
            "version": self.version,
            "variant": self.variant,
            "reasons": list(self.reasons),
            "redacted": list(self.redacted),
            "policy": self.policy,
            "media_type": self.media_type,
        }

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Label:
        """Reads what `to_dict` returns; raises KeyError, TypeError or ValueError for something else."""
        lists = {name: tuple(map(str, told[name])) for name in ("reasons", "redacted")}
        return cls(**{**told, **lists, "at": read_time(told["at"])})


@dataclass(frozen=True)
class Recording:
    """One image with its answer.

    Attributes:
        label: what is told of it.
        predictions: one entry of `images` (`docs/formats/predictions.md`), without the name that the caller gave the image.
        image: encoded, None where it is not kept.
    """

    label: Label
    predictions: dict[str, Any]
    image: bytes | None


def new_id() -> str:
    """Returns an id."""
    return secrets.token_hex(16)


def write_time(at: datetime) -> int:
    """Returns a time as milliseconds since 1970."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def read_time(told: int) -> datetime:
    """Reads what `write_time` returns."""
    return _EPOCH + timedelta(milliseconds=told)


def seal_recording(one: Recording, key: bytes, *, store: str) -> bytes:
    """Returns the bytes of its file.

    Args:
        one: the recording.
        key: 32 bytes, used for nothing else.
        store: id of where it is kept.
    """
    head = json.dumps({"label": one.label.to_dict(), "predictions": one.predictions}, allow_nan=False).encode()
    plain = b"".join((len(head).to_bytes(4, "big"), head, one.image or b""))
    nonce = os.urandom(_NONCE)
    return _MAGIC + nonce + AESGCM(key).encrypt(nonce, plain, _bound(one.label, store))


def open_recording(sealed: bytes, key: bytes, label: Label, *, store: str) -> Recording:
    """Opens a file.

    Args:
        sealed: its bytes.
        key: of it.
        label: as the index tells it; what is inside must say the same.
        store: id of where it is kept.

    Raises:
        CorruptError: a byte was changed, it is cut, or belongs elsewhere.
    """
    begin = len(_MAGIC) + _NONCE
    try:
        if not sealed.startswith(_MAGIC):
            raise ValueError("not a recording")
        plain = AESGCM(key).decrypt(sealed[len(_MAGIC) : begin], sealed[begin:], _bound(label, store))
        size = int.from_bytes(plain[:4], "big")
        told = json.loads(plain[4 : 4 + size])
        found = Label.from_dict(told["label"])
        if found != label:
            raise ValueError("another label")
    except (InvalidTag, KeyError, TypeError, ValueError) as error:
        raise CorruptError("a recording was changed", where=label.id, got=type(error).__name__) from error
    return Recording(found, told["predictions"], None if label.media_type is None else plain[4 + size :])


def _bound(label: Label, store: str) -> bytes:
    return f"shipsight recording 1\n{store}\n{label.id}\n{label.day}\n{label.policy}".encode()
