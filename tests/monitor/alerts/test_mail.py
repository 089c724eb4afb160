# SPDX-License-Identifier: Apache-2.0
"""E-mail, against a real mail server: over TLS or not at all, plain text alone, and no name adds a header."""

from __future__ import annotations

import ssl
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.monitor.alerts.receivers import PASSWORD, Post, Trust, mail_server, secret, silent
from tests.monitor.alerts.signals import NOON
from tests.monitor.alerts.test_message import ALERT, made
from tests.serve.certificates import make_authority, make_certificate

from shipsight.errors import AlertRefusedError, ServiceError, UsageError
from shipsight.monitor.alerts import Email
from shipsight.monitor.alerts.mail import EmailSender
from shipsight.monitor.alerts.settings import Tls


def receiver(folder: Path, post: Post, trust: Trust | None, **told: Any) -> Email:
    usual = {
        "name": "duty",
        "host": "localhost",
        "port": post.port,
        "sender": "shipsight@example.com",
        "to": ("ops@example.com", "night@example.com"),
        "user": "ops",
        "password_file": secret(folder, PASSWORD, "password"),
        "ca_file": None if trust is None else trust.ca,
        "timeout_s": 5,
    }
    return Email(**{**usual, **told})


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_mail_arrives_over_tls_as_plain_text_alone(tmp_path: Path, trust: Trust, tls: str) -> None:
    message = made()
    with mail_server(trust, tls=tls) as post:
        EmailSender(receiver(tmp_path, post, trust, tls=Tls(tls))).send(message, NOON)
    assert post.logins == [("ops", PASSWORD)]
    assert post.recipients == [["ops@example.com", "night@example.com"]]
    letter = post.letter()
    assert letter["Subject"] == message.title
    assert letter["From"] == "shipsight@example.com"
    assert letter["To"] == "ops@example.com, night@example.com"
    assert letter["Message-ID"] == f"<{message.id}@example.com>"
    assert letter["Auto-Submitted"] == "auto-generated"
    assert letter["Date"] == "Mon, 23 Nov 2026 12:00:00 +0000"
    assert letter.get_content_type() == "text/plain"
    assert not letter.is_multipart()
    assert letter.get_content().replace("\r\n", "\n") == message.text


@pytest.mark.parametrize(
    "name",
    [
        "gate\r\nBcc: thief@example.com",
        "gate\nX: y\n\nbody",
        "gate\r.\r\nMAIL FROM:<a@b>",
        "gate\u2028Bcc: a@b",
        "\x00",
    ],
)
def test_names_and_figures_add_neither_headers_nor_commands(tmp_path: Path, trust: Trust, name: str) -> None:
    plain = made()
    message = made(replace(ALERT, name=name), subject=name)
    with mail_server(trust) as post:
        sender = EmailSender(receiver(tmp_path, post, trust))
        sender.send(plain, NOON)
        sender.send(message, NOON)
    usual, letter = post.letter(0), post.letter(1)
    assert letter.keys() == usual.keys()
    assert post.recipients[1] == ["ops@example.com", "night@example.com"]
    assert len(post.letters) == 2
    assert "\n" not in str(letter["Subject"])


def test_names_of_any_script_arrive(tmp_path: Path, trust: Trust) -> None:
    message = made(subject="Gäte 漢 🚢/x")
    with mail_server(trust) as post:
        EmailSender(receiver(tmp_path, post, trust)).send(message, NOON)
    letter = post.letter()
    assert letter["Subject"] == message.title
    assert "Gäte 漢 🚢/x" in letter.get_content()
    assert all(byte < 128 for byte in post.letters[0])


def test_line_with_a_single_dot_ends_no_letter(tmp_path: Path, trust: Trust) -> None:
    message = made(subject=".")
    with mail_server(trust) as post:
        EmailSender(receiver(tmp_path, post, trust)).send(message, NOON)
    assert post.letter().get_content().replace("\r\n", "\n") == message.text


def test_server_that_offers_no_tls_gets_neither_login_nor_letter(tmp_path: Path, trust: Trust) -> None:
    with mail_server(trust, tls="none") as post, pytest.raises(ServiceError, match="does not offer"):
        EmailSender(receiver(tmp_path, post, trust)).send(made(), NOON)
    assert (post.logins, post.letters) == ([], [])


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_server_whose_certificate_is_not_trusted_gets_neither_login_nor_letter(
    tmp_path: Path, trust: Trust, tls: str
) -> None:
    with mail_server(trust, tls=tls) as post, pytest.raises(ssl.SSLCertVerificationError):
        EmailSender(receiver(tmp_path, post, None, tls=Tls(tls))).send(made(), NOON)
    assert (post.logins, post.letters) == ([], [])


def test_certificate_of_another_host_is_not_taken(tmp_path: Path, trust: Trust) -> None:
    authority = make_authority()
    ca, _ = authority.write(tmp_path / "c", "authority")
    certificate, key = make_certificate("other", issuer=authority).write(tmp_path / "c")
    with mail_server(Trust(ca, certificate, key)) as post, pytest.raises(ssl.SSLCertVerificationError):
        EmailSender(receiver(tmp_path, post, trust, ca_file=ca)).send(made(), NOON)
    assert (post.logins, post.letters) == ([], [])


def test_plain_mail_goes_to_this_machine_alone(tmp_path: Path, trust: Trust) -> None:
    with mail_server(trust, tls="none", needs_login=False) as post:
        told = {"plain": True, "user": None, "password_file": None, "host": "127.0.0.1"}
        EmailSender(receiver(tmp_path, post, None, **told)).send(made(), NOON)
        for host in ("mail.example.com", "10.0.0.1", "0.0.0.0"):
            with pytest.raises(UsageError, match="plain"):
                receiver(tmp_path, post, None, **{**told, "host": host})
    assert len(post.letters) == 1


def test_wrong_password_is_final_and_not_shown(tmp_path: Path, trust: Trust) -> None:
    with mail_server(trust) as post:
        path = secret(tmp_path, "wrong-horse", "other")
        with pytest.raises(AlertRefusedError) as caught:
            EmailSender(receiver(tmp_path, post, trust, password_file=path)).send(made(), NOON)
    assert "wrong-horse" not in str(caught.value)
    assert post.letters == []


@pytest.mark.parametrize(
    ("answer", "kind"), [("550 unknown", AlertRefusedError), ("451 later", ServiceError)], ids=["final", "later"]
)
def test_refusal_of_every_address_is_final_as_the_server_says(
    tmp_path: Path, trust: Trust, answer: str, kind: type[Exception]
) -> None:
    with mail_server(trust) as post:
        post.refuses = dict.fromkeys(("ops@example.com", "night@example.com"), answer)
        with pytest.raises(kind):
            EmailSender(receiver(tmp_path, post, trust)).send(made(), NOON)
    assert post.letters == []


def test_refusal_of_one_address_is_told_and_the_others_get_it(tmp_path: Path, trust: Trust) -> None:
    with mail_server(trust) as post:
        post.refuses = {"night@example.com": "550 unknown"}
        with pytest.raises(AlertRefusedError) as caught:
            EmailSender(receiver(tmp_path, post, trust)).send(made(), NOON)
    assert caught.value.got == "night@example.com"
    assert post.recipients == [["ops@example.com"]]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
def test_mail_server_that_hangs_is_left_in_time(tmp_path: Path, tls: str) -> None:
    with silent() as port:
        begin_s = time.monotonic()
        # Which of two clocks runs out first is a race: the socket's, or that of all of it.
        with pytest.raises((TimeoutError, ServiceError)):
            EmailSender(receiver(tmp_path, Post(port), None, tls=Tls(tls), timeout_s=1)).send(made(), NOON)
        assert time.monotonic() - begin_s < 5
