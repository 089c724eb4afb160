# SPDX-License-Identifier: Apache-2.0
"""Which sealing keys are the server's own: it signs their list with an identity, which clients pin.

Who ends TLS on the way could otherwise hand out keys of its own, open what is sealed to them, and seal it anew. The pin is text in
the form of a C2SP verifier key, `shipsight-sealing+<8 hex>+<base64>`, and reaches the client some other way than through that hop.
A list says when it was signed, so that an old one cannot be passed off for long. Pure: no clock, no I/O. Stable.
Sources: RFC 8032; C2SP signed-note.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shipsight.errors import SealingIdentityError
from shipsight.protect.sealing import AHEAD_MS, SUITE, WINDOW_MS, PublicSealingKey

__all__ = ["PIN_NAME", "SealingIdentity", "SealingPin", "open_key_list"]

PIN_NAME = "shipsight-sealing"
_ED25519 = b"\x01"
_MOST_KEYS = 64


class SealingPin:
    """The public half of a server's sealing identity.

    Args:
        raw: 32 bytes of Ed25519.

    Raises:
        ValueError: another length.
    """

    def __init__(self, raw: bytes) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(raw)
        self.raw = raw

    def __str__(self) -> str:
        """Returns the text that clients pin."""
        return f"{PIN_NAME}+{_hash(self.raw)}+{base64.b64encode(_ED25519 + self.raw).decode()}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SealingPin) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    @classmethod
    def read(cls, text: str) -> SealingPin:
        """Reads a pin.

        Raises:
            SealingIdentityError: it is none, or was mistyped.
        """
        name, _, rest = text.strip().partition("+")
        checksum, _, encoded = rest.partition("+")
        try:
            raw = base64.b64decode(encoded, validate=True)
            if name != PIN_NAME or raw[:1] != _ED25519 or checksum != _hash(raw[1:]):
                raise ValueError("not a pin")
            return cls(raw[1:])
        except (ValueError, binascii.Error) as error:
            raise SealingIdentityError(
                "not a sealing identity",
                expected=f"{PIN_NAME}+<8 hexadecimal digits>+<base64>",
                got=text[:100],
                hint="Copy the line that `shipsight serve` prints as `sealing`.",
            ) from error

    def verify(self, signature: bytes, signed: bytes) -> None:
        """Checks a signature.

        Raises:
            InvalidSignature: it is not the identity's.
        """
        self._key.verify(signature, signed)


class SealingIdentity:
    """A server's identity for sealing: signs lists of keys and nothing else.

    Args:
        seed: 32 secret bytes.

    Raises:
        ValueError: another length.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.pin = SealingPin(self._key.public_key().public_bytes_raw())

    def key_list(self, keys: Sequence[PublicSealingKey], *, now_ms: int) -> dict[str, Any]:
        """Returns what `GET /v1/sealing-keys` tells: `keys`, the one to seal to first; `now`; `identity`; `signature`.

        The identity stands there for whoever has no other way to learn it and believes the first answer; no pin is taken from it.

        Args:
            keys: that live.
            now_ms: the time, milliseconds since 1970.
        """
        signature = self._key.sign(_signed(keys, now_ms))
        return {
            "keys": [
                {
                    "id": one.id.hex(),
                    "public_key": base64.b64encode(one.raw).decode(),
                    "not_after": one.not_after_ms,
                    "suite": SUITE,
                }
                for one in keys
            ],
            "now": now_ms,
            "identity": str(self.pin),
            "signature": base64.b64encode(signature).decode(),
        }


def open_key_list(told: object, pin: SealingPin, *, now_ms: int) -> list[PublicSealingKey]:
    """Checks a list of keys.

    Args:
        told: the JSON of `GET /v1/sealing-keys`.
        pin: of the server that is meant.
        now_ms: the client's time, milliseconds since 1970.

    Returns:
        Keys that live, the one to seal to first.

    Raises:
        SealingIdentityError: it is not signed by that identity, was signed long ago, or holds no key that lives.
    """
    try:
        keys, listed_ms, signature = _read_list(told)
        pin.verify(signature, _signed(keys, listed_ms))
    except (InvalidSignature, KeyError, TypeError, ValueError) as error:
        raise SealingIdentityError(
            "these sealing keys are not those of the server that is meant",
            expected=str(pin),
            hint="Somebody on the way may have put in their own; or the server has a new identity: ask who runs it.",
        ) from error
    # As a server looks at a request: what a clock further ahead seals would be refused there.
    if not -WINDOW_MS <= now_ms - listed_ms <= AHEAD_MS:
        raise SealingIdentityError(
            "this list of sealing keys is of another time",
            expected=f"at most {AHEAD_MS // 1000} s before this machine's clock, {WINDOW_MS // 1000} s after it",
            got=f"{abs(now_ms - listed_ms) / 1000:.0f} s {'before' if now_ms > listed_ms else 'after'}",
            hint="Set this machine's clock, or the server's; else somebody on the way keeps an old list.",
        )
    living = [one for one in keys if one.not_after_ms > now_ms]
    if not living:
        raise SealingIdentityError("no sealing key of this server lives", hint="Set this machine's clock.")
    return living


def _read_list(told: Any) -> tuple[list[PublicSealingKey], int, bytes]:  # noqa: ANN401 - JSON
    if not isinstance(told, dict) or not isinstance(told["keys"], list) or len(told["keys"]) > _MOST_KEYS:
        raise ValueError("not a list of keys")
    keys = []
    for one in told["keys"]:
        key = PublicSealingKey(base64.b64decode(one["public_key"], validate=True), one["not_after"])
        is_sound = len(key.raw) == 32 and type(key.not_after_ms) is int
        if not is_sound or one["id"] != key.id.hex() or one["suite"] != SUITE:
            raise ValueError("not a key")
        keys.append(key)
    if type(told["now"]) is not int:
        raise TypeError("not a time")
    return keys, told["now"], base64.b64decode(told["signature"], validate=True)


def _signed(keys: Sequence[PublicSealingKey], now_ms: int) -> bytes:
    """Returns what is signed: lines, so that every language has the same bytes."""
    lines = ["shipsight sealing keys v1", str(now_ms)]
    lines += [f"{one.id.hex()} {base64.b64encode(one.raw).decode()} {one.not_after_ms} {SUITE}" for one in keys]
    return ("\n".join(lines) + "\n").encode()


def _hash(raw: bytes) -> str:
    """Returns how a C2SP key is named: 4 bytes of a hash over its name and itself."""
    return hashlib.sha256(PIN_NAME.encode() + b"\n" + _ED25519 + raw).hexdigest()[:8]
