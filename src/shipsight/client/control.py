# SPDX-License-Identifier: Apache-2.0
"""Telling a server which version of a model answers, over its HTTP interface (`docs/protocols/native.md`).

Leaves to others: what the server makes of it. Invariants: no proxy is asked and no redirect followed; an error that the
server names is raised as the same class here; a key is sent to this machine or over TLS alone. Stable.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from shipsight import errors
from shipsight.errors import ServiceError, ShipsightError, UsageError

__all__ = ["ServerControl"]

_MOST_ANSWER_BYTES = 2**24
_CLASSES: dict[str, type[ShipsightError]] = {
    getattr(errors, name).code: getattr(errors, name) for name in errors.__all__
}


class ServerControl:
    """A server.

    Args:
        url: of it, `http://HOST[:PORT]` or `https://HOST[:PORT]`.
        ca: file of certificates that the server's must be signed by; None for the system's.
        key: text of an API key, None for a server that asks for none.
        timeout_s: seconds within which it must answer; a version that is loaded first takes a while.

    Raises:
        UsageError: the address or the file is none, or the key would be sent in the clear.
    """

    def __init__(self, url: str, *, ca: Path | None = None, key: str | None = None, timeout_s: float = 600.0) -> None:
        try:
            address = urlsplit(url)
            host, port = address.hostname, address.port
        except ValueError:
            host = port = None
            address = urlsplit("")
        is_plain = address.path in ("", "/") and not (address.query or address.fragment or address.username)
        if address.scheme not in ("http", "https") or not host or not is_plain:
            raise UsageError("not a server", where="--server", expected="http://HOST[:PORT]", got=url)
        if ca is not None and address.scheme != "https":
            raise UsageError("certificates are for https", where="--ca", got=url)
        if key is not None and address.scheme == "http" and not _is_here(host):
            raise UsageError("a key is sent to this machine or over https alone", where="--server", got=url)
        self._url = url
        self._key = key
        self._context = _trust(ca) if address.scheme == "https" else None
        self._host, self._port, self._timeout_s = host, port, timeout_s

    def report(self, model: str) -> dict[str, Any]:
        """Returns how a model's requests are divided over its versions, and how that goes.

        Raises:
            NotFoundError: no such model.
            ServiceError: the server does not answer.
        """
        return self._ask("GET", model, "")

    def promote(self, model: str, version: str | None = None, *, reason: str | None = None) -> dict[str, Any]:
        """Makes a version the current one.

        Args:
            model: its name.
            version: None for the canary.
            reason: for the record.

        Returns:
            The report, and `changed`.

        Raises:
            ShipsightError: what the server says.
            ServiceError: it does not answer.
        """
        return self._ask("POST", model, "/promote", version=version, reason=reason)

    def roll_back(self, model: str, *, reason: str | None = None) -> dict[str, Any]:
        """Makes the version before the current one again.

        Args:
            model: its name.
            reason: for the record.

        Returns:
            The report, and `changed`.

        Raises:
            ShipsightError: what the server says.
            ServiceError: it does not answer.
        """
        return self._ask("POST", model, "/rollback", reason=reason)

    def _ask(self, method: str, model: str, what: str, **told: str | None) -> dict[str, Any]:
        body = json.dumps({key: value for key, value in told.items() if value is not None}) if told else None
        connection = self._connect()
        try:
            headers = {} if body is None else {"content-type": "application/json"}
            if self._key is not None:
                headers["authorization"] = f"Bearer {self._key}"
            connection.request(method, f"/v1/models/{quote(model, safe='')}/rollout{what}", body, headers)
            answer = connection.getresponse()
            return self._read(answer.status, answer.read(_MOST_ANSWER_BYTES))
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(
                "the server does not answer", where=self._url, got=str(error) or type(error).__name__
            ) from error
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._context is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._context)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)

    def _read(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            told = json.loads(body)
        except ValueError:
            told = None
        if status == 200 and isinstance(told, dict):
            return told
        error = told.get("error") if isinstance(told, dict) else None
        if not isinstance(error, dict) or not isinstance(error.get("what"), str):
            raise ServiceError("this is no server of shipsight, or an old one", where=self._url, got=f"status {status}")
        kind = _CLASSES.get(str(error.get("code")), ServiceError)
        raise kind(
            error["what"],
            where=error.get("where"),
            expected=error.get("expected"),
            got=error.get("got"),
            hint=error.get("hint"),
        )


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _trust(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise UsageError("no certificates can be read here", where="--ca", got=f"{ca}: {error}") from error
