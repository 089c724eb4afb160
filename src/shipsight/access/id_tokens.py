# SPDX-License-Identifier: Apache-2.0
"""ID tokens of a provider, verified: what may be believed of who signed in.

The signature is checked by joserfc, with one algorithm and one key that we chose; all that it leaves to its caller is checked
here. What is chosen never comes from the token: a `kid` selects among the provider's own keys and is compared, nothing more;
keys in the header or addresses of keys (`jwk`, `jku`, `x5c`, `x5u`) and extensions (`crit`) are refused. Invariants: no `none`,
no shared secrets (`HS*`); a text that was changed in any byte is refused, by its encoding too; a member that stands twice is
refused. Deliberately not checked: `at_hash`, since access tokens are not used. No I/O. Private to the room.
Sources: RFC 7515, 7519 and 8725; OpenID Connect Core 1.0, 3.1.3.7; OWASP ASVS 5.0, 9.1 and 9.2.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from shipsight.errors import MissingDependencyError

__all__ = ["ALGORITHMS", "SKEW_S", "TokenError", "no_constant", "read_json", "verify_id_token"]

ALGORITHMS: Mapping[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "PS256": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),  # what RFC 9864 calls it
}
"""Algorithms that may sign, and type and curve of their keys."""

SKEW_S = 60.0
"""Seconds by which a provider's clock may differ from ours."""

_LONGEST = 65_536
_LEAST_RSA_BITS = 2048
_LATEST = 1e12  # seconds since 1970: no number that could not be one
_FORBIDDEN_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"})
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


class TokenError(Exception):
    """A token is not accepted.

    Args:
        why: code of the reason; holds nothing of the token.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def verify_id_token(
    token: object,
    *,
    keys: Sequence[object],
    algorithms: Collection[str],
    issuer: str,
    client_id: str,
    nonce: str,
    now: datetime,
    max_age_s: float | None = None,
) -> Mapping[str, Any]:
    """Verifies an ID token and returns its claims.

    Args:
        token: as the provider gave it.
        keys: of the provider, as a JSON Web Key Set lists them; those that cannot be used here are passed over.
        algorithms: that the provider says it signs with; others than ours are passed over.
        issuer: that it must be from.
        client_id: that it must be for.
        nonce: that it must answer to.
        now: time.
        max_age_s: seconds within which the person must have proved who they are; None where that was not asked for.

    Raises:
        TokenError: it is not accepted.
        MissingDependencyError: joserfc is not installed.
    """
    if not isinstance(token, str) or not token.isascii() or len(token) > _LONGEST:
        raise TokenError("token-malformed")
    parts = token.split(".")
    if len(parts) != 3:
        raise TokenError("token-malformed")
    header_json, claims_json, _ = (_decoded(one) for one in parts)
    header = read_json(header_json)
    algorithm = _check_header(header, set(algorithms) & ALGORITHMS.keys())
    _check_signature(token, algorithm, _choose_key(keys, algorithm, header.get("kid")))
    claims = read_json(claims_json)
    _check_claims(claims, issuer=issuer, client_id=client_id, nonce=nonce)
    _check_times(claims, now.timestamp())
    if max_age_s is not None and now.timestamp() >= _time(claims, "auth_time") + max_age_s + SKEW_S:
        raise TokenError("token-proof-too-old")
    return claims


def read_json(text: bytes) -> dict[str, Any]:
    """Reads one JSON object strictly: no member twice, no NaN.

    Raises:
        TokenError: it is no such object.
    """

    def unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
        read = dict(members)
        if len(read) != len(members):
            raise TokenError("token-ambiguous")
        return read

    try:
        read = json.loads(text.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise TokenError("token-malformed") from error
    if not isinstance(read, dict):
        raise TokenError("token-malformed")
    return read


def no_constant(name: str) -> None:
    """Refuses `NaN` and `Infinity`, which are no JSON.

    Raises:
        ValueError: always.
    """
    raise ValueError(name)


def _decoded(part: str) -> bytes:
    """Returns the bytes of a part that is written in the one way that there is."""
    try:
        raw = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError as error:
        raise TokenError("token-malformed") from error
    if not raw or urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise TokenError("token-malformed")
    return raw


def _check_header(header: Mapping[str, Any], algorithms: Collection[str]) -> str:
    algorithm, kind = header.get("alg"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise TokenError("token-algorithm")
    if _FORBIDDEN_HEADERS & header.keys():
        raise TokenError("token-header")
    if not isinstance(kind, str) or kind.upper() not in ("JWT", "APPLICATION/JWT"):
        raise TokenError("token-type")
    return algorithm


def _choose_key(keys: Sequence[object], algorithm: str, kid: object) -> Mapping[str, str]:
    """Returns the one key that may have signed. Two of the same name, or several where none is named, are none."""
    kty, curve = ALGORITHMS[algorithm]
    fitting = [one for one in keys if isinstance(one, Mapping) and _may_verify(one, algorithm, kty, curve)]
    if kid is not None:
        fitting = [one for one in fitting if isinstance(kid, str) and one.get("kid") == kid]
    if len(fitting) != 1:
        raise TokenError("token-key")
    # Only what makes the public key: nothing else that stands there is believed or followed.
    return {"kty": kty, **{name: fitting[0][name] for name in _MEMBERS[kty]}}


def _may_verify(key: Mapping[str, Any], algorithm: str, kty: str, curve: str | None) -> bool:
    if key.get("kty") != kty or key.get("crv") != curve or key.get("use", "sig") != "sig":
        return False
    if kty != "OKP" and key.get("alg", algorithm) != algorithm:
        return False
    if not isinstance(key.get("key_ops", []), list) or "verify" not in key.get("key_ops", ["verify"]):
        return False
    if any(not isinstance(key.get(name), str) for name in _MEMBERS[kty]):
        return False
    try:
        return kty != "RSA" or int.from_bytes(_decoded(key["n"]), "big").bit_length() >= _LEAST_RSA_BITS
    except TokenError:
        return False


def _check_signature(token: str, algorithm: str, key: Mapping[str, str]) -> None:
    try:
        from joserfc.jwk import import_key
        from joserfc.jws import JWSRegistry, deserialize_compact
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "package joserfc is not installed", hint="Run: pip install 'shipsight[oidc]'"
        ) from error

    class Registry(JWSRegistry):
        """Gives the algorithm that was chosen and no other; `EdDSA`, which has a newer name, without a warning."""

        max_header_length = max_payload_length = _LONGEST

        def get_alg(self, name: str) -> Any:  # noqa: ANN401 - joserfc's
            if name != algorithm:
                raise TokenError("token-algorithm")
            return self.algorithms[name]

    try:
        registry = Registry(algorithms=[algorithm], strict_check_header=False)
        deserialize_compact(token, import_key(dict(key)), registry=registry)
    except Exception as error:
        # Parsers of bytes from outside, and keys of any content: whatever they raise, the token is refused.
        raise TokenError("token-signature") from error


def _check_claims(claims: Mapping[str, Any], *, issuer: str, client_id: str, nonce: str) -> None:
    if claims.get("iss") != issuer:
        raise TokenError("token-issuer")
    audience = claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(audiences, list) or client_id not in audiences:
        raise TokenError("token-audience")
    # For others too: then it must say that we are who asked for it.
    if claims.get("azp", None if len(audiences) > 1 else client_id) != client_id:
        raise TokenError("token-party")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise TokenError("token-subject")
    answered = claims.get("nonce")
    if not isinstance(answered, str) or not answered.isascii() or not hmac.compare_digest(answered, nonce):
        raise TokenError("token-nonce")


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    expires, issued = _time(claims, "exp"), _time(claims, "iat")
    begins = _time(claims, "nbf") if "nbf" in claims else issued
    if claims.get("auth_time") is not None:
        _time(claims, "auth_time")
    if now >= expires + SKEW_S:
        raise TokenError("token-expired")
    if now < begins - SKEW_S or now < issued - SKEW_S:
        raise TokenError("token-early")


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LATEST:
        raise TokenError("token-times")
    return value
