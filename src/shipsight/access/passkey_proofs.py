# SPDX-License-Identifier: Apache-2.0
"""What a browser answers with a passkey, checked: by py_webauthn, and what it leaves to its caller, by us.

Policy. Attestation is not asked for and nothing is concluded from it: `none` is taken, and `packed` where the authenticator
signed with the new key itself; another statement is refused before it is read, so that no certificates of strangers are parsed.
Its user must have been verified. Keys are EdDSA over Ed25519, ES256 over P-256, or RS256 of 2048 bits and more (older Windows
Hello). An answer from a frame of another origin is refused. Leaves to others: whose passkey it is, and its counter (`passkeys`).
No I/O. Private to the room.
Source: W3C WebAuthn Level 3, 7.1 and 7.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from webauthn import verify_authentication_response, verify_registration_response
from webauthn.helpers import (
    base64url_to_bytes,
    decode_credential_public_key,
    decoded_public_key_to_cryptography,
    parse_attestation_object,
    parse_client_data_json,
)
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.structs import AuthenticatorTransport

__all__ = ["ALGORITHMS", "Assertion", "ProofError", "Registration", "bytes_of", "check_assertion", "check_registration"]

ALGORITHMS = (
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
)
_LONGEST = 32_768
_LEAST_RSA_BITS = 2048
_NEW_KEY_SIGNS = "packed"

T = TypeVar("T")


class ProofError(Exception):
    """A proof is not accepted.

    Args:
        why: code.
        said: what the check said, for the record; may hold what came from outside.
    """

    def __init__(self, why: str, said: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.said = said


@dataclass(frozen=True)
class Registration:
    """A new passkey, as it was proved.

    Attributes:
        credential_id: that it is known by; at most 1023 bytes.
        public_key: as COSE.
        sign_count: of its signatures so far; 0 where it does not count.
        is_backed_up: whether its provider keeps a copy.
        transports: that it says it can be reached by.
    """

    credential_id: bytes
    public_key: bytes
    sign_count: int
    is_backed_up: bool
    transports: tuple[str, ...]


@dataclass(frozen=True)
class Assertion:
    """A use of a passkey, as it was proved.

    Attributes:
        sign_count: as it says; not compared with the one before.
        is_backed_up: whether its provider keeps a copy.
        is_verified: whether the authenticator verified its user.
    """

    sign_count: int
    is_backed_up: bool
    is_verified: bool


def check_registration(credential: Mapping[str, Any], *, challenge: str, rp_id: str, origin: str) -> Registration:
    """Checks what `navigator.credentials.create` answered.

    Raises:
        ProofError: it is not accepted.
    """
    return _checked(lambda: _registration(dict(credential), base64url_to_bytes(challenge), rp_id, origin))


def check_assertion(
    credential: Mapping[str, Any],
    *,
    challenge: str,
    rp_id: str,
    origin: str,
    public_key: bytes,
    needs_verification: bool,
) -> Assertion:
    """Checks what `navigator.credentials.get` answered. Not checked: whose key it is, and that its counter grew.

    Raises:
        ProofError: it is not accepted.
    """

    def check() -> Assertion:
        _check_client_data(credential)
        proved = verify_authentication_response(
            credential=dict(credential),
            expected_challenge=base64url_to_bytes(challenge),
            expected_rp_id=rp_id,
            expected_origin=origin,
            credential_public_key=public_key,
            # 0 compares nothing: a counter means something only after the signature, and going back is told apart.
            credential_current_sign_count=0,
            require_user_verification=needs_verification,
        )
        return Assertion(proved.new_sign_count, proved.credential_backed_up, proved.user_verified)

    return _checked(check)


def bytes_of(credential: Mapping[str, Any], *path: str) -> bytes | None:
    """Returns bytes that a credential holds as base64url; None where it holds none, or too many.

    Args:
        credential: as JSON.
        path: names, from the outside in.
    """
    found: Any = credential
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, str) or not found.isascii() or len(found) > _LONGEST:
        return None
    try:
        return base64url_to_bytes(found)
    except ValueError:
        return None


def _checked(check: Callable[[], T]) -> T:
    try:
        return check()
    except ProofError:
        raise
    except Exception as error:
        # Parsers of bytes from outside: whatever they raise, the proof is refused.
        raise ProofError("passkey-refused", f"{type(error).__name__}: {error}"[:200]) from error


def _registration(credential: dict[str, Any], challenge: bytes, rp_id: str, origin: str) -> Registration:
    _check_client_data(credential)
    _check_statement(bytes_of(credential, "response", "attestationObject"))
    proved = verify_registration_response(
        credential=credential,
        expected_challenge=challenge,
        expected_rp_id=rp_id,
        expected_origin=origin,
        require_user_verification=True,
        supported_pub_key_algs=list(ALGORITHMS),
    )
    _check_key(proved.credential_public_key)
    told = credential["response"].get("transports")
    known = {one.value for one in AuthenticatorTransport}
    return Registration(
        proved.credential_id,
        proved.credential_public_key,
        proved.sign_count,
        proved.credential_backed_up,
        tuple(one for one in told if one in known) if isinstance(told, list) else (),
    )


def _check_client_data(credential: Mapping[str, Any]) -> None:
    client_data = bytes_of(credential, "response", "clientDataJSON")
    if client_data is None:
        raise ProofError("passkey-refused", "no client data")
    if parse_client_data_json(client_data).cross_origin:
        raise ProofError("passkey-refused", "answered in a frame of another origin")


def _check_statement(attestation: bytes | None) -> None:
    if attestation is None:
        raise ProofError("passkey-refused", "no attestation object")
    parsed = parse_attestation_object(attestation)
    if parsed.fmt != "none" and (parsed.fmt != _NEW_KEY_SIGNS or parsed.att_stmt.x5c is not None):
        raise ProofError("attestation-refused", f"attestation of format {parsed.fmt!r}"[:100])


def _check_key(encoded: bytes) -> None:
    """Refuses a key whose algorithm does not belong to it, and one that could never verify anything."""
    decoded = decode_credential_public_key(encoded)
    key = decoded_public_key_to_cryptography(decoded)
    if isinstance(key, EllipticCurvePublicKey):
        fits = decoded.alg == COSEAlgorithmIdentifier.ECDSA_SHA_256 and isinstance(key.curve, SECP256R1)
    elif isinstance(key, RSAPublicKey):
        fits = decoded.alg == COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256 and key.key_size >= _LEAST_RSA_BITS
    else:
        fits = decoded.alg == COSEAlgorithmIdentifier.EDDSA and isinstance(key, Ed25519PublicKey)
    if not fits:
        raise ProofError("algorithm-refused", f"algorithm {decoded.alg}")
