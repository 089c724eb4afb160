# SPDX-License-Identifier: Apache-2.0
"""Sends a message to a webhook: one POST, signed, over verified TLS, followed nowhere. Private to the room.

Leaves to others: when it is tried again (`delivering`). The body, and how a receiver checks the signature, are in `docs/alerts.md`. Source: Standard
Webhooks 1.0 (headers and what is signed).
"""

from __future__ import annotations

import base64
import hmac
import json
import ssl
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from shipsight.access.exchange import ask_http
from shipsight.errors import AlertRefusedError, CertificateError, ServiceError
from shipsight.monitor.alerts.message import Message
from shipsight.monitor.alerts.secrets import read_hmac_key
from shipsight.monitor.alerts.settings import BodyForm, Webhook, check_url
from shipsight.secret_files import read_secret

__all__ = ["WebhookSender", "check_authorities", "sign"]

_MOST_ANSWER_BYTES = 64 * 1024
# Request Timeout, Too Early, Too Many Requests: the others that begin with 3 or 4 say that it will never be taken.
_LATER = frozenset({408, 425, 429})


def sign(key: bytes, name: str, at_s: int, body: bytes) -> str:
    """Returns the header `webhook-signature`: `v1,` and HMAC-SHA256 over id, time and body, with points between, in base64.

    Args:
        key: of both sides.
        name: the message's id.
        at_s: when it is sent, seconds since 1970.
        body: as it is sent.
    """
    digest = hmac.digest(key, f"{name}.{at_s}.".encode() + body, sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


class WebhookSender:
    """Sends to one webhook.

    Args:
        settings: of the receiver. The files that they name are read for each message, so that a key can be changed while this runs.

    Raises:
        UsageError, CertificateError, EnvironmentLackError: one of those files cannot be used.
    """

    def __init__(self, settings: Webhook) -> None:
        self._settings = settings
        self._url()
        self._key()
        check_authorities(settings.ca_file)

    def send(self, message: Message, now: datetime) -> None:
        """Sends a message once.

        Raises:
            AlertRefusedError: the receiver will not take it.
            ServiceError: it cannot take it now.
            OSError: it does not answer in time, or not over TLS as it must.
            UsageError, EnvironmentLackError: a file that the settings name cannot be used.
        """
        settings = self._settings
        body, key = _body(message, settings.body), self._key()
        at_s = int(now.timestamp())
        headers = {
            "content-type": "application/json",
            "user-agent": "shipsight",
            "webhook-id": message.id,
            "webhook-timestamp": str(at_s),
        }
        if key is not None:
            headers["webhook-signature"] = sign(key, message.id, at_s, body)
        answer = ask_http(
            self._url(),
            "POST",
            body=body,
            headers=headers,
            ca=settings.ca_file,
            timeout_s=settings.timeout_s,
            most_bytes=_MOST_ANSWER_BYTES,
            name=settings.name,
        )
        status = answer.status
        if 200 <= status < 300:
            return
        if 300 <= status < 500 and status not in _LATER:
            raise AlertRefusedError("a webhook refuses an alert", where=settings.name, got=status)
        raise ServiceError("a webhook cannot take an alert now", where=settings.name, got=status)

    def _url(self) -> str:
        settings = self._settings
        if settings.url_file is None:
            return str(settings.url)
        found = read_secret(settings.url_file, "the webhook's URL")
        check_url(found, where=str(settings.url_file))
        return found

    def _key(self) -> bytes | None:
        return None if self._settings.key_file is None else read_hmac_key(self._settings.key_file)


def check_authorities(path: Path | None) -> None:
    """Checks a file of authorities.

    Raises:
        CertificateError: it holds none, or cannot be read.
    """
    if path is None:
        return
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:
        raise CertificateError("not a file of authorities in PEM", where=path, got=error.strerror or error) from error


def _body(message: Message, form: BodyForm) -> bytes:
    if form is BodyForm.JSON:
        told = {**message.to_dict(), "title": message.title, "text": message.text}
    else:
        # Chat services read <...> as a command, such as one that calls everybody: these three characters are how they want them.
        text = f"{message.title}\n\n{message.text}"
        told = {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
    return json.dumps(told, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
