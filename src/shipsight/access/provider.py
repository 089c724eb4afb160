# SPDX-License-Identifier: Apache-2.0
"""A provider of OpenID Connect, asked over HTTP: what it is (discovery), its keys, and an ID token for a code.

The server asks the provider that its operator named, and addresses that this provider's metadata names; no client has a say.
Invariants: `https` alone, or `http` where the operator named a provider on this machine. Metadata are kept for ten minutes, a
failure for ten seconds; keys are asked for with each sign-in, so that one that was withdrawn counts no more. Leaves to others:
limits of time and size (`fetching`), what is believed of a token (`id_tokens`). Private to the room.
Sources: OpenID Connect Discovery 1.0, 4; RFC 6749, 2.3.1 and 4.1.3; RFC 7636; OWASP ASVS 5.0, 12.3 and 13.2.
"""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlencode, urlsplit

from shipsight.access.exchange import is_loopback
from shipsight.access.id_tokens import ALGORITHMS, TokenError, read_json
from shipsight.access.settings import OpenIdSettings
from shipsight.errors import EnvironmentLackError, MissingDependencyError, UsageError
from shipsight.secret_files import read_secret

if TYPE_CHECKING:
    from shipsight.access.fetching import Fetcher

__all__ = ["CodeRefusedError", "Metadata", "Provider", "check_issuer"]

_METADATA_S, _FAILURE_S = 600.0, 10.0
_DISCOVERY = "/.well-known/openid-configuration"


class CodeRefusedError(Exception):
    """The provider gave no ID token for a code."""


@dataclass(frozen=True)
class Metadata:
    """What a provider says of itself, as far as it is used.

    Attributes:
        authorization_endpoint: where people are sent.
        token_endpoint: where a code is exchanged.
        jwks_uri: where its keys are.
        algorithms: that it signs ID tokens with, of those that we accept.
        names_itself: whether it names itself in its responses (RFC 9207).
        takes_post: whether it wants the client's secret in the body.
    """

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    algorithms: frozenset[str]
    names_itself: bool
    takes_post: bool


class Provider:
    """One provider. Threads may share it.

    Args:
        settings: which, and what it knows this server by.

    Raises:
        UsageError: its address does not do.
        MissingDependencyError: httpcore is not installed.
        EnvironmentLackError: the client's secret cannot be read, or others may read it.
        UsageError: its file holds something else.
    """

    def __init__(self, settings: OpenIdSettings) -> None:
        self._settings = settings
        self._may_be_plain = check_issuer(settings.issuer)
        path = settings.secret_file
        self._secret = None if path is None else read_secret(path, "the client's secret")
        self._fetcher = _make_fetcher(settings)
        self._lock = threading.Lock()
        self._kept: tuple[float, Metadata | EnvironmentLackError] | None = None

    def metadata(self) -> Metadata:
        """Returns what the provider says of itself.

        Raises:
            EnvironmentLackError: it does not answer, or not as it must.
        """
        with self._lock:
            if self._kept is None or time.monotonic() >= self._kept[0]:
                self._kept = self._discover()
            found = self._kept[1]
        if isinstance(found, EnvironmentLackError):
            raise EnvironmentLackError(found.what, where=found.where, expected=found.expected, got=found.got)
        return found

    def keys(self) -> list[object]:
        """Returns the provider's keys as they are now.

        Raises:
            EnvironmentLackError: it does not answer, or not as it must.
        """
        url = self.metadata().jwks_uri
        keys = self._object("GET", url).get("keys")
        if not isinstance(keys, list):
            raise _wrong(url, "no keys")
        return keys

    def id_token(self, code: str, *, verifier: str, redirect_uri: str) -> object:
        """Exchanges a code and returns the ID token as the provider gave it.

        Raises:
            CodeRefusedError: the provider does not accept the code, or answers without a token.
            EnvironmentLackError: it does not answer, or not as it must.
        """
        metadata = self.metadata()
        body = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if self._secret is None or metadata.takes_post:
            body["client_id"] = self._settings.client_id
        if self._secret is not None and metadata.takes_post:
            body["client_secret"] = self._secret
        elif self._secret is not None:
            pair = f"{quote_plus(self._settings.client_id)}:{quote_plus(self._secret)}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        status, answer = self._fetcher.ask(
            "POST", metadata.token_endpoint, headers=headers, body=urlencode(body).encode()
        )
        if 400 <= status < 500:
            raise CodeRefusedError
        token = _object(metadata.token_endpoint, status, answer).get("id_token")
        if token is None:
            raise CodeRefusedError
        return token

    def _discover(self) -> tuple[float, Metadata | EnvironmentLackError]:
        issuer = self._settings.issuer
        try:
            told = self._object("GET", issuer.rstrip("/") + _DISCOVERY)
            # Else a provider could speak for another (mix-up).
            if told.get("issuer") != issuer:
                raise _wrong(issuer, "metadata of another issuer")
            return time.monotonic() + _METADATA_S, self._read(told)
        except EnvironmentLackError as error:
            return time.monotonic() + _FAILURE_S, error

    def _read(self, told: Mapping[str, Any]) -> Metadata:
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not isinstance(told.get(name), str) or not _is_endpoint(told[name], may_be_plain=self._may_be_plain):
                raise _wrong(self._settings.issuer, f"no {name} that may be used")
        algorithms = frozenset(_texts(told.get("id_token_signing_alg_values_supported"))) & ALGORITHMS.keys()
        if not algorithms:
            raise _wrong(self._settings.issuer, "no algorithm that is accepted here")
        ways = _texts(told.get("token_endpoint_auth_methods_supported", ["client_secret_basic"]))
        return Metadata(
            told["authorization_endpoint"],
            told["token_endpoint"],
            told["jwks_uri"],
            algorithms,
            told.get("authorization_response_iss_parameter_supported") is True,
            "client_secret_basic" not in ways and "client_secret_post" in ways,
        )

    def _object(self, method: str, url: str) -> dict[str, Any]:
        return _object(url, *self._fetcher.ask(method, url))


def check_issuer(issuer: str) -> bool:
    """Returns whether a provider may be asked without TLS: where it is on this machine, and named so.

    Raises:
        UsageError: it is no address of a provider.
    """
    if not _is_endpoint(issuer, may_be_plain=True) or "?" in issuer:
        raise UsageError(
            "not the address of a provider",
            where="openid.issuer",
            expected="https://..., or http:// on this machine, without ? and #",
            got=issuer,
        )
    return urlsplit(issuer).scheme == "http"


def _is_endpoint(url: str, *, may_be_plain: bool) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if not parts.hostname or "#" in url or parts.username is not None or port == 0:
        return False
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and may_be_plain and is_loopback(parts.hostname))


def _make_fetcher(settings: OpenIdSettings) -> Fetcher:
    try:
        from shipsight.access.fetching import Fetcher
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "package httpcore is not installed", hint="Run: pip install 'shipsight[oidc]'"
        ) from error
    return Fetcher(ca_file=settings.ca_file)


def _texts(told: object) -> list[str]:
    return [one for one in told if isinstance(one, str)] if isinstance(told, list) else []


def _object(url: str, status: int, answer: bytes) -> dict[str, Any]:
    if status != 200:
        raise _wrong(url, f"status {status}")
    try:
        return read_json(answer)
    except TokenError as error:
        raise _wrong(url, "no JSON object") from error


def _wrong(url: str, got: str) -> EnvironmentLackError:
    return EnvironmentLackError("the provider of sign-on does not answer as it must", where=url, got=got)
