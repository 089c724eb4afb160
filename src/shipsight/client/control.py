# SPDX-License-Identifier: Apache-2.0
"""Telling a server which version of a model answers, over its HTTP interface (`docs/protocols/native.md`).

Leaves to others: what the server makes of it. Invariants: no proxy is asked and no redirect followed; an error that the
server names is raised as the same class here; a key is sent to this machine or over TLS alone. Stable.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from shipsight.client.address import Address, trust
from shipsight.client.answers import MOST_ANSWER_BYTES, read_json
from shipsight.errors import ServiceError

__all__ = ["ServerControl"]


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
        address = Address.read(url, where="--server", takes_sockets=False)
        if ca is not None:
            address.check_certificates(where="--ca")
        if key is not None:
            address.check_secret(where="--server")
        self._url = url
        self._key = key
        self._context = trust(ca, where="--ca") if address.is_tls else None
        self._host, self._port, self._timeout_s = address.host, address.port, timeout_s

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
            content = answer.read(MOST_ANSWER_BYTES)
            return read_json(answer.status, content, where=self._url, retry_after=answer.headers["retry-after"])
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
