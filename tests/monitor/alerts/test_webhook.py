# SPDX-License-Identifier: Apache-2.0
"""Webhooks, against real servers: what they get, how they know who sent it, and what becomes of those that misbehave."""

from __future__ import annotations

import ast
import base64
import hashlib
import hmac
import json
import re
import socket
import ssl
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.monitor.alerts.receivers import KEY, Trust, secret, silent, webhook
from tests.monitor.alerts.signals import NOON
from tests.monitor.alerts.test_message import made

from shipsight.errors import AlertRefusedError, CertificateError, EnvironmentLackError, ServiceError, UsageError
from shipsight.monitor.alerts import Webhook
from shipsight.monitor.alerts.settings import BodyForm
from shipsight.monitor.alerts.webhook import WebhookSender

REPOSITORY = Path(__file__).resolve().parents[3]


def receiver(folder: Path, url: str, trust: Trust | None, **told: Any) -> Webhook:
    ca = None if trust is None else trust.ca
    return Webhook(name="ops", url=url, key_file=secret(folder, KEY, "key"), ca_file=ca, **{"timeout_s": 5, **told})


def test_webhook_gets_the_message_signed(tmp_path: Path, trust: Trust) -> None:
    message = made()
    with webhook(trust) as hook:
        WebhookSender(receiver(tmp_path, hook.url, trust)).send(message, NOON)
    [asked] = hook.asked
    told = json.loads(asked.body)
    assert asked.path == "/alerts?team=vision"
    assert asked.headers["content-type"] == "application/json"
    assert told == {**message.to_dict(), "title": message.title, "text": message.text}
    assert told["alerts"] == [
        {
            "name": "drift-brightness",
            "status": "firing",
            "reason": "new",
            "severity": "warning",
            "what": "Images are darker than those of the training.",
            "evidence": "Median brightness 61 against 118, 400 images, p < 0.001.",
            "remedy": "Look at the lamp of the camera.",
            "value": 0.42,
            "threshold": 0.1,
            "since": "2026-11-23T12:00:00Z",
        }
    ]
    assert asked.headers["webhook-id"] == told["id"] == message.id
    assert asked.headers["webhook-timestamp"] == str(int(NOON.timestamp()))
    signed = f"{message.id}.{int(NOON.timestamp())}.".encode() + asked.body
    digest = hmac.new(base64.b64decode(KEY), signed, hashlib.sha256).digest()
    assert asked.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


def documented_check() -> Any:
    """Returns the function that the documentation tells receivers to check with."""
    page = (REPOSITORY / "docs" / "alerts.md").read_text(encoding="utf-8")
    [block] = [one for one in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "def is_genuine" in one]
    ast.parse(block)
    found: dict[str, Any] = {}
    exec(block, found)
    return found["is_genuine"]


def test_documented_check_takes_what_is_sent_and_refuses_what_was_changed(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook:
        WebhookSender(receiver(tmp_path, hook.url, trust)).send(made(), NOON)
    [asked] = hook.asked
    is_genuine, now_s = documented_check(), NOON.timestamp()
    assert is_genuine(KEY, asked.headers, asked.body, now_s)
    assert is_genuine(f"whsec_{KEY}", asked.headers, asked.body, now_s + 299)
    assert not is_genuine(KEY, asked.headers, asked.body, now_s + 301)
    assert not is_genuine(KEY, asked.headers, asked.body, now_s - 301)
    assert not is_genuine(base64.b64encode(bytes(32)).decode(), asked.headers, asked.body, now_s)
    for position in range(len(asked.body)):
        changed = asked.body[:position] + bytes([asked.body[position] ^ 1]) + asked.body[position + 1 :]
        assert not is_genuine(KEY, asked.headers, changed, now_s)
    for name in ("webhook-id", "webhook-timestamp"):
        other = (
            "1" + asked.headers[name][1:] if not asked.headers[name].startswith("1") else "2" + asked.headers[name][1:]
        )
        assert not is_genuine(KEY, {**asked.headers, name: other}, asked.body, now_s)


def test_chat_service_gets_a_text_that_commands_nothing(tmp_path: Path, trust: Trust) -> None:
    message = made(subject="<!channel> & co/x")
    with webhook(trust) as hook:
        url = secret(tmp_path, hook.url, "url")
        settings = Webhook(name="chat", url_file=url, ca_file=trust.ca, body=BodyForm.TEXT)
        WebhookSender(settings).send(message, NOON)
    [asked] = hook.asked
    told = json.loads(asked.body)
    assert told.keys() == {"text"}
    assert told["text"].startswith("[shipsight] warning: drift-brightness (&lt;!channel&gt; &amp; co/x)\n\n")
    assert "<" not in told["text"]
    assert "webhook-signature" not in asked.headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 400, 401, 403, 404, 410, 413, 422])
def test_refusal_is_final_and_a_redirect_is_not_followed(tmp_path: Path, trust: Trust, status: int) -> None:
    with webhook(trust) as elsewhere, webhook(trust) as hook:
        hook.answers, hook.location = [status], elsewhere.url
        with pytest.raises(AlertRefusedError) as caught:
            WebhookSender(receiver(tmp_path, hook.url, trust)).send(made(), NOON)
    assert caught.value.got == str(status)
    assert (len(hook.asked), elsewhere.asked) == (1, [])


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_trouble_of_the_receiver_is_not_final(tmp_path: Path, trust: Trust, status: int) -> None:
    with webhook(trust) as hook:
        hook.answers = [status]
        with pytest.raises(ServiceError):
            WebhookSender(receiver(tmp_path, hook.url, trust)).send(made(), NOON)


def test_receiver_that_cuts_the_connection_is_an_error(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook:
        hook.answers = [None]
        with pytest.raises((ServiceError, OSError)):
            WebhookSender(receiver(tmp_path, hook.url, trust)).send(made(), NOON)


def test_receiver_that_hangs_is_left_in_time(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook:
        hook.is_let.clear()
        begin_s = time.monotonic()
        with pytest.raises(TimeoutError):
            WebhookSender(receiver(tmp_path, hook.url, trust, timeout_s=1)).send(made(), NOON)
        assert time.monotonic() - begin_s < 5


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_port_that_never_says_anything_is_left_in_time(tmp_path: Path, scheme: str) -> None:
    with silent() as port:
        begin_s = time.monotonic()
        with pytest.raises(TimeoutError):
            WebhookSender(receiver(tmp_path, f"{scheme}://127.0.0.1:{port}/", None, timeout_s=1)).send(made(), NOON)
        assert time.monotonic() - begin_s < 5


def test_receiver_that_answers_byte_by_byte_is_left_in_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def dribble() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    for one in b"HTTP/1.1 200 OK\r\n" + b"x-filler: a\r\n" * 1000:
                        connection.sendall(bytes([one]))
                        time.sleep(0.1)
                except OSError:
                    return  # the other side left, as it should

        thread = threading.Thread(target=dribble, daemon=True)
        thread.start()
        begin_s = time.monotonic()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(TimeoutError):
            WebhookSender(receiver(tmp_path, url, None, timeout_s=1)).send(made(), NOON)
        assert time.monotonic() - begin_s < 5
        thread.join(10)


def test_absent_receiver_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        WebhookSender(receiver(tmp_path, f"http://127.0.0.1:{port}/", None)).send(made(), NOON)


def test_receiver_whose_certificate_is_not_trusted_gets_nothing(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook:
        with pytest.raises(ssl.SSLCertVerificationError):
            WebhookSender(replace(receiver(tmp_path, hook.url, trust), ca_file=None)).send(made(), NOON)
        other = hook.url.replace("localhost", "127.0.0.2")
        with pytest.raises(ssl.SSLCertVerificationError):  # of the right authority, but another host's
            WebhookSender(receiver(tmp_path, other, trust)).send(made(), NOON)
    assert hook.asked == []


def test_key_can_be_changed_while_alerts_are_sent(tmp_path: Path, trust: Trust) -> None:
    is_genuine = documented_check()
    with webhook(trust) as hook:
        sender = WebhookSender(receiver(tmp_path, hook.url, trust))
        new = base64.b64encode(b"n" * 24).decode()
        secret(tmp_path, f"whsec_{new}", "key")
        sender.send(made(), NOON)
    [asked] = hook.asked
    assert is_genuine(new, asked.headers, asked.body, NOON.timestamp())
    assert not is_genuine(KEY, asked.headers, asked.body, NOON.timestamp())


def test_proxy_of_the_environment_is_not_asked(tmp_path: Path, trust: Trust, monkeypatch: pytest.MonkeyPatch) -> None:
    with webhook(trust) as hook, webhook(None) as proxy:
        for name in ("https_proxy", "HTTPS_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        WebhookSender(receiver(tmp_path, hook.url, trust)).send(made(), NOON)
    assert (len(hook.asked), proxy.asked) == (1, [])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", UsageError),
        ("short", UsageError),
        ("no base64!", UsageError),
        ("a\nb", UsageError),
        ("A" * 5000, UsageError),
    ],
    ids=["empty", "short", "strange", "lines", "long"],
)
def test_key_that_is_none_is_refused_at_the_start_and_not_shown(tmp_path: Path, text: str, kind: Any) -> None:
    settings = Webhook(name="ops", url="https://localhost/", key_file=secret(tmp_path, text, "key"))
    with pytest.raises(kind) as caught:
        WebhookSender(settings)
    assert caught.value.where == str(tmp_path / "key")
    assert not text or text not in str(caught.value).replace(str(tmp_path), "")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret(tmp_path, KEY, "key")
    path.chmod(mode)
    with pytest.raises(EnvironmentLackError, match="others may read") as caught:
        WebhookSender(Webhook(name="ops", url="https://localhost/", key_file=path))
    assert caught.value.hint == f"Run: chmod 600 {path}"


def test_secret_that_is_not_there_or_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(EnvironmentLackError):
            WebhookSender(Webhook(name="ops", url="https://localhost/", key_file=path))


def test_url_in_a_file_is_held_to_the_same_and_not_shown(tmp_path: Path) -> None:
    path = secret(tmp_path, "http://chat.example/T0P-SECRET", "url")
    with pytest.raises(UsageError) as caught:
        WebhookSender(Webhook(name="chat", url_file=path, body=BodyForm.TEXT))
    assert "T0P" not in str(caught.value)


def test_url_in_a_file_stands_in_no_error(tmp_path: Path, trust: Trust) -> None:
    with webhook(trust) as hook:
        hook.answers = [404]
        url = secret(tmp_path, hook.url.replace("alerts", "T0P-SECRET"), "url")
        with pytest.raises(AlertRefusedError) as caught:
            WebhookSender(Webhook(name="chat", url_file=url, ca_file=trust.ca, body=BodyForm.TEXT)).send(made(), NOON)
    assert hook.asked[0].path.startswith("/T0P-SECRET")
    assert "T0P" not in str(caught.value)


def test_file_of_authorities_that_holds_none_is_refused_at_the_start(tmp_path: Path) -> None:
    for path in (secret(tmp_path, "nothing", "ca"), tmp_path / "absent"):
        with pytest.raises(CertificateError):
            WebhookSender(replace(receiver(tmp_path, "https://localhost/", None), ca_file=path))
