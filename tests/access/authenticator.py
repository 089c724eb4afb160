# SPDX-License-Identifier: Apache-2.0
"""A software authenticator and the browser in front of it: answers WebAuthn's ceremonies as JSON, and lies where it is told to.

Source: W3C WebAuthn Level 3, 5.8, 6.1 and 6.5.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

EDDSA, ES256, RS256, RS1 = -8, -7, -257, -65535
PRESENT, VERIFIED, MAY_BE_BACKED_UP, IS_BACKED_UP, HAS_CREDENTIAL = 0x01, 0x04, 0x08, 0x10, 0x40


def encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Credential:
    """A key that the authenticator holds."""

    id: bytes
    rp_id: str
    user_handle: bytes
    key: Any
    algorithm: int
    count: int = 0

    def cose(self) -> dict[int, Any]:
        numbers: Any = self.key.public_key()
        if self.algorithm == EDDSA:
            return {1: 1, 3: EDDSA, -1: 6, -2: numbers.public_bytes_raw()}
        numbers = numbers.public_numbers()
        if self.algorithm == ES256:
            return {1: 2, 3: ES256, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        size = self.key.key_size // 8
        return {1: 3, 3: self.algorithm, -1: numbers.n.to_bytes(size, "big"), -2: b"\x01\x00\x01"}

    def sign(self, data: bytes) -> bytes:
        if self.algorithm == EDDSA:
            return self.key.sign(data)
        if self.algorithm == ES256:
            return self.key.sign(data, ec.ECDSA(SHA256()))
        return self.key.sign(data, padding.PKCS1v15(), SHA256())


def make_key(algorithm: int, *, rsa_bits: int = 2048) -> Any:
    if algorithm == EDDSA:
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == ES256:
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, rsa_bits)


@dataclass
class SoftAuthenticator:
    """One authenticator in one browser.

    Attributes:
        origin: of the page that the browser shows.
        algorithm: that it makes keys for; another than was offered where it says so.
        verifies: whether it verifies its user.
        counts: whether its signatures count.
        format: of its attestation: `none`, `packed` (by the new key), or anything else.
    """

    origin: str
    algorithm: int = ES256
    verifies: bool = True
    counts: bool = True
    format: str = "none"
    credentials: list[Credential] = field(default_factory=list)

    def client_data(self, kind: str, challenge: str, **more: object) -> bytes:
        told = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False, **more}
        return json.dumps(told).encode()

    def data(self, credential: Credential, *, flags: int | None = None, attested: bytes = b"") -> bytes:
        if flags is None:
            flags = PRESENT | (VERIFIED if self.verifies else 0)
        if attested:
            flags |= HAS_CREDENTIAL
        rp_id = hashlib.sha256(credential.rp_id.encode()).digest()
        return rp_id + bytes([flags]) + credential.count.to_bytes(4, "big") + attested

    def create(
        self,
        options: Mapping[str, Any],
        *,
        rp_id: str | None = None,
        cose: Mapping[int, Any] | None = None,
        statement: Mapping[str, Any] | None = None,
        key: Any = None,
        credential_id: bytes | None = None,
        flags: int | None = None,
        **client: object,
    ) -> dict[str, Any]:
        """Answers `navigator.credentials.create`. What is given replaces what an honest one would say."""
        credential = Credential(
            credential_id or secrets.token_bytes(32),
            rp_id or options["rp"]["id"],
            decode(options["user"]["id"]),
            key or make_key(self.algorithm),
            self.algorithm,
        )
        self.credentials.append(credential)
        attested = bytes(16) + len(credential.id).to_bytes(2, "big") + credential.id
        attested += cbor2.dumps(dict(cose or credential.cose()))
        data = self.data(credential, flags=flags, attested=attested)
        client_data = self.client_data(**{"kind": "webauthn.create", "challenge": options["challenge"], **client})
        if statement is None and self.format == "packed":
            signature = credential.sign(data + hashlib.sha256(client_data).digest())
            statement = {"alg": self.algorithm, "sig": signature}
        attestation = cbor2.dumps({"fmt": self.format, "attStmt": dict(statement or {}), "authData": data})
        response = {
            "clientDataJSON": encode(client_data),
            "attestationObject": encode(attestation),
            "transports": ["internal", "carrier-pigeon"],
        }
        return self._answer(credential, response)

    def get(
        self,
        options: Mapping[str, Any],
        *,
        rp_id: str | None = None,
        flags: int | None = None,
        credential: Credential | None = None,
        user_handle: bytes | None = None,
        **client: object,
    ) -> dict[str, Any]:
        """Answers `navigator.credentials.get`. What is given replaces what an honest one would say."""
        used = credential or self._chosen(options)
        if self.counts:
            used.count += 1
        shown = Credential(used.id, rp_id or used.rp_id, used.user_handle, used.key, used.algorithm, used.count)
        data = self.data(shown, flags=flags)
        client_data = self.client_data(**{"kind": "webauthn.get", "challenge": options["challenge"], **client})
        response = {
            "clientDataJSON": encode(client_data),
            "authenticatorData": encode(data),
            "signature": encode(used.sign(data + hashlib.sha256(client_data).digest())),
            "userHandle": encode(used.user_handle if user_handle is None else user_handle),
        }
        return self._answer(used, response)

    def _chosen(self, options: Mapping[str, Any]) -> Credential:
        allowed = {decode(one["id"]) for one in options.get("allowCredentials", [])}
        return next(one for one in self.credentials if not allowed or one.id in allowed)

    def _answer(self, credential: Credential, response: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": encode(credential.id),
            "rawId": encode(credential.id),
            "type": "public-key",
            "response": response,
            "clientExtensionResults": {},
        }
