# SPDX-License-Identifier: Apache-2.0
"""Sends a message as an e-mail of plain text, over verified TLS. Private to the room.

No TLS only to a mail server on this machine, where the settings say so. A server that offers no STARTTLS gets nothing: neither the login nor the
message is ever sent in the clear to another machine. Leaves to others: when it is tried again (`delivering`). Sources: RFC 5321, RFC 3207, RFC 8314,
RFC 3834 (`Auto-Submitted`).
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from shipsight.access.exchange import ends_in_time
from shipsight.errors import AlertRefusedError, ServiceError
from shipsight.monitor.alerts.message import Message, one_line
from shipsight.monitor.alerts.settings import Email, Tls
from shipsight.monitor.alerts.webhook import check_authorities
from shipsight.secret_files import read_secret

__all__ = ["EmailSender"]

_FINAL = 500


class EmailSender:
    """Sends to some addresses by way of one mail server.

    Args:
        settings: of the receiver. The files that they name are read for each message, so that a password can be changed while this runs.

    Raises:
        UsageError, CertificateError, EnvironmentLackError: one of those files cannot be used.
    """

    def __init__(self, settings: Email) -> None:
        self._settings = settings
        self._password()
        check_authorities(settings.ca_file)

    def send(self, message: Message, now: datetime) -> None:
        """Sends a message once.

        Raises:
            AlertRefusedError: the server will not take it, or not for every address.
            ServiceError: it cannot take it now, or offers no TLS.
            OSError: it does not answer in time, or not over TLS as it must.
            UsageError, EnvironmentLackError: the password's file cannot be used.
        """
        settings, password = self._settings, self._password()
        letter = self._letter(message, now)
        session = self._session()
        with ends_in_time(session, settings.timeout_s), self._named():
            session.connect(settings.host, settings.port_number)
            session.ehlo_or_helo_if_needed()
            if settings.tls is Tls.STARTTLS and not settings.plain:
                session.starttls(context=self._context())
                session.ehlo()
            if settings.user is not None and password is not None:
                session.login(settings.user, password)
            refused = session.send_message(letter, settings.sender, list(settings.to))
            # The message is taken: what goes wrong with the farewell must not send it again.
            with contextlib.suppress(OSError):
                session.quit()
        if refused:
            raise AlertRefusedError(
                "a mail server takes an alert for some addresses only", where=settings.name, got=", ".join(refused)
            )

    def _session(self) -> smtplib.SMTP:
        """Returns a session that is not connected yet."""
        settings = self._settings
        # Its own name, as far as it knows: looking it up in full could wait for a name server.
        own = socket.gethostname() or "localhost"
        session: smtplib.SMTP
        if settings.tls is Tls.IMPLICIT and not settings.plain:
            session = smtplib.SMTP_SSL(local_hostname=own, timeout=settings.timeout_s, context=self._context())
        else:
            session = smtplib.SMTP(local_hostname=own, timeout=settings.timeout_s)
        # The name that TLS checks: the library keeps it only where it connects as it is made, which nothing could cut in time.
        vars(session)["_host"] = settings.host
        return session

    def _letter(self, message: Message, now: datetime) -> EmailMessage:
        settings = self._settings
        # What every server takes, whether it knows of eight bits or not.
        letter = EmailMessage(policy=SMTP.clone(cte_type="7bit"))
        letter["Subject"] = message.title
        letter["From"] = settings.sender
        letter["To"] = ", ".join(settings.to)
        letter["Date"] = format_datetime(now)
        letter["Message-ID"] = f"<{message.id}@{settings.sender.rpartition('@')[2]}>"
        letter["Auto-Submitted"] = "auto-generated"
        letter.set_content(message.text)
        return letter

    def _password(self) -> str | None:
        path = self._settings.password_file
        return None if path is None else read_secret(path, "the mail server's password")

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._settings.ca_file)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Gives the standard library's errors our names, by whether the same message may be taken later."""
        name = self._settings.name
        try:
            yield
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise _named(name, min(codes), f"{', '.join(error.recipients)}") from error
        except smtplib.SMTPNotSupportedError as error:
            raise ServiceError(
                "a mail server does not offer what is needed", where=name, got=one_line(str(error))
            ) from error
        except smtplib.SMTPResponseException as error:
            text = (
                error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
            )
            raise _named(name, error.smtp_code, text) from error
        except smtplib.SMTPException as error:
            raise ServiceError(
                "a mail server does not answer as it should", where=name, got=one_line(str(error))
            ) from error


def _named(name: str, code: int, text: str) -> AlertRefusedError | ServiceError:
    got = f"{code} {one_line(text)}"
    if code >= _FINAL:
        return AlertRefusedError("a mail server refuses an alert", where=name, got=got)
    return ServiceError("a mail server cannot take an alert now", where=name, got=got)
